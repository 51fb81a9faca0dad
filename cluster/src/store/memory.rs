//! The state store in memory, for tests and simulations. Its values stand behind the same checksums as on a device.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    Batch, StateStore, StoreError, Visit,
    seal::{seal, unseal, unseal_unchecked},
};

/// Sealed values by key.
type Sealed = BTreeMap<Vec<u8>, Bytes>;

/// Rows as they are, and as they would be after a crash.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    rows: Mutex<Sealed>,
    synced: Mutex<Sealed>,
    /// Serves what is damaged; only with a planted bug.
    is_credulous: bool,
}

impl MemoryStore {
    /// A store that does not look at its checksums.
    pub(crate) fn credulous() -> Self {
        Self {
            is_credulous: true,
            ..Self::default()
        }
    }

    pub(crate) fn sync(&self) {
        self.synced.lock().clone_from(&self.rows.lock());
    }

    /// Forgets what was not synced.
    pub(crate) fn crash(&self) {
        self.rows.lock().clone_from(&self.synced.lock());
    }

    /// A row as it would be after a crash.
    pub(crate) fn synced_row(&self, key: &[u8]) -> Option<Bytes> {
        let synced = self.synced.lock();
        self.unsealed(key, synced.get(key)?).ok()
    }

    /// All rows; an error if one is damaged.
    pub(crate) fn rows(&self) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let rows = self.rows.lock();
        let unsealed = |(key, sealed): (&Vec<u8>, &Bytes)| Ok((key.clone(), self.unsealed(key, sealed)?));
        rows.iter().map(unsealed).collect()
    }

    /// Flips a bit of one value on the device: of the row and the bit that these numbers choose. Says of which row.
    pub(crate) fn flip(&self, row: u64, bit: u64) -> Option<Vec<u8>> {
        let mut rows = self.rows.lock();
        let place = row.checked_rem(rows.len() as u64)? as usize;
        let (key, sealed) = rows.iter_mut().nth(place)?;
        let mut bytes = sealed.to_vec();
        let bit = (bit % (bytes.len() as u64 * 8)) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        *sealed = bytes.into();
        // If the row is on its way to the device, its bytes there are those that will be read back.
        self.synced.lock().insert(key.clone(), sealed.clone());
        Some(key.clone())
    }

    fn unsealed(&self, key: &[u8], sealed: &Bytes) -> Result<Bytes, StoreError> {
        if self.is_credulous {
            return Ok(unseal_unchecked(key, sealed));
        }
        unseal(key, sealed)
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let sealed = self.rows.lock().get(key).cloned();
        sealed.map(|sealed| self.unsealed(key, &sealed)).transpose()
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let start = from.max(prefix).to_vec();
        let rows: Vec<_> = self
            .rows
            .lock()
            .range(start..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, sealed)| (key.clone(), sealed.clone()))
            .collect();
        for (key, sealed) in rows {
            if !visit(&key, self.unsealed(&key, &sealed)?)? {
                break;
            }
        }
        Ok(())
    }

    fn last_at(&self, prefix: &[u8], at: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let range = (Bound::Unbounded, Bound::Included(at.to_vec()));
        let rows = self.rows.lock();
        let last = rows.range(range).next_back().filter(|(key, _)| key.starts_with(prefix));
        last.map(|(key, sealed)| Ok((key.clone(), self.unsealed(key, sealed)?)))
            .transpose()
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
                Some(value) => {
                    let sealed = seal(&key, &value).into();
                    rows.insert(key, sealed)
                }
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}
