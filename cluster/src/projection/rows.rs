//! A shard's part of a model as its author sees it: rows with ordered keys and typed values.
//!
//! What an author's code changes stays in memory until all events of a batch are taken in; then the rows and how far the model
//! has come go into the store together.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec,
    store::{StateStore, StoreError, Visit},
};

/// The longest key of a row, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value of a row, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Rows that one query may visit in one shard.
pub const ROWS_VISITED_MAX: usize = 1_000_000;

/// A key of several parts: they are divided by a zero byte, so that the rows of one part stand together, in the order of the
/// next. The parts must not contain control characters; ids and names of this engine never do.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(part.as_bytes());
    }
    key
}

/// What the rows begin with whose first parts are these.
pub fn prefix<'a>(parts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut prefix = key(parts);
    prefix.push(0);
    prefix
}

/// The last part of a key; empty where it is no text.
pub fn last_part(key: &[u8]) -> &str {
    let from = key.iter().rposition(|byte| *byte == 0).map_or(0, |zero| zero + 1);
    std::str::from_utf8(&key[from..]).unwrap_or_default()
}

/// Where rows are kept.
pub(crate) trait Source {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits rows in key order, from `from` on, while their keys begin with `prefix`.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;
}

/// One generation's rows in the store.
pub(crate) struct Stored {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) prefix: Vec<u8>,
}

impl Stored {
    pub(crate) fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl Source for Stored {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(&self.key(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let own = self.prefix.len();
        self.store.scan(&self.key(prefix), &self.key(from), &mut |key, value| {
            visit(&key[own..], value)
        })
    }
}

impl Source for BTreeMap<Vec<u8>, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        for (key, value) in self.range(from.max(prefix).to_vec()..) {
            if !key.starts_with(prefix) || !visit(key, value.clone())? {
                break;
            }
        }
        Ok(())
    }
}

/// A row as it was and as it is to be; the two differ.
pub(crate) struct Change {
    pub(crate) key: Vec<u8>,
    pub(crate) before: Option<Bytes>,
    pub(crate) after: Option<Bytes>,
}

/// Why the rows cannot be used any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowsFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Author(String),
}

