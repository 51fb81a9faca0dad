//! `playhouse entity show`: any entity's state and events, now or at any time before.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use proto::{
    cluster::v1::{ShowEntityRequest, ShowEntityResponse},
    history::v1::ShowAtRequest,
};
use serde_json::{Value, json};

use super::{
    diff::moment_json,
    point::{self, Point, time_text},
};
use crate::cli::{
    client::{Client, ReadArguments, Target},
    failure::Failure,
    output::{print_json, print_text, render, table},
    timers,
};

/// Show state, version, leader and events.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// As it was then: a version (12), a time (2026-11-21T10:30:00Z) or unix milliseconds (numbers from 100,000,000,000 on).
    #[arg(long, value_name = "VERSION|TIME", value_parser = point::parse, conflicts_with_all = ["stale", "after"])]
    at: Option<Point>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    target: Target,
}

impl Show {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?.reading(self.read.clone());
        if let Some(at) = self.at {
            return self.run_at(&client, at).await;
        }
        let entity = client.show_entity(ShowEntityRequest { key: self.key.clone() }).await?;
        if self.json {
            let mut shown = entity_json(&entity);
            shown["version_token"] = json!(client.version_token());
            print_json(&shown);
        } else {
            print_text(&entity_text(&entity, client.version_token().as_deref()));
        }
        if entity.version == 0 {
            return Err(Failure::no(format!(
                "{} has no events: nothing has happened to it",
                self.key
            )));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn run_at(&self, client: &Client, at: Point) -> Result<ExitCode, Failure> {
        let request = ShowAtRequest {
            key: self.key.clone(),
            at: Some(at.to_wire()),
        };
        let shown = client.show_at(request).await?;
        let moment = shown.moment.unwrap_or_default();
        if self.json {
            print_json(&json!({
                "key": format!("{}/{}", shown.kind, shown.id), "kind": shown.kind, "id": shown.id, "shard": shown.shard,
                "version": moment.version, "state": parsed(&shown.state_json), "at": moment_json(&moment),
            }));
        } else {
            let state = parsed(&shown.state_json);
            let state = serde_json::to_string_pretty(&state).unwrap_or_else(|_| state.to_string());
            print_text(&format!(
                "{}/{}  as of {at}: version {}, record {} of {}\n\n{state}",
                shown.kind,
                shown.id,
                moment.version,
                moment.record,
                time_text(moment.at_unix_ms),
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// JSON that a node sent as text; text that is none is shown as it is.
pub(crate) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn entity_json(entity: &ShowEntityResponse) -> Value {
    let events: Vec<Value> = entity
        .events
        .iter()
        .map(|e| {
            json!({
                "version": e.version, "name": e.name, "event": parsed(&e.json), "at_unix_ms": e.at_unix_ms,
                "request_id": e.request_id, "trace_id": e.trace_id,
            })
        })
        .collect();
    let outbox: Vec<Value> = entity
        .outbox
        .iter()
        .map(|e| {
            json!({
                "id": e.id, "target": e.target, "effect": parsed(&e.json), "attempts": e.attempts,
                "waits_for": e.waits_for,
            })
        })
        .collect();
    let timers: Vec<Value> = entity.timers.iter().map(timers::timer_json).collect();
    json!({
        "key": format!("{}/{}", entity.kind, entity.id), "kind": entity.kind, "id": entity.id, "shard": entity.shard,
        "leader": entity.leader, "term": entity.term, "version": entity.version,
        "state": parsed(&entity.state_json), "events": events, "outbox": outbox, "timers": timers,
        "answered_by": entity.answered_by, "staleness_ms": entity.staleness_us.map(|us| us.div_ceil(1_000)),
    })
}

fn entity_text(entity: &ShowEntityResponse, token: Option<&str>) -> String {
    let state = parsed(&entity.state_json);
    let state = serde_json::to_string_pretty(&state).unwrap_or_else(|_| state.to_string());
    let mut text = format!(
        "{}/{}  version {}  shard {}  leader {}  term {}\n\n{state}\n",
        entity.kind, entity.id, entity.version, entity.shard, entity.leader, entity.term
    );
    let age = match entity.staleness_us {
        Some(0) => "as it is now".to_owned(),
        Some(us) => format!("at most {} ms old", us.div_ceil(1_000)),
        None => "of unknown age".to_owned(),
    };
    let _ = write!(text, "\n{age}, from node {}", entity.answered_by);
    if let Some(token) = token {
        let _ = write!(text, "; version token {token}");
    }
    text.push('\n');
    if !entity.events.is_empty() {
        let mut events = table(&[">version", "event", ">unix ms", "request", "content"]);
        for event in &entity.events {
            events.add_row([
                event.version.to_string(),
                event.name.clone(),
                event.at_unix_ms.to_string(),
                event.request_id.clone(),
                event.json.clone(),
            ]);
        }
        text = format!("{text}\n{}", render(&events));
    }
    if !entity.outbox.is_empty() {
        let mut outbox = table(&["not yet acknowledged", "target", "content"]);
        for effect in &entity.outbox {
            outbox.add_row([&effect.id, &effect.target, &effect.json]);
        }
        text = format!("{text}\n\n{}", render(&outbox));
    }
    if !entity.timers.is_empty() {
        text = format!("{text}\n\n{}", timers::timers_table(&entity.timers));
    }
    text
}

pub(crate) fn parse_key(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Ok(text.to_owned()),
        _ => Err("write it as KIND/ID, for example order/42".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proto::cluster::v1::EventView;

    use super::*;

    #[test]
    fn scripts_get_state_and_events_as_json() {
        let entity = ShowEntityResponse {
            kind: "stock".to_owned(),
            id: "tea".to_owned(),
            version: 1,
            leader: 2,
            state_json: r#"{"on_hand":5}"#.to_owned(),
            events: vec![EventView {
                version: 1,
                name: "Received".to_owned(),
                json: "{}".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let value = entity_json(&entity);
        assert_eq!(value["key"], "stock/tea");
        assert_eq!(value["state"]["on_hand"], 5);
        assert_eq!(value["events"][0]["name"], "Received");
        assert_eq!(value["leader"], 2);
        let text = entity_text(&entity, Some("v1-token"));
        assert!(text.contains("Received") && text.contains("v1-token"), "{text}");
        assert!(text.contains("of unknown age"), "{text}");
    }
}
