//! One model on one replica, as a function of what is stored: what each step writes, and what is true after it.
//!
//! Each step makes one batch. Writing it is all there is to a step, so a crash leaves the model before or after it, and whoever
//! opens it again goes on from there.

use std::sync::Arc;

use super::{
    ProjectedEvent,
    carried::Carried,
    keys::{self, Head, Place},
    rows::{Change, Rows, RowsFault, Stored},
};
use crate::{
    journal::{
        feed::{FeedRecord, Position},
        keys::{decode, encode, fnv},
    },
    store::{Batch, StateStore, StoreError},
    supervision::contain::contain,
};

/// Rows that are removed in one step.
const REMOVED_LEN_MAX: usize = 512;
/// A place without new events is written only after so many entries of the journal: reading them again costs little.
const UNWRITTEN_ENTRIES_MAX: u64 = 4096;

/// One of the two generations that are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Serving,
    Building,
}

/// A generation and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) place: Place,
    /// What is stored of its place.
    written: Position,
}

/// What is true of a model after some step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) head: Head,
    pub(crate) serving: Option<Generation>,
    pub(crate) building: Option<Generation>,
}

impl Standing {
    pub(crate) fn generation(&self, which: Which) -> Option<Generation> {
        match which {
            Which::Serving => self.serving,
            Which::Building => self.building,
        }
    }
}

/// A step that is to be written.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) batch: Batch,
    pub(crate) after: Standing,
}

/// Why events could not be taken in.
#[derive(Debug)]
pub(crate) enum Stop {
    Store(StoreError),
    /// The author's code cannot take this one; what came before it can be written.
    Event {
        before: Option<Box<Step>>,
        reason: String,
    },
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One model on one replica.
pub(crate) struct Line {
    pub(crate) carried: Arc<dyn Carried>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) standing: Standing,
}

impl Line {
    /// Finds out where a model stands; a new one begins at the beginning.
    pub(crate) fn open(carried: Arc<dyn Carried>, store: Arc<dyn StateStore>) -> Result<Self, StoreError> {
        let standing = match read_standing(&*store, &*carried) {
            Ok(standing) => standing,
            Err(StoreError::Damaged { key, reason }) => {
                tracing::error!(
                    projection = carried.name(),
                    key,
                    reason,
                    "a model is damaged and is built anew"
                );
                while !remove_all(&*store, carried.name(), carried.version())? {}
                Standing::default()
            }
            Err(error) => return Err(error),
        };
        let mut line = Self {
            carried,
            store,
            standing,
        };
        if line.standing.serving.is_none() && line.standing.building.is_none() {
            let step = line.rebuild();
            line.write(step)?;
        }
        Ok(line)
    }

    /// Writes a step.
    pub(crate) fn write(&mut self, step: Step) -> Result<(), StoreError> {
        if !step.batch.rows.is_empty() {
            self.store.write(step.batch)?;
        }
        self.standing = step.after;
        Ok(())
    }

    /// The rows of a generation.
    pub(crate) fn rows_of(&self, generation: u64) -> Stored {
        Stored {
            store: Arc::clone(&self.store),
            prefix: keys::rows(self.carried.name(), self.carried.version(), generation),
        }
    }

    /// Takes in what was read of the feed: these records, and nothing else up to `next`.
    pub(crate) fn take(&self, which: Which, records: &[FeedRecord], next: Position, mark: u64) -> Result<Step, Stop> {
        match self.take_all(which, records, next, mark) {
            Ok(step) => Ok(step),
            Err((place, RowsFault::Author(reason))) => {
                let record = &records[place];
                let before = match place.checked_sub(1) {
                    // It went well up to there a moment ago.
                    Some(last) => self
                        .take_all(which, &records[..place], records[last].position, mark)
                        .ok()
                        .map(Box::new),
                    None => None,
                };
                let entity = &record.entity;
                let reason = format!(
                    "the event of {entity} at {} cannot be taken in: {reason}",
                    record.position
                );
                Err(Stop::Event { before, reason })
            }
            Err((_, RowsFault::Store(error))) => Err(Stop::Store(error)),
        }
    }

