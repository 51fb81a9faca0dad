//! What came of a measurement, for people and for scripts.

use std::{collections::BTreeMap, fmt::Write as _, thread, time::Duration};

use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::Arguments,
    load::{End, Load, Tally, Way},
    process::Usage,
    target::Target,
    workload::Workload,
};

/// One figure with everything that is needed to judge it.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    bench: String,
    in_flight: usize,
    seconds: f64,
    done: u64,
    per_second: f64,
    latency_ms: BTreeMap<&'static str, f64>,
    failed: BTreeMap<String, u64>,
    /// Processor time of all nodes for one command; nothing where the processes are not known.
    nodes_us_each: Option<f64>,
    provider_us_each: Option<f64>,
    client_us_each: f64,
    written_bytes_each: Option<f64>,
    cores: usize,
    sync_us: Option<u64>,
    /// The part of the machine that programs outside of the bench took. A figure with much of it says little.
    others_percent: f64,
}

/// Sends a load for as long as the arguments say and tells what came of it; gives the commands a second.
pub(crate) async fn measure(
    arguments: &Arguments,
    target: &Target,
    bench: &str,
    workload: Workload,
    way: Way,
    in_flight: usize,
) -> f64 {
    let from = tokio::time::Instant::now() + arguments.warm_up();
    let end = End::At {
        from,
        until: from + arguments.measured(),
    };
    let load = Load::new(workload, end);
    let (tally, usage) = load.send(way, &target.channels, in_flight, &target.processes()).await;
    let figure = Figure::new(bench, in_flight, arguments.measured(), tally, usage, target);
    figure.print(arguments.json);
    figure.per_second
}

impl Figure {
    fn new(bench: &str, in_flight: usize, time: Duration, tally: Tally, usage: Usage, target: &Target) -> Self {
        let done = tally.latency_us.len();
        let each = |sum: u64| sum as f64 / done.max(1) as f64;
        let is_known = target.cluster.is_some();
        let milliseconds = |us: u64| us as f64 / 1e3;
        let quantile = |q: f64| milliseconds(tally.latency_us.value_at_quantile(q));
        Self {
            bench: bench.to_owned(),
            in_flight,
            seconds: time.as_secs_f64(),
            done,
            per_second: done as f64 / time.as_secs_f64(),
            latency_ms: BTreeMap::from([
                ("p50", quantile(0.5)),
                ("p95", quantile(0.95)),
                ("p99", quantile(0.99)),
                ("max", milliseconds(tally.latency_us.max())),
            ]),
            failed: tally.faults,
            nodes_us_each: is_known.then(|| each(usage.nodes_us)),
            provider_us_each: is_known.then(|| each(usage.provider_us)),
            client_us_each: each(usage.client_us),
            written_bytes_each: is_known.then(|| each(usage.written_bytes)),
            cores: cores(),
            sync_us: target.sync_us,
            others_percent: 100.0 * usage.others_us() as f64 / (time.as_micros() as f64 * cores() as f64),
        }
    }

    fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", json!(self));
            return;
        }
        let latency = |name: &str| self.latency_ms.get(name).copied().unwrap_or_default();
        let mut text = format!(
            "{:<20} {:>5} in flight {:>9.0}/s   p50 {:.2}  p95 {:.2}  p99 {:.2}  max {:.1} ms",
            self.bench,
            self.in_flight,
            self.per_second,
            latency("p50"),
            latency("p95"),
            latency("p99"),
            latency("max")
        );
        let used = [
            ("nodes", self.nodes_us_each),
            ("provider", self.provider_us_each),
            ("client", Some(self.client_us_each)),
        ];
        text.push_str("\n    processor each:");
        for (name, us) in used {
            if let Some(us) = us {
                // Writing to a string cannot fail.
                let _ = write!(text, " {name} {us:.0} us,");
            }
        }
        if let Some(bytes) = self.written_bytes_each {
            let _ = write!(text, " {bytes:.0} bytes written,");
        }
        let _ = write!(text, " on {} cores", self.cores);
        if let Some(us) = self.sync_us {
            let _ = write!(text, " with a sync in {us} us");
        }
        let _ = write!(text, ", {:.0} % of them busy with something else", self.others_percent);
        for (fault, count) in &self.failed {
            let _ = write!(text, "\n    FAILED {count} times: {fault}");
        }
        println!("{text}");
    }
}

/// The cores of this machine that the bench may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
