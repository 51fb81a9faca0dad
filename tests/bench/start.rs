//! How long a cluster with many stored orders takes until it serves again: after a clean stop, and after all its nodes
//! were killed at once.

use std::time::Duration;

use harness::TestCluster;
use proto::{
    cluster::v1::{StatusRequest, admin_client::AdminClient},
    gateway::v1::{command_request::Command, command_response::Result as Outcome},
    order::v1::GetOrderRequest,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    arguments::Arguments,
    checkouts::set_up,
    figure::cores,
    load::{End, Load, Way, call},
    target::{Target, connect},
    workload::Workload,
};

/// Orders in flight while they are stored.
const STORE_IN_FLIGHT: usize = 256;
/// Between two looks at how many effects are still to be carried out.
const IDLE_POLL: Duration = Duration::from_millis(200);
/// Looks in a row that must find nothing to do.
const IDLE_LOOKS: u32 = 5;

/// `start`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut target = Target::open(arguments).await?;
    target.own()?;
    set_up(&target, arguments.items).await?;
    let workload = Workload::Place {
        items: arguments.items,
        no_wait: true,
    };
    let begun = Instant::now();
    let load = Load::new(workload, End::After(arguments.orders));
    let (tally, _) = load
        .send(Way::Streams, &target.channels, STORE_IN_FLIGHT, &target.processes())
        .await;
    idle(&target).await?;
    let stored = tally.latency_us.len();
    eprintln!(
        "    stored {stored} orders with their checkouts in {:.1} s; failed: {:?}",
        begun.elapsed().as_secs_f64(),
        tally.faults
    );
    let cluster = target.own()?;
    for (bench, kill) in [("start after a stop", false), ("start after kill -9", true)] {
        if kill {
            cluster.node_ids().for_each(|node| cluster.kill_9(node));
        }
        let begun = Instant::now();
        cluster.stop().await;
        let stop_s = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        cluster.start_again().await;
        let ready_s = begun.elapsed().as_secs_f64();
        read(cluster).await?;
        let read_s = begun.elapsed().as_secs_f64();
        if arguments.json {
            let figure = json!({
                "bench": bench, "orders": stored, "stop_s": stop_s, "ready_s": ready_s, "first_read_s": read_s,
                "cores": cores(),
            });
            println!("{figure}");
        } else {
            println!(
                "{bench:<20} {stored} orders: ready after {ready_s:.2} s, first read {:.1} ms later, on {} cores; \
                 the stop took {stop_s:.2} s",
                (read_s - ready_s) * 1e3,
                cores()
            );
        }
    }
    Ok(())
}

/// Waits until no node has anything left to do.
async fn idle(target: &Target) -> Result<(), String> {
    let mut admin = AdminClient::new(target.channels[0].clone());
    let mut looks = 0;
    while looks < IDLE_LOOKS {
        sleep(IDLE_POLL).await;
        let status = admin
            .status(StatusRequest {})
            .await
            .map_err(|status| status.to_string())?;
        let effects: u64 = status.into_inner().shards.iter().map(|shard| shard.outbox).sum();
        looks = if effects == 0 { looks + 1 } else { 0 };
    }
    Ok(())
}

/// The first read: that there is no such order is an answer of its shard's leader as well.
async fn read(cluster: &TestCluster) -> Result<(), String> {
    let channels = connect(&[cluster.grpc(1)], 1).await?;
    let order = GetOrderRequest {
        order_id: "nobody-placed-this".to_owned(),
    };
    match call(&channels[0], "first-read", None, Command::GetOrder(order)).await {
        Outcome::Failure(failure) if failure.code != tonic::Code::NotFound as i32 => {
            Err(format!("the first read failed: {}", failure.message))
        }
        _ => Ok(()),
    }
}
