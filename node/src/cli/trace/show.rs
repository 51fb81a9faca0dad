//! `playhouse trace show`.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Args;
use proto::telemetry::v1::{GetTraceRequest, Span, Trace};
use serde_json::{Value, json};

use super::{say_unavailable, waterfall};
use crate::cli::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text},
};

/// Show a trace: what happened where, how long it took, what everything waited for (marked with *).
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id: 32 hexadecimal digits, as `order place`, `trace list` and log lines give it.
    #[arg(value_name = "ID", value_parser = parse_id)]
    trace_id: String,
    /// Also what is known of each span.
    #[arg(long)]
    details: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Show {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = GetTraceRequest {
            trace_id: self.trace_id,
            own_only: false,
        };
        let trace = client.get_trace(request).await?;
        if self.json {
            print_json(&trace_json(&trace));
        } else {
            let look = waterfall::Look {
                is_coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
                has_details: self.details,
            };
            print_text(&waterfall::text(&trace, look));
        }
        say_unavailable(&trace.unavailable_nodes);
        Ok(ExitCode::SUCCESS)
    }
}

/// The trace for scripts.
fn trace_json(trace: &Trace) -> Value {
    let spans: Vec<Value> = trace.spans.iter().map(span_json).collect();
    let events: Vec<Value> = trace
        .events
        .iter()
        .map(|event| {
            json!({
                "entity": event.entity, "version": event.version, "name": event.name, "span_id": event.span_id,
                "node": event.node, "at_unix_ns": event.at_unix_ns,
            })
        })
        .collect();
    let logs: Vec<Value> = trace
        .logs
        .iter()
        .map(|line| {
            json!({
                "node": line.node, "at_unix_ns": line.at_unix_ns, "level": line.level, "target": line.target,
                "text": line.text,
            })
        })
        .collect();
    let path: Vec<Value> = trace
        .critical_path
        .iter()
        .map(|part| json!({ "span_id": part.span_id, "start_unix_ns": part.start_unix_ns, "end_unix_ns": part.end_unix_ns }))
        .collect();
    json!({
        "trace_id": trace.trace_id, "spans": spans, "events": events, "logs": logs, "critical_path": path,
        "dropped_spans": trace.dropped_spans, "unavailable_nodes": trace.unavailable_nodes,
    })
}

fn span_json(span: &Span) -> Value {
    let links: Vec<Value> = span
        .links
        .iter()
        .map(|link| json!({ "trace_id": link.trace_id, "span_id": link.span_id }))
        .collect();
    json!({
        "span_id": span.span_id, "parent_span_id": span.parent_span_id, "name": span.name, "node": span.node,
        "start_unix_ns": span.start_unix_ns, "end_unix_ns": span.end_unix_ns, "status": span.status,
        "error": span.error, "service": span.service, "kind": span.kind, "attributes": span.attributes, "links": links,
        "lost": span.is_lost, "remote_parent_span_id": span.remote_parent_span_id, "critical_ns": span.critical_ns,
    })
}

/// 32 hexadecimal digits.
pub(super) fn parse_id(text: &str) -> Result<String, String> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a trace's id has 32 hexadecimal digits; `playhouse trace list` shows those that are kept".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_find_the_agreed_shape() {
        let trace = Trace {
            trace_id: "ab".repeat(16),
            spans: vec![Span {
                span_id: "1".repeat(16),
                name: "edge".to_owned(),
                node: 1,
                start_unix_ns: 5,
                end_unix_ns: 9,
                status: "ok".to_owned(),
                ..Span::default()
            }],
            ..Trace::default()
        };
        let told = trace_json(&trace);
        let span = &told["spans"][0];
        assert_eq!(told["trace_id"], "ab".repeat(16));
        assert_eq!(
            (&span["span_id"], &span["parent_span_id"]),
            (&"1".repeat(16).into(), &"".into())
        );
        assert_eq!(
            (&span["name"], &span["node"], &span["status"]),
            (&"edge".into(), &1.into(), &"ok".into())
        );
        assert_eq!((&span["start_unix_ns"], &span["end_unix_ns"]), (&5.into(), &9.into()));
    }

    #[test]
    fn an_id_is_thirty_two_digits() {
        assert_eq!(parse_id(&"AB".repeat(16)), Ok("ab".repeat(16)));
        assert!(parse_id("order/42").is_err() && parse_id(&"zz".repeat(16)).is_err());
    }
}
