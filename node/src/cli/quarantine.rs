//! `playhouse quarantine`: entities that failed again and again, and what is to become of the commands they failed at.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use proto::cluster::v1::{
    LiftQuarantineRequest, LiftQuarantineResponse, ListQuarantineRequest, ListQuarantineResponse, QuarantinedEntity,
    ShowQuarantineRequest, ShowQuarantineResponse,
};
use serde_json::{Value, json};

use super::{
    client::Target,
    entity::{parse_key, parsed},
    failure::Failure,
    order::RequestId,
    output::{print_json, print_text, render, table},
};

/// Look at quarantined entities, and let them go on.
#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// List entities that are quarantined, and those that fail just now.
    List(List),
    /// Show the command an entity failed at, its backtrace, and what was tried.
    Show(Show),
    /// Decide the command once more; success lifts the quarantine.
    Retry(Lift),
    /// Lift the quarantine and skip the command for good.
    Skip(Lift),
}

/// List quarantined entities.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Show one entity's quarantine.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Lift one entity's quarantine.
#[derive(Debug, Args)]
pub(crate) struct Lift {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

impl Quarantine {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Retry(lift) => lift.run(false).await,
            Self::Skip(lift) => lift.run(true).await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let list = client.list_quarantine(ListQuarantineRequest {}).await?;
        if self.json {
            print_json(&list_json(&list));
        } else {
            print_text(&list_text(&list));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let shown = client.show_quarantine(ShowQuarantineRequest { key: self.key }).await?;
        if self.json {
            print_json(&shown_json(&shown));
        } else {
            print_text(&shown_text(&shown));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Lift {
    async fn run(self, skip: bool) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request_id = self.request.get();
        let message = LiftQuarantineRequest { key: self.key.clone() };
        let lifted = if skip {
            client.skip_quarantined(&request_id, message).await?
        } else {
            client.retry_quarantined(&request_id, message).await?
        };
        if self.json {
            print_json(&lifted_json(&self.key, &lifted));
        } else if lifted.lifted {
            print_text(&lifted_text(&self.key, &lifted));
        }
        if lifted.lifted {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(Failure::no(format!(
                "{} failed once more and stays quarantined: {}",
                self.key, lifted.failure
            ))
            .help("`playhouse quarantine skip` lets it go on without this command"))
        }
    }
}

fn entity_json(entity: &QuarantinedEntity) -> Value {
    json!({
        "key": entity.key, "shard": entity.shard, "position": entity.position, "seq": entity.seq,
        "request_id": entity.request_id, "stage": entity.stage, "reason": entity.reason, "place": entity.place,
        "failures": entity.failures, "since_unix_ms": entity.since_unix_ms, "at_unix_ms": entity.at_unix_ms,
        "command_bytes": entity.command_bytes, "effect": entity.effect,
    })
}

fn list_json(list: &ListQuarantineResponse) -> Value {
    let failing = list.failing.iter().map(|failing| {
        json!({
            "key": failing.key, "failures": failing.failures, "breaker": failing.breaker, "reason": failing.reason,
            "retry_after_ms": failing.retry_after_ms,
        })
    });
    json!({
        "entities": list.entities.iter().map(entity_json).collect::<Vec<_>>(),
        "failing": failing.collect::<Vec<_>>(),
        "unreachable_nodes": list.unreachable_nodes,
    })
}

fn list_text(list: &ListQuarantineResponse) -> String {
    let mut text = if list.entities.is_empty() {
        "nothing is quarantined".to_owned()
    } else {
        let mut rows = table(&["entity", ">failures", "since", "request", "stage", "reason"]);
        for entity in &list.entities {
            rows.add_row([
                entity.key.clone(),
                entity.failures.to_string(),
                ago(entity.since_unix_ms),
                entity.request_id.clone(),
                entity.stage.clone(),
                entity.reason.clone(),
            ]);
        }
        render(&rows)
    };
    // Writing to a string cannot fail; here and below.
    for failing in &list.failing {
        let _ = write!(
            text,
            "\n{} has failed {} times (breaker {}), next in {} ms: {}",
            failing.key, failing.failures, failing.breaker, failing.retry_after_ms, failing.reason
        );
    }
    for node in &list.unreachable_nodes {
        let _ = write!(text, "\nnode {node} could not be asked: what it leads is missing here");
    }
    text
}

fn shown_json(shown: &ShowQuarantineResponse) -> Value {
    let mut value = shown.entity.as_ref().map_or_else(|| json!({}), entity_json);
    let attempts = shown.attempts.iter().map(|attempt| {
        json!({
            "request_id": attempt.request_id, "at_unix_ms": attempt.at_unix_ms,
            "of_request_id": attempt.of_request_id, "end": attempt.end,
        })
    });
    value["is_quarantined"] = json!(shown.is_quarantined);
    value["command"] = parsed(&shown.command_json);
    value["backtrace"] = json!(shown.backtrace);
    value["trace_id"] = json!(shown.trace_id);
    value["attempts"] = attempts.collect();
    value
}

fn shown_text(shown: &ShowQuarantineResponse) -> String {
    let mut text = String::new();
    let entity = shown.entity.clone().unwrap_or_default();
    if shown.is_quarantined {
        let _ = write!(
            text,
            "{} is quarantined: {} failures since {}\n\nreason   {}\nplace    {}\nstage    {}\nrequest  {}\n\
             record   {} of the entity; position {} of shard {}\ncommand  {}",
            entity.key,
            entity.failures,
            ago(entity.since_unix_ms),
            entity.reason,
            entity.place,
            entity.stage,
            entity.request_id,
            entity.seq,
            entity.position,
            entity.shard,
            if shown.command_json.is_empty() {
                format!("{} bytes that this build cannot read", entity.command_bytes)
            } else {
                shown.command_json.clone()
            }
        );
        if !shown.backtrace.is_empty() {
            let _ = write!(text, "\n\n{}", shown.backtrace);
        }
    } else {
        let _ = write!(text, "{} is not quarantined now", entity.key);
    }
    for attempt in &shown.attempts {
        let _ = write!(
            text,
            "\n{}: {} ({}, of {})",
            ago(attempt.at_unix_ms),
            attempt.end,
            attempt.request_id,
            attempt.of_request_id
        );
    }
    text
}

fn lifted_json(key: &str, lifted: &LiftQuarantineResponse) -> Value {
    let reply = if lifted.reply_json.is_empty() {
        Value::Null
    } else {
        parsed(&lifted.reply_json)
    };
    json!({
        "key": key, "lifted": lifted.lifted, "skipped": lifted.skipped, "reply": reply,
        "rejected": lifted.rejected, "failure": lifted.failure,
    })
}

fn lifted_text(key: &str, lifted: &LiftQuarantineResponse) -> String {
    if lifted.skipped {
        return format!("{key} goes on; its command is skipped for good");
    }
    let said = if lifted.rejected { "rejected" } else { "replied" };
    format!(
        "{key} goes on; its command was decided, and it {said}: {}",
        lifted.reply_json
    )
}

/// A time as people say it.
fn ago(unix_ms: u64) -> String {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    match now_ms.saturating_sub(unix_ms) / 1_000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use proto::cluster::v1::LiftAttempt;

    use super::*;

    fn example() -> ShowQuarantineResponse {
        ShowQuarantineResponse {
            entity: Some(QuarantinedEntity {
                key: "order/42".to_owned(),
                shard: 3,
                position: 77,
                seq: 5,
                request_id: "r-1".to_owned(),
                stage: "decide".to_owned(),
                reason: "its code panicked: three is too many".to_owned(),
                failures: 3,
                ..Default::default()
            }),
            is_quarantined: true,
            command_json: r#"{"Take":3}"#.to_owned(),
            backtrace: "0: decide".to_owned(),
            attempts: vec![LiftAttempt {
                request_id: "retry-1".to_owned(),
                end: "failed: again".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn scripts_find_the_agreed_shape() {
        let value = shown_json(&example());
        assert_eq!(value["key"], "order/42");
        assert_eq!(value["command"]["Take"], 3);
        assert_eq!(value["position"], 77);
        assert_eq!(value["attempts"][0]["end"], "failed: again");
        let list = ListQuarantineResponse {
            entities: vec![example().entity.expect("there")],
            unreachable_nodes: vec![2],
            ..Default::default()
        };
        assert_eq!(list_json(&list)["entities"][0]["request_id"], "r-1");
        assert!(list_text(&list).contains("node 2 could not be asked"));
        assert_eq!(list_text(&ListQuarantineResponse::default()), "nothing is quarantined");
    }

    #[test]
    fn people_see_what_failed_and_where() {
        let text = shown_text(&example());
        for part in [
            "three is too many",
            "position 77 of shard 3",
            r#"{"Take":3}"#,
            "0: decide",
            "retry-1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let lifted = LiftQuarantineResponse {
            lifted: true,
            reply_json: "7".to_owned(),
            ..Default::default()
        };
        assert!(lifted_text("order/42", &lifted).contains("replied: 7"));
    }
}
