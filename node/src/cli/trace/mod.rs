//! `playhouse trace`: find traces, look at one, compare two, see who calls whom.

mod compare;
mod graph;
mod list;
mod show;
mod waterfall;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::telemetry::v1::{PurgeTracesRequest, StoresRequest};
use serde_json::{Value, json};

pub(super) use self::list::summary_json;
use super::{
    client::Target,
    entity::parse_key,
    failure::Failure,
    output::{bytes, print_json, print_text, render, table},
};

/// Find traces, look at one, compare two, see who calls whom.
#[derive(Debug, Subcommand)]
pub(crate) enum Trace {
    /// List traces, the newest first.
    List(list::List),
    /// Show a trace: what happened where, how long it took, what everything waited for.
    Show(show::Show),
    /// Show where two traces spent their time.
    Compare(compare::Compare),
    /// Show who calls whom, how often, how long and how often in vain.
    Graph(graph::Graph),
    /// Show how much each node keeps of traces, and what was dropped.
    Stores(Stores),
    /// Forget the traces that an entity has a part in. `entity forget` does it by itself.
    Purge(Purge),
}

/// Show how much each node keeps of traces, and what was dropped.
#[derive(Debug, Args)]
pub(crate) struct Stores {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Forget the traces that an entity has a part in.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// For example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    entity: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Trace {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Compare(compare) => compare.run().await,
            Self::Graph(graph) => graph.run().await,
            Self::Stores(stores) => stores.run().await,
            Self::Purge(purge) => purge.run().await,
        }
    }
}

impl Stores {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let told = client.trace_stores(StoresRequest::default()).await?;
        if self.json {
            let nodes: Vec<Value> = told
                .nodes
                .iter()
                .map(|node| {
                    json!({
                        "node": node.node, "traces": node.traces, "bytes_in_memory": node.bytes_in_memory,
                        "bytes_on_disk": node.bytes_on_disk, "spans_taken": node.spans_taken,
                        "spans_over_limit": node.spans_over_limit, "traces_dropped": node.traces_dropped,
                        "spans_made": node.spans_made, "spans_dropped": node.spans_dropped,
                        "spans_unstored": node.spans_unstored, "collector_spans": node.collector_spans,
                        "collector_spans_lost": node.collector_spans_lost, "sample_ratio": node.sample_ratio,
                    })
                })
                .collect();
            print_json(&json!({ "nodes": nodes, "unavailable_nodes": told.unavailable_nodes }));
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = table(&[
            ">node",
            ">traces",
            ">memory",
            ">disk",
            ">spans made",
            ">dropped",
            ">kept nowhere",
            ">to collector",
            ">lost to it",
            ">ratio",
        ]);
        for node in &told.nodes {
            rows.add_row([
                node.node.to_string(),
                node.traces.to_string(),
                bytes(node.bytes_in_memory),
                bytes(node.bytes_on_disk),
                node.spans_made.to_string(),
                (node.spans_dropped + node.spans_over_limit).to_string(),
                node.spans_unstored.to_string(),
                node.collector_spans.to_string(),
                node.collector_spans_lost.to_string(),
                format!("{}", node.sample_ratio),
            ]);
        }
        print_text(&render(&rows));
        say_unavailable(&told.unavailable_nodes);
        Ok(ExitCode::SUCCESS)
    }
}

impl Purge {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = PurgeTracesRequest {
            entity: self.entity.clone(),
            own_only: false,
        };
        let purged = client.purge_traces(request).await?;
        if self.json {
            print_json(&json!({ "traces": purged.traces, "unavailable_nodes": purged.unavailable_nodes }));
        } else {
            print_text(&format!(
                "{}: {} copies of traces forgotten",
                self.entity, purged.traces
            ));
        }
        if purged.unavailable_nodes.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::no(format!(
            "these nodes did not answer and may hold some still: {}",
            numbers(&purged.unavailable_nodes)
        )))
    }
}

/// Says on standard error who did not answer.
fn say_unavailable(nodes: &[u32]) {
    if !nodes.is_empty() {
        eprintln!(
            "something may be missing: these nodes did not answer: {}",
            numbers(nodes)
        );
    }
}

fn numbers(nodes: &[u32]) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// A duration for people, with three digits or so.
fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_about_three_digits() {
        let told: Vec<_> = [7, 1_500, 25_300, 1_234_567, 99_900_000, 2_500_000_000]
            .map(duration)
            .into();
        assert_eq!(told, ["7 ns", "1.50 µs", "25.3 µs", "1.23 ms", "99.9 ms", "2.50 s"]);
    }
}
