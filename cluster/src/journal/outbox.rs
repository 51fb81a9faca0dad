//! The effects of a shard's entities that are open: recorded, and not acknowledged yet.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{EffectId, Origin, OutboxRow, keys, senders};
use crate::{
    entity::{EntityKey, decision::EffectRequest},
    store::{StateStore, StoreError},
};

/// The open effects of one shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    rows: BTreeMap<EffectId, Arc<OutboxRow>>,
    /// For each entity that is sent something: at which positions its open effects came about, and how many there.
    open_to: HashMap<EntityKey, BTreeMap<u64, u32>>,
}

impl Outbox {
    /// The effects as the store holds them.
    pub(super) fn open(store: &dyn StateStore) -> Result<Self, StoreError> {
        let mut outbox = Self::default();
        store.scan(keys::OUTBOX, keys::OUTBOX, &mut |key, value| {
            let (id, row): (EffectId, OutboxRow) = keys::decode(key, &value)?;
            outbox.insert(id, Arc::new(row));
            Ok(true)
        })?;
        Ok(outbox)
    }

    pub(super) fn insert(&mut self, id: EffectId, row: Arc<OutboxRow>) {
        if let Some(target) = target_of(&row) {
            let open = self.open_to.entry(target.clone()).or_default();
            *open.entry(row.born).or_default() += 1;
        }
        self.rows.insert(id, row);
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, id: &EffectId) -> bool {
        let Some(row) = self.rows.remove(id) else {
            return false;
        };
        if let Some(target) = target_of(&row)
            && let Some(open) = self.open_to.get_mut(target)
            && let Some(count) = open.get_mut(&row.born)
        {
            *count -= 1;
            if *count == 0 {
                open.remove(&row.born);
            }
            if open.is_empty() {
                self.open_to.remove(target);
            }
        }
        true
    }

    pub(super) fn rows(&self) -> &BTreeMap<EffectId, Arc<OutboxRow>> {
        &self.rows
    }

    /// Those of one entity.
    pub(super) fn of<'a>(&'a self, key: &'a EntityKey) -> impl Iterator<Item = (&'a EffectId, &'a Arc<OutboxRow>)> {
        let first = EffectId {
            entity: key.clone(),
            seq: 0,
            place: 0,
        };
        self.rows.range(first..).take_while(move |(id, _)| id.entity == *key)
    }

    /// What goes with an open effect to the entity that it is sent to. `shard` is its sender's, whose next position is `next`.
    pub(super) fn origin(&self, shard: u32, row: &OutboxRow, next: u64) -> Option<Origin> {
        let open = self.open_to.get(target_of(row)?)?;
        let (floor, holes) = senders::summary(open.keys().copied(), next);
        Some(Origin {
            shard,
            born: row.born,
            floor,
            holes,
        })
    }
}

/// The entity that an effect goes to, if it is one whose place in the journal is known.
fn target_of(row: &OutboxRow) -> Option<&EntityKey> {
    match &row.effect.request {
        EffectRequest::Command { to, .. } if row.born > 0 => Some(to),
        _ => None,
    }
}
