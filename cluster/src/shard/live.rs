//! Live entities of a node: how many there may be, how many are brought back at once, and what became of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Limits;

/// What all shards of a node share about live entities.
pub(crate) struct LiveEntities {
    /// How many the node may have.
    pub(crate) max: usize,
    recoveries: Semaphore,
    recoveries_max: usize,
    waiting: AtomicUsize,
    pub(crate) activated: AtomicU64,
    pub(crate) left_idle: AtomicU64,
    pub(crate) left_for_room: AtomicU64,
    /// Reads that were answered without bringing the entity to life.
    pub(crate) read_cold: AtomicU64,
}

impl LiveEntities {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.live_entities_max,
            recoveries: Semaphore::new(limits.recoveries_in_flight_max),
            recoveries_max: limits.recoveries_in_flight_max,
            waiting: AtomicUsize::new(0),
            activated: AtomicU64::new(0),
            left_idle: AtomicU64::new(0),
            left_for_room: AtomicU64::new(0),
            read_cold: AtomicU64::new(0),
        }
    }

    /// Waits until one more may be read from the store.
    pub(crate) async fn begin_recovery(&self) -> SemaphorePermit<'_> {
        if let Ok(permit) = self.recoveries.try_acquire() {
            return permit;
        }
        let _waits = Waits::new(&self.waiting);
        self.recoveries.acquire().await.expect("the semaphore is never closed")
    }

    /// Entities that are being read from the store, and those that wait for it.
    pub(crate) fn recoveries(&self) -> (usize, usize) {
        let under_way = self.recoveries_max - self.recoveries.available_permits().min(self.recoveries_max);
        (under_way, self.waiting.load(Ordering::Relaxed))
    }
}

/// Counts one who waits, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
