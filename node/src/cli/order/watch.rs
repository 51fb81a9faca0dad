//! `playhouse order watch`: the events of an order, as they happen, also across a node that dies.

use std::process::ExitCode;

use proto::order::v1::{OrderEvent, WatchOrderRequest, orders_client::OrdersClient};
use serde_json::json;

use crate::cli::{
    client::{Target, streams},
    entity::parsed,
    failure::Failure,
    output::{print_json, print_text},
};

pub(super) async fn run(order_id: &str, as_json: bool, target: &Target) -> Result<ExitCode, Failure> {
    let client = target.connect().await?;
    let mut seen = 0;
    let watched = streams::follow(&mut seen, async |seen: &mut u64| {
        let request = WatchOrderRequest {
            order_id: order_id.to_owned(),
        };
        let mut orders = OrdersClient::new(client.channel());
        let mut events = orders.watch_order(request).await?.into_inner();
        // The stream begins at the first event: those seen before are skipped.
        while let Some(event) = events.message().await? {
            if event.version > *seen {
                *seen = event.version;
                print_event(&event, as_json);
            }
        }
        Ok(())
    });
    watched.await?;
    Ok(ExitCode::SUCCESS)
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
