//! What is counted for one replica.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Commit;
use crate::shard::{replica::Replica, timings::Stages};

/// The counters of one replica, for any number of writers and readers.
#[derive(Debug, Default)]
pub(crate) struct ShardMeter {
    base: OnceLock<Instant>,
    /// When the last checkpoint ended, in nanoseconds after `base`.
    checkpointed_ns: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) checkpoint_ns: AtomicU64,
    pub(crate) elections_won: AtomicU64,
    pub(crate) snapshots_made: AtomicU64,
    pub(crate) snapshots_installed: AtomicU64,
    /// The term of the last applied entry, and the index of that term's first one.
    term: AtomicU64,
    term_began: AtomicU64,
}

impl ShardMeter {
    fn since_base_ns(&self) -> u64 {
        let base = self.base.get_or_init(Instant::now);
        u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A checkpoint has reached the device.
    pub(crate) fn checkpointed(&self, took: Duration) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.checkpoint_ns.fetch_add(ns, Ordering::Relaxed);
        self.checkpointed_ns.store(self.since_base_ns(), Ordering::Relaxed);
    }

    /// Time since the last checkpoint, or since this was first asked.
    pub(crate) fn checkpoint_age(&self) -> Duration {
        let since = self.checkpointed_ns.load(Ordering::Relaxed);
        Duration::from_nanos(self.since_base_ns().saturating_sub(since))
    }

    /// An entry is applied. For one writer.
    pub(crate) fn applied(&self, index: u64, term: u64) {
        if self.term.load(Ordering::Relaxed) != term {
            // Whoever sees the term must see where it began.
            self.term_began.store(index, Ordering::Release);
            self.term.store(term, Ordering::Release);
        }
    }

    /// The term of the last applied entry, and the index of that term's first one that was applied here.
    pub(crate) fn term(&self) -> (u64, u64) {
        loop {
            let term = self.term.load(Ordering::Acquire);
            let began = self.term_began.load(Ordering::Acquire);
            if self.term.load(Ordering::Acquire) == term {
                return (term, began);
            }
        }
    }
}

impl Replica {
    /// An entry that was proposed here at `proposed` is applied.
    pub(crate) fn committed(&self, proposed: Instant, stages: &Stages) {
        self.commit_times().record(proposed, stages);
        self.meters().tell(|meter| {
            meter.committed(&Commit {
                queue: stages.appended.saturating_duration_since(proposed),
                sync: stages.written.saturating_duration_since(stages.appended),
                network: stages.committed.saturating_duration_since(stages.written),
                apply: stages.committed.elapsed(),
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_begins_with_its_first_entry() {
        let meter = ShardMeter::default();
        for (index, term) in [(4, 2), (5, 2), (6, 3), (7, 3)] {
            meter.applied(index, term);
        }
        assert_eq!(meter.term(), (3, 6));
    }

    #[test]
    fn a_checkpoint_makes_its_age_begin_anew() {
        let meter = ShardMeter::default();
        let before = meter.checkpoint_age();
        std::thread::sleep(Duration::from_millis(5));
        assert!(meter.checkpoint_age() > before);
        let ended = Instant::now();
        meter.checkpointed(Duration::from_millis(2));
        let age = meter.checkpoint_age();
        assert!(age <= ended.elapsed(), "it is older than the checkpoint: {age:?}");
        assert_eq!(meter.checkpoints.load(Ordering::Relaxed), 1);
        assert_eq!(meter.checkpoint_ns.load(Ordering::Relaxed), 2_000_000);
    }
}
