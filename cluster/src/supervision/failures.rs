//! What a shard's leader knows of entities that fail: when each may be tried again, and which of them is to be quarantined.
//!
//! Only what an entity's own code did counts; rejections, overload and lost leadership never reach this file. All of it is
//! in memory and ends with the leadership: the next leader counts anew. Quarantine itself stands in the journal.

use std::collections::HashMap;

use super::{
    breaker::{Breaker, Pass, Phase},
    policy::Policy,
};
use crate::entity::EntityKey;

/// Failing entities of one shard that are remembered; past it the one that failed longest ago is forgotten.
const FAILING_LEN_MAX: usize = 4_096;
/// Kinds of failures of one entity that are told apart; past it the oldest is forgotten.
const LIKES_LEN_MAX: usize = 8;
/// How long callers are told to wait while a quarantine is on its way into the journal.
const QUARANTINING_RETRY_MS: u64 = 100;

/// Entities of a shard that have failed.
#[derive(Default)]
pub(crate) struct Failures {
    entities: HashMap<EntityKey, Failing>,
}

struct Failing {
    breaker: Breaker,
    policy: Policy,
    likes: Vec<Like>,
    reason: String,
    /// Nothing is decided before.
    not_before_ms: u64,
    /// It could not even be brought back, so that reads have to wait as well.
    holds_reads: bool,
    is_quarantining: bool,
    last_ms: u64,
}

/// Failures at one place.
struct Like {
    place: String,
    times: Vec<u64>,
}

/// Why a command has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) after_ms: u64,
    pub(crate) reason: String,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is brought back after so long.
    Restart { after_ms: u64 },
    /// It is to be quarantined: so many like failures, since then.
    Quarantine { count: u32, since_ms: u64 },
}

/// An entity that fails, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailingView {
    pub(crate) entity: EntityKey,
    pub(crate) failures: u32,
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    /// After how long it is tried again.
    pub(crate) after_ms: u64,
}

impl Failures {
    pub(crate) fn len(&self) -> usize {
        self.entities.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// Leave to decide a command; nothing where the entity has not failed.
    pub(crate) fn admit(&mut self, key: &EntityKey, now_ms: u64) -> Result<Option<Pass>, Hold> {
        let Some(failing) = self.entities.get_mut(key) else {
            return Ok(None);
        };
        if let Some(hold) = failing.hold(now_ms) {
            return Err(hold);
        }
        match failing.breaker.admit(now_ms) {
            Ok(pass) => Ok(Some(pass)),
            Err(after_ms) => Err(Hold {
                after_ms,
                reason: format!("its breaker is open: {}", failing.reason),
            }),
        }
    }

    /// Leave to read: reading decides nothing, and waits only where the entity cannot be brought back.
    pub(crate) fn admit_read(&self, key: &EntityKey, now_ms: u64) -> Result<(), Hold> {
        let holding = self.entities.get(key).filter(|failing| failing.holds_reads);
        holding.and_then(|failing| failing.hold(now_ms)).map_or(Ok(()), Err)
    }

    /// A command of an entity that had failed before has been decided.
    pub(crate) fn succeeded(&mut self, key: &EntityKey, pass: Pass, now_ms: u64) {
        if let Some(failing) = self.entities.get_mut(key) {
            failing.breaker.succeeded(pass, now_ms);
        }
    }

    /// What was let through ended without saying anything of the entity.
    pub(crate) fn released(&mut self, key: &EntityKey, pass: Pass) {
        if let Some(failing) = self.entities.get_mut(key) {
            failing.breaker.released(pass);
        }
    }

    /// An entity has failed. `random` is from 0 to 1.
    pub(crate) fn failed(&mut self, failure: &Failure<'_>, policy: Policy, now_ms: u64, random: f64) -> Verdict {
        self.prune(now_ms);
        let failing = self.entities.entry(failure.key.clone()).or_insert_with(|| Failing {
            breaker: Breaker::new(policy),
            policy,
            likes: Vec::new(),
            reason: String::new(),
            not_before_ms: 0,
            holds_reads: false,
            is_quarantining: false,
            last_ms: now_ms,
        });
        failure.reason.clone_into(&mut failing.reason);
        failing.holds_reads = failure.holds_reads;
        failing.last_ms = now_ms;
        let before = failing.breaker.in_a_row();
        // Whatever was let through while half-open is the probe.
        let pass = match failing.breaker.state(now_ms).phase {
            Phase::HalfOpen => Pass::Probe,
            Phase::Closed | Phase::Open => Pass::Ordinary,
        };
        failing.breaker.failed(pass, now_ms);
        let after_ms = policy.backoff(before, random).as_millis() as u64;
        failing.not_before_ms = now_ms + after_ms;
        let (count, since_ms) = failing.count(failure.place, now_ms);
        let is_enough = policy.quarantine_after > 0 && count >= policy.quarantine_after;
        if failure.may_quarantine && is_enough && !failing.is_quarantining {
            failing.is_quarantining = true;
            return Verdict::Quarantine { count, since_ms };
        }
        Verdict::Restart { after_ms }
    }

    /// The quarantine is in the journal, or could not be written; then the next failure tries again.
    pub(crate) fn quarantine_ended(&mut self, key: &EntityKey, is_written: bool) {
        if is_written {
            self.entities.remove(key);
        } else if let Some(failing) = self.entities.get_mut(key) {
            failing.is_quarantining = false;
        }
    }

    /// Forgets failures that no longer count, and the oldest past the limit.
    fn prune(&mut self, now_ms: u64) {
        self.entities.retain(|_, failing| {
            failing.last_ms + failing.policy.intensity_within_ms > now_ms || failing.is_quarantining
        });
        if self.entities.len() >= FAILING_LEN_MAX {
            let oldest = self.entities.iter().min_by_key(|(_, failing)| failing.last_ms);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.entities.remove(&key);
            }
        }
    }

