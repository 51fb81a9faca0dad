//! All kinds of entities behind one interface of bytes, so that the engine can carry any of them.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use bytes::Bytes;

use super::{Context, Decision, Entity, Outcome, decision::EffectRequest};
use crate::{
    codec::{self, DecodeError},
    history::Retention,
    projection::{self, Projection},
    saga::outline::{About, Brief, Outline},
    schema::{
        Part, Stored,
        card::Card,
        described::Described,
        upcast::Steps,
        versioned::{self, Head},
    },
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
    /// The saga at this state in one line, if it is one.
    fn saga_brief(&self, state: &[u8]) -> Result<Option<Brief>, DecodeError>;
    /// What can be told of the saga of this id at this state, if it is one.
    fn saga_outline(&self, id: &str, state: &[u8]) -> Result<Option<Outline>, DecodeError>;
    /// The command that has a saga try again at once, if it is one.
    fn saga_nudge(&self) -> Option<Bytes>;
    /// The event's name and its JSON, for people.
    fn event_json(&self, event: &[u8]) -> Result<(String, serde_json::Value), DecodeError>;
    /// What its stored values look like, and their versions.
    fn described(&self) -> &Described;
    /// How stored values of earlier builds become values of this one.
    fn steps(&self) -> Steps;
    /// Whether a snapshot is what this build would make of the same events.
    fn trusts(&self, snapshot: &[u8]) -> bool;
    /// Reads a stored value, and says which of its fields this build does not know.
    fn unknown_fields(&self, part: Part, bytes: &[u8]) -> Result<Vec<String>, DecodeError>;
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
    projections: projection::carried::All,
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
    /// When two kinds have the same name, or it is a saga whose table cannot be.
    #[must_use]
    pub fn with<E: Entity>(self) -> Self {
        self.with_policy::<E>(Policy::ENTITY)
    }

    /// Adds a kind with a supervision policy of its own.
    ///
    /// # Panics
    /// When two kinds have the same name, a value of the policy cannot be, or it is a saga whose table cannot be.
    #[must_use]
    pub fn with_policy<E: Entity>(mut self, policy: Policy) -> Self {
        if let Err(fault) = policy.check() {
            panic!("the policy of {}: {fault}", E::KIND);
        }
        if let Some(Err(error)) = E::saga().map(|about| (about.check)()) {
            panic!("the table of the saga {}: {error}", E::KIND);
        }
        let kind = Arc::new(Typed::<E>::new());
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

    /// The names of the kinds that are sagas, in order.
    pub(crate) fn sagas(&self) -> impl Iterator<Item = &'static str> + '_ {
        let kinds = self
            .kinds
            .iter()
            .filter(|(_, carried)| carried.kind.saga_nudge().is_some());
        kinds.map(|(name, _)| *name)
    }

    /// Whether entities of this kind are sagas.
    pub(crate) fn is_saga(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|kind| kind.saga_nudge().is_some())
    }

    /// Adds a read model. An earlier version of it may be added beside a new one: it goes on answering those who ask for it.
    ///
    /// # Panics
    /// When its name cannot be, or that version of it is there already.
    #[must_use]
    pub fn with_projection<P: Projection>(mut self) -> Self {
        projection::carried::add::<P>(&mut self.projections);
        self
    }

    /// The read models, by name and version.
    pub(crate) fn projections(&self) -> &projection::carried::All {
        &self.projections
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

    /// What this build can read of all kinds, as JSON: for [`Cluster::check_schema`](crate::Cluster::check_schema) on a node of
    /// another one.
    pub fn schema_json(&self) -> String {
        serde_json::to_string(&self.card()).expect("plain data has a JSON form")
    }

    /// What this build can read of all kinds.
    pub(crate) fn card(&self) -> Card {
        let kinds = self.kinds.iter();
        Card {
            kinds: kinds
                .map(|(name, carried)| ((*name).to_owned(), carried.kind.described().clone()))
                .collect(),
        }
    }
}

struct Typed<E> {
    described: Described,
    /// Of its states and events, where they are declared.
    fingerprint: Option<u64>,
    entity: PhantomData<fn() -> E>,
}

impl<E: Entity> Typed<E> {
    fn new() -> Self {
        let steps = Steps(E::UPCASTS);
        if let Some(fault) = steps.fault() {
            panic!("the upcasts of {}: {fault}", E::KIND);
        }
        let described = Described::new(E::schema(), steps);
        Self {
            fingerprint: described.fingerprint(),
            described,
            entity: PhantomData,
        }
    }
}

impl<E: Entity> Kind for Typed<E> {
    fn load(&self, snapshot: Option<&[u8]>) -> Result<Box<dyn Live>, DecodeError> {
        let state = match snapshot {
            Some(bytes) => versioned::decode::<E, _>(Part::State, bytes)?,
            None => E::State::default(),
        };
        Ok(Box::new(LiveEntity::<E> {
            state,
            fingerprint: self.fingerprint,
        }))
    }

    fn resume(&self, token: &[u8], outcome: Outcome) -> Result<Bytes, DecodeError> {
        let token = versioned::decode::<E, _>(Part::Token, token)?;
        Ok(versioned::encode::<E>(Part::Command, &E::resume(token, outcome)))
    }

    fn saga_brief(&self, state: &[u8]) -> Result<Option<Brief>, DecodeError> {
        let about = E::saga().map(|about: About| about.brief);
        about.map_or(Ok(None), |brief| {
            Ok(brief(&versioned::decode::<E, E::State>(Part::State, state)?))
        })
    }

    fn saga_outline(&self, id: &str, state: &[u8]) -> Result<Option<Outline>, DecodeError> {
        let about = E::saga().map(|about| about.outline);
        about.map_or(Ok(None), |outline| {
            Ok(outline(id, &versioned::decode::<E, E::State>(Part::State, state)?))
        })
    }

    fn saga_nudge(&self) -> Option<Bytes> {
        let command = (E::saga()?.nudge)().downcast::<E::Command>().ok()?;
        Some(versioned::encode::<E>(Part::Command, &*command))
    }

    fn described(&self) -> &Described {
        &self.described
    }

    fn steps(&self) -> Steps {
        Steps(E::UPCASTS)
    }

    fn trusts(&self, snapshot: &[u8]) -> bool {
        let version = self.steps().version(Part::State, crate::schema::WHOLE);
        versioned::split(snapshot)
            .is_ok_and(|(head, _)| head.version == version && head.fingerprint == self.fingerprint)
    }

    fn unknown_fields(&self, part: Part, bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
        let upcasted = versioned::upcast(self.steps(), part, bytes).map_err(DecodeError::Syntax)?;
        let bytes = upcasted.bytes();
        match part {
            Part::Command => unknown::<E::Command>(bytes),
            Part::Event => unknown::<E::Event>(bytes),
            Part::Rejection => unknown::<E::Rejection>(bytes),
            Part::Reply => unknown::<E::Reply>(bytes),
            Part::State => unknown::<E::State>(bytes),
            Part::Token => unknown::<E::Token>(bytes),
        }
    }

    fn state_json(&self, state: &[u8]) -> Result<serde_json::Value, DecodeError> {
        Ok(json(&versioned::decode::<E, E::State>(Part::State, state)?))
    }

    fn command_json(&self, command: &[u8]) -> Result<serde_json::Value, DecodeError> {
        Ok(json(&versioned::decode::<E, E::Command>(Part::Command, command)?))
    }

    fn reply_json(&self, reply: Result<&[u8], &[u8]>) -> Result<serde_json::Value, DecodeError> {
        Ok(match reply {
            Ok(reply) => json(&versioned::decode::<E, E::Reply>(Part::Reply, reply)?),
            Err(rejection) => json(&versioned::decode::<E, E::Rejection>(Part::Rejection, rejection)?),
        })
    }

    fn event_json(&self, event: &[u8]) -> Result<(String, serde_json::Value), DecodeError> {
        let value = json(&versioned::decode::<E, E::Event>(Part::Event, event)?);
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

/// The fields of a stored value that its type does not know. Those that hold nothing are no loss.
fn unknown<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let (_, unknown) = codec::decode_all::<T>(bytes)?;
    if unknown.is_empty() {
        return Ok(unknown);
    }
    let bare = Stored::read(bytes, true).and_then(|stored| stored.without_nothing().write());
    let known = bare.ok().and_then(|bytes| codec::decode_all::<T>(&bytes).ok());
    Ok(known.map_or(unknown, |(_, unknown)| unknown))
}

struct LiveEntity<E: Entity> {
    state: E::State,
    /// Of the schema of this build: what its snapshots carry.
    fingerprint: Option<u64>,
}

impl<E: Entity> Live for LiveEntity<E> {
    fn decide(&mut self, command: &[u8], context: &Context) -> Result<RawDecision, DecodeError> {
        let command = versioned::decode::<E, E::Command>(Part::Command, command)?;
        match E::decide(&self.state, command, context) {
            Ok(Decision { events, reply, effects }) => {
                for event in &events {
                    E::evolve(&mut self.state, event);
                }
                Ok(RawDecision {
                    events: events
                        .iter()
                        .map(|event| versioned::encode::<E>(Part::Event, event))
                        .collect(),
                    reply: Ok(versioned::encode::<E>(Part::Reply, &reply)),
                    effects: effects
                        .into_iter()
                        .map(|effect| RawEffect {
                            request: effect.request,
                            token: effect
                                .token
                                .as_ref()
                                .map(|token| versioned::encode::<E>(Part::Token, token)),
                        })
                        .collect(),
                })
            }
            Err(rejection) => Ok(RawDecision {
                events: Vec::new(),
                reply: Err(versioned::encode::<E>(Part::Rejection, &rejection)),
                effects: Vec::new(),
            }),
        }
    }

    fn evolve(&mut self, event: &[u8]) -> Result<(), DecodeError> {
        E::evolve(&mut self.state, &versioned::decode::<E, _>(Part::Event, event)?);
        Ok(())
    }

    fn snapshot(&self) -> Bytes {
        let head = Head {
            version: Steps(E::UPCASTS).version(Part::State, crate::schema::WHOLE),
            fingerprint: self.fingerprint,
        };
        let state = codec::encode(&self.state);
        if head == Head::PLAIN {
            state
        } else {
            versioned::join(head, &state)
        }
    }
}
