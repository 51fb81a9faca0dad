//! The order of a shard's events: which record stands where in the journal.
//!
//! Histories are kept by entity, and the log is cut behind checkpoints. So that the events of a shard can be read in the order in
//! which they were decided, each checkpoint writes what it moves as [`rows`]: positions, entities and record numbers, without the
//! events, which stand in the histories already. What no checkpoint has moved yet is in the tail; the newest of what one has moved
//! is [`kept`] in memory. [`read`] walks the rows and goes on there.
//!
//! Positions follow from the journal alone: they are the same on all replicas, whenever these make their checkpoints.

pub(crate) mod kept;
pub(crate) mod read;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Decided;
use crate::{
    entity::{EntityKey, RequestId},
    trace::TraceContext,
};

/// A place in the journal of a shard: that of one record. Greater is later; the same on all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The number of the journal's entry, from 1.
    pub index: u64,
    /// The number of the record in its entry, from 0.
    pub place: u32,
}

impl Position {
    /// Before everything.
    pub const BEGINNING: Self = Self { index: 0, place: 0 };

    /// After all that an entry of the journal holds.
    pub(crate) fn end_of(index: u64) -> Self {
        Self { index, place: u32::MAX }
    }

    /// The one right before.
    pub(crate) fn before(self) -> Self {
        match self.place.checked_sub(1) {
            Some(place) => Self { place, ..self },
            None => self.index.checked_sub(1).map_or(Self::BEGINNING, Self::end_of),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.place)
    }
}

/// A record with events as the tail holds it.
#[derive(Debug, Clone)]
pub(crate) struct Fed {
    pub(crate) position: Position,
    /// The entity's version after the first of its events.
    pub(crate) first_version: u64,
    pub(crate) record: Arc<Decided>,
}

/// A record with events as readers get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRecord {
    /// Where it stands in the journal of its shard.
    pub position: Position,
    /// Whose it is.
    pub entity: EntityKey,
    /// The number of the record among those of its entity, from 1.
    pub seq: u64,
    /// The entity's version after the first of its events; the others follow without a gap.
    pub first_version: u64,
    /// When it was decided, by the leader's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The trace it belongs to.
    pub trace: TraceContext,
    /// The request that caused it.
    pub request_id: RequestId,
    /// The events in the entity's own encoding, in order; at least one.
    pub events: Vec<Bytes>,
}

impl FeedRecord {
    /// What of a record readers get.
    pub(crate) fn of(position: Position, first_version: u64, record: &Decided) -> Self {
        Self {
            position,
            entity: record.entity.clone(),
            seq: record.seq,
            first_version,
            at_ms: record.at_ms,
            trace: record.trace,
            request_id: record.request.clone(),
            events: record.events.clone(),
        }
    }

    /// How much it counts against a limit in bytes.
    pub(crate) fn bytes(&self) -> usize {
        const REST: usize = 96;
        let key = self.entity.kind.len() + self.entity.id.len() + self.request_id.as_str().len();
        REST + key + self.events.iter().map(Bytes::len).sum::<usize>()
    }
}
