//! How an author tests a projection without a cluster: events in, answers out, with as many shards as wanted.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    ProjectedEvent, Projection,
    carried::{All, Carried, add},
    rows::{Change, Rows},
};
use crate::{
    codec,
    entity::{Entity, EntityKey, RequestId},
    journal::feed::{FeedRecord, Position},
    schema::{Part, versioned},
    shard::shard_of,
    trace::TraceContext,
};

/// A projection folded over events in memory. Rows, events, questions and answers pass through their stored encoding, so what
/// does not survive it is found here.
pub struct Folded<P> {
    shards: Vec<BTreeMap<Vec<u8>, Bytes>>,
    versions: BTreeMap<EntityKey, u64>,
    position: u64,
    carried: std::sync::Arc<dyn Carried>,
    projection: std::marker::PhantomData<fn() -> P>,
}

impl<P: Projection> Folded<P> {
    /// An empty model over so many shards, at least one.
    pub fn new(shards: u32) -> Self {
        let mut all = All::new();
        add::<P>(&mut all);
        Self {
            shards: vec![BTreeMap::new(); shards.max(1) as usize],
            versions: BTreeMap::new(),
            position: 0,
            carried: all.into_values().next().expect("it was added"),
            projection: std::marker::PhantomData,
        }
    }

    /// Takes an event of an entity in, decided at a time in milliseconds since 1970; one of a kind that does not feed the
    /// projection is passed over, as by the engine.
    ///
    /// # Panics
    /// When the id cannot be, or the projection cannot take the event.
    pub fn given<E: Entity>(&mut self, id: &str, at_ms: u64, event: &E::Event) -> &mut Self {
        let entity = EntityKey::new(E::KIND, id).unwrap_or_else(|error| panic!("{}/{id}: {error}", E::KIND));
        self.given_raw(&entity, at_ms, versioned::encode::<E>(Part::Event, event));
        self
    }

    /// The same with an event as it is stored, as feeds deliver it.
    ///
    /// # Panics
    /// When the projection cannot take the event.
    pub fn given_raw(&mut self, entity: &EntityKey, at_ms: u64, event: Bytes) {
        let version = self.versions.entry(entity.clone()).or_default();
        *version += 1;
        self.position += 1;
        if !P::KINDS.contains(&&*entity.kind) {
            return;
        }
        let record = FeedRecord {
            position: Position {
                index: self.position,
                place: 0,
            },
            entity: entity.clone(),
            seq: *version,
            first_version: *version,
            at_ms,
            trace: TraceContext::default(),
            request_id: RequestId::new(&format!("given-{}", self.position)).expect("letters and digits"),
            events: vec![event],
        };
        let shard = shard_of(entity, self.shards.len() as u32) as usize;
        let source = &self.shards[shard];
        let mut rows = Rows::new(source);
        for event in ProjectedEvent::of_record(&record) {
            P::apply(&mut rows, &event);
            assert_eq!(event.fault(), None, "an event of {entity} cannot be read");
        }
        if let Err(fault) = rows.check() {
            panic!("an event of {entity}: {fault}");
        }
        for Change { key, after, .. } in rows.into_changes().expect("memory is read") {
            match after {
                Some(value) => self.shards[shard].insert(key, value),
                None => self.shards[shard].remove(&key),
            };
        }
    }

    /// Asks all shards and merges; or says what is wrong with the question.
    ///
    /// # Panics
    /// When the rows cannot be read as the question wants them.
    pub fn query(&self, query: &P::Query) -> Result<P::Answer, String> {
        let query = codec::encode(query);
        self.carried.check(&query)?;
        let mut parts = Vec::new();
        for shard in &self.shards {
            let rows = Rows::new(shard);
            parts.push(self.carried.query(&rows, &query)?);
            if let Err(fault) = rows.check() {
                panic!("the question: {fault}");
            }
        }
        let answer = self.carried.merge(parts, &query)?;
        codec::decode(&answer).map_err(|error| error.to_string())
    }

    /// The same with a question and an answer in JSON.
    pub fn query_json(&self, json: &str) -> Result<serde_json::Value, String> {
        let query = self.carried.query_of_json(json)?;
        let query: P::Query = codec::decode(&query).map_err(|error| error.to_string())?;
        let answer = codec::encode(&self.query(&query)?);
        self.carried.answer_json(&answer)
    }

    /// All rows of a shard, in key order.
    pub fn rows(&self, shard: u32) -> Vec<(Vec<u8>, Bytes)> {
        let rows = self.shards[shard as usize].iter();
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}
