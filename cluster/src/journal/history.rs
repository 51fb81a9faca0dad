//! An entity's records, page by page: however long its history is, no more than a page of it is in memory.

use std::sync::Arc;

use super::{
    Decided, Tombstone,
    forget::stored_base,
    keys::{self, HISTORY_ROW_LEN_MAX, Head},
    loading::Loading,
    shard::Shard,
};
use crate::{
    entity::EntityKey,
    history::{Base, Recorded},
    store::{StateStore, StoreError},
};

/// Bytes of commands, replies, events and effects in one page of more than one record.
pub(crate) const PAGE_BYTES_MAX: usize = 256 << 10;
/// Records of one page.
pub(crate) const PAGE_RECORDS_MAX: usize = 512;

/// What of a page is not in the store, and the store that may hold it: the store is slow, and is read after letting go of the shard.
pub(crate) struct PageParts {
    store: Arc<dyn StateStore>,
    key: EntityKey,
    after: u64,
    tail: Vec<Arc<Decided>>,
}

/// Where an entity's history begins and how far it goes.
pub(crate) struct Extent {
    pub(crate) base: Base,
    pub(crate) head: Head,
    /// It is forgotten.
    pub(crate) forgotten: Option<Arc<Tombstone>>,
}

impl Extent {
    fn forgotten(head: Head, tombstone: Arc<Tombstone>) -> Self {
        Self {
            base: Base::default(),
            head,
            forgotten: Some(tombstone),
        }
    }
}

impl Shard {
    /// What is needed to read the records after a number.
    pub(crate) fn page_parts(&self, key: &EntityKey, after: u64) -> PageParts {
        let tail = self.tail_records(key).filter(|record| record.seq > after);
        PageParts {
            store: Arc::clone(self.store()),
            key: key.clone(),
            after,
            tail: tail.take(PAGE_RECORDS_MAX).cloned().collect(),
        }
    }
}

impl Loading {
    /// Where the history begins, and how far it goes.
    pub(crate) fn extent(&self) -> Result<Extent, StoreError> {
        if let Some((head, tombstone)) = &self.forgotten {
            return Ok(Extent::forgotten(*head, Arc::clone(tombstone)));
        }
        let row = self.row()?.unwrap_or_default();
        if let Some(tombstone) = row.forgotten {
            return Ok(Extent::forgotten(row.head, Arc::new(*tombstone)));
        }
        let base = match &self.base {
            Some(base) => (**base).clone(),
            None if self.is_whole => Base::default(),
            None => stored_base(&*self.store, &self.key)?,
        };
        let head = self.tail.iter().filter(|record| record.seq > row.head.seq);
        let head = head.fold(row.head, |head, record| Head {
            seq: record.seq,
            version: head.version + record.events.len() as u64,
            activation: record.activation,
        });
        Ok(Extent {
            base,
            head,
            forgotten: None,
        })
    }
}

impl PageParts {
    /// Records of the page that are not in the store, at most [`PAGE_RECORDS_MAX`].
    pub(crate) fn in_memory(&self) -> usize {
        self.tail.len()
    }

    /// The page: records that follow each other, at least one if there is one up to and with `up_to`. Empty where a checkpoint has
    /// moved them meanwhile: then the parts are to be taken once more.
    pub(crate) fn read(self, up_to: u64) -> Result<Vec<Recorded>, StoreError> {
        let Self {
            store,
            key,
            after,
            tail,
        } = self;
        let mut page = Page {
            records: Vec::new(),
            bytes: 0,
            next: after + 1,
            up_to,
        };
        let prefix = keys::history_of(&key);
        let wanted = keys::history(&key, after + 1);
        // The row that holds the next record begins with it or before it.
        let from = store.last_at(&prefix, &wanted)?.map_or(wanted, |(row_key, _)| row_key);
        store.scan(&prefix, &from, &mut |row_key, value| {
            let row: Vec<Decided> = keys::decode(row_key, &value)?;
            Ok(row.iter().all(|record| page.take(record, true)))
        })?;
        if page.records.is_empty() {
            let _ = tail.iter().all(|record| page.take(record, false));
        }
        Ok(page.records)
    }
}

struct Page {
    records: Vec<Recorded>,
    bytes: usize,
    next: u64,
    up_to: u64,
}

impl Page {
    /// Takes a record if it is the next one; says whether there is room for more.
    fn take(&mut self, record: &Decided, is_stored: bool) -> bool {
        if record.seq == self.next && record.seq <= self.up_to {
            let record = Recorded::new(record, is_stored);
            self.bytes += record.bytes();
            self.next += 1;
            self.records.push(record);
        }
        self.next <= self.up_to && self.bytes < PAGE_BYTES_MAX && self.records.len() < PAGE_RECORDS_MAX
    }
}

/// The records of an entity from `seq` on: those in the store, and after them those of the tail.
pub(crate) fn whole_history(
    store: &dyn StateStore,
    tail: Vec<Arc<Decided>>,
    key: &EntityKey,
    seq: u64,
) -> Result<Vec<Arc<Decided>>, StoreError> {
    let mut records: Vec<Arc<Decided>> = stored_history(store, key, seq)?.into_iter().map(Arc::new).collect();
    // A checkpoint that ended in between has moved some of the tail into the store.
    let next = records.last().map_or(seq, |record| record.seq + 1);
    records.extend(tail.into_iter().filter(|record| record.seq >= next));
    Ok(records)
}

pub(super) fn stored_history(store: &dyn StateStore, key: &EntityKey, seq: u64) -> Result<Vec<Decided>, StoreError> {
    let prefix = keys::history_of(key);
    // The row that holds `seq` may begin up to a row's length before it.
    let from = keys::history(key, seq.saturating_sub(HISTORY_ROW_LEN_MAX as u64));
    let mut records = Vec::new();
    store.scan(&prefix, &from, &mut |row_key, value| {
        let row: Vec<Decided> = keys::decode(row_key, &value)?;
        records.extend(row.into_iter().filter(|record| record.seq >= seq));
        Ok(true)
    })?;
    Ok(records)
}
