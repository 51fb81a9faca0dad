//! `playhouse entity diff`: what differs between an entity's states at two versions or times, and what has happened between them.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use clap::Args;
use proto::history::v1::{
    Change, DiffRequest, DiffResponse, Event, EventsRequest, Moment, history_client::HistoryClient,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Request, Status};

use super::{
    point::{self, Point, time_text},
    show::{parse_key, parsed},
};
use crate::cli::{
    client::{Client, MESSAGE_BYTES_MAX, Target},
    failure::{Failure, refusal_text},
    output::{print_json, print_text, render, table},
};

/// How long the stream of events may stand still.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Show what differs between two versions or times, and the events between them.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// The earlier one: a version, a time (2026-11-21T10:30:00Z) or unix milliseconds; version 0 is before the first event.
    #[arg(value_name = "A", value_parser = point::parse)]
    before: Point,
    /// The later one.
    #[arg(value_name = "B", value_parser = point::parse)]
    after: Point,
    /// At most so many events.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    events: u64,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Diff {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = DiffRequest {
            key: self.key.clone(),
            before: Some(self.before.to_wire()),
            after: Some(self.after.to_wire()),
        };
        let diff = client.diff(request).await?;
        let (before, after) = (moment(diff.before), moment(diff.after));
        let (first, last) = (before.version.min(after.version), before.version.max(after.version));
        let wanted = EventsRequest {
            key: self.key.clone(),
            after_version: first,
            up_to_version: last,
        };
        let events = if first == last || self.events == 0 {
            Vec::new()
        } else {
            events(&client, wanted, self.events).await?
        };
        let more = (last - first).saturating_sub(events.len() as u64);
        if self.json {
            print_json(&json!({
                "key": self.key, "before": moment_json(&before), "after": moment_json(&after),
                "changes": diff.changes.iter().map(change_json).collect::<Vec<_>>(),
                "events": events.iter().map(event_json).collect::<Vec<_>>(), "more_events": more,
            }));
        } else {
            print_text(&text(&self.key, &diff, &events, more));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The events between two versions; the first ones, if there are more than so many.
async fn events(client: &Client, wanted: EventsRequest, len_max: u64) -> Result<Vec<Event>, Failure> {
    let failed = |status: Status| Failure::no(format!("the events cannot be read: {}", refusal_text(&status)));
    let mut history = HistoryClient::new(client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let up_to = wanted.up_to_version;
    let mut request = Request::new(wanted);
    client.tell_caller(request.metadata_mut());
    let mut pages = history.events(request).await.map_err(failed)?.into_inner();
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = timeout(PAGE_TIMEOUT, pages.message()).await;
        let page = page.map_err(|_| Failure::unreachable("the node stopped sending events"))?;
        let Some(page) = page.map_err(failed)? else { break };
        events.extend(page.events);
        let is_done = events.last().is_some_and(|event| event.version >= up_to);
        if is_done || events.len() as u64 >= len_max {
            break;
        }
    }
    events.truncate(usize::try_from(len_max).unwrap_or(usize::MAX));
    Ok(events)
}

fn moment(moment: Option<Moment>) -> Moment {
    moment.unwrap_or_default()
}

pub(super) fn moment_json(moment: &Moment) -> Value {
    json!({"version": moment.version, "record": moment.record, "unix_ms": moment.at_unix_ms})
}

fn change_json(change: &Change) -> Value {
    let mut shown = json!({"path": change.path});
    if let Some(before) = &change.before_json {
        shown["before"] = parsed(before);
    }
    if let Some(after) = &change.after_json {
        shown["after"] = parsed(after);
    }
    shown
}

fn event_json(event: &Event) -> Value {
    json!({
        "version": event.version, "name": event.name, "event": parsed(&event.json), "record": event.record,
        "at_unix_ms": event.at_unix_ms, "request_id": event.request_id, "asked_by": event.asked_by,
        "trace_id": event.trace_id,
    })
}

fn text(key: &str, diff: &DiffResponse, events: &[Event], more: u64) -> String {
    let (before, after) = (moment(diff.before), moment(diff.after));
    let mut text = format!("{key}  {}  ->  {}\n", moment_text(&before), moment_text(&after));
    if diff.changes.is_empty() {
        text.push_str("\nthe state is the same\n");
    } else {
        text.push('\n');
        for change in &diff.changes {
            let path = if change.path.is_empty() { "(all)" } else { &change.path };
            let _ = match (&change.before_json, &change.after_json) {
                (Some(before), Some(after)) => writeln!(text, "~ {path}: {before} -> {after}"),
                (None, Some(after)) => writeln!(text, "+ {path}: {after}"),
                (Some(before), None) => writeln!(text, "- {path}: {before}"),
                (None, None) => writeln!(text, "  {path}"),
            };
        }
    }
    if !events.is_empty() {
        let mut rows = table(&[">version", "event", "time", "asked by", "request", "content"]);
        for event in events {
            rows.add_row([
                event.version.to_string(),
                event.name.clone(),
                time_text(event.at_unix_ms),
                event.asked_by.clone(),
                event.request_id.clone(),
                event.json.clone(),
            ]);
        }
        let _ = write!(text, "\n{}\n", render(&rows));
    }
    if more > 0 {
        let _ = writeln!(text, "\nand {more} more events; `--events N` shows more of them");
    }
    text.truncate(text.trim_end().len());
    text
}

fn moment_text(moment: &Moment) -> String {
    match moment.at_unix_ms {
        0 => format!("version {}", moment.version),
        ms => format!("version {} ({})", moment.version, time_text(ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_events_are_shown() {
        let at = |version| Moment {
            version,
            record: version,
            at_unix_ms: 1_795_257_000_000 * u64::from(version > 0),
        };
        let diff = DiffResponse {
            before: Some(at(0)),
            after: Some(at(2)),
            changes: vec![Change {
                path: "on_hand".to_owned(),
                before_json: Some("0".to_owned()),
                after_json: Some("5".to_owned()),
            }],
        };
        let event = Event {
            version: 1,
            name: "Received".to_owned(),
            json: "{}".to_owned(),
            asked_by: "ann".to_owned(),
            ..Event::default()
        };
        let text = text("stock/tea", &diff, std::slice::from_ref(&event), 1);
        assert!(
            text.contains("version 0  ->  version 2 (2026-11-21T10:30:00.000Z)"),
            "{text}"
        );
        assert!(
            text.contains("~ on_hand: 0 -> 5") && text.contains("and 1 more events"),
            "{text}"
        );
        assert_eq!(
            change_json(&diff.changes[0]),
            json!({"path": "on_hand", "before": 0, "after": 5})
        );
        assert_eq!(event_json(&event)["asked_by"], "ann");
    }
}
