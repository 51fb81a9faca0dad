//! Reading a shard's feed: the stored rows with their histories, then what is in memory.
//!
//! In two steps, of which only the first needs the shard: the store is slow, and whoever reads must hold up nobody. Everything
//! that is read was applied, so it is committed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Fed, FeedRecord, Position,
    rows::{self, FeedRow, Named},
};
use crate::{
    entity::EntityKey,
    journal::{Decided, Shard, forget::stored_base, keys, shard::read_row},
    store::{StateStore, StoreError},
};

/// Records that are looked at under the shard's lock in one step, wanted or not.
const TAIL_LOOK_LEN_MAX: usize = 4096;
/// Rows that are looked at in one step.
const ROWS_MAX: usize = 64;
/// History rows that are kept at hand while a page is read.
const HISTORIES_LEN_MAX: usize = 32;

/// How much is read in one step; at least one record is, whatever its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageMax {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// What one step has read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) records: Vec<FeedRecord>,
    /// Everything up to here has been looked at.
    pub(crate) next: Position,
    /// There is nothing newer on this replica.
    pub(crate) is_end: bool,
}

/// Which entities are wanted.
pub(crate) type Wanted<'a> = &'a (dyn Fn(&EntityKey) -> bool + Send + Sync);

/// Why a feed cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FeedError {
    /// What an older build has written is in the histories only.
    #[error("its feed begins at {0}")]
    BeginsLater(Position),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be done outside of the shard.
pub(crate) enum Reading {
    /// All that is wanted is in memory.
    Tail(TailPage),
    /// It is in the store.
    Stored(StoredReading),
}

/// Records that were in memory.
pub(crate) struct TailPage {
    fed: Vec<Fed>,
    next: Position,
    is_end: bool,
}

impl TailPage {
    pub(crate) fn finish(self, max: PageMax) -> Page {
        let mut page = Page::default();
        let mut bytes = 0;
        for Fed {
            position,
            first_version,
            record,
        } in self.fed
        {
            let record = FeedRecord::of(position, first_version, &record);
            bytes += record.bytes();
            if bytes > max.bytes && !page.records.is_empty() {
                return page;
            }
            page.next = position;
            page.records.push(record);
        }
        page.next = self.next;
        page.is_end = self.is_end;
        page
    }
}

impl Shard {
    /// Begins to read what comes after a position.
    pub(crate) fn begin_feed(&self, after: Position, wanted: Wanted<'_>, max: PageMax) -> Reading {
        if after < self.kept.from() {
            return Reading::Stored(StoredReading {
                store: Arc::clone(self.store()),
                after,
                checkpoint: self.checkpoint_index(),
                forgotten: self.forgotten_in_tails(),
            });
        }
        let forgotten = self.forgotten_in_tails();
        let mut page = TailPage {
            fed: Vec::new(),
            next: after,
            is_end: false,
        };
        for (looked, fed) in self.kept.after(after).chain(self.fed_after(after)).enumerate() {
            if page.fed.len() >= max.records.max(1) || looked >= TAIL_LOOK_LEN_MAX {
                return Reading::Tail(page);
            }
            page.next = fed.position;
            if wanted(&fed.record.entity) && !forgotten.contains(&fed.record.entity) {
                page.fed.push(fed.clone());
            }
        }
        page.next = page.next.max(Position::end_of(self.meta().applied.0));
        // A replica that has not come as far as the one that was read before has nothing to say yet.
        page.is_end = self.meta().applied.0 >= after.index;
        Reading::Tail(page)
    }

    /// Entities that are forgotten and whose rows may still be in the store, or in the tail that is being written.
    fn forgotten_in_tails(&self) -> HashSet<EntityKey> {
        let forgetting = self.tails().filter(|tail| tail.forgets);
        let entities = forgetting.flat_map(|tail| &tail.entities);
        let forgotten = entities.filter(|(_, entity)| entity.forgotten.is_some());
        forgotten.map(|(key, _)| key.clone()).collect()
    }

    /// The tails' records with events after a position, in order.
    fn fed_after(&self, after: Position) -> impl Iterator<Item = &Fed> {
        self.tails().rev().flat_map(move |tail| {
            let from = tail.feed.partition_point(|fed| fed.position <= after);
            &tail.feed[from..]
        })
    }

    /// Begins to look for the first record that is not older than a time.
    pub(crate) fn begin_seek(&self, at_ms: u64) -> Seeking {
        let fed = self.fed_after(Position::BEGINNING);
        Seeking {
            at_ms,
            store: Arc::clone(self.store()),
            checkpoint: self.checkpoint_index(),
            forgotten: self.forgotten_in_tails(),
            in_tail: { fed }.find(|fed| fed.record.at_ms >= at_ms).map(|fed| fed.position),
            end: Position::end_of(self.meta().applied.0),
        }
    }
}

/// A page that is to be read from the store.
pub(crate) struct StoredReading {
    pub(crate) store: Arc<dyn StateStore>,
    after: Position,
    /// Rows behind this are those of a checkpoint that is not durable yet; the tail has what is in them.
    checkpoint: u64,
    forgotten: HashSet<EntityKey>,
}

