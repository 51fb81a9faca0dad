//! A breaker, as a function of results and times: closed, open, and half-open with exactly one probe.
//!
//! The result of something that was let through before the breaker opened is ignored while it is not closed, so that only
//! the probe decides. It can be forced open or closed by people, and take over what other nodes know.

use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// How long one who finds the probe under way is told to wait.
const PROBE_UNDER_WAY_RETRY_MS: u64 = 250;
/// Asked for again while a breaker is forced open.
const FORCED_RETRY_MS: u64 = 5_000;
/// A success so short ago outweighs what others say of the dependency.
const OWN_SUCCESS_COUNTS_MS: u64 = 2_000;

/// What people want of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forced {
    /// It follows the results.
    #[default]
    Auto,
    /// It lets nothing through.
    Open,
    /// It lets everything through.
    Closed,
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}

impl FromStr for Forced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            other => Err(format!("is {other:?}; it is one of auto, open, closed")),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything is let through.
    Closed,
    /// Nothing is let through.
    Open,
    /// One probe is let through.
    HalfOpen,
}

impl Phase {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A breaker as it stands, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerState {
    /// Closed, open or half-open.
    pub phase: Phase,
    /// What people want of it.
    pub forced: Forced,
    /// Failures in a row.
    pub failures: u32,
    /// How long it stays open from now.
    pub open_left_ms: u64,
}

/// Leave to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Ordinary,
    Probe,
}

/// A breaker. Times are milliseconds of any clock that only goes forward.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    policy: Policy,
    forced: Forced,
    /// Open until then; from then on half-open. `None`: closed.
    open_until_ms: Option<u64>,
    is_probing: bool,
    in_a_row: u32,
    /// When the failures within the time came.
    recent: VecDeque<u64>,
    last_success_ms: Option<u64>,
}

