//! `playhouse entity`: any entity's state and history.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use proto::cluster::v1::{ShowEntityRequest, ShowEntityResponse};
use serde_json::{Value, json};

use super::{
    client::{ReadArguments, Target},
    failure::Failure,
    output::{print_json, print_text, render, table},
    timers,
};

/// Look at any entity.
#[derive(Debug, Subcommand)]
pub(crate) enum Entity {
    /// Show state, version, leader and events.
    Show(Show),
}

/// Show state, version, leader and events.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    target: Target,
}

impl Entity {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let Self::Show(show) = self;
        let client = show.target.connect().await?.reading(show.read);
        let entity = client.show_entity(ShowEntityRequest { key: show.key.clone() }).await?;
        if show.json {
            let mut shown = entity_json(&entity);
            shown["version_token"] = json!(client.version_token());
            print_json(&shown);
        } else {
            print_text(&entity_text(&entity, client.version_token().as_deref()));
        }
        if entity.version == 0 {
            return Err(Failure::no(format!(
                "{} has no events: nothing has happened to it",
                show.key
            )));
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
