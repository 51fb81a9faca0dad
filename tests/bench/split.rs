//! Where the time of a command goes. The nodes export spans of every eighth call to a collector in this process; the
//! client's own times stand at both ends. All clocks are one machine's, so the moments can be compared.
//!
//! ```text
//! client | in | edge | hop there, mailbox | decide | propose | queue | sync | majority | apply | hop back | edge | out
//! ```
//!
//! A commit falls into four: `queue`, the wait for the driver and for a place in an entry; `sync`, until the leader has the
//! entry on its device, or a majority has it without; `majority`, what is left until another replica has answered; `apply`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cluster::TraceContext;
use hdrhistogram::Histogram;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use proto::gateway::v1::command_response::Result as Outcome;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

use crate::{
    arguments::Arguments,
    collector::Collector,
    figure::cores,
    load::{call, histogram},
    target::Target,
    workload::Workload,
};

/// Calls in flight.
const CALLS: [usize; 2] = [1, 64];
/// One call in so many is recorded, so that recording does not become what is measured.
const RECORDED_EVERY: u64 = 8;
/// Parts are counted in tenths of microseconds; what took longer counts as this.
const PART_MAX: u64 = 600_000_000;
/// Nodes export their spans after a second at the latest.
const EXPORT_DELAY: Duration = Duration::from_secs(3);

/// Parts of a call that was not forwarded.
const LOCAL_PARTS: usize = 11;

/// When a call began and ended at its client, in nanoseconds since 1970, by its trace.
type Calls = Arc<Mutex<HashMap<u128, (u64, u64)>>>;

/// `split`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let (collector, address) = Collector::listen().await.map_err(|error| error.to_string())?;
    let variable = |name: &str, value: String| (name.to_owned(), value);
    let environment = vec![
        variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        // Only what the client asks to be recorded.
        variable("OTEL_TRACES_SAMPLER", "parentbased_always_off".to_owned()),
    ];
    let mut target = Target::open_with(arguments, environment).await?;
    target.own()?;
    for in_flight in arguments.in_flight(&CALLS) {
        let calls = Calls::default();
        let until = Instant::now() + arguments.warm_up() + arguments.measured();
        let mut clients = JoinSet::new();
        for number in 0..*in_flight {
            let channel = target.channels[number % target.channels.len()].clone();
            // One client alone asks all nodes in turn, or it would measure only one leader's shards.
            let channels = if *in_flight == 1 {
                target.channels.clone()
            } else {
                vec![channel]
            };
            let workload = Workload::Receive { items: arguments.items };
            clients.spawn(client(
                channels,
                workload,
                number as u64,
                *in_flight as u64,
                until,
                Arc::clone(&calls),
            ));
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("clients do not panic")?;
        }
        sleep(EXPORT_DELAY).await;
        let calls = std::mem::take(&mut *calls.lock());
        report(arguments, *in_flight, &target, &calls, &collector.take());
    }
    Ok(())
}

async fn client(
    channels: Vec<Channel>,
    workload: Workload,
    first: u64,
    step: u64,
    until: Instant,
    calls: Calls,
) -> Result<(), String> {
    let run: u32 = rand::random();
    for number in (first..).step_by(step as usize) {
        if Instant::now() >= until {
            break;
        }
        let recorded = (number / step)
            .is_multiple_of(RECORDED_EVERY)
            .then(|| TraceContext::random(true));
        let header = recorded.map(|trace| trace.to_string());
        let channel = &channels[number as usize % channels.len()];
        let begun = now_ns();
        let request_id = format!("{run:08x}-{number}");
        let outcome = call(channel, &request_id, header.as_deref(), workload.command(number)).await;
        if let Outcome::Failure(failure) = outcome {
            return Err(format!("a call failed: {}", failure.message));
        }
        if let Some(trace) = recorded {
            calls.lock().insert(trace.trace_id, (begun, now_ns()));
        }
    }
    Ok(())
}

