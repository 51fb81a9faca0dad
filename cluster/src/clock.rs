//! The time of day, as the engine is given it.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::faults::Faults;

/// A clock. Its times are recorded, and order nothing: order comes from the journal.
pub(crate) trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The machine's clock, as wrong as it is to be.
pub(crate) struct SystemClock(pub(crate) Arc<Faults>);

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        (unix_ns() / 1_000_000).saturating_add_signed(self.0.clock_offset_ms())
    }
}

/// Nanoseconds since 1970, for spans.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds of a clock that only goes forward, and goes on while the machine sleeps; never 0. For ages within one
/// process: no other node's is compared with it.
pub(crate) fn steady_ns() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere it is the monotonic clock that goes on.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    (time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64).max(1)
}
