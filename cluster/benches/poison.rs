//! What 1,000 healthy entities notice of a poisoned one in their own shard that clients hammer with its poison.
//!
//! ```text
//! cargo bench -p cluster --bench poison
//! ```
//!
//! Three engines in this process, one shard, all over real sockets and disks. Rounds with and without the poisoned entity
//! take turns, each with a new one, so that the panics, the backtrace and the quarantine's record fall into the measure.
//! Its callers obey no delay: each asks again at once, but for a pause of its own, whatever it is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use cluster::{
    Cluster, Context, Decision, Entity, LocalBuilder, NoToken, Outcome, Registry, Request, RequestId, TraceContext,
    supervision::Policy,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const HEALTHY: u64 = 1_000;
const IN_FLIGHT: u64 = 32;
const ROUNDS: u64 = 4;
const ROUND: Duration = Duration::from_secs(4);
const HAMMERS: u64 = 4;
/// Pause of each of them between two commands.
const HAMMER_PAUSE: Duration = Duration::from_millis(2);

/// A counter that panics over poison.
struct Counter;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Command {
    Add(u64),
    Poison,
}

impl Entity for Counter {
    const KIND: &'static str = "counter";
    type State = u64;
    type Command = Command;
    type Event = u64;
    type Reply = u64;
    type Rejection = ();
    type Token = NoToken;

    fn decide(state: &u64, command: Command, _context: &Context) -> Result<Decision<Self>, ()> {
        match command {
            Command::Add(count) => Ok(Decision::reply(state + count).event(count)),
            Command::Poison => panic!("poisoned"),
        }
    }

    fn evolve(state: &mut u64, event: &u64) {
        *state += event;
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a few threads");
    let cores = available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, three engines and all clients in one process, {HEALTHY} healthy entities, one shard");
    let never = Policy {
        quarantine_after: 0,
        breaker_failures_max: u32::MAX,
        intensity_max: 0,
        backoff_max_ms: 50,
        ..Policy::ENTITY
    };
    runtime.block_on(series("quarantined after 3 failures", Policy::ENTITY));
    runtime.block_on(series("never quarantined, restarted every 50 ms", never));
}

async fn series(name: &str, policy: Policy) {
    let registry = Registry::new().with_policy::<Counter>(policy);
    let started = LocalBuilder::new(registry).shards(1).start().await;
    let mut nodes = started.expect("three nodes start");
    let clusters: Vec<Cluster> = nodes.up().map(|node| nodes.on(node).clone()).collect();
    measure(&clusters, None, ROUND).await;
    let (mut quiet, mut hammered, mut blows) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        quiet.extend(measure(&clusters, None, ROUND).await.0);
        let (times, count) = measure(&clusters, Some(round), ROUND).await;
        hammered.extend(times);
        blows += count;
    }
    let (quiet_each, hammered_each) = (quiet.len() as u64, hammered.len() as u64);
    let (quiet, hammered) = (percentiles(quiet), percentiles(hammered));
    let seconds = ROUNDS * ROUND.as_secs();
    println!(
        "{name}: {IN_FLIGHT} in flight, {seconds} s each\n  \
         without  {:>7}/s  p50 {:>6} us  p99 {:>6} us\n  \
         hammered {:>7}/s  p50 {:>6} us  p99 {:>6} us  ({} commands/s at the poisoned one)\n  \
         p99 hammered : without = {:.2}",
        quiet_each / seconds,
        quiet.0,
        quiet.1,
        hammered_each / seconds,
        hammered.0,
        hammered.1,
        blows / seconds,
        hammered.1 as f64 / quiet.1.max(1) as f64
    );
    nodes.stop_all().await;
}

/// Microseconds of each command to a healthy entity, and how many went to the poisoned one.
async fn measure(clusters: &[Cluster], poisoned: Option<u64>, length: Duration) -> (Vec<u64>, u64) {
    let ends = Arc::new(AtomicBool::new(false));
    let blows = Arc::new(AtomicU64::new(0));
    let hammers: Vec<_> = (0..if poisoned.is_some() { HAMMERS } else { 0 })
        .map(|n| {
            let (cluster, ends, blows) = (
                clusters[n as usize % clusters.len()].clone(),
                ends.clone(),
                blows.clone(),
            );
            let id = format!("poisoned-{}", poisoned.unwrap_or_default());
            tokio::spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    // It is refused one way or another.
                    drop(cluster.ask::<Counter>(&id, &Command::Poison, &request("poison")).await);
                    blows.fetch_add(1, Ordering::Relaxed);
                    sleep(HAMMER_PAUSE).await;
                }
            })
        })
        .collect();
    let started = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|caller| {
            let cluster = clusters[caller as usize % clusters.len()].clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut n = caller;
                while started.elapsed() < length {
                    n += IN_FLIGHT;
                    let call = request(&format!("{:032x}", rand::random::<u128>()));
                    let id = format!("healthy-{}", n % HEALTHY);
                    let begun = Instant::now();
                    let reply = cluster.ask::<Counter>(&id, &Command::Add(1), &call).await;
                    reply.expect("a healthy entity answers");
                    times.push(begun.elapsed().as_micros() as u64);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("no panic"));
    }
    ends.store(true, Ordering::Relaxed);
    for hammer in hammers {
        hammer.await.expect("no panic");
    }
    (times, blows.load(Ordering::Relaxed))
}

/// A call in a trace of its own.
fn request(id: &str) -> Request {
    let id = RequestId::new(id).expect("a request id");
    Request {
        trace: TraceContext::random(true),
        ..Request::new(id, Duration::from_secs(10))
    }
}

/// The median and the 99th percentile.
fn percentiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
