//! A breaker to one dependency outside of the cluster: failures in a row open it, after a pause exactly one call probes.
//!
//! The state machine is failsafe's. Half-open, failsafe lets every caller through; the one permit held here makes that
//! one. The result of a call that was let through before the breaker opened is ignored while it is not closed, so that
//! only the probe decides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::service::BreakerState;
use failsafe::{
    Instrument, StateMachine,
    backoff::{self, Constant},
    failure_policy::{self, ConsecutiveFailures},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a caller that finds the probe under way is told to wait.
const PROBE_UNDER_WAY_RETRY_MS: u64 = 250;

/// A breaker; a cheap handle.
#[derive(Clone)]
pub(crate) struct Breaker {
    machine: StateMachine<ConsecutiveFailures<Constant>, Observer>,
    observed: Arc<Observed>,
    probe: Arc<Semaphore>,
}

/// The breaker does not let the call through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When it is worth asking again.
    pub(crate) retry_after: Duration,
}

/// Leave for one call. Dropped without a result, for example because the caller went away, it counts as nothing and a
/// probe's place is free again.
#[must_use]
pub(crate) struct Permit {
    breaker: Breaker,
    probe: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Closed,
    Open,
    HalfOpen,
}

/// What failsafe tells of itself, kept so that it can be shown and asked without taking its lock.
struct Observed {
    dependency: String,
    phase: AtomicU8,
    failures: AtomicU32,
    open_for: Duration,
    open_until: Mutex<Option<Instant>>,
}

impl Breaker {
    /// A closed breaker that `failures_max` failures in a row open for `open_for`.
    pub(crate) fn new(dependency: &str, failures_max: u32, open_for: Duration) -> Self {
        let observed = Arc::new(Observed {
            dependency: dependency.to_owned(),
            phase: AtomicU8::new(Phase::Closed as u8),
            failures: AtomicU32::new(0),
            open_for,
            open_until: Mutex::new(None),
        });
        let policy = failure_policy::consecutive_failures(failures_max, backoff::constant(open_for));
        Self {
            machine: StateMachine::new(policy, Observer(Arc::clone(&observed))),
            observed,
            probe: Arc::new(Semaphore::new(1)),
        }
    }

    /// Leave for one call, or when to ask again.
    pub(crate) fn admit(&self) -> Result<Permit, Refused> {
        if self.observed.phase() == Phase::Closed {
            return Ok(self.permit(None));
        }
        let Ok(probe) = Arc::clone(&self.probe).try_acquire_owned() else {
            return Err(Refused {
                retry_after: Duration::from_millis(PROBE_UNDER_WAY_RETRY_MS),
            });
        };
        if self.machine.is_call_permitted() {
            Ok(self.permit(Some(probe)))
        } else {
            Err(Refused {
                retry_after: self.observed.open_left(),
            })
        }
    }

    /// How it stands.
    pub(crate) fn state(&self) -> BreakerState {
        BreakerState {
            state: match self.observed.phase() {
                Phase::Closed => "closed",
                Phase::Open => "open",
                Phase::HalfOpen => "half-open",
            },
            failures: self.observed.failures.load(Ordering::Relaxed),
        }
    }

    fn permit(&self, probe: Option<OwnedSemaphorePermit>) -> Permit {
        Permit {
            breaker: self.clone(),
            probe,
        }
    }
}

impl Permit {
    /// The dependency answered.
    pub(crate) fn succeeded(self) {
        if self.counts() {
            self.breaker.observed.failures.store(0, Ordering::Relaxed);
            self.breaker.machine.on_success();
        }
    }

    /// The dependency did not answer, or said that it cannot.
    pub(crate) fn failed(self) {
        if self.counts() {
            self.breaker.observed.failures.fetch_add(1, Ordering::Relaxed);
            self.breaker.machine.on_error();
        }
    }

    fn counts(&self) -> bool {
        self.probe.is_some() || self.breaker.observed.phase() == Phase::Closed
    }
}

