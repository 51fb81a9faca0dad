//! What happened in a run, for people: what was asked, decided, called and answered, and what went wrong meanwhile.

use bytes::Bytes;

use super::Served;
use crate::{
    entity::{EntityKey, Registry, script::effect_text},
    journal::{Decided, EffectId, Reply},
};

/// What happened, in order, with the time of each.
#[derive(Default)]
pub(super) struct Story {
    told: Vec<(u64, Told)>,
}

/// Kept as it came: only a run that fails is told of.
enum Told {
    Text(String),
    Asked(u64, EntityKey, Bytes),
    Answered(u64, EntityKey, Reply),
    Took(Box<Decided>),
}

impl Story {
    pub(super) fn told(&mut self, now: u64, what: String) {
        self.told.push((now, Told::Text(what)));
    }

    pub(super) fn asked(&mut self, now: u64, step: u64, key: &EntityKey, command: Bytes) {
        self.told.push((now, Told::Asked(step, key.clone(), command)));
    }

    pub(super) fn answered(&mut self, step: u64, key: &EntityKey, reply: Reply) {
        // An answer comes when something else has just happened.
        let now = self.told.last().map_or(0, |(now, _)| *now);
        self.told.push((now, Told::Answered(step, key.clone(), reply)));
    }

    pub(super) fn took(&mut self, now: u64, decided: Decided) {
        self.told.push((now, Told::Took(Box::new(decided))));
    }

    pub(super) fn called(&mut self, now: u64, id: &EffectId, service: &str, request: &Bytes, served: &Served<Bytes>) {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let served = match served {
            Served::Done(answer) => format!("answers {}", text(answer)),
            Served::GivenUp(reason) => format!("is given up: {reason}"),
            Served::DoneButGivenUp(answer, reason) => {
                format!("would answer {}, but is given up: {reason}", text(answer))
            }
        };
        let what = format!("{service} is called by {id} with {}, and {served}", text(request));
        self.told.push((now, Told::Text(what)));
    }

    /// A line for each, with the time in ticks.
    pub(super) fn lines(&self, registry: &Registry, tick: u64) -> Vec<String> {
        let line = |(now, told): &(u64, Told)| format!("{:>6}.{} {}", now / tick, now % tick, told.line(registry));
        self.told.iter().map(line).collect()
    }
}

/// Of the lines of a story, those about the entities that a finding names, and what went wrong with nodes, disks and links. All
/// of them if it names none.
pub(super) fn about<'a>(story: &'a [String], what: &str) -> Vec<&'a str> {
    let is_entity = |line: &str| line.contains('/');
    let ids: Vec<&str> = words(what)
        .filter(|word| story.iter().any(|line| is_entity(line) && names(line, word)))
        .collect();
    let is_wanted = |line: &&str| ids.is_empty() || !is_entity(line) || ids.iter().any(|id| names(line, id));
    // Who is answered is named where the step begins.
    let is_answer = |line: &&str| line.contains(" step ") && !is_entity(line) && !ids.is_empty();
    let lines = story.iter().map(String::as_str);
    lines.filter(is_wanted).filter(|line| !is_answer(line)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
    let words = text.split(move |c| !is_part(c));
    // Words of the language, and names of variants, are no ids.
    words.filter(|word| word.contains(|c: char| c.is_ascii_digit() || c == '-') && word.contains(char::is_alphabetic))
}

/// Whether a line names an entity of this id.
fn names(line: &str, id: &str) -> bool {
    words(line).any(|word| word == id)
}

impl Told {
    fn line(&self, registry: &Registry) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Asked(step, key, command) => {
                format!("step {step} asks {key} {}", command_text(registry, key, command))
            }
            Self::Answered(step, key, reply) => format!("step {step} is {}", reply_text(registry, key, reply)),
            Self::Took(decided) => took(registry, decided),
        }
    }
}

fn took(registry: &Registry, decided: &Decided) -> String {
    let key = &decided.entity;
    let mut line = format!(
        "  {key} decides {} of {}: {}",
        command_text(registry, key, &decided.command),
        decided.request,
        reply_text(registry, key, &decided.reply),
    );
    let kind = registry.get(&key.kind);
    for event in &decided.events {
        let json = kind.and_then(|kind| kind.event_json(event).ok());
        let event = json.map_or_else(|| "(unreadable)".to_owned(), |(name, json)| format!("{name} {json}"));
        line.push_str("; event ");
        line.push_str(&event);
    }
    for effect in &decided.effects {
        line.push_str("; ");
        line.push_str(&effect_text(&effect.request, None));
    }
    line
}

fn command_text(registry: &Registry, key: &EntityKey, command: &Bytes) -> String {
    let json = registry.get(&key.kind).and_then(|kind| kind.command_json(command).ok());
    json.map_or_else(|| "(unreadable)".to_owned(), |json| json.to_string())
}

fn reply_text(registry: &Registry, key: &EntityKey, reply: &Reply) -> String {
    let kind = registry.get(&key.kind);
    let json = match reply {
        Ok(reply) => kind.and_then(|kind| kind.reply_json(Ok(reply)).ok()),
        Err(rejection) => kind.and_then(|kind| kind.reply_json(Err(rejection)).ok()),
    };
    let json = json.map_or_else(|| "(unreadable)".to_owned(), |json| json.to_string());
    match reply {
        Ok(_) => format!("replied {json}"),
        Err(_) => format!("rejected {json}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_with_the_entities_that_it_names_and_with_what_went_wrong() {
        let story = [
            "1.0 step 1 asks seat/a-1 Hold",
            "1.1 step 2 asks seat/a-10 Hold",
            "1.2 node 2 crashes",
            "1.3   seat/a-1 decides Hold of step-1",
            "1.4 step 1 is replied null",
        ]
        .map(str::to_owned);
        let told = about(&story, "a-1 is Completed, and 5 are left");
        assert_eq!(told, [&story[0], &story[2], &story[3]]);
        assert_eq!(about(&story, "money is lost").len(), story.len());
    }
}