    /// The entities that fail just now, for people.
    pub(crate) fn views(&self, now_ms: u64) -> Vec<FailingView> {
        let views = self.entities.iter().map(|(key, failing)| {
            let state = failing.breaker.state(now_ms);
            FailingView {
                entity: key.clone(),
                failures: failing.likes.iter().map(|like| like.times.len() as u32).sum(),
                phase: state.phase,
                reason: failing.reason.clone(),
                after_ms: failing.not_before_ms.saturating_sub(now_ms).max(state.open_left_ms),
            }
        });
        views.collect()
    }
}

/// What happened to an entity.
pub(crate) struct Failure<'a> {
    pub(crate) key: &'a EntityKey,
    /// Failures at one place are alike.
    pub(crate) place: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) holds_reads: bool,
    /// There is a command that can be put aside.
    pub(crate) may_quarantine: bool,
}

impl Failing {
    fn hold(&self, now_ms: u64) -> Option<Hold> {
        if self.is_quarantining {
            return Some(Hold {
                after_ms: QUARANTINING_RETRY_MS,
                reason: format!("it is being quarantined: {}", self.reason),
            });
        }
        (now_ms < self.not_before_ms).then(|| Hold {
            after_ms: self.not_before_ms - now_ms,
            reason: format!("it restarts after a failure: {}", self.reason),
        })
    }

