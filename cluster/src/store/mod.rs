//! What is on this node's device: the log of all groups, and the state of each shard.
//!
//! Reading order: this file (what the engine needs of a state store), [`state`] (sled), [`log`] (raft-engine), [`device`] (its files),
//! [`mark`] (how far both have come), [`seal`] (how a damaged value is told), [`memory`] (the twin of both for simulations), [`identity`]
//! (who this folder belongs to), [`erase`] (what was forgotten is in no file any more), [`damage`] (what becomes of a folder that is
//! damaged).
//!
//! The log is the truth: it is synced before anything is acknowledged. The state store follows by checkpoints and can be
//! rebuilt from a peer at any time.

pub(crate) mod damage;
mod device;
pub(crate) mod erase;
pub(crate) mod identity;
pub(crate) mod log;
mod mark;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod memory;
mod seal;
pub(crate) mod state;

use bytes::Bytes;

/// Why the store could not answer. Never served around: the replica is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// A value is not what was written.
    #[error("the stored value of {key:?} is damaged ({reason})")]
    Damaged { key: String, reason: String },
    /// The device or the file system refused.
    #[error("the store cannot be used: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the device holds something else than what was written: no second attempt will bring it back.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    pub(crate) fn damaged(key: &[u8], reason: &impl ToString) -> Self {
        Self::Damaged {
            key: String::from_utf8_lossy(key).into_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Takes a row of a scan; says whether to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], Bytes) -> Result<bool, StoreError>;

/// The state of one shard, as checkpoints have written it.
pub(crate) trait StateStore: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows whose keys begin with `prefix`, from `from` on in key order, until `visit` says false.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError>;

    /// The last row whose key begins with `prefix` and is not above `at`.
    fn last_at(&self, prefix: &[u8], at: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, StoreError>;

    /// The first keys that begin with `prefix`, at most `max` of them. Values are not looked at: they may be damaged.
    fn first_keys(&self, prefix: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Writes all of a batch, or none of it. Durable only after the next sync of the whole store.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;
}

/// Rows to write (a value) or to remove (none).
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.push((key, Some(value)));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.rows.push((key, None));
    }
}
