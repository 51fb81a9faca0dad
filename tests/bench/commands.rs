//! Durable commands to single entities: deliveries to stock items.

use serde_json::json;

use crate::{
    arguments::Arguments,
    figure::{cores, measure},
    load::Way,
    target::Target,
    workload::Workload,
};

/// Unary calls in flight.
const CALLS: [usize; 3] = [64, 256, 512];
/// Commands in flight on all streams together.
const ON_STREAMS: [usize; 4] = [64, 512, 2_048, 6_000];
/// Commands in flight to one entity. Its mailbox refuses what is too much.
const ON_ONE: [usize; 3] = [1, 64, 512];

/// `commands`: unary calls to all nodes.
pub(crate) async fn unary(arguments: &Arguments) -> Result<(), String> {
    let workload = Workload::Receive { items: arguments.items };
    series(arguments, "commands", workload, Way::Unary, &CALLS).await
}

/// `stream`: the same over streams.
pub(crate) async fn stream(arguments: &Arguments) -> Result<(), String> {
    let workload = Workload::Receive { items: arguments.items };
    series(arguments, "stream", workload, Way::Streams, &ON_STREAMS).await
}

/// `hot`: all of them to one item, as the engine does it, and with one record of an entity on its way at a time.
pub(crate) async fn hot(arguments: &Arguments) -> Result<(), String> {
    let with_gate = on_one(arguments, "hot", Vec::new()).await?;
    if !arguments.address.is_empty() {
        eprintln!("    a cluster that runs already keeps its limits: without pipelining it is not measured");
        return Ok(());
    }
    let one_at_a_time = ("PLAYHOUSE_LIMITS".to_owned(), "gate_records_max = 1".to_owned());
    let without = on_one(arguments, "hot, no pipelining", vec![one_at_a_time]).await?;
    for ((way, in_flight, with), (.., without)) in with_gate.into_iter().zip(without) {
        let ratio = with / without.max(1.0);
        if arguments.json {
            let figure = json!({
                "bench": "hot ratio", "way": way, "in_flight": in_flight, "with": with, "without": without,
                "ratio": ratio, "cores": cores(),
            });
            println!("{figure}");
        } else {
            println!(
                "hot, {way:<7} {in_flight:>4} in flight on {} cores: {with:.0}/s with the gate's pipelining, {without:.0}/s \
                 without: {ratio:.1} times",
                cores()
            );
        }
    }
    Ok(())
}

/// Commands to one item, over calls and over streams: how many a second each.
async fn on_one(
    arguments: &Arguments,
    bench: &str,
    environment: Vec<(String, String)>,
) -> Result<Vec<(&'static str, usize, f64)>, String> {
    let target = Target::open_with(arguments, environment).await?;
    let workload = Workload::Receive { items: 1 };
    let mut rates = Vec::new();
    for (name, way) in [("unary", Way::Unary), ("streams", Way::Streams)] {
        for in_flight in arguments.in_flight(&ON_ONE) {
            let bench = format!("{bench}, {name}");
            let rate = measure(arguments, &target, &bench, workload, way, *in_flight).await;
            rates.push((name, *in_flight, rate));
        }
    }
    Ok(rates)
}

async fn series(
    arguments: &Arguments,
    bench: &str,
    workload: Workload,
    way: Way,
    default: &[usize],
) -> Result<(), String> {
    let target = Target::open(arguments).await?;
    for in_flight in arguments.in_flight(default) {
        measure(arguments, &target, bench, workload, way, *in_flight).await;
    }
    Ok(())
}