impl Breaker {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            forced: Forced::Auto,
            open_until_ms: None,
            is_probing: false,
            in_a_row: 0,
            recent: VecDeque::new(),
            last_success_ms: None,
        }
    }

    /// Leave to go through, or after how many milliseconds to ask again.
    pub(crate) fn admit(&mut self, now_ms: u64) -> Result<Pass, u64> {
        match (self.forced, self.open_until_ms) {
            (Forced::Closed, _) | (Forced::Auto, None) => Ok(Pass::Ordinary),
            (Forced::Open, _) => Err(FORCED_RETRY_MS),
            (Forced::Auto, Some(until_ms)) if now_ms < until_ms => Err(until_ms - now_ms),
            (Forced::Auto, Some(_)) if self.is_probing => Err(PROBE_UNDER_WAY_RETRY_MS),
            (Forced::Auto, Some(_)) => {
                self.is_probing = true;
                Ok(Pass::Probe)
            }
        }
    }

    /// What was let through succeeded. Says whether the breaker closed by it.
    pub(crate) fn succeeded(&mut self, pass: Pass, now_ms: u64) -> bool {
        self.last_success_ms = Some(now_ms);
        match pass {
            Pass::Probe => {
                self.close();
                true
            }
            Pass::Ordinary => {
                if self.open_until_ms.is_none() {
                    self.in_a_row = 0;
                }
                false
            }
        }
    }

    /// What was let through failed. Says whether the breaker opened by it.
    pub(crate) fn failed(&mut self, pass: Pass, now_ms: u64) -> bool {
        if pass == Pass::Ordinary && self.open_until_ms.is_some() {
            return false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let intensity_max = self.policy.intensity_max as usize;
        if intensity_max > 0 {
            let oldest_ms = now_ms.saturating_sub(self.policy.intensity_within_ms);
            self.recent.push_back(now_ms);
            while self.recent.front().is_some_and(|at| *at < oldest_ms) || self.recent.len() > intensity_max + 1 {
                self.recent.pop_front();
            }
        }
        let is_too_often = intensity_max > 0 && self.recent.len() > intensity_max;
        if pass == Pass::Probe || self.in_a_row >= self.policy.breaker_failures_max || is_too_often {
            self.is_probing = false;
            self.open_until_ms = Some(now_ms + self.policy.breaker_open_ms);
            return true;
        }
        false
    }

    /// What was let through went away without a result: it counts as nothing, and a probe's place is free again.
    pub(crate) fn released(&mut self, pass: Pass) {
        if pass == Pass::Probe {
            self.is_probing = false;
        }
    }

    /// Sets what people want.
    pub(crate) fn force(&mut self, forced: Forced) {
        if self.forced != forced {
            self.forced = forced;
            // What was before people stepped in says nothing of now.
            self.close();
        }
    }

    /// Takes over that another node's breaker opened, unless this one knows better. Says whether it did.
    pub(crate) fn adopt_open(&mut self, for_ms: u64, failures: u32, now_ms: u64) -> bool {
        let has_own_success = self
            .last_success_ms
            .is_some_and(|at| at + OWN_SUCCESS_COUNTS_MS > now_ms);
        if has_own_success || self.open_until_ms.is_some() {
            return false;
        }
        self.in_a_row = self.in_a_row.max(failures);
        self.open_until_ms = Some(now_ms + for_ms.min(self.policy.breaker_open_ms));
        true
    }

    /// Takes over that another node's probe succeeded.
    pub(crate) fn adopt_closed(&mut self) {
        if self.open_until_ms.is_some() && !self.is_probing {
            self.close();
        }
    }

    fn close(&mut self) {
        self.open_until_ms = None;
        self.is_probing = false;
        self.in_a_row = 0;
        self.recent.clear();
    }

    pub(crate) fn state(&self, now_ms: u64) -> BreakerState {
        let open_left_ms = self.open_until_ms.map_or(0, |until_ms| until_ms.saturating_sub(now_ms));
        BreakerState {
            phase: match (self.forced, self.open_until_ms) {
                (Forced::Closed, _) | (Forced::Auto, None) => Phase::Closed,
                (Forced::Open, _) => Phase::Open,
                (Forced::Auto, Some(_)) if open_left_ms > 0 => Phase::Open,
                (Forced::Auto, Some(_)) => Phase::HalfOpen,
            },
            forced: self.forced,
            failures: self.in_a_row,
            open_left_ms,
        }
    }

    /// Failures in a row.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        breaker_failures_max: 5,
        breaker_open_ms: 100,
        ..Policy::OUTSIDE
    };

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(POLICY);
        for n in 1..=5 {
            let pass = breaker.admit(0).expect("closed");
            assert_eq!(breaker.failed(pass, 0), n == 5);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut breaker = Breaker::new(POLICY);
        for _ in 0..3 {
            for _ in 0..4 {
                assert!(!breaker.failed(Pass::Ordinary, 0));
            }
            breaker.succeeded(Pass::Ordinary, 0);
        }
        assert_eq!(breaker.state(0).phase, Phase::Closed);
        assert_eq!(opened().admit(40), Err(60));
        assert_eq!((opened().state(0).phase, opened().state(0).failures), (Phase::Open, 5));
    }

    #[test]
    fn half_open_lets_exactly_one_through() {
        let mut breaker = opened();
        assert_eq!(breaker.state(100).phase, Phase::HalfOpen);
        let admitted: Vec<_> = (0..16).map(|_| breaker.admit(100)).collect();
        assert_eq!(
            admitted.iter().filter(|admitted| **admitted == Ok(Pass::Probe)).count(),
            1
        );
        assert_eq!(admitted.iter().filter(|admitted| admitted.is_ok()).count(), 1);
        assert!(breaker.succeeded(Pass::Probe, 100));
        assert_eq!(breaker.admit(100), Ok(Pass::Ordinary));
        assert_eq!(breaker.admit(100), Ok(Pass::Ordinary));
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_one_that_goes_away_leaves_its_place() {
        let mut breaker = opened();
        let pass = breaker.admit(100).expect("the probe");
        breaker.released(pass);
        let pass = breaker.admit(100).expect("the next probe");
        assert!(breaker.failed(pass, 100));
        assert_eq!(breaker.admit(150), Err(50));
    }

    #[test]
    fn a_late_result_from_before_it_opened_decides_nothing() {
        let mut breaker = opened();
        breaker.succeeded(Pass::Ordinary, 10);
        assert_eq!(breaker.state(10).phase, Phase::Open);
        assert_eq!(breaker.admit(100), Ok(Pass::Probe));
        assert!(!breaker.failed(Pass::Ordinary, 100));
        assert_eq!(breaker.state(100).phase, Phase::HalfOpen);
    }

    #[test]
    fn too_many_failures_within_the_time_open_it_whatever_succeeds_in_between() {
        let policy = Policy {
            intensity_max: 3,
            intensity_within_ms: 1_000,
            ..POLICY
        };
        let mut breaker = Breaker::new(policy);
        let fail = |breaker: &mut Breaker, at_ms| {
            breaker.succeeded(Pass::Ordinary, at_ms);
            breaker.failed(Pass::Ordinary, at_ms)
        };
        // Four of them, but never more than three within a second.
        assert!(![0, 500, 900, 1_400].iter().any(|at| fail(&mut breaker, *at)));
        assert!(fail(&mut breaker, 1_450));
    }

    #[test]
    fn people_have_the_last_word() {
        let mut breaker = Breaker::new(POLICY);
        breaker.force(Forced::Open);
        assert_eq!(breaker.admit(0), Err(FORCED_RETRY_MS));
        breaker.force(Forced::Closed);
        for _ in 0..10 {
            let pass = breaker.admit(0).expect("forced");
            breaker.failed(pass, 0);
        }
        assert!(breaker.admit(0).is_ok());
        breaker.force(Forced::Auto);
        assert_eq!(breaker.state(0).phase, Phase::Closed);
        assert_eq!("open".parse(), Ok(Forced::Open));
        assert!("ajar".parse::<Forced>().is_err());
    }

    #[test]
    fn what_other_nodes_know_is_taken_over_unless_this_one_knows_better() {
        let mut breaker = Breaker::new(POLICY);
        assert!(
            breaker.adopt_open(1_000_000, 5, 0),
            "but for no longer than its own policy says"
        );
        assert_eq!(breaker.admit(0), Err(100));
        breaker.adopt_closed();
        let pass = breaker.admit(0).expect("closed");
        breaker.succeeded(pass, 10_000);
        assert!(!breaker.adopt_open(100, 5, 10_000), "its own calls succeed");
        assert!(breaker.adopt_open(100, 5, 20_000));
    }
}
