//! What a cluster does at ten times the load at which its goodput peaks: callers in closed loops, each of which gives up after two
//! seconds and, when it is refused, comes again when it was told to.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    arguments::Arguments,
    figure::cores,
    load::{End, Load, Tally, Way},
    process::Processes,
    target::Target,
    workload::Workload,
};

/// Callers among which the peak is looked for.
const CALLERS: [usize; 4] = [64, 256, 1_024, 2_048];
/// So many times the callers of the peak.
const OVERLOAD: usize = 10;
/// What comes later than this is no good.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the overload lasts, in measured times: long enough to see whether memory grows.
const OVERLOAD_TIMES: u32 = 3;
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The least part of the peak that is left.
const GOODPUT_MIN: f64 = 0.8;

/// What came of one load.
struct Seen {
    per_second: f64,
    p99_ms: f64,
    refused: u64,
    failed: u64,
    /// What most of those that failed otherwise were told.
    failure: Option<String>,
    /// Of the node with most memory: after the warm-up, and the most.
    memory: (u64, u64),
}

/// `overload`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let target = Target::open(arguments).await?;
    let yielded = target.processes().yield_to_generator();
    yielded.map_err(|error| format!("the nodes cannot be told to stand back behind the load: {error}"))?;
    let mut peak: Option<(usize, Seen)> = None;
    for callers in arguments.in_flight(&CALLERS) {
        let seen = load(arguments, &target, *callers, arguments.measured()).await;
        print(arguments, *callers, &seen);
        if peak.as_ref().is_none_or(|(_, best)| seen.per_second > best.per_second) {
            peak = Some((*callers, seen));
        }
    }
    let (callers, best) = peak.ok_or("no number of callers was given")?;
    let many = callers * OVERLOAD;
    let over = load(arguments, &target, many, arguments.measured() * OVERLOAD_TIMES).await;
    print(arguments, many, &over);
    let part = over.per_second / best.per_second;
    let memory = over.memory.1 as f64 / over.memory.0.max(1) as f64;
    if arguments.json {
        let figure = json!({
            "bench": "overload", "peak_callers": callers, "peak_per_second": best.per_second, "callers": many,
            "per_second": over.per_second, "part_of_peak": part, "memory_growth": memory, "cores": cores(),
        });
        println!("{figure}");
    } else {
        println!(
            "overload: {:.0} % of the peak's goodput at {OVERLOAD} times its callers; memory grew {memory:.2} times \
             under it, on {} cores",
            part * 100.0,
            cores()
        );
    }
    if part < GOODPUT_MIN {
        return Err(format!("goodput fell to {:.0} % of its peak", part * 100.0));
    }
    Ok(())
}

async fn load(arguments: &Arguments, target: &Target, callers: usize, measured: Duration) -> Seen {
    let from = Instant::now() + arguments.warm_up();
    let until = from + measured;
    let workload = Workload::Receive { items: arguments.items };
    let load = Load::new(workload, End::At { from, until }).within(CALL_TIMEOUT);
    let processes = target.processes();
    let watched = tokio::spawn(watch_memory(processes.clone(), from, until));
    let (tally, _) = load.send(Way::Unary, &target.channels, callers, &processes).await;
    let memory = watched.await.expect("looking at memory does not panic");
    seen(&tally, measured, memory)
}

async fn watch_memory(processes: Processes, from: Instant, until: Instant) -> (u64, u64) {
    tokio::time::sleep_until(from).await;
    let largest = || processes.resident_bytes().first().copied().unwrap_or_default();
    let first = largest();
    let mut most = first;
    while Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        most = most.max(largest());
    }
    (first, most)
}

fn seen(tally: &Tally, measured: Duration, memory: (u64, u64)) -> Seen {
    let is_refusal = |fault: &&String| fault.contains("too much is in flight");
    let faults: u64 = tally.faults.values().sum();
    let refused: u64 = tally
        .faults
        .iter()
        .filter(|(fault, _)| is_refusal(fault))
        .map(|(_, count)| count)
        .sum();
    Seen {
        per_second: tally.latency_us.len() as f64 / measured.as_secs_f64(),
        p99_ms: tally.latency_us.value_at_quantile(0.99) as f64 / 1e3,
        refused,
        failed: faults - refused,
        failure: (tally.faults.iter())
            .filter(|(fault, _)| !is_refusal(fault))
            .max_by_key(|(_, count)| **count)
            .map(|(fault, _)| fault.clone()),
        memory,
    }
}

fn print(arguments: &Arguments, callers: usize, seen: &Seen) {
    if arguments.json {
        let figure = json!({
            "bench": "overload load", "callers": callers, "per_second": seen.per_second, "p99_ms": seen.p99_ms,
            "refused": seen.refused, "failed": seen.failed,
            "failure": seen.failure, "memory_first": seen.memory.0, "memory_most": seen.memory.1,
        });
        println!("{figure}");
        return;
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "overload {callers:>8} callers {:>9.0}/s   p99 {:.1} ms   refused {}   failed otherwise {}   memory {:.0} MiB, \
         at most {:.0} MiB",
        seen.per_second,
        seen.p99_ms,
        seen.refused,
        seen.failed,
        mib(seen.memory.0),
        mib(seen.memory.1)
    );
    if let Some(failure) = &seen.failure {
        println!("    failed otherwise, most of them: {failure}");
    }
}
