//! `playhouse order watch`: the events of an order, as they happen, also across a node that dies.

use std::{process::ExitCode, time::Duration};

use proto::order::v1::{OrderEvent, WatchOrderRequest, orders_client::OrdersClient};
use serde_json::json;
use tokio::time::sleep;
use tonic::Code;

use crate::cli::{
    client::{CallError, Client, Target},
    entity::parsed,
    failure::{Failure, refusal_text},
    output::{print_json, print_text},
};

/// Streams that may break in a row without a new event between them.
const BROKEN_STREAMS_MAX: u32 = 40;
/// The pause before the next stream.
const RESUME_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(order_id: &str, as_json: bool, target: &Target) -> Result<ExitCode, Failure> {
    let client = target.connect().await?;
    let mut seen = 0;
    let mut broken = 0;
    loop {
        let before = seen;
        match follow(&client, order_id, as_json, &mut seen).await {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            Err(status) if is_final(status.code()) => return Err(Failure::no(refusal_text(&status))),
            Err(status) => {
                broken = if seen > before { 0 } else { broken + 1 };
                if broken >= BROKEN_STREAMS_MAX {
                    let after = RESUME_PAUSE * broken;
                    return Err(CallError::Unknown {
                        after,
                        last: Some(status),
                    }
                    .into());
                }
                sleep(RESUME_PAUSE).await;
            }
        }
    }
}

/// One stream to its end. The stream begins at the first event, so those seen before are skipped.
async fn follow(client: &Client, order_id: &str, as_json: bool, seen: &mut u64) -> Result<(), tonic::Status> {
    let request = WatchOrderRequest {
        order_id: order_id.to_owned(),
    };
    let mut events = OrdersClient::new(client.channel())
        .watch_order(request)
        .await?
        .into_inner();
    while let Some(event) = events.message().await? {
        if event.version > *seen {
            *seen = event.version;
            print_event(&event, as_json);
        }
    }
    Ok(())
}

fn print_event(event: &OrderEvent, as_json: bool) {
    if as_json {
        print_json(&json!({
            "version": event.version, "name": event.name, "event": parsed(&event.json),
            "at_unix_ms": event.at_unix_ms,
        }));
    } else {
        print_text(&format!("{:>3}  {}  {}", event.version, event.name, event.json));
    }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::PermissionDenied
    )
}
