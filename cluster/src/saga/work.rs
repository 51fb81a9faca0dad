//! What the functions of a table are given, and what they answer with.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

use super::{Saga, StateOf};
use crate::{
    JsonSchema, codec,
    entity::{
        Effect, Entity, Outcome,
        decision::{EffectRequest, command_to},
    },
    schema::versioned,
};

/// One step: a stage, and the key of the step where the stage has several. Written `reserve` or `reserve/tea`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Step(Box<str>);

impl Step {
    /// The step of a stage with this key; an empty one for a stage of one step.
    pub fn new(stage: &str, key: &str) -> Self {
        match key {
            "" => Self(stage.into()),
            key => Self(format!("{stage}/{key}").into()),
        }
    }

    /// The name of its stage.
    pub fn stage(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(stage, _)| stage)
    }

    /// Its key; empty where the stage has one step.
    pub fn key(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, key)| key)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a saga knows: its input, and what it has learned so far.
pub struct Known<'a, S: Saga> {
    pub(super) state: &'a StateOf<S>,
}

impl<'a, S: Saga> Known<'a, S> {
    /// What it was started with.
    pub fn input(&self) -> &'a S::Input {
        (self.state.input.as_ref()).expect("the functions of a table are called for sagas that were started")
    }

    /// What the step of a stage taught; the key is empty for a stage of one step.
    pub fn fact(&self, stage: &str, key: &str) -> Option<&'a S::Fact> {
        self.state.facts.get(&Step::new(stage, key))
    }

    /// What the steps of a stage taught, each with the step's key.
    pub fn facts(&self, stage: &str) -> impl Iterator<Item = (&'a str, &'a S::Fact)> {
        let facts = self.state.facts.iter().filter(move |(step, _)| step.stage() == stage);
        facts.map(|(step, fact)| (step.key(), fact))
    }

    /// The keys of the steps of a stage for which the saga started over ([`Verdict::StartOver`]).
    pub fn except(&self, stage: &str) -> impl Iterator<Item = &'a str> {
        let except = self.state.except.keys().filter(move |step| step.stage() == stage);
        except.map(Step::key)
    }

    /// Why it turned back.
    pub fn reason(&self) -> Option<&'a str> {
        self.state.reason.as_deref()
    }

    /// What a stage after the point of no return could not do: the first of its problems.
    pub fn problem(&self, stage: &str) -> Option<&'a str> {
        let mut problems = self.state.problems.iter().filter(|(step, _)| step.stage() == stage);
        problems.next().map(|(_, reason)| reason.as_str())
    }
}

/// What a saga knows while it makes an effect: all that is [`Known`], its id, and the key of the step.
pub struct Work<'a, S: Saga> {
    pub(super) known: Known<'a, S>,
    pub(super) id: &'a str,
    pub(super) key: &'a str,
}

impl<'a, S: Saga> Work<'a, S> {
    pub(super) fn new(state: &'a StateOf<S>, id: &'a str, key: &'a str) -> Self {
        Self {
            known: Known { state },
            id,
            key,
        }
    }

    /// The saga's own id.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The key of the step; empty for a stage of one step.
    pub fn key(&self) -> &'a str {
        self.key
    }
}

impl<'a, S: Saga> Deref for Work<'a, S> {
    type Target = Known<'a, S>;
    fn deref(&self) -> &Known<'a, S> {
        &self.known
    }
}

/// What is to be done for a step: a command to an entity, or a call to a service outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action(pub(super) EffectRequest);

impl Action {
    /// A command to another entity.
    pub fn ask<T: Entity>(id: &str, command: &T::Command) -> Self {
        Self(command_to::<T>(id, command))
    }

    /// A call to a service outside of the cluster.
    pub fn call(service: &str, request: &impl Serialize) -> Self {
        Self(EffectRequest::Call {
            service: service.to_owned(),
            request: serde_json::to_vec(request)
                .expect("a request type with string keys always has a JSON form")
                .into(),
        })
    }

    pub(super) fn with_token<E: Entity>(self, token: Option<E::Token>) -> Effect<E> {
        Effect { request: self.0, token }
    }

    /// Who is asked: an entity's key, or the name of a service.
    pub(super) fn target(&self) -> String {
        match &self.0 {
            EffectRequest::Command { to, .. } => to.to_string(),
            EffectRequest::Call { service, .. } => service.clone(),
            EffectRequest::SetTimer { name, .. } | EffectRequest::CancelTimer { name } => name.to_string(),
        }
    }
}

/// What an outcome means for its step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict<F> {
    /// It is done.
    Done,
    /// It is done, and taught this.
    Learned(F),
    /// It is on its way; the answer comes as a signal ([`Heard::Answer`]), or the deadline passes.
    Underway,
    /// It is on its way, may have been done in part, and taught this.
    Partly(F),
    /// It is not done, and will not be: the saga turns back. A word that machines know, a colon, and the detail.
    Refused(String),
    /// It is not done, and will not be: the saga undoes what it has done and starts over from the top without it. The next
    /// round finds the step in [`Known::except`]. A word that machines know, a colon, and the detail.
    StartOver(String),
    /// It is done, or may be, but the saga does better without it: it is undone with the rest, and the saga starts over from the
    /// top without it, as with [`Verdict::StartOver`].
    LeaveOut(String),
    /// Whether it is done is not known. It is tried again as often as its stage says, and then undone as if it were done.
    /// A word that machines know, a colon, and the detail.
    Failed(String),
}

impl<F> Verdict<F> {
    /// The usual meaning of an outcome: a reply is done, a rejection refused, and what was given up failed.
    pub fn usual(step: &Step, outcome: &Outcome) -> Self {
        let stage = step.stage();
        match outcome {
            Outcome::Replied(_) => Self::Done,
            Outcome::Rejected(rejection) => Self::Refused(format!("{stage}_refused: {}", shown(rejection))),
            Outcome::Failed(reason) => Self::Failed(format!("{stage}_unavailable: {reason}")),
            Outcome::Fired { .. } => Self::Failed(format!("{stage}_unavailable: a timer is no answer")),
        }
    }
}

/// A rejection of an entity of any kind, for people: `OutOfStock {"wanted":3}`.
fn shown(rejection: &[u8]) -> String {
    let value = versioned::split(rejection).map_or(rejection, |(_, value)| value);
    match codec::decode::<serde_json::Value>(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(map)) if map.len() == 1 => {
            let (name, value) = map.into_iter().next().expect("the map has one entry");
            format!("{name} {value}")
        }
        Ok(other) => other.to_string(),
        Err(error) => format!("it cannot be read: {error}"),
    }
}

/// What a signal means to a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard<F> {
    /// Nothing.
    Nothing,
    /// It is the answer of a step that is on its way.
    Answer(Step, Verdict<F>),
    /// What the saga rests on is gone: it turns back, if it still can. A word that machines know, a colon, and the detail.
    TurnBack(String),
}

/// How a saga ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum End {
    /// All stages are done, but for what is kept as a problem.
    Completed,
    /// Everything that was done is undone.
    Undone,
}
