//! Every recorded command decided once more, by this build, and where that differs from what was recorded.
//!
//! Each command is decided on the state that the *recorded* events before it add up to, so that one difference does not cause the
//! next. What the entity may know of the world (its [`Context`]) is taken from the record. Nothing is changed anywhere.
//!
//! | record | what is done with it |
//! | --- | --- |
//! | a command of a client, an effect, an outcome, a firing of a timer | decided again; reply, events and effects are compared |
//! | a rejection | the same: the rejection is what was answered |
//! | one that lifted a quarantine by a retry | the same |
//! | one that was skipped by people | left out: it was never decided |
//! | one of a build that kept no effects in history | its effects are not compared, and counted in [`Replayed::without_effects`] |
//!
//! What is compared is what this build reads in both: a field that was added with a default makes no difference by itself.

mod render;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{
    Base, Cause, Change, Head, History, HistoryError, Recorded, RecordedEffect, diff,
    travel::{evolve, follows, key_of, revive},
};
use crate::{
    entity::{
        Context, Entity, EntityKey, Registry,
        decision::EffectRequest,
        kind::{Kind, Live, RawDecision},
        timer,
    },
    journal::quarantine::Stage,
    supervision::contain::{self, Fault},
};

/// Differences that [`replay`] keeps; of more it keeps the first ones and counts the rest.
pub const DIFFERENCES_KEPT_MAX: usize = 1_000;

/// Decides the records of an entity of kind `E` once more.
pub fn replay<E: Entity>(history: &History) -> Result<Replayed, HistoryError> {
    replay_in(&Registry::new().with::<E>(), &key_of(history, E::KIND), history)
}

/// The same for an entity of any registered kind. Commands to other entities are compared as this build reads them where their
/// kind is registered too.
pub fn replay_in(registry: &Registry, key: &EntityKey, history: &History) -> Result<Replayed, HistoryError> {
    let mut replayer = Replayer::new(registry, key, &history.base, 0)?;
    let (mut differences, mut more) = (Vec::new(), 0);
    for record in &history.records {
        match replayer.take(record)? {
            Some(_) if differences.len() == DIFFERENCES_KEPT_MAX => more += 1,
            difference => differences.extend(difference),
        }
    }
    let mut replayed = replayer.end(&history.head)?;
    replayed.differences = differences;
    replayed.more_differences = more;
    Ok(replayed)
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The entity.
    pub key: String,
    /// Commands that were decided again.
    pub decisions: u64,
    /// Records that were only taken into the state: those before the time asked for.
    pub passed_over: u64,
    /// Records that people have skipped.
    pub skipped: u64,
    /// Decisions whose recorded effects are not known.
    pub without_effects: u64,
    /// Decisions that differ; of many the first [`DIFFERENCES_KEPT_MAX`]. Empty where a [`Replayer`] handed them out one by one.
    pub differences: Vec<Difference>,
    /// How many more there were.
    pub more_differences: u64,
    /// How many there were in all.
    pub differing: u64,
    /// What differs between the state that the cluster's build has made of the events and the one that this build makes.
    pub state: Vec<Change>,
}

impl Replayed {
    /// Whether this build decides everything as it was decided then, and makes the same state of it.
    pub fn is_equal(&self) -> bool {
        self.differing == 0 && self.state.is_empty()
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} decisions differ",
            self.key, self.differing, self.decisions
        )?;
        for difference in &self.differences {
            write!(f, "\n{difference}")?;
        }
        if !self.state.is_empty() {
            write!(f, "\nthe state that its events add up to differs from the cluster's:")?;
            for change in &self.state {
                write!(f, "\n  {change}")?;
            }
        }
        Ok(())
    }
}

/// A decision that this build takes otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The number of the record, and the entity's version before it.
    pub record: u64,
    /// The number of events before it.
    pub version: u64,
    /// When it was decided, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The command's idempotency key.
    pub request_id: String,
    /// Who asked.
    pub asked_by: String,
    /// call, effect, outcome, or timer and its name.
    pub cause: String,
    /// The command as JSON.
    pub command: Value,
    /// What differs: `answer`, `events`, `effects`, `state`.
    pub differs: Vec<&'static str>,
    /// What was decided then,
    pub recorded: Decided,
    /// and what this build decides.
    pub now: Decided,
    /// What differs between the state after the recorded decision and the one after this build's.
    pub state: Vec<Change>,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// `{"reply": ..}`, `{"rejection": ..}`, or `{"failure": ".."}` where the entity's own code fails.
    pub answer: Value,
    /// The events, each with its name.
    pub events: Vec<Value>,
    /// The effects; `null` where they were not kept.
    pub effects: Option<Vec<Value>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, now, .. } = self;
        write!(
            f,
            "record {} ({}, request {}): {} differs\n  command   {}",
            self.record,
            self.cause,
            self.request_id,
            self.differs.join(", "),
            self.command
        )?;
        if recorded.answer != now.answer {
            write!(f, "\n  recorded  {}\n  now       {}", recorded.answer, now.answer)?;
        }
        two_lists(f, "event", &recorded.events, &now.events)?;
        if let (Some(then), Some(now)) = (&recorded.effects, &now.effects) {
            two_lists(f, "effect", then, now)?;
        }
        for change in &self.state {
            write!(f, "\n  state     {change}")?;
        }
        Ok(())
    }
}

