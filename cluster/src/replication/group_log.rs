//! A group's log as the Raft library reads it: the entries after the last cut, in memory.
//!
//! The memory is bounded by checkpoints: the log is cut behind each of them (`journal::checkpoint`), and they come
//! by bytes.

use std::{cell::Cell, collections::VecDeque};

use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use super::members::Members;

/// What an entry costs beside its data, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The position of a snapshot that peers can fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotPosition {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) members: Members,
}

pub(super) struct GroupLog {
    pub(super) hard_state: HardState,
    /// The members at the applied position, for the library's start.
    pub(super) members: Members,
    /// Index and term of the last entry that is no longer held.
    pub(super) cut: (u64, u64),
    pub(super) entries: VecDeque<Entry>,
    /// Bytes of the entries held.
    pub(super) bytes: usize,
    /// What can be sent to a replica that needs more than the log holds.
    pub(super) snapshot: Option<SnapshotPosition>,
    /// Set when a replica needs a snapshot and there is none that reaches into the log.
    pub(super) snapshot_wanted: Cell<bool>,
}

impl GroupLog {
    pub(super) fn last(&self) -> u64 {
        self.cut.0 + self.entries.len() as u64
    }

    /// Appends, replacing what stands from the first new index on.
    pub(super) fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        let keep = first
            .index
            .checked_sub(self.cut.0 + 1)
            .expect("nothing is appended below the cut") as usize;
        assert!(keep <= self.entries.len(), "the log has no gaps");
        while self.entries.len() > keep {
            let removed = self.entries.pop_back().expect("the length was checked");
            self.bytes -= removed.data.len();
        }
        for entry in new {
            self.bytes += entry.data.len();
            self.entries.push_back(entry.clone());
        }
    }

    /// Up to where the log may be cut if nothing after `index` may go and `keep_bytes` before it are to stay.
    pub(super) fn cut_point(&self, index: u64, keep_bytes: usize) -> u64 {
        let count = (index.saturating_sub(self.cut.0) as usize).min(self.entries.len());
        let mut bytes = 0;
        let kept = self
            .entries
            .range(..count)
            .rev()
            .take_while(|entry| {
                bytes += entry.data.len() + ENTRY_OVERHEAD_BYTES;
                bytes <= keep_bytes
            })
            .count();
        self.cut.0 + (count - kept) as u64
    }

    /// Forgets the entries up to and including `index`.
    pub(super) fn cut_to(&mut self, index: u64) {
        while self.cut.0 < index {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.data.len();
            self.cut = (entry.index, entry.term);
        }
    }

    /// Starts over behind an installed snapshot.
    pub(super) fn restart_at(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.cut = (index, term);
    }
}

impl SnapshotPosition {
    /// As the library has it. The data itself is fetched beside it.
    pub(super) fn to_raft(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.index;
        meta.term = self.term;
        meta.set_conf_state(ConfState::from(&self.members));
        snapshot
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: ConfState::from(&self.members),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.cut.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let (from, to) = ((low - self.cut.0 - 1) as usize, (high - self.cut.0 - 1) as usize);
        let mut found = Vec::with_capacity(to - from);
        let mut size = 0;
        for entry in self.entries.range(from..to) {
            size += entry.data.len() as u64 + 32;
            if size > max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.cut.0 {
            return Ok(self.cut.1);
        }
        if index < self.cut.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entries
            .get((index - self.cut.0 - 1) as usize)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.cut.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // A snapshot from before a replica became a member is refused by it, again and again.
        let serves = |position: &&SnapshotPosition| {
            position.index >= request_index
                && position.index >= self.cut.0
                && position.members.all().any(|member| member == to)
        };
        let Some(position) = self.snapshot.as_ref().filter(serves) else {
            self.snapshot_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        Ok(position.to_raft())
    }
}
