//! What was applied since the last checkpoint, in memory. The log holds the same, so that nothing is lost with it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Decided, EffectId, OutboxRow, TimerKey, TimerRow, Tombstone, feed::Fed, keys::Head, quarantine::QuarantineRow,
};
use crate::{entity::EntityKey, history::Base};

/// An entity's part of the tail.
#[derive(Debug, Clone, Default)]
pub(crate) struct TailEntity {
    pub(crate) head: Head,
    /// Its records in this tail, in order.
    pub(crate) records: Vec<Arc<Decided>>,
    /// There was nothing of it before this tail.
    pub(crate) is_new: bool,
    /// Where its history begins from this tail on.
    pub(crate) base: Option<Arc<Base>>,
    /// It was forgotten in this tail: there are no records of it, nor will there be.
    pub(crate) forgotten: Option<Arc<Tombstone>>,
}

/// A timer that a tail has touched.
#[derive(Debug, Clone)]
pub(crate) struct TailTimer {
    /// As it is at the tail's end; `None` if it is gone.
    pub(crate) row: Option<Arc<TimerRow>>,
    /// There was none of its name before this tail.
    is_new: bool,
}

/// What was applied since the last checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) entities: HashMap<EntityKey, TailEntity>,
    /// Effects that came (a row) or went (none).
    pub(crate) outbox: BTreeMap<EffectId, Option<Arc<OutboxRow>>>,
    /// Timers that were set, moved on, or went.
    pub(crate) timers: BTreeMap<TimerKey, TailTimer>,
    /// Rows of entities that are or were quarantined which changed, or went (none).
    pub(crate) quarantine: BTreeMap<EntityKey, Option<Arc<QuarantineRow>>>,
    /// Records with events, in the order of the journal.
    pub(crate) feed: Vec<Fed>,
    /// An entity was forgotten: the log that is behind this tail is to be cut whole.
    pub(crate) forgets: bool,
    /// Bytes of the records.
    pub(crate) bytes: usize,
    /// Entries applied, whether or not they left anything here.
    pub(crate) entries: u64,
}

impl Tail {
    pub(crate) fn effect_came(&mut self, id: EffectId, row: Arc<OutboxRow>) {
        self.outbox.insert(id, Some(row));
    }

    pub(crate) fn effect_went(&mut self, id: &EffectId) {
        // One that came in this tail never reaches the store.
        if !matches!(self.outbox.remove(id), Some(Some(_))) {
            self.outbox.insert(id.clone(), None);
        }
    }

    /// A timer is another than before, or gone. `was_there` says whether there was one of its name just before.
    pub(crate) fn timer_changed(&mut self, key: TimerKey, row: Option<Arc<TimerRow>>, was_there: bool) {
        let is_new = self.timers.get(&key).map_or(!was_there, |timer| timer.is_new);
        if row.is_none() && is_new {
            // One that came and went in this tail never reaches the store.
            self.timers.remove(&key);
        } else {
            self.timers.insert(key, TailTimer { row, is_new });
        }
    }
}