fn report(
    arguments: &Arguments,
    in_flight: usize,
    target: &Target,
    calls: &HashMap<u128, (u64, u64)>,
    traces: &HashMap<u128, Vec<Span>>,
) {
    // By whether the call was forwarded; then by the part's place and name.
    let mut parts: BTreeMap<(bool, usize, &str), Histogram<u64>> = BTreeMap::new();
    let mut incomplete = 0;
    for (trace, client) in calls {
        let spans = traces.get(trace).map_or(&[][..], Vec::as_slice);
        let Some(split) = split(*client, spans) else {
            incomplete += 1;
            continue;
        };
        let is_forwarded = split.len() > LOCAL_PARTS;
        for (place, (name, ns)) in split.into_iter().enumerate() {
            let histogram = parts
                .entry((is_forwarded, place, name))
                .or_insert_with(|| histogram(PART_MAX));
            histogram.saturating_record(ns / 100);
        }
    }
    let sync_us = target.sync_us.unwrap_or_default();
    if !arguments.json {
        println!(
            "split, {in_flight} in flight, {} cores, a sync in {sync_us} us; {} calls recorded, {incomplete} without all \
             spans",
            cores(),
            calls.len()
        );
    }
    let mut shown = None;
    for ((is_forwarded, _, name), histogram) in &parts {
        let us = |tenths: f64| tenths / 10.0;
        let (mean, p50) = (us(histogram.mean()), us(histogram.value_at_quantile(0.5) as f64));
        let p99 = us(histogram.value_at_quantile(0.99) as f64);
        if arguments.json {
            let figure = json!({
                "bench": "split", "in_flight": in_flight, "forwarded": is_forwarded, "part": name,
                "calls": histogram.len(), "mean_us": mean, "p50_us": p50, "p99_us": p99, "cores": cores(),
                "sync_us": sync_us,
            });
            println!("{figure}");
            continue;
        }
        if shown != Some(*is_forwarded) {
            shown = Some(*is_forwarded);
            let who = if *is_forwarded {
                "forwarded to the leader"
            } else {
                "taken by the leader itself"
            };
            println!(
                "  {who}, {} calls {:>25} {:>9} {:>9}",
                histogram.len(),
                "mean us",
                "p50",
                "p99"
            );
        }
        println!("    {name:<40} {mean:>9.1} {p50:>9.1} {p99:>9.1}");
    }
}

/// The parts of one call in their order, in nanoseconds; nothing where spans are missing or a step was repeated.
fn split((begun, ended): (u64, u64), spans: &[Span]) -> Option<Vec<(&'static str, u64)>> {
    let only = |name: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        let span = found.next()?;
        found
            .next()
            .is_none()
            .then_some((span.start_time_unix_nano, span.end_time_unix_nano))
    };
    let edge = only("Stock/ReceiveStock")?;
    let (decide, commit) = (only("decide")?, only("commit")?);
    let (queue, sync) = (only("commit.queue")?, only("commit.sync")?);
    let (majority, apply) = (only("commit.majority")?, only("commit.apply")?);
    let forward = only("forward");
    if forward.is_none() && spans.iter().any(|span| span.name == "forward") {
        return None;
    }
    let between = |from: u64, to: u64| to.saturating_sub(from);
    let mut parts = vec![("all, as the client sees it", between(begun, ended))];
    parts.push(("in: client, network, HTTP/2, decoding", between(begun, edge.0)));
    match forward {
        None => parts.push(("edge, routing, mailbox", between(edge.0, decide.0))),
        Some(forward) => {
            parts.push(("edge, routing", between(edge.0, forward.0)));
            parts.push(("hop there, mailbox", between(forward.0, decide.0)));
        }
    }
    parts.push(("decide", between(decide.0, decide.1)));
    parts.push(("evolved, recorded, proposed", between(decide.1, commit.0)));
    parts.push(("commit: queue", between(commit.0, queue.1)));
    parts.push(("commit: sync", between(sync.0, sync.1)));
    parts.push(("commit: majority", between(majority.0, majority.1)));
    parts.push(("commit: apply", between(apply.0, commit.1)));
    match forward {
        None => parts.push(("answer through the edge", between(commit.1, edge.1))),
        Some(forward) => {
            parts.push(("hop back", between(commit.1, forward.1)));
            parts.push(("answer through the edge", between(forward.1, edge.1)));
        }
    }
    parts.push(("out: encoding, HTTP/2, network, client", between(edge.1, ended)));
    Some(parts)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
