//! Durable commands to single entities: deliveries to stock items.

use crate::{arguments::Arguments, figure::measure, load::Way, target::Target, workload::Workload};

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

/// `hot`: all of them to one item.
pub(crate) async fn hot(arguments: &Arguments) -> Result<(), String> {
    series(arguments, "hot", Workload::Receive { items: 1 }, Way::Streams, &ON_ONE).await
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
