//! What a subscriber costs those who write, and whether it sees each event once, in order, when it is killed again and again.
//!
//! Commands are measured in turn without a subscriber and with one that follows all events. Then it is killed at random times
//! while events flow, and what it has kept is compared with what the cluster has.

use std::{collections::BTreeMap, env, time::Duration};

use harness::Subscriber;
use proto::catalog::v1::{GetStockRequest, stock_client::StockClient};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::{
    arguments::Arguments,
    figure::cores,
    load::{End, Load, Way},
    target::Target,
    workload::{Workload, sku},
};

/// The subscriber, beside this program.
const PROGRAM: &str = "subscriber-under-test";
/// Commands in flight: fewer than the cluster can do, so that it is latency that is measured and not a queue.
const IN_FLIGHT: [usize; 1] = [64];
/// Times that both are measured, in turn.
const ROUNDS: usize = 3;
/// A subscriber that has not seen everything by then never will.
const CATCH_UP_MAX: Duration = Duration::from_mins(2);

/// `subscribers`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let program = env::current_exe()
        .map_err(|error| format!("this program's own file cannot be found: {error}"))?
        .with_file_name(PROGRAM);
    if !program.is_file() {
        return Err(format!(
            "{} is not there; build it with `cargo build --release -p tests`",
            program.display()
        ));
    }
    let program = program.display().to_string();
    let mut target = Target::open(arguments).await?;
    let cluster = target.own()?;
    let nodes: Vec<String> = cluster.node_ids().map(|node| cluster.grpc(node)).collect();
    let mut subscriber = Subscriber::new(&program, &cluster.scratch("events.txt"), "stock", &nodes);

    let mut latency: BTreeMap<bool, Vec<(f64, f64, f64)>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for with in [false, true] {
            if with {
                subscriber.start();
            }
            latency.entry(with).or_default().push(load(arguments, &target).await);
            if with {
                subscriber.kill().await;
            }
        }
    }
    for (with, rounds) in &latency {
        let median = |of: fn(&(f64, f64, f64)) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (per_second, p50, p99) = (median(|r| r.0), median(|r| r.1), median(|r| r.2));
        let name = if *with { "with a subscriber" } else { "without" };
        if arguments.json {
            let figure = json!({
                "bench": "subscribers latency", "with": with, "per_second": per_second, "p50_ms": p50, "p99_ms": p99,
                "rounds": ROUNDS, "cores": cores(),
            });
            println!("{figure}");
        } else {
            println!("subscribers, commands {name:<18} {per_second:>9.0}/s   p50 {p50:.2}  p99 {p99:.2} ms");
        }
    }

    let before = subscriber.kills();
    let load = Load::new(
        Workload::Receive { items: arguments.items },
        End::After(arguments.events),
    );
    let channels = target.channels.clone();
    let processes = target.processes();
    let in_flight = arguments.in_flight(&IN_FLIGHT)[0];
    let writing = tokio::spawn(async move { load.send(Way::Streams, &channels, in_flight, &processes).await });
    let begun = Instant::now();
    let mut lives = 0.0;
    while subscriber.kills() - before < arguments.kills {
        subscriber.start();
        let life = Duration::from_millis(rand::random_range(20..400));
        lives += life.as_secs_f64();
        sleep(life).await;
        subscriber.kill().await;
    }
    let (tally, _) = writing.await.map_err(|error| format!("the load panicked: {error}"))?;
    let killing = begun.elapsed();
    subscriber.start();
    let expected = versions(&target.channels[0], arguments.items).await?;
    let until = Instant::now() + CATCH_UP_MAX;
    let seen = loop {
        let seen = subscriber.seen()?;
        if seen == expected {
            break seen;
        }
        if Instant::now() > until {
            return Err(format!(
                "the subscriber has seen {} of {} events",
                seen.values().sum::<u64>(),
                expected.values().sum::<u64>()
            ));
        }
        sleep(Duration::from_millis(200)).await;
    };
    let kills = subscriber.kills() - before;
    subscriber.kill().await;
    let all: u64 = seen.values().sum();
    if arguments.json {
        let figure = json!({
            "bench": "subscribers", "events": all, "entities": seen.len(), "kills": kills, "seconds": killing.as_secs_f64(),
            "mean_life_ms": lives * 1e3 / kills.max(1) as f64, "failed_commands": tally.faults, "cores": cores(),
        });
        println!("{figure}");
    } else {
        println!(
            "subscribers: {all} events of {} entities, each seen once and in order by a subscriber that was killed {kills} times \
             while {} of them were written",
            seen.len(),
            arguments.events
        );
    }
    Ok(())
}

/// Commands a second and their latencies at half and at 99 of 100, in milliseconds.
async fn load(arguments: &Arguments, target: &Target) -> (f64, f64, f64) {
    let from = Instant::now() + arguments.warm_up();
    let until = from + arguments.measured();
    let load = Load::new(Workload::Receive { items: arguments.items }, End::At { from, until });
    let in_flight = arguments.in_flight(&IN_FLIGHT)[0];
    let (tally, _) = load
        .send(Way::Streams, &target.channels, in_flight, &target.processes())
        .await;
    let quantile = |q: f64| tally.latency_us.value_at_quantile(q) as f64 / 1e3;
    let per_second = tally.latency_us.len() as f64 / arguments.measured().as_secs_f64();
    (per_second, quantile(0.5), quantile(0.99))
}

/// How far the cluster itself is with each of the items that there are.
async fn versions(channel: &Channel, items: u64) -> Result<BTreeMap<String, u64>, String> {
    let mut versions = BTreeMap::new();
    for item in 0..items {
        let sku = sku(item);
        let got = StockClient::new(channel.clone())
            .get_stock(GetStockRequest { sku: sku.clone() })
            .await;
        match got {
            Ok(item) => drop(versions.insert(format!("stock/{sku}"), item.into_inner().version)),
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status.message().to_owned()),
        }
    }
    Ok(versions)
}