fn two_lists(f: &mut fmt::Formatter<'_>, what: &str, then: &[Value], now: &[Value]) -> fmt::Result {
    if then == now {
        return Ok(());
    }
    for value in then.iter().filter(|value| !now.contains(value)) {
        write!(f, "\n  - {what:8}{value}")?;
    }
    for value in now.iter().filter(|value| !then.contains(value)) {
        write!(f, "\n  + {what:8}{value}")?;
    }
    Ok(())
}

/// Decides records once more, one by one: for histories that are too long to be held.
pub struct Replayer {
    registry: Registry,
    key: EntityKey,
    kind: Arc<dyn Kind>,
    since_ms: u64,
    /// The state that the recorded events add up to.
    recorded: Box<dyn Live>,
    /// The same state, to decide on; none where the last decision has led elsewhere.
    trial: Option<Box<dyn Live>>,
    /// The timers that it has, as far as that is recorded, with the record that set each.
    timers: BTreeMap<Arc<str>, u64>,
    version: u64,
    seq: u64,
    replayed: Replayed,
}

impl Replayer {
    /// Begins where a kept history begins. Records before `since_ms` (milliseconds since 1970) are only taken into the state.
    pub fn new(registry: &Registry, key: &EntityKey, base: &Base, since_ms: u64) -> Result<Self, HistoryError> {
        let (kind, recorded) = revive(registry, key, base)?;
        Ok(Self {
            registry: registry.clone(),
            key: key.clone(),
            kind,
            since_ms,
            recorded,
            trial: None,
            timers: BTreeMap::new(),
            version: base.version,
            seq: base.seq,
            replayed: Replayed {
                key: key.to_string(),
                decisions: 0,
                passed_over: 0,
                skipped: 0,
                without_effects: 0,
                differences: Vec::new(),
                more_differences: 0,
                differing: 0,
                state: Vec::new(),
            },
        })
    }

    /// Decides the next record once more; says where that differs, if it does.
    pub fn take(&mut self, record: &Recorded) -> Result<Option<Difference>, HistoryError> {
        follows(&self.key, self.seq, record)?;
        let difference = if record.skipped.is_some() {
            self.replayed.skipped += 1;
            self.pass_over(record)?;
            None
        } else if record.at_ms < self.since_ms {
            self.replayed.passed_over += 1;
            self.pass_over(record)?;
            None
        } else {
            self.replayed.decisions += 1;
            self.replayed.without_effects += u64::from(record.effects.is_none());
            self.decide(record)?
        };
        self.replayed.differing += u64::from(difference.is_some());
        self.note_timers(record);
        self.seq = record.seq;
        self.version += record.events.len() as u64;
        Ok(difference)
    }

    /// Ends it, and compares the state with the one that the cluster has.
    pub fn end(mut self, head: &Head) -> Result<Replayed, HistoryError> {
        if let Some(state) = head.state.as_ref().filter(|_| head.seq == self.seq) {
            let ours = self.recorded.snapshot();
            if ours != *state {
                let json = |state: &Bytes| self.kind.state_json(state);
                let theirs = json(state).map_err(|error| HistoryError::Unreadable {
                    entity: self.key.clone(),
                    seq: self.seq,
                    reason: format!("the cluster's state: {error}"),
                })?;
                self.replayed.state = diff(&theirs, &json(&ours).unwrap_or_default());
            }
        }
        Ok(self.replayed)
    }

    fn pass_over(&mut self, record: &Recorded) -> Result<(), HistoryError> {
        if !record.events.is_empty() {
            self.trial = None;
        }
        evolve(&mut *self.recorded, record, &record.events)
    }