impl StoredReading {
    /// Reads the page.
    pub(crate) fn finish(self, wanted: Wanted<'_>, max: PageMax) -> Result<Page, FeedError> {
        let Self {
            store,
            after,
            checkpoint,
            forgotten,
        } = self;
        let end = Position::end_of(checkpoint);
        let from = match rows::last_before(&*store, after)? {
            Some((begins, _)) => begins,
            None if after == Position::BEGINNING => Position::BEGINNING,
            None => return Err(FeedError::BeginsLater(first_row(&*store)?.unwrap_or(end))),
        };
        let mut page = Page {
            next: after,
            ..Page::default()
        };
        let mut found: Vec<Named> = Vec::new();
        let (mut rows, mut is_whole) = (0, true);
        store.scan(keys::FEED, &keys::feed(from), &mut |row_key, value| {
            let row: FeedRow = keys::decode(row_key, &value)?;
            for named in row.named(row_key)? {
                if named.position <= page.next {
                    continue;
                }
                if named.position > end {
                    return Ok(false);
                }
                if found.len() >= max.records.max(1) {
                    is_whole = false;
                    return Ok(false);
                }
                page.next = named.position;
                if wanted(&named.entity) && !forgotten.contains(&named.entity) {
                    found.push(named);
                }
            }
            rows += 1;
            is_whole = rows < ROWS_MAX;
            Ok(is_whole)
        })?;
        let mut histories = Histories::new(&*store);
        let mut bytes = 0;
        for named in found {
            let Some(record) = histories.resolve(&named)? else {
                continue;
            };
            bytes += record.bytes();
            if bytes > max.bytes && !page.records.is_empty() {
                page.next = page.records.last().map_or(after, |record| record.position);
                return Ok(page);
            }
            page.records.push(record);
        }
        if is_whole {
            page.next = end;
        }
        Ok(page)
    }
}

/// Where the first row begins.
fn first_row(store: &dyn StateStore) -> Result<Option<Position>, StoreError> {
    let mut first = None;
    store.scan(keys::FEED, keys::FEED, &mut |row_key, _| {
        first = keys::feed_position(row_key);
        Ok(false)
    })?;
    Ok(first)
}

/// Finds records in the histories of their entities. Neighbours in the journal are often of the same row.
struct Histories<'a> {
    store: &'a dyn StateStore,
    rows: HashMap<EntityKey, Vec<Decided>>,
}

impl<'a> Histories<'a> {
    fn new(store: &'a dyn StateStore) -> Self {
        let rows = HashMap::new();
        Self { store, rows }
    }

    /// The record; `None` if its entity is forgotten, or the beginning of its history was let go.
    fn resolve(&mut self, named: &Named) -> Result<Option<FeedRecord>, StoreError> {
        let find = |row: &[Decided]| -> Option<FeedRecord> {
            let first = row.first()?.seq;
            let record = row.get(usize::try_from(named.seq.checked_sub(first)?).ok()?)?;
            (record.seq == named.seq).then(|| FeedRecord::of(named.position, named.first_version, record))
        };
        if let Some(found) = self.rows.get(&named.entity).and_then(|row| find(row)) {
            return Ok(Some(found));
        }
        let at = keys::history(&named.entity, named.seq);
        let row = match self.store.last_at(&keys::history_of(&named.entity), &at)? {
            Some((row_key, bytes)) => keys::decode::<Vec<Decided>>(&row_key, &bytes)?,
            None => Vec::new(),
        };
        let Some(found) = find(&row) else {
            let is_forgotten = read_row(self.store, &named.entity)?.is_some_and(|row| row.forgotten.is_some());
            if is_forgotten || stored_base(self.store, &named.entity)?.seq >= named.seq {
                return Ok(None);
            }
            return Err(StoreError::damaged(
                &at,
                &"the feed names a record that the history does not have",
            ));
        };
        if self.rows.len() >= HISTORIES_LEN_MAX {
            self.rows.clear();
        }
        self.rows.insert(named.entity.clone(), row);
        Ok(Some(found))
    }
}

/// A time whose position is looked for.
pub(crate) struct Seeking {
    pub(crate) store: Arc<dyn StateStore>,
    at_ms: u64,
    checkpoint: u64,
    forgotten: HashSet<EntityKey>,
    in_tail: Option<Position>,
    end: Position,
}

impl Seeking {
    /// The position right before the first record that was decided at that time or later; that of the end if there is none.
    pub(crate) fn finish(self) -> Result<Position, FeedError> {
        match self.in_store()? {
            Some(position) => Ok(position.before()),
            None => Ok(self.in_tail.map_or(self.end, Position::before)),
        }
    }

    fn in_store(&self) -> Result<Option<Position>, FeedError> {
        // The last row that has only older records before it: the newest times never go back, so halving finds it.
        let (mut low, mut high) = (0, self.checkpoint);
        let mut best = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            match rows::last_before(&*self.store, Position::end_of(middle))? {
                Some((begins, row)) if row.newest_before_ms < self.at_ms || row.is_empty() => {
                    best = Some(begins);
                    low = middle + 1;
                }
                Some((begins, _)) if begins.index == 0 => break,
                Some((begins, _)) => high = begins.index - 1,
                None => low = middle + 1,
            }
        }
        let mut after = best.map_or(Position::BEGINNING, Position::before);
        let end = Position::end_of(self.checkpoint);
        while after < end {
            let reading = StoredReading {
                store: Arc::clone(&self.store),
                after,
                checkpoint: self.checkpoint,
                forgotten: self.forgotten.clone(),
            };
            let max = PageMax {
                records: rows::FEED_ROW_LEN_MAX,
                bytes: usize::MAX,
            };
            let page = match reading.finish(&|_| true, max) {
                Err(FeedError::BeginsLater(begins)) => {
                    after = begins;
                    continue;
                }
                other => other?,
            };
            let found = page.records.iter().find(|record| record.at_ms >= self.at_ms);
            if let Some(found) = found {
                return Ok(Some(found.position));
            }
            after = page.next;
        }
        Ok(None)
    }
}
