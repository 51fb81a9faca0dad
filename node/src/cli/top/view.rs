//! What there is to see: figures, curves, nodes, and what needs somebody.

use std::fmt::Write as _;

use proto::{
    cluster::v1::{NodeStatus, StatusResponse},
    telemetry::v1::SeriesResponse,
};
use serde_json::{Value, json};

use crate::cli::output::{bytes, render, table};

/// Entries that a replica may be behind before it is told.
const LAG_TOLD: u64 = 1_000;
/// A timer may be late by so much, in milliseconds, before it is told.
const LATE_TOLD_MS: u64 = 2_000;

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) figures: Vec<Figure>,
    pub(super) nodes: Vec<Line>,
    /// What needs somebody; empty where all is well.
    pub(super) needs: Vec<String>,
    /// Why this is not how it is just now.
    pub(super) trouble: Option<String>,
}

/// A series: its name for people and for scripts, its last value as text, and its curve.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) title: &'static str,
    name: &'static str,
    last: f64,
    pub(super) text: String,
    pub(super) curve: Vec<f64>,
}

/// A node.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) id: u32,
    pub(super) is_up: bool,
    /// In the order of [`HEADS`].
    pub(super) cells: Vec<String>,
}

/// What is told of a node.
pub(super) const HEADS: [&str; 9] = [
    "node",
    "state",
    ">leads",
    ">replicas",
    ">live",
    ">calls",
    ">memory",
    ">sync",
    "address",
];

/// How a value is told.
#[derive(Clone, Copy)]
enum Unit {
    Rate,
    Millis,
    Count,
    Bytes,
}

const FIGURES: [(&str, &str, Unit); 10] = [
    ("orders/s", "orders_per_s", Unit::Rate),
    ("commands/s", "commands_per_s", Unit::Rate),
    ("p50", "command_p50_ms", Unit::Millis),
    ("p99", "command_p99_ms", Unit::Millis),
    ("errors/s", "command_errors_per_s", Unit::Rate),
    ("refused/s", "refused_per_s", Unit::Rate),
    ("sagas done/s", "sagas_completed_per_s", Unit::Rate),
    ("outbox", "outbox", Unit::Count),
    ("cores busy", "cpu_cores", Unit::Rate),
    ("memory", "resident_bytes", Unit::Bytes),
];

impl View {
    pub(super) fn of(status: &StatusResponse, series: &SeriesResponse, stuck_sagas: usize) -> Self {
        Self {
            figures: FIGURES
                .iter()
                .map(|(title, name, unit)| figure(series, title, name, *unit))
                .collect(),
            nodes: status.nodes.iter().map(line).collect(),
            needs: needs(status, series, stuck_sagas),
            trouble: None,
        }
    }

    pub(super) fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| (figure.name.to_owned(), json!(figure.last)))
            .collect();
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| json!({ "id": node.id, "up": node.is_up }))
            .collect();
        json!({ "figures": figures, "nodes": nodes, "needs": self.needs })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let _ = writeln!(text, "{:<14}{}", figure.title, figure.text);
        }
        let mut nodes = table(&HEADS);
        for node in &self.nodes {
            nodes.add_row(node.cells.clone());
        }
        let _ = writeln!(text, "\n{}\n", render(&nodes));
        if self.needs.is_empty() {
            text.push_str("nothing needs help");
        } else {
            text.push_str(&self.needs.join("\n"));
        }
        text
    }
}

fn figure(series: &SeriesResponse, title: &'static str, name: &'static str, unit: Unit) -> Figure {
    let found = series
        .series
        .iter()
        .find(|series| series.name == name && series.node == 0);
    let curve = found.map(|series| series.values.clone()).unwrap_or_default();
    let last = curve.last().copied().unwrap_or(f64::NAN);
    let text = match unit {
        _ if last.is_nan() => "-".to_owned(),
        Unit::Rate => format!("{last:.1}"),
        Unit::Millis => format!("{last:.1} ms"),
        Unit::Count => format!("{last:.0}"),
        Unit::Bytes => bytes(last as u64),
    };
    Figure {
        title,
        name,
        last,
        text,
        curve,
    }
}

fn line(node: &NodeStatus) -> Line {
    let load = node.load.clone().unwrap_or_default();
    let times = node.times.unwrap_or_default();
    let state = match (node.up, node.unwell.is_empty()) {
        (false, _) => "down".to_owned(),
        (true, false) => format!("unwell: {}", node.unwell),
        (true, true) => node.standing.clone(),
    };
    let known = |text: String| if node.up { text } else { "-".to_owned() };
    Line {
        id: node.id,
        is_up: node.up,
        cells: vec![
            node.id.to_string(),
            state,
            node.leads.to_string(),
            node.replicas.to_string(),
            known(node.activations.to_string()),
            known(load.calls.to_string()),
            known(bytes(node.resident_bytes)),
            known(format!("{:.1} ms", times.sync_mean_us as f64 / 1_000.0)),
            node.address.clone(),
        ],
    }
}

