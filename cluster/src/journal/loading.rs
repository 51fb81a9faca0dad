//! Bringing an entity to life: what the store and the tail hold of it. In two steps, so that the store, which is slow, is read
//! after letting go of the shard.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Decided, TakenEffects, TimerRow, Tombstone,
    checkpoint::{kept_request, note_effect},
    history::stored_history,
    keys::{self, EntityRow, Head, KeptRequest},
    quarantine::QuarantineRow,
    shard::read_row,
};
use crate::{
    entity::EntityKey,
    history::Base,
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
    /// It is forgotten: nothing else is left of it but the head.
    pub(crate) forgotten: Option<Arc<Tombstone>>,
}

impl LoadedEntity {
    fn forgotten(head: Head, tombstone: Arc<Tombstone>) -> Self {
        Self {
            head,
            snapshot: None,
            events: Vec::new(),
            requests: Vec::new(),
            timers: BTreeMap::new(),
            taken: TakenEffects::default(),
            poison: None,
            forgotten: Some(tombstone),
        }
    }
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
    /// Where its history begins since the last checkpoint.
    pub(super) base: Option<Arc<Base>>,
    /// It was forgotten since the last checkpoint.
    pub(super) forgotten: Option<(Head, Arc<Tombstone>)>,
}

impl Loading {
    /// Whether there is nothing to be read from the store.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_whole
    }

    /// The store that holds the rest.
    pub(crate) fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// The entity's row in the store; `None` where all there is of it is in memory.
    pub(super) fn row(&self) -> Result<Option<EntityRow>, StoreError> {
        if self.is_whole {
            return Ok(None);
        }
        read_row(&*self.store, &self.key)
    }

    /// The first record that answered an effect of another entity which may come again; the largest number where there is none.
    pub(crate) fn first_taken_effect(&self) -> Result<u64, StoreError> {
        let row = self.row()?.unwrap_or_default();
        let mut taken = TakenEffects::restore(&row.senders, &row.effects);
        let tail = self.tail.iter().filter(|record| record.seq > row.head.seq);
        tail.for_each(|record| note_effect(&mut taken, record));
        let (_, effects) = taken.stored();
        Ok(effects.iter().map(|effect| effect.seq).min().unwrap_or(u64::MAX))
    }

    /// Reads what the state follows from, and nothing else: for who only looks at the entity. As it was when this was begun,
    /// or as a checkpoint made since then has it, which is newer.
    pub(crate) fn look(self) -> Result<LoadedEntity, StoreError> {
        if let Some((head, tombstone)) = self.forgotten {
            return Ok(LoadedEntity::forgotten(head, tombstone));
        }
        let row = self.row()?.unwrap_or_default();
        if let Some(tombstone) = row.forgotten {
            return Ok(LoadedEntity::forgotten(row.head, Arc::new(*tombstone)));
        }
        let mut loaded = LoadedEntity {
            head: row.head,
            snapshot: row.snapshot,
            events: Vec::new(),
            requests: Vec::new(),
            taken: TakenEffects::default(),
            timers: BTreeMap::new(),
            poison: None,
            forgotten: None,
        };
        if row.snapshot_version < row.head.version {
            loaded.head = Head {
                seq: row.snapshot_seq.saturating_sub(1),
                version: row.snapshot_version,
                ..row.head
            };
            for record in stored_history(&*self.store, &self.key, row.snapshot_seq)? {
                follow(&mut loaded, &record);
            }
        }
        for record in &self.tail {
            follow(&mut loaded, record);
        }
        Ok(loaded)
    }

    /// Reads the rest, but for the timers and the quarantine.
    pub(crate) fn finish(self) -> Result<LoadedEntity, StoreError> {
        let Self {
            store,
            key,
            tail,
            is_whole,
            forgotten,
            ..
        } = self;
        if let Some((head, tombstone)) = forgotten {
            return Ok(LoadedEntity::forgotten(head, tombstone));
        }
        let row = if is_whole { None } else { read_row(&*store, &key)? }.unwrap_or_default();
        if let Some(tombstone) = row.forgotten {
            return Ok(LoadedEntity::forgotten(row.head, Arc::new(*tombstone)));
        }
        let mut loaded = LoadedEntity {
            head: row.head,
            snapshot: row.snapshot.clone(),
            events: Vec::new(),
            requests: Vec::new(),
            taken: TakenEffects::restore(&row.senders, &row.effects),
            timers: BTreeMap::new(),
            poison: None,
            forgotten: None,
        };
        if row.snapshot_version < row.head.version {
            let history = stored_history(&*store, &key, row.snapshot_seq)?;
            // A checkpoint that ended in between may have written more.
            for record in history.into_iter().filter(|record| record.seq <= row.head.seq) {
                loaded.events.extend(record.events);
            }
        }
        if row.first_block < row.next_block {
            let (first, end) = (
                keys::requests(&key, row.first_block),
                keys::requests(&key, row.next_block),
            );
            store.scan(&keys::requests_of(&key), &first, &mut |block_key, bytes| {
                // What a later checkpoint has put there was still in the row.
                if block_key >= &end[..] {
                    return Ok(false);
                }
                loaded
                    .requests
                    .extend(keys::decode::<Vec<KeptRequest>>(block_key, &bytes)?);
                Ok(true)
            })?;
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

/// Takes a record that is the next one; others are part of what was loaded already.
fn follow(loaded: &mut LoadedEntity, record: &Decided) {
    if record.seq == loaded.head.seq + 1 {
        loaded.events.extend(record.events.iter().cloned());
        loaded.head = Head {
            seq: record.seq,
            version: loaded.head.version + record.events.len() as u64,
            activation: record.activation,
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        entity::{Registry, RequestId},
        journal::{Record, Shard, checkpoint},
        replication::batch,
        store::memory::MemoryStore,
        trace::TraceContext,
    };

    fn key() -> EntityKey {
        EntityKey::new("stock", "tea").expect("a key")
    }

    fn apply(shard: &mut Shard, seqs: impl Iterator<Item = u64>) {
        for seq in seqs {
            let record = Record::Decided(Decided {
                entity: key(),
                seq,
                activation: 1,
                base: 0,
                request: RequestId::new(&format!("r{seq}")).expect("a request id"),
                at_ms: 0,
                trace: TraceContext::default(),
                command: Bytes::new(),
                reply: Ok(Bytes::new()),
                events: vec![Bytes::from(seq.to_string())],
                effects: Vec::new(),
                acknowledges: Vec::new(),
                fires: None,
                lift: None,
                fingerprint: 0,
                chain: None,
                origin: None,
                asked_by: None,
                keeps_effects: false,
            });
            let index = shard.meta().applied.0 + 1;
            let data = batch::pack([record.encode()].iter());
            shard.apply(index, 1, data, None).expect("applied");
        }
    }

    fn seen(loading: Loading) -> (u64, usize) {
        let loaded = loading.look().expect("readable");
        (loaded.head.version, loaded.events.len())
    }

    /// No kind is known here, so that no state can be made and the events come from the history.
    fn checkpoint_of(shard: &mut Shard) {
        let (tail, meta) = shard.freeze();
        let store = Arc::clone(shard.store());
        let batch = checkpoint::batch(&*store, &Registry::new(), &tail, &meta, u64::MAX).expect("a batch");
        store.write(batch).expect("written");
        shard.thaw(&meta);
    }

    #[test]
    fn an_entity_is_seen_whole_wherever_its_records_are() {
        let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
        assert_eq!(seen(shard.begin_load(&key())), (0, 0));
        apply(&mut shard, 1..=3);
        assert_eq!(seen(shard.begin_load(&key())), (3, 3), "all in the tail");
        checkpoint_of(&mut shard);
        assert_eq!(seen(shard.begin_load(&key())), (3, 3), "all in the store");
        apply(&mut shard, 4..=5);
        assert_eq!(seen(shard.begin_load(&key())), (5, 5), "in both");
    }

    /// The parts were taken, and a checkpoint ended before the store was read.
    #[test]
    fn a_checkpoint_in_between_repeats_nothing() {
        let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
        apply(&mut shard, 1..=2);
        checkpoint_of(&mut shard);
        apply(&mut shard, 3..=4);
        let loading = shard.begin_load(&key());
        checkpoint_of(&mut shard);
        assert_eq!(seen(loading), (4, 4));
    }
}
