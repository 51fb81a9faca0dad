//! A million stock items, of which a node has 100,000 live at most: what one costs in memory and on disk, and how long it takes to
//! come back.

use std::{fs, path::Path, time::Duration};

use proto::cluster::v1::{NodeStatus, StatusRequest, admin_client::AdminClient};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    arguments::Arguments,
    figure::cores,
    load::{End, Load, Tally, Way},
    target::Target,
    workload::Workload,
};

/// Commands under way while the entities are made.
const CREATE_IN_FLIGHT: usize = 3_072;
/// Commands under way while cold ones are brought back: few, so that it is their own time that is measured.
const COLD_IN_FLIGHT: usize = 4;
/// Entities that are brought to life to see what they cost.
const LIVE: u64 = 60_000;
/// Items that stay live, to compare with.
const HOT_ITEMS: u64 = 100;
/// The cluster's own entities on a node, which may stay live: the roster, and what asks it.
const OWN_LIVE_MAX: u64 = 8;
/// How often it is looked whether all others have left.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// They have left by then, or do not.
const LEAVE_MAX: Duration = Duration::from_mins(2);
/// A checkpoint takes what was only in memory; after this it has.
const CHECKPOINT: Duration = Duration::from_secs(7);

/// `million`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut target = Target::open(arguments).await?;
    target.own()?;
    let all = arguments.entities;
    let begun = Instant::now();
    let tally = send(
        &target,
        Workload::Receive { items: all },
        End::After(all),
        Way::Streams,
        CREATE_IN_FLIGHT,
    )
    .await;
    let made_s = begun.elapsed().as_secs_f64();
    if let Some((fault, count)) = tally.faults.first_key_value() {
        eprintln!("    {count} commands failed while entities were made, the first: {fault}");
    }
    let (live_most, live_max) = nodes(&target).await?.iter().fold((0, 0), |(live, _), node| {
        let load = node.load.clone().unwrap_or_default();
        (live.max(node.activations), load.live_max)
    });
    all_leave(&target).await?;
    sleep(CHECKPOINT).await;

    // Processes that have not held a million entities: memory that was given back within them would hide what a live one takes.
    let cluster = target.own()?;
    cluster.stop().await;
    cluster.start_again().await;
    sleep(CHECKPOINT).await;
    let idle: u64 = target.processes().resident_bytes().iter().sum();
    let woken = LIVE.min(all);
    send(
        &target,
        Workload::Receive { items: all },
        End::After(woken),
        Way::Streams,
        CREATE_IN_FLIGHT,
    )
    .await;
    sleep(CHECKPOINT).await;
    let live: u64 = nodes(&target).await?.iter().map(|node| node.activations).sum();
    let awake: u64 = target.processes().resident_bytes().iter().sum();
    let live_bytes = awake.saturating_sub(idle) as f64 / live.max(1) as f64;
    all_leave(&target).await?;

    let from = Instant::now() + Duration::from_millis(500);
    let end = End::At {
        from,
        until: from + arguments.measured(),
    };
    let cold = send(
        &target,
        Workload::Receive { items: all },
        end,
        Way::Unary,
        COLD_IN_FLIGHT,
    )
    .await;
    let from = Instant::now() + arguments.warm_up();
    let end = End::At {
        from,
        until: from + arguments.measured(),
    };
    let hot = send(
        &target,
        Workload::Receive { items: HOT_ITEMS },
        end,
        Way::Unary,
        COLD_IN_FLIGHT,
    )
    .await;
    let cluster = target.own()?;
    let (mut state, mut log) = (0, 0);
    for node in cluster.node_ids() {
        let folder = cluster.data().join(format!("node-{node}"));
        state += folder_bytes(&folder.join("state"));
        log += folder_bytes(&folder.join("log"));
    }
    let stored = state as f64 / all as f64 / f64::from(arguments.nodes);
    let ms = |tally: &Tally, q: f64| tally.latency_us.value_at_quantile(q) as f64 / 1e3;
    let ratio = ms(&cold, 0.99) / ms(&hot, 0.99).max(1e-3);
    if arguments.json {
        let figure = json!({
            "bench": "million", "entities": all, "made_s": made_s, "live_max": live_max, "live_most": live_most,
            "live": live, "live_bytes": live_bytes, "stored_bytes": stored, "log_bytes": log, "cold_p50_ms": ms(&cold, 0.5),
            "cold_p99_ms": ms(&cold, 0.99), "hot_p50_ms": ms(&hot, 0.5), "hot_p99_ms": ms(&hot, 0.99),
            "cores": cores(), "sync_us": target.sync_us,
        });
        println!("{figure}");
        return Ok(());
    }
    println!(
        "million: {all} entities made in {made_s:.0} s; at most {live_most} live on a node, of {live_max} that may be\n    \
         a live one {:.1} KiB of memory ({live} were live), a stored one {stored:.0} bytes on the disk of each node, \
         beside {:.0} MiB of log in all\n    \
         a command to a cold one p50 {:.2} p99 {:.2} ms ({} of them), to a hot one p50 {:.2} p99 {:.2} ms: {ratio:.2} \
         times as long at p99, on {} cores with a sync in {} us",
        live_bytes / 1024.0,
        log as f64 / f64::from(1 << 20),
        ms(&cold, 0.5),
        ms(&cold, 0.99),
        cold.latency_us.len(),
        ms(&hot, 0.5),
        ms(&hot, 0.99),
        cores(),
        target.sync_us.unwrap_or_default()
    );
    Ok(())
}

async fn send(target: &Target, workload: Workload, end: End, way: Way, in_flight: usize) -> Tally {
    let load = Load::new(workload, end);
    load.send(way, &target.channels, in_flight, &target.processes()).await.0
}

async fn nodes(target: &Target) -> Result<Vec<NodeStatus>, String> {
    let mut admin = AdminClient::new(target.channels[0].clone());
    let status = admin.status(StatusRequest {}).await;
    Ok(status.map_err(|status| status.to_string())?.into_inner().nodes)
}

/// Waits until no stock item is live.
async fn all_leave(target: &Target) -> Result<(), String> {
    let until = Instant::now() + LEAVE_MAX;
    while nodes(target).await?.iter().any(|node| node.activations > OWN_LIVE_MAX) {
        if Instant::now() > until {
            return Err("entities stay live though nothing reaches them".to_owned());
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// What a folder takes on the device.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}
