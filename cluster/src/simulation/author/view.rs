//! What an invariant may look at: the committed state of every entity, what clients were answered, what services were asked.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{Author, is_of, service::CalledRaw};
use crate::{
    entity::{Entity, EntityKey, Registry, kind::Live},
    journal::{Decided, Record},
    replication::batch,
    schema::{Part, versioned},
    simulation::author::Served,
};

/// The states that follow from what was committed, in the order in which it was.
pub(super) struct View {
    registry: Registry,
    entities: BTreeMap<EntityKey, Seen>,
}

struct Seen {
    live: Box<dyn Live>,
    events: Vec<Bytes>,
}

impl View {
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            registry,
            entities: BTreeMap::new(),
        }
    }

    /// Takes the records of an entry that were taken; gives those that were decided.
    pub(super) fn committed(&mut self, data: &Bytes, taken: &[bool]) -> Result<Vec<Decided>, String> {
        let mut all = Vec::new();
        for (bytes, taken) in batch::unpack(data.clone()).zip(taken) {
            let record = Record::decode(&bytes.ok_or("an entry is cut short")?)?;
            if let (Record::Decided(decided), true) = (record, *taken) {
                self.takes(&decided)?;
                all.push(decided);
            }
        }
        Ok(all)
    }

    fn takes(&mut self, decided: &Decided) -> Result<(), String> {
        let key = &decided.entity;
        let unreadable = |error: &dyn std::fmt::Display| format!("{key}: its stored form cannot be read: {error}");
        if !self.entities.contains_key(key) {
            let kind = self.registry.get(&key.kind);
            let kind = kind.ok_or_else(|| format!("{key}: no such kind is registered"))?;
            let live = kind.load(None).map_err(|error| unreadable(&error))?;
            let events = Vec::new();
            self.entities.insert(key.clone(), Seen { live, events });
        }
        let seen = self.entities.get_mut(key).expect("it was just seen to");
        for event in &decided.events {
            seen.live.evolve(event).map_err(|error| unreadable(&error))?;
            seen.events.push(event.clone());
        }
        Ok(())
    }
}

/// A simulated world, as an invariant sees it. What it shows was committed; what is on its way it does not show.
pub struct World<'a> {
    author: &'a Author,
    is_over: bool,
}

/// A command of a client and its answer.
#[derive(Debug, Clone)]
pub struct Answered<E: Entity> {
    /// The entity's id.
    pub id: String,
    /// What it was asked.
    pub command: E::Command,
    /// The reply, or the rejection.
    pub answer: Result<E::Reply, E::Rejection>,
}

/// A call that arrived at a service.
#[derive(Debug, Clone)]
pub struct Called<R, A> {
    /// The entity that wanted it, as `kind/id`.
    pub by: String,
    /// What was asked.
    pub request: R,
    /// What came of it.
    pub served: Served<A>,
    /// How often it arrived: it was done at most once all the same.
    pub times: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(author: &'a Author, is_over: bool) -> Self {
        Self { author, is_over }
    }

    /// Whether everything has ended: every step has its answer, every effect its outcome, and no timer waits.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The state of an entity; the default if nothing has happened to it.
    ///
    /// # Panics
    /// When it cannot be read back.
    pub fn state<E: Entity>(&self, id: &str) -> E::State {
        let key = EntityKey {
            kind: E::KIND.into(),
            id: id.into(),
        };
        match self.author.view.entities.get(&key) {
            Some(seen) => read::<E, _>(Part::State, &seen.live.snapshot()),
            None => E::State::default(),
        }
    }

    /// The states of all entities of a kind that have decided anything, by id.
    ///
    /// # Panics
    /// When one cannot be read back.
    pub fn states<E: Entity>(&self) -> BTreeMap<String, E::State> {
        let entities = self.author.view.entities.iter();
        let of_kind = entities.filter(|(key, _)| is_of::<E>(key));
        of_kind
            .map(|(key, seen)| (key.id.to_string(), read::<E, _>(Part::State, &seen.live.snapshot())))
            .collect()
    }

    /// The events of an entity, in order.
    ///
    /// # Panics
    /// When one cannot be read back.
    pub fn events<E: Entity>(&self, id: &str) -> Vec<E::Event> {
        let entities = self.author.view.entities.iter();
        let mut found = entities.filter(|(key, _)| is_of::<E>(key) && *key.id == *id);
        let events = found.next().map(|(_, seen)| &seen.events[..]).unwrap_or_default();
        events.iter().map(|event| read::<E, _>(Part::Event, event)).collect()
    }

    /// What clients asked of entities of a kind and were answered, in the order of the answers.
    ///
    /// # Panics
    /// When one cannot be read back.
    pub fn answers<E: Entity>(&self) -> Vec<Answered<E>> {
        let of_kind = self.author.answers.iter().filter(|answered| is_of::<E>(&answered.key));
        of_kind
            .map(|answered| Answered {
                id: answered.key.id.to_string(),
                command: read::<E, _>(Part::Command, &answered.command),
                answer: match &answered.reply {
                    Ok(reply) => Ok(read::<E, _>(Part::Reply, reply)),
                    Err(rejection) => Err(read::<E, _>(Part::Rejection, rejection)),
                },
            })
            .collect()
    }

    /// The calls that arrived at a service, in order, each once.
    ///
    /// # Panics
    /// When requests or answers are not of these types.
    pub fn calls<R: DeserializeOwned, A: DeserializeOwned>(&self, service: &str) -> Vec<Called<R, A>> {
        let arrived = self.author.calls.iter().filter(|call| call.service == service);
        arrived.map(called).collect()
    }
}

fn called<R: DeserializeOwned, A: DeserializeOwned>(call: &CalledRaw) -> Called<R, A> {
    Called {
        by: call.id.entity.to_string(),
        request: of_json(&call.request),
        served: match &call.served {
            Served::Done(answer) => Served::Done(of_json(answer)),
            Served::GivenUp(reason) => Served::GivenUp(reason.clone()),
            Served::DoneButGivenUp(answer, reason) => Served::DoneButGivenUp(of_json(answer), reason.clone()),
        },
        times: call.times,
    }
}

fn read<E: Entity, T: DeserializeOwned>(part: Part, bytes: &[u8]) -> T {
    versioned::decode::<E, T>(part, bytes)
        .unwrap_or_else(|error| panic!("a value cannot be read back after it was stored: {error}"))
}

fn of_json<T: DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{} is of another type: {error}", String::from_utf8_lossy(bytes)))
}
