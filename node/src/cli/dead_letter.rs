//! `playhouse dead-letter`: what consumer groups have put aside because they refused it too often.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use proto::events::v1::{DeadLetter as View, GetDeadLetterRequest, LiftDeadLetterRequest, ListDeadLettersRequest};
use serde_json::{Value, json};

use super::{
    client::Target,
    entity::time_text,
    events::{event_json, event_text},
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Look at what consumer groups have put aside; retry or skip it.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetter {
    /// List the dead letters of a group, the oldest first.
    List(List),
    /// Show one with its events.
    Show(One),
    /// Hand it to the group once more.
    Retry(One),
    /// Forget it: it was not done and will not be.
    Skip(One),
}

/// List the dead letters of a group.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The group's name.
    group: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// One dead letter.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The group's name.
    group: String,
    /// The letter's number, as the list has it.
    id: u64,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl DeadLetter {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => {
                let client = list.target.connect().await?;
                let request = ListDeadLettersRequest { group: list.group };
                let letters = client.list_dead_letters(request).await?.dead_letters;
                if list.json {
                    let letters: Vec<Value> = letters.iter().map(letter_json).collect();
                    print_json(&json!({"dead_letters": letters}));
                } else if letters.is_empty() {
                    print_text("the group has put nothing aside");
                } else {
                    print_text(&list_text(&letters));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Show(one) => {
                let client = one.target.connect().await?;
                let request = GetDeadLetterRequest {
                    group: one.group,
                    id: one.id,
                };
                let letter = client.get_dead_letter(request).await?;
                if one.json {
                    print_json(&letter_json(&letter));
                } else {
                    print_text(&letter_text(&letter));
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Retry(one) => one.lift(false).await,
            Self::Skip(one) => one.lift(true).await,
        }
    }
}

impl One {
    async fn lift(self, skip: bool) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let request = LiftDeadLetterRequest {
            group: self.group.clone(),
            id: self.id,
        };
        let (word, what) = if skip {
            client.skip_dead_letter(request).await?;
            ("skipped", "is skipped for good")
        } else {
            client.retry_dead_letter(request).await?;
            ("retried", "is handed out once more, as soon as its shard has a member")
        };
        if self.json {
            print_json(&json!({"group": self.group, "id": self.id, "outcome": word}));
        } else {
            print_text(&format!("dead letter {} of group {} {what}", self.id, self.group));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list_text(letters: &[View]) -> String {
    let mut rows = table(&[">number", "entity", ">version", ">attempts", "since", "reason"]);
    for letter in letters {
        let retried = if letter.is_retried { " (to be retried)" } else { "" };
        rows.add_row([
            letter.id.to_string(),
            letter.entity.clone(),
            letter.first_version.to_string(),
            letter.attempts.to_string(),
            time_text(letter.at_unix_ms),
            format!("{}{retried}", letter.reason),
        ]);
    }
    render(&rows)
}

fn letter_text(letter: &View) -> String {
    let position = letter.position.unwrap_or_default();
    let mut text = format!(
        "{}  shard {}  position {}.{}\nrefused {} times, last at {}: {}\n",
        letter.entity,
        letter.shard,
        position.index,
        position.place,
        letter.attempts,
        time_text(letter.at_unix_ms),
        letter.reason
    );
    if letter.is_retried {
        text.push_str("it is to be handed out once more\n");
    }
    for event in &letter.events {
        let _ = write!(text, "\n{}", event_text(event));
    }
    text
}

fn letter_json(letter: &View) -> Value {
    let position = letter.position.unwrap_or_default();
    let events: Vec<Value> = letter.events.iter().map(event_json).collect();
    json!({
        "id": letter.id, "entity": letter.entity, "shard": letter.shard,
        "position": format!("{}.{}", position.index, position.place), "first_version": letter.first_version,
        "events_len": letter.events_len, "reason": letter.reason, "attempts": letter.attempts,
        "at_unix_ms": letter.at_unix_ms, "is_retried": letter.is_retried, "events": events,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_why_it_was_put_aside() {
        let letter = View {
            id: 3,
            entity: "order/42".to_owned(),
            reason: "no address".to_owned(),
            attempts: 5,
            ..View::default()
        };
        assert!(list_text(std::slice::from_ref(&letter)).contains("no address"));
        assert!(letter_text(&letter).contains("refused 5 times"));
        assert_eq!(letter_json(&letter)["entity"], "order/42");
    }
}
