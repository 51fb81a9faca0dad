//! `playhouse trace compare`.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use proto::telemetry::v1::{CompareTracesRequest, SpanTotals};
use serde_json::{Value, json};

use super::{duration, list::summary_json, say_unavailable, show::parse_id};
use crate::cli::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Show where two traces spent their time: by the names of their spans, the greatest difference first.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The one before.
    #[arg(value_name = "BEFORE", value_parser = parse_id)]
    before: String,
    /// The one after.
    #[arg(value_name = "AFTER", value_parser = parse_id)]
    after: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Compare {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = CompareTracesRequest {
            before_trace_id: self.before,
            after_trace_id: self.after,
        };
        let told = client.compare_traces(request).await?;
        let (before, after) = (told.before.unwrap_or_default(), told.after.unwrap_or_default());
        if self.json {
            let names: Vec<Value> = told
                .names
                .iter()
                .map(|name| {
                    json!({
                        "name": name.name, "before": totals_json(name.before), "after": totals_json(name.after),
                        "self_difference_ns": name.self_difference_ns,
                    })
                })
                .collect();
            print_json(&json!({
                "before": summary_json(&before), "after": summary_json(&after), "names": names,
                "unavailable_nodes": told.unavailable_nodes,
            }));
            return Ok(ExitCode::SUCCESS);
        }
        let took = |start: u64, end: u64| duration(end.saturating_sub(start));
        let mut text = String::new();
        for (which, trace) in [("before", &before), ("after ", &after)] {
            let _ = writeln!(
                text,
                "{which}  {}  {}  took {}  {} spans  {} errors",
                trace.trace_id,
                trace.root,
                took(trace.start_unix_ns, trace.end_unix_ns),
                trace.spans,
                trace.errors
            );
        }
        let mut rows = table(&["span", ">count", ">own time before", ">after", ">difference"]);
        for name in &told.names {
            let (before, after) = (name.before.unwrap_or_default(), name.after.unwrap_or_default());
            let sign = if name.self_difference_ns < 0 { "-" } else { "+" };
            rows.add_row([
                name.name.clone(),
                format!("{} → {}", before.count, after.count),
                duration(before.self_ns),
                duration(after.self_ns),
                format!("{sign}{}", duration(name.self_difference_ns.unsigned_abs())),
            ]);
        }
        print_text(&format!("{text}\n{}", render(&rows)));
        say_unavailable(&told.unavailable_nodes);
        Ok(ExitCode::SUCCESS)
    }
}

fn totals_json(totals: Option<SpanTotals>) -> Value {
    let totals = totals.unwrap_or_default();
    json!({
        "count": totals.count, "errors": totals.errors, "total_ns": totals.total_ns, "self_ns": totals.self_ns,
    })
}