fn needs(status: &StatusResponse, series: &SeriesResponse, stuck_sagas: usize) -> Vec<String> {
    let mut needs = Vec::new();
    for node in status.nodes.iter().filter(|node| !node.up) {
        needs.push(format!(
            "node {} does not answer; `playhouse restart {}` starts one of `up`",
            node.id, node.id
        ));
    }
    let without: Vec<String> = (status.shards.iter())
        .filter(|shard| shard.leader == 0)
        .map(|shard| shard.id.to_string())
        .collect();
    if !without.is_empty() {
        needs.push(format!("shards {} have no leader", without.join(", ")));
    }
    for shard in &status.shards {
        if let Some((node, lag)) = shard
            .lag
            .iter()
            .max_by_key(|(_, lag)| **lag)
            .filter(|(_, lag)| **lag > LAG_TOLD)
        {
            needs.push(format!(
                "shard {}: the replica on node {node} is {lag} entries behind",
                shard.id
            ));
        }
        if shard.timers_overdue_ms > LATE_TOLD_MS {
            needs.push(format!(
                "shard {}: a timer is late by {} ms",
                shard.id, shard.timers_overdue_ms
            ));
        }
    }
    let quarantined: u64 = status.shards.iter().map(|shard| shard.quarantined).sum();
    if quarantined > 0 {
        needs.push(format!(
            "{quarantined} entities are quarantined; `playhouse quarantine list`"
        ));
    }
    for breaker in status.breakers.iter().filter(|breaker| breaker.state != "closed") {
        needs.push(format!(
            "the breaker of node {} to {} is {}",
            breaker.node, breaker.dependency, breaker.state
        ));
    }
    if stuck_sagas > 0 {
        needs.push(format!(
            "{stuck_sagas} sagas need help; `playhouse saga list --state stuck`"
        ));
    }
    if status.moves_left > 0 {
        needs.push(format!(
            "{} moves of replicas and leaders are still to come",
            status.moves_left
        ));
    }
    for node in &series.unanswered {
        needs.push(format!(
            "the figures of node {} are missing: {}",
            node.node, node.reason
        ));
    }
    needs
}

#[cfg(test)]
mod tests {
    use proto::{
        cluster::v1::{BreakerStatus, ShardStatus},
        telemetry::v1::Series,
    };

    use super::*;

    fn series(name: &str, values: &[f64]) -> Series {
        Series {
            name: name.to_owned(),
            values: values.to_vec(),
            ..Series::default()
        }
    }

    #[test]
    fn what_is_well_needs_nobody_and_figures_are_the_clusters_last() {
        let status = StatusResponse {
            nodes: vec![NodeStatus {
                id: 1,
                up: true,
                ..NodeStatus::default()
            }],
            shards: vec![ShardStatus {
                leader: 1,
                ..ShardStatus::default()
            }],
            ..StatusResponse::default()
        };
        let told = SeriesResponse {
            series: vec![
                series("orders_per_s", &[1.0, 20.0]),
                series("command_p99_ms", &[f64::NAN]),
            ],
            ..SeriesResponse::default()
        };
        let view = View::of(&status, &told, 0);
        let text = view.text();
        assert!(
            text.contains("orders/s      20.0") && text.contains("p99           -"),
            "{text}"
        );
        assert!(text.ends_with("nothing needs help"), "{text}");
        assert_eq!(view.json()["figures"]["orders_per_s"], 20.0);
        assert_eq!(view.json()["figures"]["command_p99_ms"], Value::Null);
    }

    #[test]
    fn each_thing_that_needs_somebody_is_told() {
        let status = StatusResponse {
            nodes: vec![NodeStatus {
                id: 3,
                ..NodeStatus::default()
            }],
            shards: vec![ShardStatus {
                id: 7,
                lag: [(2, 5_000)].into(),
                timers_overdue_ms: 9_000,
                quarantined: 2,
                ..ShardStatus::default()
            }],
            breakers: vec![BreakerStatus {
                node: 1,
                dependency: "payment-provider".to_owned(),
                state: "open".to_owned(),
                ..BreakerStatus::default()
            }],
            moves_left: 4,
            ..StatusResponse::default()
        };
        let needs = View::of(&status, &SeriesResponse::default(), 1).needs.join("\n");
        for part in [
            "node 3 does not answer",
            "shards 7 have no leader",
            "node 2 is 5000 entries behind",
            "late by 9000 ms",
            "2 entities are quarantined",
            "payment-provider is open",
            "1 sagas need help",
            "4 moves",
        ] {
            assert!(needs.contains(part), "{part}: {needs}");
        }
    }
}