impl Observed {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        }
    }

    /// How long the breaker stays open from now; never zero, so that nobody spins on it.
    fn open_left(&self) -> Duration {
        let until = *self.open_until.lock();
        until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
            .max(Duration::from_millis(1))
    }
}

/// Where failsafe reports its changes to.
struct Observer(Arc<Observed>);

impl Instrument for Observer {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        let observed = &self.0;
        *observed.open_until.lock() = Some(Instant::now() + observed.open_for);
        observed.phase.store(Phase::Open as u8, Ordering::Release);
        tracing::warn!(
            dependency = %observed.dependency,
            failures = observed.failures.load(Ordering::Relaxed),
            open_ms = observed.open_for.as_millis() as u64,
            "breaker opened"
        );
    }

    fn on_half_open(&self) {
        self.0.phase.store(Phase::HalfOpen as u8, Ordering::Release);
        tracing::info!(dependency = %self.0.dependency, "breaker half-open: one call probes");
    }

    fn on_closed(&self) {
        let before = self.0.phase.swap(Phase::Closed as u8, Ordering::AcqRel);
        if before != Phase::Closed as u8 {
            tracing::info!(dependency = %self.0.dependency, "breaker closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // failsafe reads the machine's own clock, so the pauses here are short and real.
    const OPEN: Duration = Duration::from_millis(40);

    fn opened() -> Breaker {
        let breaker = Breaker::new("test", 5, OPEN);
        for _ in 0..5 {
            breaker.admit().expect("closed").failed();
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let breaker = Breaker::new("test", 5, OPEN);
        for _ in 0..3 {
            for _ in 0..4 {
                breaker.admit().expect("closed").failed();
            }
            breaker.admit().expect("closed").succeeded();
        }
        assert_eq!(
            breaker.state(),
            BreakerState {
                state: "closed",
                failures: 0
            }
        );

        let refused = opened().admit().err().expect("open");
        assert!(refused.retry_after <= OPEN);
        assert_eq!(
            opened().state(),
            BreakerState {
                state: "open",
                failures: 5
            }
        );
    }

    #[test]
    fn half_open_lets_exactly_one_through() {
        let breaker = opened();
        std::thread::sleep(OPEN * 2);
        let admitted: Vec<_> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..16).map(|_| scope.spawn(|| breaker.admit())).collect();
            callers
                .into_iter()
                .map(|caller| caller.join().expect("no panic"))
                .collect()
        });
        assert_eq!(admitted.iter().filter(|permit| permit.is_ok()).count(), 1);
        assert_eq!(breaker.state().state, "half-open");

        for permit in admitted.into_iter().flatten() {
            permit.succeeded();
        }
        assert_eq!(
            breaker.state(),
            BreakerState {
                state: "closed",
                failures: 0
            }
        );
        let (one, other) = (breaker.admit(), breaker.admit());
        assert!(one.is_ok() && other.is_ok());
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let breaker = opened();
        std::thread::sleep(OPEN * 2);
        breaker.admit().expect("the probe").failed();
        assert_eq!(breaker.state().state, "open");
        assert!(breaker.admit().is_err());
    }

    #[test]
    fn a_probe_that_goes_away_leaves_its_place() {
        let breaker = opened();
        std::thread::sleep(OPEN * 2);
        drop(breaker.admit().expect("the probe"));
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn a_late_result_from_before_it_opened_decides_nothing() {
        let breaker = Breaker::new("test", 5, OPEN);
        let (late_success, late_failure) = (breaker.admit().expect("closed"), breaker.admit().expect("closed"));
        for _ in 0..5 {
            breaker.admit().expect("closed").failed();
        }
        late_success.succeeded();
        assert_eq!(breaker.state().state, "open");
        std::thread::sleep(OPEN * 2);
        let probe = breaker.admit().expect("the probe");
        late_failure.failed();
        assert_eq!(breaker.state().state, "half-open");
        probe.succeeded();
        assert_eq!(breaker.state().state, "closed");
    }
}
