//! Who is let in: credits in front of every mailbox and stream, so that memory stays flat and what is begun is finished.
//!
//! A call takes one credit at the node that hears it ([`Admission::call`]) and one at the shard's leader
//! ([`Admission::work`]). Effects and outcomes take none: they end what is under way, and the outbox they come from is bounded.
//!
//! Reading order: this file (what a call goes through), [`limit`] (the limits by name), [`credits`] (how many of them a tenant or
//! a kind may hold), [`durations`] and
//! [`queue_delay`] (how many the node can carry just now), [`retry`] (how long a refused caller is to wait).
//! All but this file is pure.

pub(crate) mod credits;
mod durations;
pub(crate) mod limit;
pub(crate) mod queue_delay;
pub(crate) mod retry;
pub(crate) mod tenants;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::{
    credits::Pool,
    durations::{Durations, Took},
    queue_delay::QueueDelay,
    retry::RetryLine,
};
pub(crate) use self::{
    limit::{Limit, Overload},
    tenants::Tenant,
};
use crate::{config::Limits, entity::Registry};

/// How often the node looks at how it is doing.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// No command of the last look was finished: what was known of the delay counts this much less.
const DELAY_FADES: u32 = 2;

/// Lets calls in, or says why not and for how long.
pub(crate) struct Admission {
    /// Calls that clients wait for at this node, wherever they are served.
    calls: Pool,
    /// Commands and reads that this node serves as a leader.
    work: Pool,
    /// Reads that wait for an entity to change; they cost nothing while they wait.
    waits: AtomicUsize,
    /// Bytes of the commands that were let in.
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
    refused: [AtomicU64; Limit::COUNT],
    admitted_now: AtomicU64,
    /// How long commands took at their leader since the last look,
    work_took: Durations,
    /// and how long calls took from here to there and back: what waits between the nodes is in it.
    calls_took: Durations,
    /// What a command takes at least just now, in microseconds.
    delay_us: AtomicU64,
    retry: RetryLine,
    /// When this node began: the line's clock.
    begun: Instant,
    looks: Mutex<Looks>,
}

/// What follows from one look to the next.
struct Looks {
    last: Instant,
    calls: QueueDelay,
    work: QueueDelay,
}

/// The credit of a call at the node that hears it; given back when it is dropped.
pub(crate) struct CallCredit {
    admission: Arc<Admission>,
    /// Held only for being given back.
    _held: Option<credits::Credit>,
    bytes: usize,
    waits: bool,
    begun: Instant,
}