    fn take_all(
        &self,
        which: Which,
        records: &[FeedRecord],
        next: Position,
        mark: u64,
    ) -> Result<Step, (usize, RowsFault)> {
        let mut after = self.standing.clone();
        let generation = match which {
            Which::Serving => after.serving.as_mut(),
            Which::Building => after.building.as_mut(),
        };
        let generation = generation.expect("only a generation that is there is fed");
        let (number, mut place) = (generation.number, generation.place);
        let source = self.rows_of(number);
        let mut rows = Rows::new(&source);
        for (at, record) in records.iter().enumerate() {
            for event in ProjectedEvent::of_record(record) {
                contain(|| self.carried.apply(&mut rows, &event))
                    .map_err(|panic| format!("its code panicked at {}: {}", panic.place, panic.text))
                    .and_then(|()| event.fault().map_or(Ok(()), Err))
                    .map_err(RowsFault::Author)
                    .and_then(|()| rows.check())
                    .map_err(|fault| (at, fault))?;
                place.events += 1;
            }
            place.last = record.position;
        }
        let mut batch = Batch::default();
        let changes = rows.into_changes().map_err(|error| (0, error.into()))?;
        for Change {
            key,
            before,
            after: value,
        } in changes
        {
            if let Some(before) = &before {
                place.rows -= 1;
                place.bytes -= (key.len() + before.len()) as u64;
                place.digest = place.digest.wrapping_sub(row_digest(&key, before));
            }
            let stored = source.key(&key);
            match value {
                Some(value) => {
                    place.rows += 1;
                    place.bytes += (key.len() + value.len()) as u64;
                    place.digest = place.digest.wrapping_add(row_digest(&key, &value));
                    batch.put(stored, value.to_vec());
                }
                None => batch.remove(stored),
            }
        }
        place.read = place.read.max(next);
        place.mark = place.mark.max(mark);
        let unwritten = place.read.index.saturating_sub(generation.written.index);
        generation.place = place;
        if !records.is_empty() || unwritten >= UNWRITTEN_ENTRIES_MAX {
            generation.written = place.read;
            batch.put(self.place_key(number), encode(&place));
        }
        Ok(Step { batch, after })
    }

    fn place_key(&self, generation: u64) -> Vec<u8> {
        keys::place(self.carried.name(), self.carried.version(), generation)
    }

    fn head_key(&self) -> Vec<u8> {
        keys::head(self.carried.name(), self.carried.version())
    }

    /// Begins another generation, unless one is being built already.
    pub(crate) fn rebuild(&self) -> Step {
        let mut after = self.standing.clone();
        let mut batch = Batch::default();
        if after.building.is_none() {
            let number = after.head.next.max(1);
            let generation = Generation {
                number,
                place: Place::default(),
                written: Position::BEGINNING,
            };
            after.building = Some(generation);
            after.head.building = Some(number);
            after.head.next = number + 1;
            batch.put(self.place_key(number), encode(&generation.place));
            batch.put(self.head_key(), encode(&after.head));
        }
        Step { batch, after }
    }

    /// Gives up what there is: it cannot be read, or was made from another journal. Nothing answers until it is built again.
    pub(crate) fn start_over(&self) -> Step {
        let mut emptied = self.standing.clone();
        let both = [emptied.serving.take(), emptied.building.take()];
        emptied
            .head
            .removing
            .extend(both.iter().flatten().map(|generation| generation.number));
        (emptied.head.serving, emptied.head.building) = (None, None);
        let line = Self {
            carried: Arc::clone(&self.carried),
            store: Arc::clone(&self.store),
            standing: emptied,
        };
        line.rebuild()
    }

    /// Whether the generation that is being built has come as far as the one that answers; if none answers, `at_end` says whether
    /// it has everything.
    pub(crate) fn may_take_over(&self, at_end: bool) -> bool {
        match (&self.standing.serving, &self.standing.building) {
            (Some(serving), Some(building)) => building.place.read >= serving.place.read,
            (None, Some(_)) => at_end,
            (_, None) => false,
        }
    }

