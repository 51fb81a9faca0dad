//! All kinds of entities behind one interface of bytes, so that the engine can carry any of them.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use bytes::Bytes;

use super::{Context, Decision, Entity, Outcome, decision::EffectRequest};
use crate::{
    codec::{self, DecodeError},
    history::Retention,
    supervision::{Overrides, Policy},
};

/// An effect in stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawEffect {
    pub(crate) request: EffectRequest,
    pub(crate) token: Option<Bytes>,
}

/// A decision in stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawDecision {
    pub(crate) events: Vec<Bytes>,
    /// The reply, or the rejection.
    pub(crate) reply: Result<Bytes, Bytes>,
    pub(crate) effects: Vec<RawEffect>,
}

/// A kind of entity, for the engine.
pub(crate) trait Kind: Send + Sync {
    /// An entity at the state that a snapshot holds, or at the beginning.
    fn load(&self, snapshot: Option<&[u8]>) -> Result<Box<dyn Live>, DecodeError>;
    /// Turns the outcome of an effect into a command, encoded.
    fn resume(&self, token: &[u8], outcome: Outcome) -> Result<Bytes, DecodeError>;
    /// The state as JSON, for people.
    fn state_json(&self, state: &[u8]) -> Result<serde_json::Value, DecodeError>;
    /// A command as JSON, for people.
    fn command_json(&self, command: &[u8]) -> Result<serde_json::Value, DecodeError>;
    /// A reply or a rejection as JSON, for people.
    fn reply_json(&self, reply: Result<&[u8], &[u8]>) -> Result<serde_json::Value, DecodeError>;
    /// The event's name and its JSON, for people.
    fn event_json(&self, event: &[u8]) -> Result<(String, serde_json::Value), DecodeError>;
}

/// An entity in memory.
pub(crate) trait Live: Send {
    /// Decides a command and takes its events into the state.
    fn decide(&mut self, command: &[u8], context: &Context) -> Result<RawDecision, DecodeError>;
    /// Takes a stored event into the state.
    fn evolve(&mut self, event: &[u8]) -> Result<(), DecodeError>;
    /// The state, encoded.
    fn snapshot(&self) -> Bytes;
}

/// The kinds of entities that a cluster carries. All nodes of a cluster have the same ones.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Carried>,
}

/// A kind and how its failures are met.
#[derive(Clone)]
struct Carried {
    kind: Arc<dyn Kind>,
    policy: Policy,
    retention: Retention,
}

impl Registry {
    /// A registry with no kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind, supervised by the default policy.
    ///
    /// # Panics
    /// When two kinds have the same name.
    #[must_use]
    pub fn with<E: Entity>(self) -> Self {
        self.with_policy::<E>(Policy::ENTITY)
    }

    /// Adds a kind with a supervision policy of its own.
    ///
    /// # Panics
    /// When two kinds have the same name, or a value of the policy cannot be.
    #[must_use]
    pub fn with_policy<E: Entity>(mut self, policy: Policy) -> Self {
        if let Err(fault) = policy.check() {
            panic!("the policy of {}: {fault}", E::KIND);
        }
        let kind = Arc::new(Typed::<E>(PhantomData));
        let before = self.kinds.insert(
            E::KIND,
            Carried {
                kind,
                policy,
                retention: Retention::FOR_EVER,
            },
        );
        assert!(before.is_none(), "two kinds are named {}", E::KIND);
        self
    }

    /// The same, with a kind that keeps less than all of its history.
    ///
    /// # Panics
    /// When the kind is not there.
    #[must_use]
    pub fn with_retention<E: Entity>(mut self, retention: Retention) -> Self {
        let carried = self.kinds.get_mut(E::KIND);
        carried
            .unwrap_or_else(|| panic!("there is no kind {}", E::KIND))
            .retention = retention;
        self
    }

    /// The registry with what kinds keep of their history as a config file gives it; or the kind that is unknown.
    pub fn keeping(mut self, retentions: &BTreeMap<String, Retention>) -> Result<Self, String> {
        for (name, retention) in retentions {
            let carried = self.kinds.get_mut(name.as_str()).ok_or_else(|| name.clone())?;
            carried.retention = *retention;
        }
        Ok(self)
    }

