//! Breaker and bulkhead of one dependency outside, on one node; a cheap handle.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{
    breaker::{Breaker, BreakerState, Forced, Pass, Phase},
    policy::Policy,
};

/// Breaker and bulkhead of one dependency outside.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    dependency: String,
    policy: Policy,
    breaker: Mutex<Breaker>,
    places: Arc<Semaphore>,
    since: Instant,
    changed: Notify,
}

/// The breaker does not let the call through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When it is worth asking again; never zero.
    pub retry_after: Duration,
}

/// Leave for one call. Dropped without a result, for example because the caller went away, it counts as nothing and a
/// probe's place is free again.
#[must_use]
pub struct Permit {
    guard: Guard,
    pass: Option<Pass>,
}

impl Guard {
    /// A guard that lets everything through at first.
    pub fn new(dependency: &str, policy: Policy) -> Self {
        Self(Arc::new(Inner {
            dependency: dependency.to_owned(),
            policy,
            breaker: Mutex::new(Breaker::new(policy)),
            places: Arc::new(Semaphore::new(policy.in_flight_max.min(Semaphore::MAX_PERMITS))),
            since: Instant::now(),
            changed: Notify::new(),
        }))
    }

    /// The dependency's name.
    pub fn dependency(&self) -> &str {
        &self.0.dependency
    }

    /// Its policy.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.0
            .policy
            .in_flight_max
            .saturating_sub(self.0.places.available_permits())
    }

    /// Leave for one call, or when to ask again.
    pub fn admit(&self) -> Result<Permit, Refused> {
        let admitted = self.0.breaker.lock().admit(self.now_ms());
        match admitted {
            Ok(pass) => Ok(Permit {
                guard: self.clone(),
                pass: Some(pass),
            }),
            Err(after_ms) => Err(Refused {
                retry_after: Duration::from_millis(after_ms.max(1)),
            }),
        }
    }

    /// How the breaker stands.
    pub fn state(&self) -> BreakerState {
        self.0.breaker.lock().state(self.now_ms())
    }

    /// A place in the bulkhead if one is free.
    pub(crate) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    /// A place in the bulkhead, in the order of asking.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        place.expect("the bulkhead is never closed")
    }

    /// Sets what people want.
    pub(crate) fn force(&self, forced: Forced) {
        let (before, after) = self.change(|breaker, _| breaker.force(forced));
        if before.forced != after.forced {
            tracing::warn!(dependency = %self.0.dependency, %forced, "breaker forced");
        }
    }

    /// Takes over what another node's breaker met.
    pub(crate) fn adopt_open(&self, for_ms: u64, failures: u32) {
        let (before, after) = self.change(|breaker, now_ms| {
            breaker.adopt_open(for_ms, failures, now_ms);
        });
        if before.phase != after.phase {
            tracing::warn!(dependency = %self.0.dependency, for_ms, "breaker opened, as another node says");
        }
    }

    /// Takes over that another node's probe succeeded.
    pub(crate) fn adopt_closed(&self) {
        let (before, after) = self.change(|breaker, _| breaker.adopt_closed());
        if before.phase != after.phase {
            tracing::info!(dependency = %self.0.dependency, "breaker closed, as another node says");
        }
    }

    /// Resolves when the breaker has opened or closed by what happened here.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Breaker, u64)) -> (BreakerState, BreakerState) {
        let now_ms = self.now_ms();
        let mut breaker = self.0.breaker.lock();
        let before = breaker.state(now_ms);
        change(&mut breaker, now_ms);
        (before, breaker.state(now_ms))
    }

    fn now_ms(&self) -> u64 {
        self.0.since.elapsed().as_millis() as u64
    }
}

impl Permit {
    /// The dependency answered.
    pub fn succeeded(mut self) {
        let Some(pass) = self.pass.take() else { return };
        let inner = &self.guard.0;
        if inner.breaker.lock().succeeded(pass, self.guard.now_ms()) {
            tracing::info!(dependency = %inner.dependency, "breaker closed");
            inner.changed.notify_one();
        }
    }

    /// The dependency did not answer, or said that it cannot.
    pub fn failed(mut self) {
        let Some(pass) = self.pass.take() else { return };
        let inner = &self.guard.0;
        let (opened, failures) = {
            let mut breaker = inner.breaker.lock();
            let opened = breaker.failed(pass, self.guard.now_ms());
            (
                opened && breaker.state(self.guard.now_ms()).phase != Phase::Closed,
                breaker.in_a_row(),
            )
        };
        if opened {
            let open_ms = inner.policy.breaker_open_ms;
            tracing::warn!(dependency = %inner.dependency, failures, open_ms, "breaker opened");
            inner.changed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.guard.0.breaker.lock().released(pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_counts_as_nothing() {
        let guard = Guard::new("test", Policy::OUTSIDE);
        for _ in 0..10 {
            drop(guard.admit());
        }
        assert_eq!(guard.state().failures, 0);
        for _ in 0..5 {
            guard.admit().expect("closed").failed();
        }
        assert_eq!(guard.state().phase, Phase::Open);
        assert!(guard.admit().is_err_and(|refused| refused.retry_after > Duration::ZERO));
    }

    #[test]
    fn the_bulkhead_has_so_many_places() {
        let policy = Policy {
            in_flight_max: 2,
            ..Policy::OUTSIDE
        };
        let guard = Guard::new("test", policy);
        let places = (guard.try_place(), guard.try_place());
        assert!(places.0.is_some() && places.1.is_some() && guard.try_place().is_none());
        assert_eq!(guard.in_flight(), 2);
        drop(places);
        assert_eq!(guard.in_flight(), 0);
    }
}
