//! Bringing an entity to life: what the store and the tail hold of it. In two steps, so that the store, which is slow, is read
//! after letting go of the shard.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Decided, TakenEffects, TimerRow,
    checkpoint::{kept_request, note_effect},
    keys::{self, Head, KeptRequest},
    quarantine::QuarantineRow,
    shard::{read_row, stored_history},
};
use crate::{
    entity::EntityKey,
    store::{StateStore, StoreError},
};

/// What is needed to bring an entity to life.
#[derive(Debug)]
pub(crate) struct LoadedEntity {
    pub(crate) head: Head,
    pub(crate) snapshot: Option<Bytes>,
    /// Events after the snapshot, in order.
    pub(crate) events: Vec<Bytes>,
    /// Every client's request whose reply is kept,
    pub(crate) requests: Vec<KeptRequest>,
    /// Its timers, as they are now.
    pub(crate) timers: BTreeMap<Arc<str>, Arc<TimerRow>>,
    /// and every effect of another entity that may come again.
    pub(crate) taken: TakenEffects,
    /// The command for which it is quarantined.
    pub(crate) poison: Option<Arc<QuarantineRow>>,
}

/// What of an entity is not in the store yet, and the store that holds the rest: all that [`Loading::finish`] needs. The store
/// is slow, so it is read after letting go of the shard.
pub(crate) struct Loading {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) key: EntityKey,
    /// The records that may be missing in the store, in order.
    pub(super) tail: Vec<Arc<Decided>>,
    /// They are all that there is.
    pub(super) is_whole: bool,
}

impl Loading {
    /// Whether there is nothing to be read from the store.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_whole
    }

    /// Reads the rest, but for the timers and the quarantine.
    pub(crate) fn finish(self) -> Result<LoadedEntity, StoreError> {
        let Self {
            store,
            key,
            tail,
            is_whole,
        } = self;
        let row = if is_whole { None } else { read_row(&*store, &key)? }.unwrap_or_default();
        let mut loaded = LoadedEntity {
            head: row.head,
            snapshot: row.snapshot.clone(),
            events: Vec::new(),
            requests: Vec::new(),
            taken: TakenEffects::restore(&row.senders, &row.effects),
            timers: BTreeMap::new(),
            poison: None,
        };
        if row.snapshot_version < row.head.version {
            let history = stored_history(&*store, &key, row.snapshot_seq)?;
            // A checkpoint that ended in between may have written more.
            for record in history.into_iter().filter(|record| record.seq <= row.head.seq) {
                loaded.events.extend(record.events);
            }
        }
        for block in row.first_block..row.next_block {
            let block_key = keys::requests(&key, block);
            if let Some(bytes) = store.get(&block_key)? {
                loaded
                    .requests
                    .extend(keys::decode::<Vec<KeptRequest>>(&block_key, &bytes)?);
            }
        }
        loaded.requests.extend(row.requests);
        for record in tail.iter().filter(|record| record.seq > row.head.seq) {
            loaded.events.extend(record.events.iter().cloned());
            loaded.requests.extend(kept_request(record));
            note_effect(&mut loaded.taken, record);
            loaded.head = Head {
                seq: record.seq,
                version: loaded.head.version + record.events.len() as u64,
                activation: record.activation,
            };
        }
        Ok(loaded)
    }
}
