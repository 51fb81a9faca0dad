//! Orders of three lines through the whole saga: reserve, authorise, confirm, commit, capture. An order counts when its
//! client has heard that it is confirmed. Afterwards `verify` looks for anything lost, doubled or unequal.

use crate::{
    arguments::Arguments,
    figure::measure,
    load::{End, Load, Way},
    target::Target,
    workload::Workload,
};

/// Orders in flight.
const ORDERS: [usize; 3] = [16, 64, 256];
/// Commands in flight while products are set up.
const SET_UP_IN_FLIGHT: usize = 512;
/// Products that every order takes with `--hot`.
const HOT_ITEMS: u64 = 3;

/// `checkouts`.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let target = Target::open(arguments).await?;
    let items = if arguments.hot { HOT_ITEMS } else { arguments.items };
    set_up(&target, items).await?;
    let way = if arguments.gateway { Way::Streams } else { Way::Unary };
    let bench = match (arguments.hot, arguments.gateway) {
        (false, false) => "checkouts",
        (false, true) => "checkouts gateway",
        (true, false) => "checkouts hot",
        (true, true) => "checkouts hot gateway",
    };
    let workload = Workload::Place { items, no_wait: false };
    for in_flight in arguments.in_flight(&ORDERS) {
        measure(arguments, &target, bench, workload, way, *in_flight).await;
    }
    if let Some(cluster) = &target.cluster {
        let report = cluster.run("verify --json").await.json();
        if report["ok"] != true {
            return Err(format!("`verify` found something: {report:#}"));
        }
        let checked: Vec<String> = report["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|check| format!("{} {}", check["name"].as_str().unwrap_or_default(), check["checked"]))
            .collect();
        eprintln!("    verified: {}", checked.join(", "));
    }
    Ok(())
}

/// Puts so many products on sale, with plenty of each.
pub(crate) async fn set_up(target: &Target, items: u64) -> Result<(), String> {
    let load = Load::new(Workload::Stock, End::After(items * 2));
    let (tally, _) = load
        .send(Way::Streams, &target.channels, SET_UP_IN_FLIGHT, &target.processes())
        .await;
    match tally.faults.first_key_value() {
        None => Ok(()),
        Some((fault, count)) => Err(format!("products could not be set up, {count} times: {fault}")),
    }
}
