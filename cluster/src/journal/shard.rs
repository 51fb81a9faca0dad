//! The state of a shard: applies records in order, answers what is known of an entity.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Decided, EffectId, Firing, Origin, OutboxRow, Record, TimerKey, TimerRow, Tombstone,
    feed::{Fed, Position, kept::Kept},
    keys::{self, EntityRow, Head, Meta},
    loading::Loading,
    outbox::Outbox,
    quarantine::{Quarantine, QuarantineRow, Quarantined, RowChange},
    tail::{Tail, TailEntity},
    timers::{self, Timers},
};
use crate::{
    entity::{EntityKey, RequestId, decision::EffectRequest},
    replication::{Members, batch},
    store::{StateStore, StoreError},
};

/// Positions for which a replica remembers its digest, so that replicas can be compared while they move.
const RECENT_DIGESTS_LEN: usize = 256;

pub(super) use super::history::stored_history;

/// What applying an entry did.
#[derive(Debug, Default)]
pub(crate) struct AppliedEntry {
    /// For each record, whether it was taken.
    pub(crate) taken: Vec<bool>,
    /// Entities that have new events.
    pub(crate) changed: Vec<EntityKey>,
    /// Effects that are now to be carried out.
    pub(crate) effects: Vec<EffectId>,
    /// Timers that changed, with their next firing; none for those that are gone.
    pub(crate) timers: Vec<(TimerKey, Option<Firing>)>,
    /// Entities that are forgotten from now on.
    pub(crate) forgotten: Vec<EntityKey>,
}

/// The state of one shard on one replica.
pub(crate) struct Shard {
    store: Arc<dyn StateStore>,
    pub(super) meta: Meta,
    pub(super) tail: Tail,
    /// The tail that a checkpoint is writing just now.
    frozen: Option<Arc<Tail>>,
    pub(super) kept: Kept,
    outbox: Outbox,
    pub(super) timers: Timers,
    pub(super) quarantine: Quarantine,
    recent: VecDeque<(u64, u64)>,
    checkpoint: u64,
    /// The members at the last checkpoint: those that a restart begins with.
    durable_members: Members,
}

impl Shard {
    /// The shard as the store holds it.
    pub(crate) fn open(store: Arc<dyn StateStore>) -> Result<Self, StoreError> {
        let meta: Meta = match store.get(keys::META)? {
            Some(bytes) => keys::decode(keys::META, &bytes)?,
            None => Meta::default(),
        };
        let mut timers = Timers::default();
        store.scan(keys::TIMERS, keys::TIMERS, &mut |key, value| {
            let (timer, row): (TimerKey, TimerRow) = keys::decode(key, &value)?;
            timers.change(&timer, Some(Arc::new(row)));
            Ok(true)
        })?;
        let mut quarantine = Quarantine::default();
        store.scan(keys::QUARANTINE, keys::QUARANTINE, &mut |key, value| {
            let (entity, row): (EntityKey, QuarantineRow) = keys::decode(key, &value)?;
            quarantine.insert(entity, row);
            Ok(true)
        })?;
        Ok(Self {
            outbox: Outbox::open(&*store)?,
            store,
            checkpoint: meta.applied.0,
            kept: Kept::new(meta.applied.0),
            durable_members: meta.members.clone(),
            meta,
            tail: Tail::default(),
            frozen: None,
            timers,
            quarantine,
            recent: VecDeque::new(),
        })
    }

    /// Applies a committed entry.
    pub(crate) fn apply(
        &mut self,
        index: u64,
        term: u64,
        data: Bytes,
        members: Option<Members>,
    ) -> Result<AppliedEntry, StoreError> {
        assert!(
            index == self.meta.applied.0 + 1,
            "entries are applied in order: {index} after {}",
            self.meta.applied.0
        );
        let mut applied = AppliedEntry::default();
        for (place, record) in (0..).zip(batch::unpack(data)) {
            let record = record
                .ok_or_else(|| "cut short".to_owned())
                .and_then(|bytes| Record::decode(&bytes).map(|record| (bytes.len(), record)))
                .map_err(|reason| StoreError::Failed(format!("the journal's entry {index} is unreadable: {reason}")))?;
            let taken = self.apply_record(Position { index, place }, record, &mut applied)?;
            applied.taken.push(taken);
        }
        if let Some(members) = members {
            self.meta.members = members;
        }
        self.meta.applied = (index, term);
        self.tail.entries += 1;
        self.digest(index ^ term << 40);
        self.recent.push_back((index, self.meta.digest));
        if self.recent.len() > RECENT_DIGESTS_LEN {
            self.recent.pop_front();
        }
        Ok(applied)
    }