    fn decide(&mut self, record: &Recorded) -> Result<Option<Difference>, HistoryError> {
        let mut trial = match self.trial.take() {
            Some(trial) => trial,
            None => self.copy(record)?,
        };
        let context = Context {
            key: self.key.clone(),
            version: self.version,
            now_ms: record.at_ms,
        };
        let decided = contain::run(Stage::Decide, || trial.decide(&record.command, &context)).and_then(|decision| {
            let requests = decision.effects.iter().map(|effect| &effect.request);
            timer::check(requests, &self.timers).map_err(|error| Fault::refused(Stage::Decide, &error))?;
            Ok(decision)
        });
        // What a failing decision leaves is what was there before.
        let before = decided.is_err().then(|| self.recorded.snapshot());
        evolve(&mut *self.recorded, record, &record.events)?;
        let mut differs = Vec::new();
        match &decided {
            Ok(now) => {
                if !self.is_same_answer(&record.reply, &now.reply) {
                    differs.push("answer");
                }
                if !self.are_same_events(&record.events, &now.events) {
                    differs.push("events");
                }
                let effects = record.effects.as_ref();
                if effects.is_some_and(|then| !self.are_same_effects(then, &effects_of(now))) {
                    differs.push("effects");
                }
            }
            Err(_) => differs.push("answer"),
        }
        let after = match before {
            Some(before) => Some(before),
            None if differs.contains(&"events") => Some(trial.snapshot()),
            None => {
                self.trial = Some(trial);
                None
            }
        };
        let state = after.map_or_else(Vec::new, |after| self.state_changes(&after));
        if !state.is_empty() {
            differs.push("state");
        }
        if differs.is_empty() {
            return Ok(None);
        }
        Ok(Some(Difference {
            record: record.seq,
            version: self.version,
            at_unix_ms: record.at_ms,
            request_id: record.request_id.clone(),
            asked_by: record.asked_by.clone(),
            cause: match &record.cause {
                Cause::Call => "call".to_owned(),
                Cause::Effect => "effect".to_owned(),
                Cause::Outcome(effect) => format!("outcome of {effect}"),
                Cause::Timer { name, .. } => format!("timer {name}"),
            },
            command: self.command_json(&record.command),
            differs,
            recorded: Decided {
                answer: self.answer_json(&record.reply),
                events: record.events.iter().map(|event| self.event_json(event)).collect(),
                effects: (record.effects.as_ref())
                    .map(|effects| effects.iter().map(|effect| self.effect_json(effect)).collect()),
            },
            now: match &decided {
                Ok(now) => Decided {
                    answer: self.answer_json(&now.reply),
                    events: now.events.iter().map(|event| self.event_json(event)).collect(),
                    effects: Some(effects_of(now).iter().map(|effect| self.effect_json(effect)).collect()),
                },
                Err(fault) => Decided {
                    answer: serde_json::json!({ "failure": fault.reason }),
                    events: Vec::new(),
                    effects: None,
                },
            },
            state,
        }))
    }

    /// The state before a record, to decide on.
    fn copy(&self, record: &Recorded) -> Result<Box<dyn Live>, HistoryError> {
        let state = self.recorded.snapshot();
        let loaded = contain::run(Stage::Revive, || self.kind.load(Some(&state)));
        loaded.map_err(|fault| HistoryError::Unreadable {
            entity: self.key.clone(),
            seq: record.seq,
            reason: format!("the state before it: {}", fault.reason),
        })
    }

    fn state_changes(&self, after: &Bytes) -> Vec<Change> {
        let then = self.recorded.snapshot();
        if then == *after {
            return Vec::new();
        }
        let json = |state: &Bytes| self.kind.state_json(state).unwrap_or_default();
        diff(&json(&then), &json(after))
    }

    /// What a record did to the timers.
    fn note_timers(&mut self, record: &Recorded) {
        if let Cause::Timer { name, .. } = &record.cause {
            // One that repeats is still there; it may be set again all the same, and the limit is not reached by one too few.
            self.timers.remove(&**name);
        }
        for effect in record.effects.iter().flatten() {
            match &effect.request {
                EffectRequest::SetTimer { name, .. } => drop(self.timers.insert(Arc::clone(name), record.seq)),
                EffectRequest::CancelTimer { name } => drop(self.timers.remove(name)),
                EffectRequest::Command { .. } | EffectRequest::Call { .. } => {}
            }
        }
    }
}

fn effects_of(decision: &RawDecision) -> Vec<RecordedEffect> {
    let effects = decision.effects.iter().map(|effect| RecordedEffect {
        request: effect.request.clone(),
        token: effect.token.clone(),
    });
    effects.collect()
}
