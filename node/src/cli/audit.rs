//! `playhouse audit`: who has sent an entity which command, who has looked at what, and who has changed what by hand.

use std::process::ExitCode;

use clap::Args;
use proto::history::v1::{AuditEntry, AuditRequest, AuditResponse};
use serde_json::{Value, json};

use super::{
    client::Target,
    entity::{parse_key, parse_time, time_text},
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Show who has asked for what, who has looked, and who has changed something by hand.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Of this entity, with the commands that it was sent; without it, everything that was looked at or changed by hand.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: Option<String>,
    /// Only what this tenant, this caller, or this tenant/caller has asked for.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only what was asked since then: a time (2026-11-21T10:30:00Z) or unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<u64>,
    /// The latest ones, at most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Audit {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = AuditRequest {
            key: self.key.unwrap_or_default(),
            asked_by: self.who.unwrap_or_default(),
            since_unix_ms: self.since.unwrap_or_default(),
            limit: self.limit,
        };
        let found = client.audit(request).await?;
        if self.json {
            let entries: Vec<Value> = found.entries.iter().map(entry_json).collect();
            print_json(&json!({
                "entries": entries, "missed": found.missed, "unavailable_shards": found.unavailable_shards,
            }));
        } else {
            print_text(&text(&found));
        }
        if found.unavailable_shards.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let shards: Vec<String> = found.unavailable_shards.iter().map(u32::to_string).collect();
        Err(Failure::no(format!(
            "something may be missing: the leaders of these shards could not be asked: {}",
            shards.join(" ")
        )))
    }
}

fn entry_json(entry: &AuditEntry) -> Value {
    json!({
        "at_unix_ms": entry.at_unix_ms, "asked_by": entry.asked_by, "action": entry.action, "subject": entry.subject,
        "request_id": entry.request_id, "trace_id": entry.trace_id, "failure": entry.failure, "record": entry.record,
    })
}

fn text(found: &AuditResponse) -> String {
    if found.entries.is_empty() {
        return "nothing of that kind is noted".to_owned();
    }
    let mut rows = table(&["time", "asked by", "action", "subject", "request", "failure"]);
    for entry in &found.entries {
        rows.add_row([
            time_text(entry.at_unix_ms),
            if entry.asked_by.is_empty() {
                "-".to_owned()
            } else {
                entry.asked_by.clone()
            },
            entry.action.clone(),
            entry.subject.clone(),
            entry.request_id.clone(),
            entry.failure.clone(),
        ]);
    }
    let mut text = render(&rows);
    if found.missed > 0 {
        text = format!("{text}\n\n{} reads came too fast to be noted", found.missed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_shown_with_what_was_not() {
        let entry = AuditEntry {
            action: "show".to_owned(),
            subject: "order/7".to_owned(),
            ..AuditEntry::default()
        };
        let found = AuditResponse {
            entries: vec![entry],
            missed: 3,
            unavailable_shards: Vec::new(),
        };
        let text = text(&found);
        assert!(
            text.contains("order/7") && text.contains("3 reads came too fast"),
            "{text}"
        );
    }
}
