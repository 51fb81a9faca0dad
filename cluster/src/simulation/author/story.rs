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
