//! What being measured costs: commands a second with all telemetry as it is without being asked for, and with none of it. Two
//! clusters stand beside each other and take turns, so that what the machine does meanwhile meets both.

use serde_json::json;

use crate::{
    arguments::Arguments,
    figure::{cores, measure},
    load::Way,
    target::Target,
    workload::Workload,
};

/// Commands in flight: enough that the processors are what limits.
const IN_FLIGHT: [usize; 2] = [64, 512];
/// Rounds of each. What the machine does meanwhile meets both of a round, so the ratios of rounds are compared: their median counts.
const ROUNDS: usize = 9;
/// The part of the throughput that telemetry may cost.
const COST_MAX: f64 = 0.1;

/// `telemetry`. Ends with an error where it costs more than it may.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    if !arguments.address.is_empty() {
        return Err("this bench needs clusters of its own: leave --address out".to_owned());
    }
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let off = vec![
        variable("PLAYHOUSE_METRICS", "off"),
        variable("OTEL_TRACES_SAMPLER", "always_off"),
    ];
    let targets = [
        ("off", Target::open_with(arguments, off).await?),
        ("on", Target::open_with(arguments, Vec::new()).await?),
    ];
    let workload = Workload::Receive { items: arguments.items };
    let mut costs = Vec::new();
    for in_flight in arguments.in_flight(&IN_FLIGHT) {
        let mut rates = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            // Neither is always the first.
            for at in [round % 2, 1 - round % 2] {
                let (name, target) = &targets[at];
                let bench = format!("telemetry {name}");
                rates[at].push(measure(arguments, target, &bench, workload, Way::Streams, *in_flight).await);
            }
        }
        let ratios = (rates[0].iter().zip(&rates[1]))
            .map(|(without, with)| with / without.max(1.0))
            .collect();
        let (ratio, [without, with]) = (median(ratios), rates.map(median));
        costs.push(1.0 - ratio);
        if arguments.json {
            let figure = json!({
                "bench": "telemetry ratio", "in_flight": in_flight, "with": with, "without": without, "ratio": ratio,
                "cores": cores(),
            });
            println!("{figure}");
        } else {
            println!(
                "telemetry, {in_flight:>4} in flight on {} cores: {with:.0}/s with it, {without:.0}/s without: {:.1} % of it",
                cores(),
                ratio * 100.0
            );
        }
    }
    match costs.into_iter().find(|cost| *cost > COST_MAX) {
        Some(cost) => Err(format!(
            "telemetry costs {:.1} % of the throughput; at most {:.0} % are allowed",
            cost * 100.0,
            COST_MAX * 100.0
        )),
        None => Ok(()),
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