/// The credit of a command or read at its leader; given back when it is dropped.
pub(crate) struct WorkCredit {
    admission: Arc<Admission>,
    /// Held only for being given back.
    _held: credits::Credit,
    begun: Instant,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, registry: &Registry) -> Self {
        Self {
            calls: Pool::new(limits.in_flight_max, registry.names()),
            work: Pool::new(limits.in_flight_max, registry.names()),
            waits: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            calls_max: limits.in_flight_max,
            bytes_max: limits.in_flight_bytes_max,
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            admitted_now: AtomicU64::new(0),
            work_took: Durations::default(),
            calls_took: Durations::default(),
            delay_us: AtomicU64::new(0),
            retry: RetryLine::default(),
            begun: Instant::now(),
            looks: Mutex::new(Looks {
                last: Instant::now(),
                calls: QueueDelay::new(limits.in_flight_max, Duration::from_millis(limits.queue_delay_max_ms)),
                work: QueueDelay::new(limits.in_flight_max, Duration::from_millis(limits.queue_delay_max_ms)),
            }),
        }
    }

    /// Lets a call of a client in at this node.
    pub(crate) fn call(
        self: &Arc<Self>,
        tenant: &Tenant,
        kind: &str,
        bytes: usize,
        waits: bool,
    ) -> Result<CallCredit, Overload> {
        let held = if waits {
            None
        } else {
            Some(self.take(&self.calls, tenant, kind)?)
        };
        // From here on the guard gives back what was counted, also where the call is refused.
        let waiting = self.waits.fetch_add(usize::from(waits), Ordering::Relaxed);
        let waiting_bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let credit = CallCredit {
            admission: Arc::clone(self),
            _held: held,
            bytes,
            waits,
            begun: Instant::now(),
        };
        if waits && waiting >= self.calls_max {
            return Err(self.refuse(Limit::Waits));
        }
        if waiting_bytes + bytes > self.bytes_max {
            return Err(self.refuse(Limit::Bytes));
        }
        Ok(credit)
    }

    /// Lets a command or a read in at its leader; `left` is the time that its caller still waits.
    pub(crate) fn work(self: &Arc<Self>, tenant: &Tenant, kind: &str, left: Duration) -> Result<WorkCredit, Overload> {
        // With few under way a long time is that of one command, and says nothing of the next.
        let is_busy = self.work.held() >= queue_delay::IN_FLIGHT_MIN;
        if is_busy && self.delay_us.load(Ordering::Relaxed) > u64::try_from(left.as_micros()).unwrap_or(u64::MAX) {
            return Err(self.refuse(Limit::Deadline));
        }
        let held = self.take(&self.work, tenant, kind)?;
        self.admitted_now.fetch_add(1, Ordering::Relaxed);
        Ok(WorkCredit {
            admission: Arc::clone(self),
            _held: held,
            begun: Instant::now(),
        })
    }

    fn take(&self, pool: &Pool, tenant: &Tenant, kind: &str) -> Result<credits::Credit, Overload> {
        let max = pool.limit();
        pool.take(max, tenant, kind).map_err(|limit| match limit {
            // The node's own limit is not what it was told but what it can carry.
            Limit::InFlight if max < self.calls_max => self.refuse(Limit::QueueDelay),
            limit => self.refuse(limit),
        })
    }

    /// Counts a refusal and says when to come again.
    pub(crate) fn refuse(&self, limit: Limit) -> Overload {
        self.refused[limit as usize].fetch_add(1, Ordering::Relaxed);
        Overload {
            limit,
            retry_after: self.retry_after(),
        }
    }

    /// When a refused caller is to come again: one after another.
    pub(crate) fn retry_after(&self) -> Duration {
        let delay = self.retry.next(self.now_us());
        // Those for whom the line is too long share one place at its end.
        if delay < Duration::from_millis(retry::RETRY_MAX_MS) {
            delay
        } else {
            delay.mul_f64(0.5 + 0.5 * rand::random::<f64>())
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("no node runs for half a million years")
    }

    /// Looks at what has happened since the last look, and sets how much is let in until the next.
    pub(crate) fn look(&self) {
        let mut looks = self.looks.lock();
        let length = looks.last.elapsed();
        looks.last = Instant::now();
        // So late is whoever comes just now.
        let lag = length.saturating_sub(LOOK_INTERVAL);
        let took = self.work_took.take();
        let work = looks.work.look(took.map(|took| took.median + lag), self.work.held());
        self.work.set_limit(work);
        let calls_took = self.calls_took.take();
        let calls = looks
            .calls
            .look(calls_took.map(|took| took.median + lag), self.calls.held());
        self.calls.set_limit(calls);
        let delay_us = match took {
            Some(Took { shortest, .. }) => u64::try_from(shortest.as_micros()).unwrap_or(u64::MAX),
            None => self.delay_us.load(Ordering::Relaxed) / u64::from(DELAY_FADES),
        };
        self.delay_us.store(delay_us, Ordering::Relaxed);
        let admitted = self.admitted_now.swap(0, Ordering::Relaxed);
        self.retry.look(admitted, length);
    }

    /// Calls under way at this node, commands and reads it serves, and how many of those it takes at most just now.
    pub(crate) fn in_flight(&self) -> (usize, usize, usize) {
        (
            self.calls.held() + self.waits.load(Ordering::Relaxed),
            self.work.held(),
            self.work.limit().min(self.calls_max),
        )
    }

    /// How often each limit has refused somebody: all limits.
    pub(crate) fn all_refusals(&self) -> Vec<(&'static str, u64)> {
        let counts = Limit::ALL.iter();
        counts
            .map(|limit| (limit.label(), self.refused[*limit as usize].load(Ordering::Relaxed)))
            .collect()
    }

    /// How often each limit has refused somebody; those that never did are left out.
    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let counts = Limit::ALL.iter().map(|limit| {
            let count = self.refused[*limit as usize].load(Ordering::Relaxed);
            (limit.name(), count)
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl CallCredit {
    /// The call was answered: how long that took says how the nodes are doing, but for one that waited for something to happen.
    pub(crate) fn done(&self) {
        if self.waits {
            return;
        }
        self.admission.calls_took.note(self.begun.elapsed());
    }
}

impl Drop for CallCredit {
    fn drop(&mut self) {
        self.admission
            .waits
            .fetch_sub(usize::from(self.waits), Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl WorkCredit {
    /// The command was carried out: how long that took says how the node is doing.
    pub(crate) fn done(&self) {
        self.admission.work_took.note(self.begun.elapsed());
    }
}
