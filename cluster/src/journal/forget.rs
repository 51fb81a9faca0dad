//! How an entity is forgotten, and how the beginning of a history is let go: by a record of the journal, so that every replica does the
//! same at the same position.
//!
//! **Forgotten**: state, history, request ids, open effects, timers and quarantine are gone. What stays is a [`Tombstone`] that says
//! when, why and by whom, and that the id decides nothing any more: were it to begin anew, a command that a client repeats would
//! bring back what was to be forgotten.
//!
//! **Trimmed**: the records up to a number are gone; in their place stands the state that they added up to, as the leader has computed
//! it, so that replicas of different builds hold the same.
//!
//! The rows go with the next checkpoint, which is then to cut the whole log behind it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Decided, EffectId, TimerKey,
    keys::{self, EntityRow, Head, KeptRequest},
    shard::{AppliedEntry, Shard},
    tail::TailEntity,
};
use crate::{
    entity::{EntityKey, RequestId},
    history::Base,
    store::{Batch, StateStore, StoreError},
    trace::TraceContext,
};

/// An entity is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub(crate) entity: EntityKey,
    pub(crate) request: RequestId,
    pub(crate) at_ms: u64,
    pub(crate) asked_by: Option<Arc<str>>,
    pub(crate) reason: String,
    pub(crate) trace: TraceContext,
}

/// What is left of a forgotten entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) request: RequestId,
    pub(crate) at_ms: u64,
    pub(crate) asked_by: Option<Arc<str>>,
    pub(crate) reason: String,
    pub(crate) trace: TraceContext,
    /// The journal's position at which it was forgotten.
    pub(crate) position: u64,
}

impl Tombstone {
    /// What whoever asks for the entity is told.
    pub(crate) fn text(&self) -> String {
        let by = self.asked_by.as_deref().unwrap_or("nobody named");
        format!("forgotten at {} (unix ms) by {by}: {}", self.at_ms, self.reason)
    }
}

/// The beginning of an entity's history is let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trimmed {
    pub(crate) entity: EntityKey,
    /// Where it begins from now on.
    pub(crate) base: Base,
}

impl Shard {
    /// Forgets an entity, if there is anything of it.
    pub(super) fn forget(
        &mut self,
        record: Forgotten,
        index: u64,
        applied: &mut AppliedEntry,
    ) -> Result<bool, StoreError> {
        let key = record.entity.clone();
        self.digest(record.at_ms);
        let (head, forgotten) = self.standing(&key)?;
        if forgotten.is_some() || !self.has_anything_of(&key, head) {
            return Ok(false);
        }
        let effects: Vec<EffectId> = self.outbox_of(&key).map(|(id, _)| id.clone()).collect();
        for id in &effects {
            self.acknowledge(id);
        }
        let timers: Vec<TimerKey> = (self.timers().of(&key))
            .map(|(name, _)| TimerKey {
                entity: key.clone(),
                name: Arc::clone(name),
            })
            .collect();
        for timer in timers {
            self.timers.change(&timer, None);
            self.digest(keys::fnv(timer.name.as_bytes()));
            self.tail.timer_changed(timer.clone(), None, true);
            applied.timers.push((timer, None));
        }
        if let Some(change) = self.quarantine.forget(&key) {
            self.quarantine_changed(change);
        }
        self.digest(keys::fnv(key.id.as_bytes()) ^ head.seq);
        if head.seq > 0 {
            self.meta.entities -= 1;
        }
        let tombstone = Tombstone {
            request: record.request,
            at_ms: record.at_ms,
            asked_by: record.asked_by,
            reason: record.reason,
            trace: record.trace,
            position: index,
        };
        self.meta.forgotten_at = index;
        self.tail.forgets = true;
        self.tail.feed.retain(|fed| fed.record.entity != key);
        self.tail.entities.insert(
            key.clone(),
            TailEntity {
                head: head.forgotten(),
                forgotten: Some(Arc::new(tombstone)),
                ..TailEntity::default()
            },
        );
        applied.changed.push(key.clone());
        applied.forgotten.push(key);
        Ok(true)
    }

