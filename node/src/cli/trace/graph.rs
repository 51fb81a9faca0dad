//! `playhouse trace graph`.

use std::process::ExitCode;

use clap::Args;
use proto::telemetry::v1::GraphRequest;
use serde_json::{Value, json};

use super::{duration, say_unavailable};
use crate::cli::{
    client::Target,
    entity::parse_time,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Show who calls whom, how often, how long and how often in vain; from the traces that are kept.
#[derive(Debug, Args)]
pub(crate) struct Graph {
    /// Of traces that began then or later: a time (2026-11-21T10:30:00Z) or unix milliseconds [default: 15 minutes ago].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// Of the newest traces, at most so many.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=2000))]
    limit: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Graph {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = GraphRequest {
            since_unix_ms: self.since.unwrap_or_default(),
            limit: self.limit,
            own_trace_ids: Vec::new(),
        };
        let graph = client.trace_graph(request).await?;
        if self.json {
            let nodes: Vec<Value> = graph
                .nodes
                .iter()
                .map(|node| json!({ "name": node.name, "kind": node.kind, "spans": node.spans, "errors": node.errors }))
                .collect();
            let edges: Vec<Value> = graph
                .edges
                .iter()
                .map(|edge| {
                    json!({
                        "from": edge.from, "to": edge.to, "calls": edge.calls, "errors": edge.errors, "per_s": edge.per_s,
                        "p50_ns": edge.p50_ns, "p99_ns": edge.p99_ns, "mean_ns": edge.mean_ns,
                    })
                })
                .collect();
            print_json(&json!({
                "nodes": nodes, "edges": edges, "traces": graph.traces, "unavailable_nodes": graph.unavailable_nodes,
            }));
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = table(&["from", "to", ">calls", ">errors", ">a second", ">p50", ">p99"]);
        for edge in &graph.edges {
            rows.add_row([
                edge.from.clone(),
                edge.to.clone(),
                edge.calls.to_string(),
                edge.errors.to_string(),
                format!("{:.2}", edge.per_s),
                duration(edge.p50_ns),
                duration(edge.p99_ns),
            ]);
        }
        print_text(&format!("{}\n\nfrom {} traces", render(&rows), graph.traces));
        say_unavailable(&graph.unavailable_nodes);
        Ok(ExitCode::SUCCESS)
    }
}
