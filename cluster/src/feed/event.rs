//! Events as subscribers get them.

use bytes::Bytes;

use super::{FeedRecord, Position};
use crate::{entity::Registry, trace::TraceContext};

/// An event as subscribers get it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEvent {
    /// The kind of its entity,
    pub kind: String,
    /// and the id within the kind.
    pub id: String,
    /// The entity's version after it; the first event of an entity has 1.
    pub version: u64,
    /// The event's name; empty where this build cannot read it.
    pub name: String,
    /// What it says, as JSON; null where it has no fields or this build cannot read it.
    pub json: serde_json::Value,
    /// As it is stored: MessagePack with field names.
    pub raw: Bytes,
    /// When it was decided, by the leader's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The request that caused it.
    pub request_id: String,
    /// The trace it belongs to.
    pub trace: TraceContext,
    /// The shard of its entity,
    pub shard: u32,
    /// and where its record stands there. Events that were decided together have the same one.
    pub position: Position,
}

impl FeedEvent {
    /// The events of a record.
    pub(crate) fn of(registry: &Registry, shard: u32, record: &FeedRecord) -> impl Iterator<Item = Self> {
        let kind = registry.get(&record.entity.kind);
        let events = (record.first_version..).zip(&record.events);
        events.map(move |(version, raw)| {
            let read = kind.and_then(|kind| kind.event_json(raw).ok());
            let (name, json) = read.unwrap_or_default();
            Self {
                kind: record.entity.kind.to_string(),
                id: record.entity.id.to_string(),
                version,
                name,
                json,
                raw: raw.clone(),
                at_ms: record.at_ms,
                request_id: record.request_id.to_string(),
                trace: record.trace,
                shard,
                position: record.position,
            }
        })
    }
}