    /// What a kind keeps of the history of each entity.
    pub fn retention(&self, kind: &str) -> Retention {
        self.kinds
            .get(kind)
            .map_or(Retention::FOR_EVER, |carried| carried.retention)
    }

    /// The names of all kinds, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.kinds.keys().copied()
    }

    /// The registry with other values in the policies of some kinds, as a config file gives them; or the kind or key that is
    /// wrong, with what is wrong with it.
    pub fn overridden(mut self, overrides: &BTreeMap<String, Overrides>) -> Result<Self, (String, String)> {
        for (name, overrides) in overrides {
            let Some(carried) = self.kinds.get_mut(name.as_str()) else {
                let known: Vec<_> = self.kinds.keys().copied().collect();
                return Err((
                    name.clone(),
                    format!("is no kind of entity; there are {}", known.join(", ")),
                ));
            };
            carried.policy = overrides
                .of(carried.policy)
                .map_err(|fault| (format!("{name}.{}", fault.key), fault.reason))?;
        }
        Ok(self)
    }

    /// How failures of a kind are met.
    pub fn policy(&self, kind: &str) -> Policy {
        self.kinds.get(kind).map_or(Policy::ENTITY, |carried| carried.policy)
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.get(kind).map(|carried| &carried.kind)
    }
}

struct Typed<E>(PhantomData<fn() -> E>);

impl<E: Entity> Kind for Typed<E> {
    fn load(&self, snapshot: Option<&[u8]>) -> Result<Box<dyn Live>, DecodeError> {
        let state = match snapshot {
            Some(bytes) => codec::decode(bytes)?,
            None => E::State::default(),
        };
        Ok(Box::new(LiveEntity::<E> { state }))
    }

    fn resume(&self, token: &[u8], outcome: Outcome) -> Result<Bytes, DecodeError> {
        Ok(codec::encode(&E::resume(codec::decode(token)?, outcome)))
    }

    fn state_json(&self, state: &[u8]) -> Result<serde_json::Value, DecodeError> {
        Ok(json(&codec::decode::<E::State>(state)?))
    }

    fn command_json(&self, command: &[u8]) -> Result<serde_json::Value, DecodeError> {
        Ok(json(&codec::decode::<E::Command>(command)?))
    }

    fn reply_json(&self, reply: Result<&[u8], &[u8]>) -> Result<serde_json::Value, DecodeError> {
        Ok(match reply {
            Ok(reply) => json(&codec::decode::<E::Reply>(reply)?),
            Err(rejection) => json(&codec::decode::<E::Rejection>(rejection)?),
        })
    }

    fn event_json(&self, event: &[u8]) -> Result<(String, serde_json::Value), DecodeError> {
        let value = json(&codec::decode::<E::Event>(event)?);
        // Serde writes an enum as its variant's name, alone or as the only key of an object.
        Ok(match value {
            serde_json::Value::Object(map) if map.len() == 1 => map.into_iter().next().expect("the map has one entry"),
            serde_json::Value::String(name) => (name, serde_json::Value::Null),
            other => (E::KIND.to_owned(), other),
        })
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_else(|error| serde_json::Value::String(format!("no JSON form: {error}")))
}

struct LiveEntity<E: Entity> {
    state: E::State,
}

impl<E: Entity> Live for LiveEntity<E> {
    fn decide(&mut self, command: &[u8], context: &Context) -> Result<RawDecision, DecodeError> {
        let command = codec::decode::<E::Command>(command)?;
        match E::decide(&self.state, command, context) {
            Ok(Decision { events, reply, effects }) => {
                for event in &events {
                    E::evolve(&mut self.state, event);
                }
                Ok(RawDecision {
                    events: events.iter().map(codec::encode).collect(),
                    reply: Ok(codec::encode(&reply)),
                    effects: effects
                        .into_iter()
                        .map(|effect| RawEffect {
                            request: effect.request,
                            token: effect.token.as_ref().map(codec::encode),
                        })
                        .collect(),
                })
            }
            Err(rejection) => Ok(RawDecision {
                events: Vec::new(),
                reply: Err(codec::encode(&rejection)),
                effects: Vec::new(),
            }),
        }
    }

    fn evolve(&mut self, event: &[u8]) -> Result<(), DecodeError> {
        E::evolve(&mut self.state, &codec::decode(event)?);
        Ok(())
    }

    fn snapshot(&self) -> Bytes {
        codec::encode(&self.state)
    }
}