    fn apply_record(
        &mut self,
        position: Position,
        (len, record): (usize, Record),
        applied: &mut AppliedEntry,
    ) -> Result<bool, StoreError> {
        match record {
            Record::Acknowledged(effects) => {
                for id in &effects {
                    self.acknowledge(id);
                }
                Ok(true)
            }
            Record::Marked(mark) => {
                if self.meta.mark == 0 {
                    self.meta.mark = mark;
                    self.digest(mark);
                }
                Ok(true)
            }
            Record::Decided(decided) => {
                let (head, forgotten) = self.standing(&decided.entity)?;
                let follows = decided.activation == head.activation || decided.base == head.seq;
                // The activation knows its own timers; should it be wrong, a firing that is not to come is no firing.
                let fired = match &decided.fires {
                    Some(firing) => self.awaited(&decided.entity, firing).map(Some),
                    None => Some(None),
                };
                // What is quarantined decides nothing but what lifts its quarantine.
                let is_let_in = self.quarantine.poison(&decided.entity).is_some() == decided.lift.is_some();
                let is_next = decided.seq == head.seq + 1 && follows && is_let_in && forgotten.is_none();
                let Some(fired) = fired.filter(|_| is_next) else {
                    self.digest(decided.seq);
                    return Ok(false);
                };
                self.change_timers(&decided, fired.as_deref(), applied);
                self.take(position, decided, head, len, applied);
                Ok(true)
            }
            Record::Quarantined(quarantined) => self.quarantine(*quarantined, position.index, len),
            Record::Forgotten(forgotten) => self.forget(*forgotten, position.index, applied),
            Record::Trimmed(trimmed) => self.trim(*trimmed, len),
        }
    }

    fn quarantine(&mut self, record: Quarantined, index: u64, len: usize) -> Result<bool, StoreError> {
        let (head, forgotten) = self.standing(&record.entity)?;
        self.digest(record.seq ^ record.at_ms);
        if forgotten.is_some() {
            return Ok(false);
        }
        let Some(change) = self.quarantine.apply(record, index, head.seq) else {
            return Ok(false);
        };
        self.quarantine_changed(change);
        self.tail.bytes += len;
        Ok(true)
    }

    pub(super) fn quarantine_changed(&mut self, (key, row): RowChange) {
        self.digest(keys::fnv(key.id.as_bytes()) ^ u64::from(row.as_ref().is_some_and(|row| row.poison.is_some())));
        self.tail.quarantine.insert(key, row);
    }