    /// Counts a failure at a place; says how many there were within the time, and since when.
    fn count(&mut self, place: &str, now_ms: u64) -> (u32, u64) {
        let oldest_ms = now_ms.saturating_sub(self.policy.intensity_within_ms);
        let at = self
            .likes
            .iter()
            .position(|like| like.place == place)
            .unwrap_or_else(|| {
                if self.likes.len() == LIKES_LEN_MAX {
                    self.likes.remove(0);
                }
                self.likes.push(Like {
                    place: place.to_owned(),
                    times: Vec::new(),
                });
                self.likes.len() - 1
            });
        let times = &mut self.likes[at].times;
        times.retain(|time| *time >= oldest_ms);
        // Enough to decide by; an entity that is never quarantined must not collect times for ever.
        let kept_max = (self.policy.quarantine_after as usize).clamp(1, 1_000);
        if times.len() > kept_max {
            times.remove(0);
        }
        times.push(now_ms);
        (times.len() as u32, times[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        backoff_first_ms: 100,
        backoff_max_ms: 1_000,
        breaker_failures_max: 4,
        breaker_open_ms: 5_000,
        intensity_within_ms: 60_000,
        quarantine_after: 3,
        ..Policy::ENTITY
    };

    fn key(id: &str) -> EntityKey {
        EntityKey::new("order", id).expect("a key")
    }

    fn fail(failures: &mut Failures, place: &str, now_ms: u64) -> Verdict {
        let failure = Failure {
            key: &key("1"),
            place,
            reason: "it broke",
            holds_reads: false,
            may_quarantine: true,
        };
        failures.failed(&failure, POLICY, now_ms, 0.0)
    }

    #[test]
    fn a_failed_entity_comes_back_after_a_pause_that_doubles() {
        let mut failures = Failures::default();
        assert_eq!(fail(&mut failures, "a", 0), Verdict::Restart { after_ms: 100 });
        let hold = failures.admit(&key("1"), 40).expect_err("too early");
        assert_eq!(hold.after_ms, 60);
        assert!(hold.reason.contains("it broke"));
        assert_eq!(failures.admit(&key("2"), 40), Ok(None), "its neighbours do not notice");
        assert_eq!(failures.admit_read(&key("1"), 40), Ok(()), "reads go on");
        assert_eq!(failures.admit(&key("1"), 100), Ok(Some(Pass::Ordinary)));
        assert_eq!(fail(&mut failures, "b", 100), Verdict::Restart { after_ms: 200 });
        failures.succeeded(&key("1"), Pass::Ordinary, 300);
        assert_eq!(fail(&mut failures, "c", 400), Verdict::Restart { after_ms: 100 });
    }

    #[test]
    fn like_failures_within_the_time_quarantine_and_unlike_ones_do_not() {
        let mut failures = Failures::default();
        for (at, place) in [(0, "a"), (1_000, "b"), (2_000, "a")] {
            assert!(matches!(fail(&mut failures, place, at), Verdict::Restart { .. }));
            failures.succeeded(&key("1"), Pass::Ordinary, at + 1);
        }
        let quarantine = Verdict::Quarantine { count: 3, since_ms: 0 };
        assert_eq!(fail(&mut failures, "a", 3_000), quarantine);
        assert!(failures.admit(&key("1"), 50_000).is_err(), "until it is in the journal");
        failures.quarantine_ended(&key("1"), false);
        assert!(failures.admit(&key("1"), 50_000).is_ok());
        assert!(matches!(fail(&mut failures, "a", 50_000), Verdict::Quarantine { .. }));
        failures.quarantine_ended(&key("1"), true);
        assert!(failures.is_empty());
    }

    #[test]
    fn old_failures_no_longer_count() {
        let mut failures = Failures::default();
        fail(&mut failures, "a", 0);
        fail(&mut failures, "a", 30_000);
        assert!(matches!(fail(&mut failures, "a", 61_000), Verdict::Restart { .. }));
        assert!(matches!(fail(&mut failures, "a", 62_000), Verdict::Quarantine { .. }));
    }

    #[test]
    fn failures_of_all_sorts_open_the_breaker_and_one_command_probes() {
        let mut failures = Failures::default();
        for (n, place) in ["a", "b", "c", "d"].into_iter().enumerate() {
            fail(&mut failures, place, n as u64 * 2_000);
        }
        let hold = failures.admit(&key("1"), 8_000).expect_err("open");
        assert!(hold.reason.contains("breaker"), "{hold:?}");
        assert_eq!(failures.admit(&key("1"), 11_000), Ok(Some(Pass::Probe)));
        assert!(failures.admit(&key("1"), 11_000).is_err(), "one probe");
        failures.released(&key("1"), Pass::Probe);
        assert_eq!(failures.admit(&key("1"), 11_000), Ok(Some(Pass::Probe)));
        failures.succeeded(&key("1"), Pass::Probe, 11_000);
        assert_eq!(failures.admit(&key("1"), 11_000), Ok(Some(Pass::Ordinary)));
    }

    #[test]
    fn an_entity_that_cannot_be_brought_back_holds_reads_too() {
        let mut failures = Failures::default();
        let failure = Failure {
            key: &key("1"),
            place: "revive",
            reason: "evolve broke",
            holds_reads: true,
            may_quarantine: false,
        };
        for now_ms in [0, 1, 2, 3] {
            assert!(matches!(
                failures.failed(&failure, POLICY, now_ms, 0.0),
                Verdict::Restart { .. }
            ));
        }
        assert!(failures.admit_read(&key("1"), 50).is_err());
        assert!(failures.admit_read(&key("1"), 5_000).is_ok());
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut failures = Failures::default();
        for n in 0..FAILING_LEN_MAX as u64 + 10 {
            let failure = Failure {
                key: &key(&n.to_string()),
                place: "a",
                reason: "it broke",
                holds_reads: false,
                may_quarantine: true,
            };
            failures.failed(&failure, POLICY, n, 0.0);
        }
        assert_eq!(failures.views(0).len(), FAILING_LEN_MAX);
        fail(&mut failures, "a", 10_000_000);
        assert_eq!(failures.views(0).len(), 1, "the others failed long ago");
    }
}