    /// Lets the beginning of an entity's history go.
    pub(super) fn trim(&mut self, record: Trimmed, len: usize) -> Result<bool, StoreError> {
        let Trimmed { entity, base } = record;
        let (head, forgotten) = self.standing(&entity)?;
        self.digest(base.seq ^ keys::fnv(entity.id.as_bytes()));
        if forgotten.is_some() || base.seq > head.seq {
            return Ok(false);
        }
        let in_tail = self.tail.entities.entry(entity).or_insert_with(|| TailEntity {
            head,
            ..TailEntity::default()
        });
        if in_tail.base.as_ref().is_some_and(|before| before.seq >= base.seq) {
            return Ok(false);
        }
        in_tail.base = Some(Arc::new(base));
        self.tail.bytes += len;
        Ok(true)
    }

    /// Whether there is anything of an entity that could be forgotten.
    pub(crate) fn has_anything_of(&self, key: &EntityKey, head: Head) -> bool {
        head.seq > 0 || self.quarantined().row(key).is_some()
    }

    /// What is left of a forgotten entity; `None` if it is none.
    pub(crate) fn tombstone(&self, key: &EntityKey) -> Result<Option<Arc<Tombstone>>, StoreError> {
        self.standing(key).map(|(_, forgotten)| forgotten)
    }
}

/// The rows of a forgotten entity: all go, and one that says so comes.
pub(super) fn erase(
    store: &dyn StateStore,
    key: &EntityKey,
    head: Head,
    tombstone: &Tombstone,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    for prefix in [keys::history_of(key), keys::requests_of(key)] {
        store.scan(&prefix, &prefix, &mut |row_key, _| {
            batch.remove(row_key.to_vec());
            Ok(true)
        })?;
    }
    batch.remove(keys::base(key));
    let row = EntityRow {
        head,
        forgotten: Some(Box::new(tombstone.clone())),
        ..EntityRow::default()
    };
    batch.put(keys::entity(key), keys::encode(&row));
    Ok(())
}

/// The rows of an entity whose history begins later from now on.
pub(super) fn trim_rows(
    store: &dyn StateStore,
    key: &EntityKey,
    row: &mut EntityRow,
    base: &Base,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    if stored_base(store, key)?.seq >= base.seq {
        return Ok(());
    }
    batch.put(keys::base(key), keys::encode(base));
    let prefix = keys::history_of(key);
    store.scan(&prefix, &prefix, &mut |row_key, value| {
        let mut records: Vec<Decided> = keys::decode(row_key, &value)?;
        if records.first().is_none_or(|first| first.seq > base.seq) {
            return Ok(false);
        }
        batch.remove(row_key.to_vec());
        records.retain(|record| record.seq > base.seq);
        if let Some(first) = records.first() {
            batch.put(keys::history(key, first.seq), keys::encode(&records));
        }
        Ok(true)
    })?;
    // A request whose record is gone cannot be answered any more.
    row.requests.retain(|request| request.seq > base.seq);
    while row.first_block < row.next_block {
        let block_key = keys::requests(key, row.first_block);
        let Some(bytes) = store.get(&block_key)? else { break };
        let block: Vec<KeptRequest> = keys::decode(&block_key, &bytes)?;
        if block.last().is_some_and(|last| last.seq > base.seq) {
            break;
        }
        batch.remove(block_key);
        row.first_block += 1;
    }
    if row.snapshot_version < base.version {
        row.snapshot.clone_from(&base.state);
        row.snapshot_version = base.version;
        row.snapshot_seq = base.seq + 1;
    }
    Ok(())
}

/// Where an entity's history begins, as the store has it.
pub(super) fn stored_base(store: &dyn StateStore, key: &EntityKey) -> Result<Base, StoreError> {
    let row_key = keys::base(key);
    match store.get(&row_key)? {
        Some(bytes) => keys::decode(&row_key, &bytes),
        None => Ok(Base::default()),
    }
}

/// Rows of an entity that hold anything of it, as the store has them: a row that only says that it is forgotten is none.
pub(crate) fn rows_of(store: &dyn StateStore, key: &EntityKey) -> Result<u64, StoreError> {
    let mut rows = 0;
    let row = super::shard::read_row(store, key)?;
    rows += u64::from(row.is_some_and(|row| row.forgotten.is_none() || row.snapshot.is_some()));
    rows += u64::from(store.get(&keys::base(key))?.is_some()) + u64::from(store.get(&keys::quarantine(key))?.is_some());
    let prefixes = [
        keys::history_of(key),
        keys::requests_of(key),
        keys::timers_of(key),
        keys::outbox_of(key),
    ];
    for prefix in prefixes {
        store.scan(&prefix, &prefix, &mut |_, _| {
            rows += 1;
            Ok(true)
        })?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