    fn take(&mut self, position: Position, decided: Decided, head: Head, len: usize, applied: &mut AppliedEntry) {
        for id in &decided.acknowledges {
            self.acknowledge(id);
        }
        for (place, effect) in decided.effects.iter().enumerate() {
            if let EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } = effect.request {
                continue;
            }
            let id = EffectId {
                entity: decided.entity.clone(),
                seq: decided.seq,
                place: place as u32,
            };
            let row = Arc::new(OutboxRow {
                effect: effect.clone(),
                at_ms: decided.at_ms,
                trace: decided.trace,
                born: position.index,
                chain: decided.chain.clone(),
            });
            self.outbox.insert(id.clone(), Arc::clone(&row));
            self.tail.effect_came(id.clone(), row);
            applied.effects.push(id);
        }
        if let Some(lift) = &decided.lift {
            for change in self
                .quarantine
                .lift(&decided.entity, lift, &decided.request, decided.seq)
            {
                self.quarantine_changed(change);
            }
        }
        self.digest(keys::fnv(decided.entity.id.as_bytes()) ^ decided.seq);
        for event in &decided.events {
            self.digest(u64::from(crc32fast::hash(event)));
        }
        if !decided.events.is_empty() {
            applied.changed.push(decided.entity.clone());
        }
        if head.seq == 0 {
            self.meta.entities += 1;
        }
        let entity = self.tail.entities.entry(decided.entity.clone()).or_default();
        entity.is_new |= head.seq == 0;
        entity.head = Head {
            seq: decided.seq,
            version: head.version + decided.events.len() as u64,
            activation: decided.activation,
        };
        let record = Arc::new(decided);
        if !record.events.is_empty() {
            self.tail.feed.push(Fed {
                position,
                first_version: head.version + 1,
                record: Arc::clone(&record),
            });
        }
        entity.records.push(record);
        self.tail.bytes += len;
    }

    /// The timer whose firing is to come, if it is that one.
    fn awaited(&self, entity: &EntityKey, firing: &Firing) -> Option<Arc<TimerRow>> {
        let key = TimerKey {
            entity: entity.clone(),
            name: Arc::clone(&firing.name),
        };
        self.timers.get(&key).filter(|row| row.awaits(firing)).cloned()
    }

    fn change_timers(&mut self, decided: &Decided, fired: Option<&TimerRow>, applied: &mut AppliedEntry) {
        for (name, row) in timers::changes(decided, fired) {
            let entity = decided.entity.clone();
            let key = TimerKey { entity, name };
            let firing = row.as_ref().map(|row| row.firing(&key.name));
            let digest = firing.as_ref().map_or(0, |firing| firing.due_ms ^ firing.seq << 32);
            let before = self.timers.change(&key, row.clone());
            if before.is_some() || row.is_some() {
                self.digest(digest ^ keys::fnv(key.name.as_bytes()));
                self.tail.timer_changed(key.clone(), row, before.is_some());
                applied.timers.push((key, firing));
            }
        }
    }

    pub(super) fn acknowledge(&mut self, id: &EffectId) {
        if self.outbox.remove(id) {
            self.tail.effect_went(id);
            self.digest(id.seq << 8 ^ u64::from(id.place) ^ keys::fnv(id.entity.id.as_bytes()));
        }
    }

    pub(super) fn digest(&mut self, value: u64) {
        let mixed = (self.meta.digest ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.meta.digest = mixed ^ (mixed >> 29);
    }

    /// How far an entity has come.
    pub(crate) fn head(&self, key: &EntityKey) -> Result<Head, StoreError> {
        self.standing(key).map(|(head, _)| head)
    }

    /// How far an entity has come, and that it is forgotten if it is.
    pub(super) fn standing(&self, key: &EntityKey) -> Result<(Head, Option<Arc<Tombstone>>), StoreError> {
        if let Some(entity) = self.tails().find_map(|tail| tail.entities.get(key)) {
            return Ok((entity.head, entity.forgotten.clone()));
        }
        let row_key = keys::entity(key);
        let Some(row) = self.store.get(&row_key)? else {
            return Ok((Head::default(), None));
        };
        let head = keys::decode_head(&row_key, &row)?;
        // Nothing else of the row is read for the others.
        let forgotten = if head.is_of_forgotten() {
            keys::decode::<EntityRow>(&row_key, &row)?.forgotten
        } else {
            None
        };
        Ok((head, forgotten.map(|tombstone| Arc::new(*tombstone))))
    }

    /// The tails, the newest first.
    pub(super) fn tails(&self) -> impl DoubleEndedIterator<Item = &Tail> {
        std::iter::once(&self.tail).chain(self.frozen.as_deref())
    }

    /// The records of an entity that are not in the store yet, in order.
    pub(super) fn tail_records<'a>(&'a self, key: &'a EntityKey) -> impl Iterator<Item = &'a Arc<Decided>> {
        // What is being written of one that was forgotten meanwhile goes with the next checkpoint.
        let is_forgotten =
            (self.tails().filter_map(|tail| tail.entities.get(key))).any(|entity| entity.forgotten.is_some());
        self.tails()
            .filter(move |_| !is_forgotten)
            .rev()
            .filter_map(|tail| tail.entities.get(key))
            .flat_map(|entity| &entity.records)
    }

    /// What is needed to bring an entity to life.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn load(&self, key: &EntityKey) -> Result<super::LoadedEntity, StoreError> {
        let mut loaded = self.begin_load(key).finish()?;
        loaded.timers = self.timers_of(key);
        loaded.poison = self.poison_of(key);
        Ok(loaded)
    }

    /// The command for which an entity is quarantined.
    pub(crate) fn poison_of(&self, key: &EntityKey) -> Option<Arc<QuarantineRow>> {
        self.quarantine.row(key).filter(|row| row.poison.is_some()).cloned()
    }

    /// An entity's timers. They are to be taken after the rest was loaded: should there be more than that by then, nothing that
    /// the entity decides on it is taken.
    pub(crate) fn timers_of(&self, key: &EntityKey) -> BTreeMap<Arc<str>, Arc<TimerRow>> {
        (self.timers.of(key))
            .map(|(name, row)| (Arc::clone(name), Arc::clone(row)))
            .collect()
    }

    /// The same in two steps, of which only the first needs the shard.
    pub(crate) fn begin_load(&self, key: &EntityKey) -> Loading {
        // A tail that has seen the entity's first record has all of it.
        let whole = self
            .tails()
            .filter_map(|tail| tail.entities.get(key))
            .any(|entity| entity.is_new);
        let in_tails = || self.tails().filter_map(|tail| tail.entities.get(key));
        let forgotten =
            in_tails().find_map(|entity| entity.forgotten.clone().map(|tombstone| (entity.head, tombstone)));
        Loading {
            store: Arc::clone(&self.store),
            key: key.clone(),
            tail: self.tail_records(key).cloned().collect(),
            is_whole: whole || forgotten.is_some(),
            base: in_tails().find_map(|entity| entity.base.clone()),
            forgotten,
        }
    }

    /// An open effect, and what goes with it to the entity that it is sent to. `shard` is this shard's number.
    pub(crate) fn origin_of(&self, shard: u32, row: &OutboxRow) -> Option<Origin> {
        self.outbox.origin(shard, row, self.meta.applied.0 + 1)
    }

    /// One record of an entity, if it is that of this request.
    pub(crate) fn record_of(
        &self,
        key: &EntityKey,
        seq: u64,
        request: &RequestId,
    ) -> Result<Option<Arc<Decided>>, StoreError> {
        if let Some(record) = self.tail_records(key).find(|record| record.seq == seq) {
            return Ok((record.request == *request).then(|| Arc::clone(record)));
        }
        let Some((row_key, bytes)) = self.store.last_at(&keys::history_of(key), &keys::history(key, seq))? else {
            return Ok(None);
        };
        let records: Vec<Decided> = keys::decode(&row_key, &bytes)?;
        Ok(records
            .into_iter()
            .find(|record| record.seq == seq && record.request == *request)
            .map(Arc::new))
    }

    /// The records of an entity from `seq` on, as far as they are not in the store; and the store that holds the rest. The
    /// store is slow: whoever shares the shard reads it after letting go.
    pub(crate) fn history_parts(&self, key: &EntityKey, seq: u64) -> (Arc<dyn StateStore>, Vec<Arc<Decided>>) {
        let tail = self
            .tail_records(key)
            .filter(|record| record.seq >= seq)
            .cloned()
            .collect();
        (Arc::clone(&self.store), tail)
    }

    /// The records of an entity from `seq` on.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn history(&self, key: &EntityKey, seq: u64) -> Result<Vec<Arc<Decided>>, StoreError> {
        let (store, tail) = self.history_parts(key, seq);
        super::history::whole_history(&*store, tail, key, seq)
    }

    /// Up to `limit` entities of a kind (all kinds if it is empty) after `after`, in key order.
    pub(crate) fn keys_after(
        &self,
        kind: &str,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<Vec<EntityKey>, StoreError> {
        let prefix = if kind.is_empty() {
            keys::ENTITIES.to_vec()
        } else {
            keys::entities_of_kind(kind)
        };
        let mut found: BTreeSet<EntityKey> = self
            .tails()
            .flat_map(|tail| tail.entities.keys())
            .filter(|key| (kind.is_empty() || *key.kind == *kind) && after.is_none_or(|after| *key > after))
            .cloned()
            .collect();
        let from = after.map(keys::entity).unwrap_or_default();
        let mut stored = 0;
        self.store.scan(&prefix, &from, &mut |row_key, _| {
            let Some(key) = keys::entity_of(row_key) else {
                return Err(StoreError::damaged(row_key, &"no entity key"));
            };
            if after.is_none_or(|after| key > *after) {
                found.insert(key);
                stored += 1;
            }
            Ok(stored < limit)
        })?;
        Ok(found.into_iter().take(limit).collect())
    }

    pub(crate) fn outbox(&self) -> &BTreeMap<EffectId, Arc<OutboxRow>> {
        self.outbox.rows()
    }

    /// The open effects of one entity.
    pub(crate) fn outbox_of<'a>(
        &'a self,
        key: &'a EntityKey,
    ) -> impl Iterator<Item = (&'a EffectId, &'a Arc<OutboxRow>)> {
        self.outbox.of(key)
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Entities that are or were quarantined.
    pub(crate) fn quarantined(&self) -> &Quarantine {
        &self.quarantine
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The digests of the latest positions.
    pub(crate) fn recent_digests(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.recent
            .iter()
            .copied()
            .chain(std::iter::once((self.meta.applied.0, self.meta.digest)))
    }

    /// The position of the last checkpoint that reached the device.
    pub(crate) fn checkpoint_index(&self) -> u64 {
        self.checkpoint
    }

    /// Bytes of the tail.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail.bytes
    }

    /// Whether a restart would forget a change of members: others wait for this replica to know it for good.
    pub(crate) fn is_membership_dirty(&self) -> bool {
        self.durable_members != self.meta.members
    }

    /// Whether the tail has forgotten an entity.
    pub(crate) fn forgets(&self) -> bool {
        self.tail.forgets
    }

    /// Whether a checkpoint would move anything.
    pub(crate) fn is_dirty(&self) -> bool {
        self.tail.entries > 0
    }

    /// Sets the tail aside for a checkpoint, with what is true at its end; the shard goes on with an empty one.
    pub(crate) fn freeze(&mut self) -> (Arc<Tail>, Meta) {
        assert!(self.frozen.is_none(), "one checkpoint of a shard at a time");
        let tail = Arc::new(std::mem::take(&mut self.tail));
        self.frozen = Some(Arc::clone(&tail));
        (tail, self.meta.clone())
    }

    /// The frozen tail is on the device, with what is true at its end. It is given back, so that the shard need not be held up while
    /// it is dropped.
    pub(crate) fn thaw(&mut self, meta: &Meta) -> Option<Arc<Tail>> {
        let frozen = self.frozen.take();
        if let Some(tail) = &frozen {
            self.kept.take(tail);
        }
        // A snapshot that was installed meanwhile is further on.
        if meta.applied.0 >= self.checkpoint {
            self.checkpoint = meta.applied.0;
            self.durable_members.clone_from(&meta.members);
        }
        frozen
    }

    /// The members that this replica begins with should it restart now.
    pub(crate) fn durable_members(&self) -> &Members {
        &self.durable_members
    }

    pub(crate) fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }
}

/// An entity's row in the store.
pub(super) fn read_row(store: &dyn StateStore, key: &EntityKey) -> Result<Option<EntityRow>, StoreError> {
    let row_key = keys::entity(key);
    store
        .get(&row_key)?
        .map(|bytes| keys::decode(&row_key, &bytes))
        .transpose()
}

/// Whether a tail's part of an entity follows what the store holds: nothing of it was written before.
pub(super) fn is_unwritten(row: &EntityRow, entity: &TailEntity) -> bool {
    entity.head.seq > row.head.seq
}
