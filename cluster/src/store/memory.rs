//! The state store in memory, for tests and simulations.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, StateStore, StoreError, Visit};

/// Rows as they are, and as they would be after a crash.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    rows: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    synced: Mutex<BTreeMap<Vec<u8>, Bytes>>,
}

impl MemoryStore {
    pub(crate) fn sync(&self) {
        self.synced.lock().clone_from(&self.rows.lock());
    }

    /// Forgets what was not synced.
    pub(crate) fn crash(&self) {
        self.rows.lock().clone_from(&self.synced.lock());
    }

    /// A row as it would be after a crash.
    pub(crate) fn synced_row(&self, key: &[u8]) -> Option<Bytes> {
        self.synced.lock().get(key).cloned()
    }

    pub(crate) fn rows(&self) -> Vec<(Vec<u8>, Bytes)> {
        self.rows.lock().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.lock().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let start = from.max(prefix).to_vec();
        let rows: Vec<_> = self
            .rows
            .lock()
            .range(start..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in rows {
            if !visit(&key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn last_at(&self, prefix: &[u8], at: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let range = (Bound::Unbounded, Bound::Included(at.to_vec()));
        Ok(self
            .rows
            .lock()
            .range(range)
            .next_back()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone())))
    }

    fn first_keys(&self, prefix: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = self.rows.lock();
        let keys = rows.range(prefix.to_vec()..).map(|(key, _)| key);
        Ok(keys
            .take_while(|key| key.starts_with(prefix))
            .take(max)
            .cloned()
            .collect())
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        for (key, value) in batch.rows {
            match value {
                Some(value) => rows.insert(key, value.into()),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}
