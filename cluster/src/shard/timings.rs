//! How long the parts of a commit take on this node: what the driver's queue, the log's sync, the network and the apply
//! have taken lately, and how long a sync that is under way has taken so far.
//!
//! Each figure has one writer (the driver's or the flusher's thread) and any number of readers. None of them takes a lock
//! or allocates, and nothing is decided from them that must be exact.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use proto::cluster::v1 as pb;

/// In microseconds, as it is told to people; 0 for none.
pub(crate) fn us(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// A new time counts for one part in so many of a running mean.
const MEAN_WEIGHT: u64 = 16;

/// The last of a kind of times, and their running mean.
#[derive(Debug, Default)]
pub(crate) struct Running {
    last_ns: AtomicU64,
    mean_ns: AtomicU64,
    /// How many there were, and all of them together.
    count: AtomicU64,
    sum_ns: AtomicU64,
}

impl Running {
    /// Takes one time in. For one writer.
    pub(crate) fn record(&self, time: Duration) {
        // Zero says that there is none yet.
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mean = match self.mean_ns.load(Ordering::Relaxed) {
            0 => ns,
            mean => mean - mean / MEAN_WEIGHT + ns / MEAN_WEIGHT,
        };
        self.last_ns.store(ns, Ordering::Relaxed);
        self.mean_ns.store(mean.max(1), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// How many there were, and how long they took together.
    pub(crate) fn total(&self) -> (u64, Duration) {
        let sum_ns = self.sum_ns.load(Ordering::Relaxed);
        (self.count.load(Ordering::Relaxed), Duration::from_nanos(sum_ns))
    }

    /// The last one; `None` where there was none yet.
    pub(crate) fn last(&self) -> Option<Duration> {
        some(self.last_ns.load(Ordering::Relaxed))
    }

    /// The mean of the latest ones.
    pub(crate) fn mean(&self) -> Option<Duration> {
        some(self.mean_ns.load(Ordering::Relaxed))
    }
}

fn some(ns: u64) -> Option<Duration> {
    (ns != 0).then(|| Duration::from_nanos(ns))
}

/// What all shards of a node share: its driver and its log.
#[derive(Debug)]
pub(crate) struct Timings {
    base: Instant,
    sync: Running,
    /// When the sync that is under way began, in nanoseconds after `base`; 0 while there is none.
    sync_began_ns: AtomicU64,
    wait: Running,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            sync: Running::default(),
            sync_began_ns: AtomicU64::new(0),
            wait: Running::default(),
        }
    }
}

impl Timings {
    /// The flusher begins to write and sync.
    pub(crate) fn sync_begins(&self) {
        let ns = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.sync_began_ns.store(ns.max(1), Ordering::Relaxed);
    }

    /// What it wrote is on the device.
    pub(crate) fn sync_ends(&self) {
        if let Some(age) = self.sync_age() {
            self.sync.record(age);
        }
        self.sync_began_ns.store(0, Ordering::Relaxed);
    }

    /// The driver takes what has waited for it since `since`.
    pub(crate) fn taken(&self, since: Instant) {
        self.wait.record(since.elapsed());
    }

    /// How long writes of the log take, down to the device.
    pub(crate) fn sync(&self) -> &Running {
        &self.sync
    }

    /// For how long the write that is under way has been; `None` while there is none.
    pub(crate) fn sync_age(&self) -> Option<Duration> {
        let began = some(self.sync_began_ns.load(Ordering::Relaxed))?;
        Some(self.base.elapsed().saturating_sub(began))
    }

    /// How long what is sent to the driver waits before it is taken.
    pub(crate) fn wait(&self) -> &Running {
        &self.wait
    }
}

/// How long the parts of a commit take for the entries that this node proposes to one shard.
#[derive(Debug, Default)]
pub(crate) struct CommitTimes {
    /// From the proposal until it is in an entry.
    pub(crate) queue: Running,
    /// From there until the entry is on this node's device, or is committed without it.
    pub(crate) sync: Running,
    /// From there until a majority has it.
    pub(crate) majority: Running,
    /// From there until it is applied.
    pub(crate) apply: Running,
}

/// When an entry passed each stage on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stages {
    pub(crate) appended: Instant,
    /// On this node's device; or committed, where the others were quicker.
    pub(crate) written: Instant,
    pub(crate) committed: Instant,
}

impl CommitTimes {
    /// The figures for people.
    pub(crate) fn told(&self) -> pb::CommitTimes {
        pb::CommitTimes {
            queue_us: us(self.queue.mean()),
            sync_us: us(self.sync.mean()),
            majority_us: us(self.majority.mean()),
            apply_us: us(self.apply.mean()),
        }
    }

    /// Takes an entry in that was proposed at `proposed` and is applied now.
    pub(crate) fn record(&self, proposed: Instant, stages: &Stages) {
        self.queue.record(stages.appended.saturating_duration_since(proposed));
        self.sync
            .record(stages.written.saturating_duration_since(stages.appended));
        self.majority
            .record(stages.committed.saturating_duration_since(stages.written));
        self.apply.record(stages.committed.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_follows_its_times_and_the_last_one_stands() {
        let running = Running::default();
        assert_eq!((running.last(), running.mean()), (None, None));
        running.record(Duration::from_micros(100));
        assert_eq!(running.mean(), Some(Duration::from_micros(100)));
        for _ in 0..100 {
            running.record(Duration::from_micros(900));
        }
        let mean = running.mean().expect("there are times");
        assert!(
            mean > Duration::from_micros(880) && mean <= Duration::from_micros(900),
            "{mean:?}"
        );
        assert_eq!(running.last(), Some(Duration::from_micros(900)));
        assert_eq!(running.total(), (101, Duration::from_micros(90_100)));
    }

    #[test]
    fn a_sync_has_an_age_while_it_is_under_way_only() {
        let timings = Timings::default();
        assert_eq!(timings.sync_age(), None);
        timings.sync_begins();
        assert!(timings.sync_age().is_some());
        assert_eq!(timings.sync().last(), None);
        timings.sync_ends();
        assert_eq!(timings.sync_age(), None);
        assert!(timings.sync().last().is_some());
    }
}
