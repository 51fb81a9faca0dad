//! The stored rows of a shard's feed, and how a checkpoint writes them.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Fed, Position};
use crate::{
    entity::EntityKey,
    journal::keys::{self, Meta},
    store::{Batch, StateStore, StoreError},
};

/// Records in one row.
pub(crate) const FEED_ROW_LEN_MAX: usize = 512;

/// Some records of the journal, in its order. The first row of a shard is empty: it says where the feed begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeedRow {
    /// The newest time of all records before the first one,
    pub(crate) newest_before_ms: u64,
    /// and of those up to the last one. Clocks of different leaders may disagree; these never go back.
    pub(crate) newest_ms: u64,
    /// Kinds of entities, once each,
    kinds: Vec<Arc<str>>,
    /// and the entities, once each: the number of the kind, and the id.
    entities: Vec<(u32, Arc<str>)>,
    entries: Vec<Entry>,
}

/// One record: how many entries of the journal after the one before, its place there, the number of its entity, its number among
/// the entity's records, and the version of its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry(u64, u32, u32, u64, u64);

/// A record as a row names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) position: Position,
    pub(crate) entity: EntityKey,
    pub(crate) seq: u64,
    pub(crate) first_version: u64,
}

impl FeedRow {
    /// The row of some records, of which there is at least one.
    fn of(fed: &[Fed], newest_before_ms: u64) -> Self {
        let mut row = Self {
            newest_before_ms,
            newest_ms: newest_before_ms,
            ..Self::default()
        };
        let mut numbers: HashMap<&EntityKey, u32> = HashMap::with_capacity(fed.len());
        let mut index = fed.first().map_or(0, |first| first.position.index);
        for Fed {
            position,
            first_version,
            record,
        } in fed
        {
            row.newest_ms = row.newest_ms.max(record.at_ms);
            let number = *numbers.entry(&record.entity).or_insert_with(|| {
                let kind = row.kinds.iter().position(|kind| *kind == record.entity.kind);
                let kind = kind.unwrap_or_else(|| {
                    row.kinds.push(Arc::clone(&record.entity.kind));
                    row.kinds.len() - 1
                });
                row.entities.push((kind as u32, Arc::clone(&record.entity.id)));
                row.entities.len() as u32 - 1
            });
            let step = position.index - index;
            index = position.index;
            row.entries
                .push(Entry(step, position.place, number, record.seq, *first_version));
        }
        row
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its records, in order. `row_key` is the key it is stored under.
    pub(crate) fn named(&self, row_key: &[u8]) -> Result<Vec<Named>, StoreError> {
        let damaged = |reason: &str| StoreError::damaged(row_key, &reason);
        let first = keys::feed_position(row_key).ok_or_else(|| damaged("no feed key"))?;
        let key = |(kind, id): &(u32, Arc<str>)| {
            let kind = self.kinds.get(*kind as usize)?;
            Some(EntityKey {
                kind: Arc::clone(kind),
                id: Arc::clone(id),
            })
        };
        let entities: Option<Vec<EntityKey>> = self.entities.iter().map(key).collect();
        let entities = entities.ok_or_else(|| damaged("an entity of no kind"))?;
        let mut index = first.index;
        let named = self
            .entries
            .iter()
            .map(|Entry(step, place, entity, seq, first_version)| {
                index = index.checked_add(*step)?;
                Some(Named {
                    position: Position { index, place: *place },
                    entity: entities.get(*entity as usize)?.clone(),
                    seq: *seq,
                    first_version: *first_version,
                })
            });
        named
            .collect::<Option<Vec<Named>>>()
            .ok_or_else(|| damaged("a record of no entity"))
    }
}

/// Adds the rows of what a checkpoint moves. New rows always come behind all others.
pub(crate) fn write(store: &dyn StateStore, fed: &[Fed], batch: &mut Batch) -> Result<(), StoreError> {
    let mut last = last_before(store, Position::end_of(u64::MAX))?;
    if let (Some((position, _)), Some(first)) = (&last, fed.first())
        && *position >= first.position
    {
        // The state store has kept rows of a checkpoint that was not synced: all in them comes again.
        store.scan(keys::FEED, &keys::feed(first.position), &mut |row_key, _| {
            batch.remove(row_key.to_vec());
            Ok(true)
        })?;
        last = last_before(store, first.position.before())?;
    }
    let mut newest_ms = if let Some((_, row)) = last {
        row.newest_ms
    } else {
        // The first checkpoint with a feed: it begins here. Only a journal that an older build has written has more before.
        let meta: Option<Meta> = store
            .get(keys::META)?
            .map(|bytes| keys::decode(keys::META, &bytes))
            .transpose()?;
        let older = meta.filter(|meta| meta.entities > 0);
        let begins = older.map_or(Position::BEGINNING, |meta| Position::end_of(meta.applied.0));
        batch.put(keys::feed(begins), keys::encode(&FeedRow::default()));
        0
    };
    for fed in fed.chunks(FEED_ROW_LEN_MAX) {
        let row = FeedRow::of(fed, newest_ms);
        newest_ms = row.newest_ms;
        batch.put(keys::feed(fed[0].position), keys::encode(&row));
    }
    Ok(())
}

/// The last row that begins at a position or before, and where it begins.
pub(super) fn last_before(store: &dyn StateStore, at: Position) -> Result<Option<(Position, FeedRow)>, StoreError> {
    match store.last_at(keys::FEED, &keys::feed(at))? {
        Some((row_key, bytes)) => {
            let position =
                keys::feed_position(&row_key).ok_or_else(|| StoreError::damaged(&row_key, &"no feed key"))?;
            Ok(Some((position, keys::decode(&row_key, &bytes)?)))
        }
        None => Ok(None),
    }
}
