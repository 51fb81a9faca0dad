//! What checkpoints have moved to the store a moment ago, still at hand in memory.
//!
//! Whoever follows a feed gathers for a while and then reads: without this, a checkpoint in between would send each follower to the
//! store for what had been in memory just before.

use std::collections::VecDeque;

use super::{Fed, Position};
use crate::journal::tail::Tail;

/// Bytes of one shard's records that are kept.
const KEPT_BYTES_MAX: usize = 512 << 10;

/// The newest of a shard's records with events that are in the store already.
#[derive(Debug)]
pub(crate) struct Kept {
    records: VecDeque<Fed>,
    bytes: usize,
    bytes_max: usize,
    /// Every record behind this position is here, or in a tail.
    from: Position,
}

impl Kept {
    /// Nothing is kept of what the store held when the shard was opened.
    pub(crate) fn new(checkpoint: u64) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            bytes_max: KEPT_BYTES_MAX,
            from: if checkpoint == 0 {
                Position::BEGINNING
            } else {
                Position::end_of(checkpoint)
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Where what is in memory begins.
    pub(crate) fn from(&self) -> Position {
        self.from
    }

    /// The records after a position, in order.
    pub(crate) fn after(&self, after: Position) -> impl Iterator<Item = &Fed> {
        let from = self.records.partition_point(|fed| fed.position <= after);
        self.records.range(from..)
    }

    /// Takes over what a checkpoint has moved.
    pub(crate) fn take(&mut self, tail: &Tail) {
        let is_gone = |fed: &Fed| {
            tail.entities.get(&fed.record.entity).is_some_and(|entity| {
                let base = entity.base.as_ref().map_or(0, |base| base.seq);
                entity.forgotten.is_some() || fed.record.seq <= base
            })
        };
        if tail.forgets || tail.entities.values().any(|entity| entity.base.is_some()) {
            self.records.retain(|fed| !is_gone(fed));
            self.bytes = self.records.iter().map(bytes).sum();
        }
        // Of a large tail only its end: the shard is held up meanwhile.
        let mut taken = 0;
        let mut first = tail.feed.len();
        while let Some(fed) = first.checked_sub(1).map(|at| &tail.feed[at]) {
            taken += bytes(fed);
            if taken > self.bytes_max {
                break;
            }
            first -= 1;
        }
        if let Some(last_left) = first.checked_sub(1).map(|at| tail.feed[at].position) {
            self.records.clear();
            self.bytes = 0;
            self.from = last_left;
        }
        for fed in tail.feed[first..].iter().filter(|fed| !is_gone(fed)) {
            self.bytes += bytes(fed);
            self.records.push_back(fed.clone());
        }
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= bytes(&oldest);
            self.from = oldest.position;
        }
    }
}

/// What a record takes up, about.
fn bytes(fed: &Fed) -> usize {
    /// Of its key, its request and the rest that is not counted.
    const REST: usize = 256;
    REST + fed.record.bytes()
}