    /// Lets the generation that was built answer from now on.
    pub(crate) fn take_over(&self) -> Step {
        let mut after = self.standing.clone();
        let built = after.building.take().expect("only one that was built takes over");
        let before = after.serving.replace(built);
        after.head.serving = Some(built.number);
        after.head.building = None;
        let held = |place: &Place| (place.events, place.rows, place.bytes, place.digest);
        after.head.compared = before
            // What was forgotten or let go since is in the old rows only, and there is nothing to compare.
            .filter(|before| built.place.events >= before.place.events)
            .map(|before| held(&before.place) == held(&built.place));
        after.head.removing.extend(before.map(|before| before.number));
        let mut batch = Batch::default();
        batch.put(self.place_key(built.number), encode(&built.place));
        batch.put(self.head_key(), encode(&after.head));
        Step { batch, after }
    }

    /// Removes some rows of a generation that has been replaced; `None` if there is nothing to remove.
    pub(crate) fn remove_some(&self) -> Result<Option<Step>, StoreError> {
        let Some(number) = self.standing.head.removing.first().copied() else {
            return Ok(None);
        };
        let mut after = self.standing.clone();
        let prefix = keys::rows(self.carried.name(), self.carried.version(), number);
        let mut batch = remove_rows(&*self.store, &prefix)?;
        if batch.rows.is_empty() {
            after.head.removing.remove(0);
            batch.remove(self.place_key(number));
            batch.put(self.head_key(), encode(&after.head));
        }
        Ok(Some(Step { batch, after }))
    }
}

/// Of one row; the key's length keeps key and value apart.
fn row_digest(key: &[u8], value: &[u8]) -> u64 {
    fnv(&[&(key.len() as u32).to_be_bytes(), key, value].concat())
}

fn read_standing(store: &dyn StateStore, carried: &dyn Carried) -> Result<Standing, StoreError> {
    let (name, version) = (carried.name(), carried.version());
    let head_key = keys::head(name, version);
    let Some(head) = store.get(&head_key)? else {
        return Ok(Standing::default());
    };
    let head: Head = decode(&head_key, &head)?;
    let generation = |number: u64| -> Result<Generation, StoreError> {
        let key = keys::place(name, version, number);
        let bytes = store.get(&key)?;
        let bytes = bytes.ok_or_else(|| StoreError::damaged(&key, &"is missing"))?;
        let place: Place = decode(&key, &bytes)?;
        Ok(Generation {
            number,
            place,
            written: place.read,
        })
    };
    Ok(Standing {
        serving: head.serving.map(generation).transpose()?,
        building: head.building.map(generation).transpose()?,
        head,
    })
}

/// A batch that removes the first rows of a prefix; an empty one if there are none.
fn remove_rows(store: &dyn StateStore, prefix: &[u8]) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for key in store.first_keys(prefix, REMOVED_LEN_MAX)? {
        batch.remove(key);
    }
    Ok(batch)
}

/// Removes some of all that there is of a version of a model; says whether nothing is left.
pub(crate) fn remove_all(store: &dyn StateStore, name: &str, version: u32) -> Result<bool, StoreError> {
    for prefix in [keys::all_rows(name, version), keys::places(name, version)] {
        let batch = remove_rows(store, &prefix)?;
        if !batch.rows.is_empty() {
            store.write(batch)?;
            return Ok(false);
        }
    }
    let mut batch = Batch::default();
    batch.remove(keys::head(name, version));
    store.write(batch)?;
    Ok(true)
}

/// All models that a replica stores something of.
pub(crate) fn stored_lines(store: &dyn StateStore) -> Result<Vec<(String, u32)>, StoreError> {
    let mut lines = Vec::new();
    store.scan(keys::HEADS, keys::HEADS, &mut |key, _| {
        lines.extend(keys::head_of(key));
        Ok(true)
    })?;
    Ok(lines)
}
