//! What `decide` is given beside state and command, and what it answers with.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Entity, EntityKey};
use crate::schema::{Part, versioned};

/// What the entity may know of the world while it decides. All of it is recorded, so that history can be decided again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The entity's own key.
    pub key: EntityKey,
    /// The number of events it has seen.
    pub version: u64,
    /// The leader's clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// An accepted command: what happened, what the caller is told, what is to be done.
#[derive(Debug, Clone)]
pub struct Decision<E: Entity> {
    /// What happened, in order.
    pub events: Vec<E::Event>,
    /// What the caller is told, once the events are durable on a majority.
    pub reply: E::Reply,
    /// What is to be done, recorded with the events in one append.
    pub effects: Vec<Effect<E>>,
}

impl<E: Entity> Decision<E> {
    /// Nothing happened, and this is the answer.
    pub fn reply(reply: E::Reply) -> Self {
        Self {
            events: Vec::new(),
            reply,
            effects: Vec::new(),
        }
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, event: E::Event) -> Self {
        self.events.push(event);
        self
    }

    /// Adds an effect.
    #[must_use]
    pub fn effect(mut self, effect: Effect<E>) -> Self {
        self.effects.push(effect);
        self
    }

    /// Adds several effects.
    #[must_use]
    pub fn effects(mut self, effects: impl IntoIterator<Item = Effect<E>>) -> Self {
        self.effects.extend(effects);
        self
    }
}

/// A recorded intention. The leader of the entity's shard carries it out and repeats it until it is acknowledged; its id
/// is the request id on the other side, so that repeating it does nothing twice.
#[derive(Debug, Clone)]
pub struct Effect<E: Entity> {
    /// Who is to do what.
    pub request: EffectRequest,
    /// Comes back with the outcome; `None` where nobody waits for one.
    pub token: Option<E::Token>,
}

/// Who is to do what, in the encoding that is stored. Commands and calls go through the outbox; timers are kept with the
/// entity from the moment the record is applied, and go with the record that cancels or fires them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EffectRequest {
    /// A command to another entity, in that entity's own encoding.
    Command {
        /// The other entity.
        to: EntityKey,
        /// Its command.
        command: Bytes,
    },
    /// A call to the outside, as JSON.
    Call {
        /// The registered name of the service.
        service: String,
        /// The service's request.
        request: Bytes,
    },
    /// A timer of the entity itself; it replaces one of the same name.
    SetTimer {
        /// Its name within the entity.
        name: Arc<str>,
        /// When it fires (first), in milliseconds since 1970.
        due_ms: u64,
        /// How long after that again, in milliseconds; `None` for once.
        every_ms: Option<u64>,
    },
    /// A timer of the entity itself is not wanted any more. Without one of that name there is nothing to do.
    CancelTimer {
        /// Its name within the entity.
        name: Arc<str>,
    },
}

impl<E: Entity> Effect<E> {
    /// Sends a command to another entity; its reply or rejection comes back through [`Entity::resume`].
    pub fn ask<T: Entity>(id: &str, command: &T::Command, token: E::Token) -> Self {
        Self {
            request: command_to::<T>(id, command),
            token: Some(token),
        }
    }

    /// Sends a command to another entity, whatever it says to it.
    pub fn tell<T: Entity>(id: &str, command: &T::Command) -> Self {
        Self {
            request: command_to::<T>(id, command),
            token: None,
        }
    }

    /// Sets a timer of this entity: once, at `due_ms` (milliseconds since 1970, from [`Context::now_ms`]), the token comes
    /// back through [`Entity::resume`] with [`Outcome::Fired`](super::Outcome::Fired). It replaces a timer of the same name.
    /// [`timer`](super::timer) says what a timer may be.
    pub fn set_timer(name: &str, due_ms: u64, token: E::Token) -> Self {
        Self {
            request: EffectRequest::SetTimer {
                name: name.into(),
                due_ms,
                every_ms: None,
            },
            token: Some(token),
        }
    }

    /// Sets a timer that fires at `first_due_ms` and then every `every_ms`, until it is cancelled or replaced. Occurrences
    /// that were missed are made up for by one firing, which says how many they were.
    pub fn repeat_timer(name: &str, first_due_ms: u64, every_ms: u64, token: E::Token) -> Self {
        Self {
            request: EffectRequest::SetTimer {
                name: name.into(),
                due_ms: first_due_ms,
                every_ms: Some(every_ms),
            },
            token: Some(token),
        }
    }

    /// Cancels the timer of that name, if there is one: from this decision on it does not fire.
    pub fn cancel_timer(name: &str) -> Self {
        Self {
            request: EffectRequest::CancelTimer { name: name.into() },
            token: None,
        }
    }

    /// Calls a service outside of the cluster; its answer comes back through [`Entity::resume`].
    pub fn call(service: &str, request: &impl Serialize, token: E::Token) -> Self {
        Self {
            request: EffectRequest::Call {
                service: service.to_owned(),
                request: serde_json::to_vec(request)
                    .expect("a request type with string keys always has a JSON form")
                    .into(),
            },
            token: Some(token),
        }
    }
}

pub(crate) fn command_to<T: Entity>(id: &str, command: &T::Command) -> EffectRequest {
    EffectRequest::Command {
        to: EntityKey {
            kind: T::KIND.into(),
            id: id.into(),
        },
        command: versioned::encode::<T>(Part::Command, command),
    }
}