/// A shard's part of a model: rows in the order of their keys. Values are stored as MessagePack with field names, so a field with
/// a default can be added; anything else is a new [`VERSION`](super::Projection::VERSION).
///
/// Nothing here fails where it is used. What the store cannot give, or is over a limit, stops the projection after the author's
/// code has returned, and nothing of what it did is kept.
pub struct Rows<'a> {
    source: &'a dyn Source,
    changes: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// What was read from the source one by one: whoever writes the changes compares them with it.
    read: RefCell<HashMap<Vec<u8>, Option<Bytes>>>,
    visited: Cell<usize>,
    fault: RefCell<Option<RowsFault>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            changes: BTreeMap::new(),
            read: RefCell::default(),
            visited: Cell::new(0),
            fault: RefCell::new(None),
        }
    }

    /// The value of a row, if there is one.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        let key = key.as_ref();
        let value = match self.changes.get(key) {
            Some(change) => change.clone(),
            None => self.note(self.stored(key))?,
        };
        self.decode(key, &value?)
    }

    /// Writes a row.
    pub fn put<T: Serialize>(&mut self, key: impl AsRef<[u8]>, value: &T) {
        let (key, value) = (key.as_ref(), codec::encode(value));
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            let (key, value) = (key.len(), value.len());
            self.fail(format!(
                "a row has a key of {key} bytes and a value of {value}; at most {KEY_BYTES_MAX} and {VALUE_BYTES_MAX} are allowed"
            ));
            return;
        }
        self.changes.insert(key.to_vec(), Some(value));
    }

    /// Removes a row, if there is one.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        self.changes.insert(key.as_ref().to_vec(), None);
    }

    /// Changes the value of a row; it begins with the default.
    pub fn update<T: Serialize + DeserializeOwned + Default>(
        &mut self,
        key: impl AsRef<[u8]>,
        change: impl FnOnce(&mut T),
    ) {
        let mut value = self.get(&key).unwrap_or_default();
        change(&mut value);
        self.put(key, &value);
    }

    /// Visits the rows whose keys begin with `prefix`, in key order, those after `after` where it is given, until `visit` says
    /// false.
    pub fn scan<T: DeserializeOwned>(
        &self,
        prefix: impl AsRef<[u8]>,
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], T) -> bool,
    ) {
        let prefix = prefix.as_ref();
        // The least key above another one is that with a zero behind it.
        let from = match after {
            Some(after) => prefix.to_vec().max([after, &[0]].concat()),
            None => prefix.to_vec(),
        };
        let mut changes = self.changes.range(from.clone()..).peekable();
        let mut goes_on = true;
        let mut take = |key: &[u8], value: &Bytes| -> bool {
            self.visited.set(self.visited.get() + 1);
            if self.visited.get() > ROWS_VISITED_MAX {
                self.fail(format!(
                    "visits more than {ROWS_VISITED_MAX} rows of one shard; ask for less"
                ));
                return false;
            }
            self.decode(key, value).is_some_and(|value| visit(key, value))
        };
        let scanned = self.source.scan(prefix, &from, &mut |key, value| {
            while let Some((changed, change)) = changes.next_if(|(changed, _)| changed.as_slice() < key) {
                if let Some(value) = change {
                    goes_on = take(changed, value);
                    if !goes_on {
                        return Ok(false);
                    }
                }
            }
            goes_on = match changes.next_if(|(changed, _)| changed.as_slice() == key) {
                Some((_, Some(changed))) => take(key, changed),
                Some((_, None)) => true,
                None => take(key, &value),
            };
            Ok(goes_on)
        });
        self.note(scanned);
        for (key, change) in changes.take_while(|(key, _)| key.starts_with(prefix)) {
            if let (true, Some(value)) = (goes_on, change) {
                goes_on = take(key, value);
            }
        }
    }

    fn stored(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(stored) = self.read.borrow().get(key) {
            return Ok(stored.clone());
        }
        let stored = self.source.get(key)?;
        self.read.borrow_mut().insert(key.to_vec(), stored.clone());
        Ok(stored)
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Option<T> {
        match codec::decode(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let key = String::from_utf8_lossy(key).replace('\0', "/");
                self.fail(format!("the row {key} is no {}: {error}", std::any::type_name::<T>()));
                None
            }
        }
    }

    fn note<T>(&self, outcome: Result<T, StoreError>) -> Option<T> {
        outcome
            .map_err(|error| self.fault.borrow_mut().get_or_insert(error.into()).clone())
            .ok()
    }

    fn fail(&self, reason: String) {
        self.fault.borrow_mut().get_or_insert(RowsFault::Author(reason));
    }

    /// What went wrong, if anything did.
    pub(crate) fn check(&self) -> Result<(), RowsFault> {
        self.fault.borrow().clone().map_or(Ok(()), Err)
    }

    /// What is to be written, in the order of the keys.
    pub(crate) fn into_changes(self) -> Result<Vec<Change>, StoreError> {
        let Self {
            source, changes, read, ..
        } = self;
        let mut read = read.into_inner();
        let changes = changes.into_iter().map(|(key, after)| {
            let before = match read.remove(&key) {
                Some(before) => before,
                None => source.get(&key)?,
            };
            Ok(Change { key, before, after })
        });
        changes
            .filter(|change| !matches!(change, Ok(change) if change.before == change.after))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(rows: &[(&str, u64)]) -> BTreeMap<Vec<u8>, Bytes> {
        let rows = rows.iter();
        rows.map(|(key, value)| (key.as_bytes().to_vec(), codec::encode(value)))
            .collect()
    }

    fn seen(rows: &Rows<'_>, prefix: &str, after: Option<&str>) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        rows.scan(prefix, after.map(str::as_bytes), |key, value: u64| {
            seen.push((String::from_utf8_lossy(key).into_owned(), value));
            true
        });
        seen
    }

    #[test]
    fn a_scan_sees_what_is_stored_and_what_was_changed_since_in_order() {
        let source = stored(&[("a1", 1), ("a2", 2), ("a4", 4), ("b1", 9)]);
        let mut rows = Rows::new(&source);
        rows.put("a3", &3_u64);
        rows.put("a4", &40_u64);
        rows.put("a5", &5_u64);
        rows.put("b0", &8_u64);
        rows.remove("a1");
        let of = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
            rows.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
        };
        assert_eq!(
            seen(&rows, "a", None),
            of(&[("a2", 2), ("a3", 3), ("a4", 40), ("a5", 5)])
        );
        assert_eq!(seen(&rows, "a", Some("a3")), of(&[("a4", 40), ("a5", 5)]));
        assert_eq!(seen(&rows, "b", None), of(&[("b0", 8), ("b1", 9)]));
        let mut first = Vec::new();
        rows.scan("a", None, |key, _: u64| {
            first.push(key.to_vec());
            first.len() < 2
        });
        assert_eq!(first, [b"a2", b"a3"]);
        assert_eq!(rows.check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_said_afterwards() {
        let source = stored(&[("a", 1)]);
        let rows = Rows::new(&source);
        assert_eq!(rows.get::<String>("a"), None);
        assert!(matches!(rows.check(), Err(RowsFault::Author(reason)) if reason.contains("the row a is no")));
        let mut rows = Rows::new(&source);
        rows.put(vec![b'k'; KEY_BYTES_MAX + 1], &1_u64);
        assert!(matches!(rows.check(), Err(RowsFault::Author(reason)) if reason.contains("1025 bytes")));
        rows = Rows::new(&source);
        rows.update("a", |count: &mut u64| *count += 1);
        assert_eq!((rows.get::<u64>("a"), rows.check()), (Some(2), Ok(())));
    }

    /// Counts what is read of it.
    struct Counted(BTreeMap<Vec<u8>, Bytes>, Cell<usize>);

    impl Source for Counted {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.1.set(self.1.get() + 1);
            Source::get(&self.0, key)
        }

        fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
            self.0.scan(prefix, from, visit)
        }
    }

    #[test]
    fn a_row_is_read_once_and_only_what_differs_is_written() {
        let source = Counted(stored(&[("a", 1), ("b", 2), ("c", 3)]), Cell::new(0));
        let mut rows = Rows::new(&source);
        for _ in 0..5 {
            rows.update("a", |count: &mut u64| *count += 1);
            assert_eq!(rows.get::<u64>("none"), None);
        }
        rows.update("b", |count: &mut u64| *count += 0);
        rows.remove("c");
        rows.remove("none");
        rows.put("new", &9_u64);
        let changes = rows.into_changes().expect("read");
        let changes: Vec<_> = changes.into_iter().map(|it| (it.key, it.before, it.after)).collect();
        let value = |value: u64| Some(codec::encode(&value));
        let expected = [
            ("a", value(1), value(6)),
            ("c", value(3), None),
            ("new", None, value(9)),
        ];
        assert_eq!(
            changes,
            expected.map(|(key, before, after)| (key.as_bytes().to_vec(), before, after))
        );
        assert_eq!(source.1.get(), 5, "a, b, c, none, new");
    }

    #[test]
    fn parts_of_keys_stay_apart() {
        assert_eq!(key(["a", "b"]), b"a\0b");
        assert!(!key(["ab", "c"]).starts_with(&prefix(["a"])));
        assert_eq!(last_part(b"a\0b"), "b");
    }
}
