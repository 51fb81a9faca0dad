//! One node as a client sees it: its channel, and whether it has disappointed lately.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tonic::transport::{Channel, Endpoint, Error};

/// A node on the same machine or network accepts at once, or it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// How often an open connection is checked.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// How long the answer to such a check may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a node is asked last after its first failure; doubles with each more.
const SUSPICION_MIN: Duration = Duration::from_millis(500);
/// The most failures in a row that count.
const STRIKES_MAX: u32 = 4;

/// One node.
pub(super) struct Node {
    pub(super) address: String,
    pub(super) channel: Channel,
    born: Instant,
    strikes: AtomicU32,
    suspect_until_ms: AtomicU64,
}

impl Node {
    /// Does not connect yet.
    pub(super) fn new(address: &str) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self {
            address: address.to_owned(),
            channel,
            born: Instant::now(),
            strikes: AtomicU32::new(0),
            suspect_until_ms: AtomicU64::new(0),
        })
    }

    /// It answered: no suspicion.
    pub(super) fn answered(&self) {
        self.strikes.store(0, Ordering::Relaxed);
        self.suspect_until_ms.store(0, Ordering::Relaxed);
    }

    /// It could not be reached, or was overtaken by another: it is asked last for a while.
    pub(super) fn failed(&self) {
        if self.is_suspect() {
            return; // Calls that were under way together count as one failure.
        }
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed).min(STRIKES_MAX);
        let until = self.age_ms() + SUSPICION_MIN.as_millis() as u64 * (1 << strikes);
        self.suspect_until_ms.store(until, Ordering::Relaxed);
    }

    /// Whether it is asked last at the moment.
    pub(super) fn is_suspect(&self) -> bool {
        self.age_ms() < self.suspect_until_ms.load(Ordering::Relaxed)
    }

    fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}
