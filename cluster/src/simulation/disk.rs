//! A node's device: the log's twin in memory, the state stores by generation, and what a crash leaves of them.

use std::{collections::BTreeMap, sync::Arc};

use super::{damage::Damage, rng::Rng};
use crate::{
    journal::keys::{self, Meta},
    replication::{GroupWrite, RaftId, driver::Write},
    store::{log::StoredGroup, memory::MemoryStore},
};

/// What outlives a crash, and what a crash may take.
#[derive(Default)]
pub(super) struct Disk {
    /// The log, as synced.
    pub(super) groups: BTreeMap<u32, StoredGroup>,
    /// Writes that the device holds back although it said otherwise; only with a planted bug.
    pub(super) cache: Vec<Write>,
    pub(super) stores: BTreeMap<(u32, u64), Arc<MemoryStore>>,
    /// What the node's identity says: its replicas, and the map that it has seen.
    pub(super) held: BTreeMap<u32, RaftId>,
    pub(super) seen: usize,
    /// Snapshots for peers: position and rows.
    pub(super) snapshots: BTreeMap<u32, (u64, Arc<Rows>)>,
    /// The next sync of the log fails.
    pub(super) fails_next_sync: bool,
    /// Nothing can be written before this time.
    pub(super) full_until: u64,
    /// Until when everything takes so many times as long.
    pub(super) slow: (u64, u64),
    pub(super) damage: Damage,
    /// Its state stores serve what is damaged; only with a planted bug.
    pub(super) is_credulous: bool,
}

/// The rows of a snapshot's file.
pub(super) type Rows = Vec<Row>;

/// A row of a store, with the sum of its value.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: bytes::Bytes,
    pub(super) sum: u32,
}

impl Disk {
    /// Brings a write to the device; says what is wrong with it.
    pub(super) fn persist(&mut self, write: &Write) -> Result<(), String> {
        for (group, part) in &write.groups {
            if part.remove {
                self.groups.remove(group);
                continue;
            }
            append(self.groups.entry(*group).or_default(), part)
                .map_err(|reason| format!("group {group}: {reason}"))?;
        }
        Ok(())
    }

    /// What the power failure leaves: of the writes under way the first few, of each store the last sync or more.
    pub(super) fn crash(&mut self, rng: &mut Rng, under_way: &[Write]) -> Result<(), String> {
        if !self.cache.is_empty() {
            self.cache.clear();
        } else if !under_way.is_empty() {
            let kept = rng.below(under_way.len() as u64 + 1) as usize;
            for write in &under_way[..kept] {
                self.persist(write)?;
            }
        }
        for store in self.stores.values() {
            if rng.chance(500) {
                store.crash();
            } else {
                store.sync();
            }
        }
        Ok(())
    }

    pub(super) fn sync_stores(&self) {
        self.stores.values().for_each(|store| store.sync());
    }

    pub(super) fn store(&mut self, group: u32, generation: u64) -> Arc<MemoryStore> {
        let is_credulous = self.is_credulous;
        let new = || {
            Arc::new(if is_credulous {
                MemoryStore::credulous()
            } else {
                MemoryStore::default()
            })
        };
        Arc::clone(self.stores.entry((group, generation)).or_insert_with(new))
    }

    /// How much longer the device takes just now than usual.
    pub(super) fn slower(&self, now: u64) -> u64 {
        if now < self.slow.0 { self.slow.1 } else { 1 }
    }

    /// Nothing is wrong with the device any more, but for what was damaged.
    pub(super) fn calm(&mut self) {
        self.fails_next_sync = false;
        self.full_until = 0;
        self.slow = (0, 0);
    }

    /// Where a store stands on the device.
    pub(super) fn synced_meta(&self, group: u32, generation: u64) -> Option<Meta> {
        let store = self.stores.get(&(group, generation))?;
        keys::decode(keys::META, &store.synced_row(keys::META)?).ok()
    }

    /// The position up to which a store's state is on the device.
    pub(super) fn synced_position(&self, group: u32, generation: u64) -> u64 {
        self.synced_meta(group, generation).map_or(0, |meta| meta.applied.0)
    }
}

/// What `store::log::Log::append` does with one part.
fn append(stored: &mut StoredGroup, part: &GroupWrite) -> Result<(), String> {
    if let Some((index, term, generation)) = part.install {
        stored.entries.clear();
        stored.cut = (index, term);
        stored.generation = generation;
    }
    if let Some(cut) = part.cut {
        stored.cut = cut;
        stored.entries.retain(|entry| entry.index > cut.0);
    }
    if let Some(hard_state) = part.hard_state {
        stored.hard_state = hard_state;
    }
    if let Some(first) = part.entries.first() {
        stored.entries.retain(|entry| entry.index < first.index);
        stored.entries.extend_from_slice(&part.entries);
    }
    for (entry, index) in stored.entries.iter().zip(stored.cut.0 + 1..) {
        if entry.index != index {
            return Err(format!("the log has {} where {index} belongs", entry.index));
        }
    }
    Ok(())
}
