//! What is measured as it happens: the instruments that the engine's durations go into, and the same once more for the short
//! history.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cluster::{
    ProjectedEvent,
    metrics::{CallEnd, CommandEnd, Commit},
};
use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram, Meter},
};

use super::{
    SECONDS,
    domain::{Domain, DomainCounts},
    durations::{self, Durations},
    objectives::LATENCY_MAX,
};

/// The parts of a commit, in the order in which they follow each other.
pub(super) const COMMIT_PARTS: [&str; 4] = ["queue", "sync", "network", "apply"];

/// Takes in what the engine measures.
pub(super) struct Recorder {
    commands: [BoundHistogram<f64>; CommandEnd::ALL.len()],
    commits: [BoundHistogram<f64>; COMMIT_PARTS.len()],
    waits: BoundHistogram<f64>,
    lateness: BoundHistogram<f64>,
    calls: Histogram<f64>,
    domain: Domain,
    // For the short history.
    ends: [AtomicU64; CommandEnd::ALL.len()],
    /// Commands that were answered in time.
    in_time: AtomicU64,
    took: Durations,
    commit_ns: [AtomicU64; COMMIT_PARTS.len()],
    commits_count: AtomicU64,
}

/// What the short history is made of: counts since the process began.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Commands, by the place of their end in [`CommandEnd::ALL`].
    pub(super) ends: [u64; CommandEnd::ALL.len()],
    /// Those that were no error and took at most [`LATENCY_MAX`].
    pub(super) in_time: u64,
    /// How long commands took.
    pub(super) took: durations::Counts,
    /// Commits, and the time that their parts took together.
    pub(super) commits: u64,
    /// See `commits`.
    pub(super) commit_ns: [u64; COMMIT_PARTS.len()],
    /// Of the shop.
    pub(super) domain: DomainCounts,
}

impl Counts {
    /// Commands in all, and those that ended in an error.
    pub(super) fn commands(&self) -> (u64, u64) {
        let errors = CommandEnd::ALL.iter().zip(self.ends).filter(|(end, _)| end.is_error());
        (self.ends.iter().sum(), errors.map(|(_, count)| count).sum())
    }
}

fn seconds(meter: &Meter, name: &'static str, about: &'static str) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_unit("s")
        .with_description(about)
        .with_boundaries(SECONDS.to_vec())
        .build()
}

impl Recorder {
    pub(super) fn new(meter: &Meter, domain: Domain) -> Self {
        let commands = seconds(
            meter,
            "playhouse.command.duration",
            "Commands of clients at the node that heard them, by how they ended.",
        );
        let commits = seconds(
            meter,
            "playhouse.commit.part.duration",
            "Parts of a commit at the leader: queue, sync (fsync of its log), network (until a majority has it), apply.",
        );
        Self {
            commands: CommandEnd::ALL.map(|end| commands.bind(&[KeyValue::new("outcome", end.as_str())])),
            commits: COMMIT_PARTS.map(|part| commits.bind(&[KeyValue::new("part", part)])),
            waits: seconds(
                meter,
                "playhouse.mailbox.wait",
                "Time that commands have waited in the mailbox of their entity.",
            )
            .bind(&[]),
            lateness: seconds(
                meter,
                "playhouse.timer.lateness",
                "Timers that fired, by how late that was.",
            )
            .bind(&[]),
            calls: seconds(
                meter,
                "playhouse.provider.call.duration",
                "Calls to services outside, by how they ended.",
            ),
            domain,
            ends: std::array::from_fn(|_| AtomicU64::new(0)),
            in_time: AtomicU64::new(0),
            took: Durations::default(),
            commit_ns: std::array::from_fn(|_| AtomicU64::new(0)),
            commits_count: AtomicU64::new(0),
        }
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            ends: std::array::from_fn(|at| load(&self.ends[at])),
            in_time: load(&self.in_time),
            took: self.took.counts(),
            commits: load(&self.commits_count),
            commit_ns: std::array::from_fn(|at| load(&self.commit_ns[at])),
            domain: self.domain.counts(),
        }
    }

    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl cluster::metrics::Meter for Recorder {
    fn command(&self, end: CommandEnd, took: Duration) {
        self.commands[end as usize].record(took.as_secs_f64());
        self.ends[end as usize].fetch_add(1, Ordering::Relaxed);
        self.took.record(took);
        if !end.is_error() && took <= LATENCY_MAX {
            self.in_time.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn committed(&self, commit: &Commit) {
        self.commits_count.fetch_add(1, Ordering::Relaxed);
        let parts = [commit.queue, commit.sync, commit.network, commit.apply];
        for (at, part) in parts.into_iter().enumerate() {
            self.commits[at].record(part.as_secs_f64());
            let ns = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
            self.commit_ns[at].fetch_add(ns, Ordering::Relaxed);
        }
    }

    fn waited(&self, wait: Duration) {
        self.waits.record(wait.as_secs_f64());
    }

    fn called(&self, dependency: &str, end: CallEnd, took: Duration) {
        let attributes = [
            KeyValue::new("dependency", dependency.to_owned()),
            KeyValue::new("outcome", end.as_str()),
        ];
        self.calls.record(took.as_secs_f64(), &attributes);
    }

    fn fired(&self, late: Duration) {
        self.lateness.record(late.as_secs_f64());
    }

    fn saw(&self, event: &ProjectedEvent<'_>) {
        self.domain.saw(event);
    }
}
