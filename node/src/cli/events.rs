//! `playhouse events`: what happens in the cluster, as it is decided, from any place on.

use std::process::ExitCode;

use clap::Args;
use proto::events::v1::{Event, EventBatch, Filter, Start, SubscribeRequest, events_client::EventsClient, start::At};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    client::{Client, MESSAGE_BYTES_MAX, Target, streams},
    entity::{parse_key, parse_time, parsed, time_text},
    failure::Failure,
    output::{print_json, print_text},
};

/// Read the events of the cluster, from any place on.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only entities of this kind; repeat it for more.
    #[arg(long)]
    kind: Vec<String>,
    /// Only this entity, for example order/42.
    #[arg(long, value_name = "KIND/ID", value_parser = parse_key)]
    entity: Option<String>,
    /// Only this shard; repeat it for more.
    #[arg(long)]
    shard: Vec<u32>,
    /// Where to begin: beginning, now, a cursor, or a time (2026-11-21T10:30:00Z, or unix milliseconds). With --follow the
    /// default is now, without it the beginning.
    #[arg(long, value_parser = parse_start)]
    from: Option<At>,
    /// Go on with new events until it is stopped.
    #[arg(long)]
    follow: bool,
    /// One line of JSON for each event, and for each cursor.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Where to begin, as a person writes it.
pub(crate) fn parse_start(text: &str) -> Result<At, String> {
    match text {
        "beginning" => return Ok(At::Beginning(true)),
        "now" => return Ok(At::Beginning(false)),
        _ => {}
    }
    if let Ok(unix_ms) = parse_time(text) {
        return Ok(At::UnixMs(unix_ms));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is too small for unix milliseconds".to_owned());
    }
    // Whether it is a cursor, and one of this cluster, the node says.
    if text.len() >= 8
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Ok(At::Cursor(text.to_owned()));
    }
    Err("write beginning, now, a cursor, or a time (2026-11-21T10:30:00Z)".to_owned())
}

impl Events {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let mut at = self.from.clone().unwrap_or(At::Beginning(!self.follow));
        streams::follow(&mut at, async |at: &mut At| self.follow(&client, at).await).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// One stream to its end. Should it break, `at` is where to go on.
    async fn follow(&self, client: &Client, at: &mut At) -> Result<(), Status> {
        let request = SubscribeRequest {
            start: Some(Start { at: Some(at.clone()) }),
            filter: Some(Filter {
                kinds: self.kind.clone(),
                entity: self.entity.clone().unwrap_or_default(),
            }),
            shards: self.shard.clone(),
            stop_at_end: !self.follow,
            ..SubscribeRequest::default()
        };
        let mut events = EventsClient::new(client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut batches = events.subscribe(request).await?.into_inner();
        while let Some(batch) = batches.message().await? {
            self.print(&batch);
            *at = At::Cursor(batch.cursor);
        }
        Ok(())
    }

    fn print(&self, batch: &EventBatch) {
        for event in &batch.events {
            if self.json {
                print_json(&event_json(event));
            } else {
                print_text(&event_text(event));
            }
        }
        // People who read to the end want to know where to go on; programs, after every batch.
        if self.json {
            print_json(&json!({"cursor": batch.cursor, "caught_up": batch.caught_up}));
        } else if batch.caught_up && !self.follow {
            print_text(&format!("go on with --from {}", batch.cursor));
        }
    }
}

/// An event, for scripts.
pub(crate) fn event_json(event: &Event) -> Value {
    let position = event.position.unwrap_or_default();
    json!({
        "kind": event.kind, "id": event.id, "version": event.version, "name": event.name, "event": parsed(&event.json),
        "at_unix_ms": event.at_unix_ms, "request_id": event.request_id, "trace_id": event.trace_id, "shard": event.shard,
        "position": format!("{}.{}", position.index, position.place),
    })
}

/// An event, for people.
pub(crate) fn event_text(event: &Event) -> String {
    let name = if event.name.is_empty() {
        "(unreadable)"
    } else {
        &event.name
    };
    let fields = if event.json == "null" { "" } else { &event.json };
    let line = format!(
        "{}  {}/{}  {}  {name}  {fields}",
        time_text(event.at_unix_ms),
        event.kind,
        event.id,
        event.version
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin_are_told_apart() {
        assert_eq!(parse_start("beginning"), Ok(At::Beginning(true)));
        assert_eq!(parse_start("now"), Ok(At::Beginning(false)));
        assert_eq!(parse_start("1795257000000"), Ok(At::UnixMs(1_795_257_000_000)));
        assert_eq!(parse_start("2026-11-21T10:30:00Z"), Ok(At::UnixMs(1_795_257_000_000)));
        assert_eq!(parse_start("ARACAAUA7f4A"), Ok(At::Cursor("ARACAAUA7f4A".to_owned())));
        for wrong in ["", "12", "yesterday noon", "tea", "1960-01-01T00:00:00Z"] {
            assert!(parse_start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            kind: "order".to_owned(),
            id: "42".to_owned(),
            version: 2,
            name: "Confirmed".to_owned(),
            json: "null".to_owned(),
            at_unix_ms: 1_795_257_000_000,
            ..Event::default()
        };
        assert_eq!(event_text(&event), "2026-11-21T10:30:00.000Z  order/42  2  Confirmed");
        assert_eq!(event_json(&event)["position"], "0.0");
    }
}
