//! `playhouse trace list`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use proto::telemetry::v1::{SearchTracesRequest, TraceSummary};
use serde_json::{Value, json};

use super::{duration, say_unavailable};
use crate::cli::{
    client::Target,
    entity::{parse_time, time_text},
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// List traces, the newest first. Everything that is given must hold.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// A service that has a part in it: playhouse, payment-provider, playhouse-cli, or one of your own.
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// An entity that has a part in it, order/42; or only a kind, order.
    #[arg(long, value_name = "KIND[/ID]", default_value = "")]
    entity: String,
    /// A saga that has a part in it, checkout/42; or only a kind, checkout.
    #[arg(long, value_name = "KIND[/ID]", default_value = "")]
    saga: String,
    /// Who asked or for whom: tenant, caller, tenant/caller, or customer.
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// Only those with a failed span, or without one.
    #[arg(long, value_name = "STATUS", default_value = "", value_parser = ["ok", "error", ""], hide_possible_values = true)]
    status: String,
    /// At least so long: a number and ms, s or m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    min: Option<Duration>,
    /// At most so long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max: Option<Duration>,
    /// Began then or later: a time (2026-11-21T10:30:00Z) or unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// Began before then.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<u64>,
    /// A text in the trace's id, a span's name, a request id, an entity, an event or an error.
    #[arg(long, value_name = "TEXT", default_value = "")]
    text: String,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl List {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let ms = |time: Option<Duration>| time.map_or(0, |time| time.as_millis() as u64);
        let request = SearchTracesRequest {
            service: self.service,
            entity: self.entity,
            saga: self.saga,
            user: self.user,
            status: self.status,
            min_duration_ms: ms(self.min),
            max_duration_ms: ms(self.max),
            since_unix_ms: self.since.unwrap_or_default(),
            until_unix_ms: self.until.unwrap_or_default(),
            text: self.text,
            limit: self.limit,
            own_only: false,
        };
        let found = client.search_traces(request).await?;
        if self.json {
            let traces: Vec<Value> = found.traces.iter().map(summary_json).collect();
            print_json(&json!({ "traces": traces, "unavailable_nodes": found.unavailable_nodes }));
        } else if found.traces.is_empty() {
            print_text("no trace matches; a part of all requests is kept, and every one that fails or is slow");
        } else {
            let mut rows = table(&["trace", "began", "what", ">took", ">spans", ">errors", "entities"]);
            for trace in &found.traces {
                let mut entities = trace.entities.iter().take(3).cloned().collect::<Vec<_>>().join(" ");
                if trace.entities.len() > 3 {
                    entities.push_str(" …");
                }
                rows.add_row([
                    trace.trace_id.clone(),
                    time_text(trace.start_unix_ns / 1_000_000),
                    trace.root.clone(),
                    duration(trace.end_unix_ns.saturating_sub(trace.start_unix_ns)),
                    trace.spans.to_string(),
                    trace.errors.to_string(),
                    entities,
                ]);
            }
            print_text(&render(&rows));
        }
        say_unavailable(&found.unavailable_nodes);
        Ok(ExitCode::SUCCESS)
    }
}

/// A trace in one line, for scripts.
pub(in crate::cli) fn summary_json(trace: &TraceSummary) -> Value {
    json!({
        "trace_id": trace.trace_id, "root": trace.root, "service": trace.service,
        "start_unix_ns": trace.start_unix_ns, "end_unix_ns": trace.end_unix_ns,
        "status": if trace.errors > 0 { "error" } else { "ok" },
        "spans": trace.spans, "errors": trace.errors, "error": trace.error, "services": trace.services,
        "entities": trace.entities, "sagas": trace.sagas, "users": trace.users, "request_ids": trace.request_ids,
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 250ms, 2s or 1m");
    let place = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(place);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        for wrong in ["", "5", "ms", "5h", "-1s", "1.5s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
