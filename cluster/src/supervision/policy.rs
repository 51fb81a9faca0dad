//! The supervision policy: one object for each kind of entity and for each dependency outside.
//!
//! | field | of an entity | of a dependency outside |
//! | --- | --- | --- |
//! | `intensity_max`, `intensity_within_ms` | restarts within the time; more open its breaker. The time is also how long a failure is remembered | failures within the time; more open its breaker |
//! | `backoff_first_ms`, `backoff_max_ms`, `jitter_percent` | the pause before a restart | the pause before a repetition |
//! | `breaker_failures_max`, `breaker_open_ms` | failures in a row; then nothing is decided for the time, and one command probes | the same of calls |
//! | `in_flight_max` | commands that may wait for one entity | calls under way at the same time |
//! | `quarantine_after` | like failures that quarantine it | no meaning |

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pauses double up to this many times.
const DOUBLINGS_MAX: u32 = 20;

/// How failures are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Failures within [`Policy::intensity_within_ms`] that open the breaker, whatever succeeded in between; 0 for no limit.
    pub intensity_max: u32,
    /// How long a failure counts.
    pub intensity_within_ms: u64,
    /// The first pause after a failure; it doubles with each failure in a row.
    pub backoff_first_ms: u64,
    /// The longest pause.
    pub backoff_max_ms: u64,
    /// Up to this part of a pause is added at random, so that what failed together does not come back together.
    pub jitter_percent: u32,
    /// Failures in a row that open the breaker.
    pub breaker_failures_max: u32,
    /// How long the breaker stays open before one call or command probes.
    pub breaker_open_ms: u64,
    /// The bulkhead: what may be under way or wait at once.
    pub in_flight_max: usize,
    /// Like failures (at the same place) within [`Policy::intensity_within_ms`] that quarantine an entity; 0 for never.
    pub quarantine_after: u32,
}

/// A value of a policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {reason}")]
pub struct PolicyFault {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Policy {
    /// The default for a kind of entity.
    pub const ENTITY: Self = Self {
        intensity_max: 20,
        intensity_within_ms: 600_000,
        backoff_first_ms: 50,
        backoff_max_ms: 5_000,
        jitter_percent: 50,
        breaker_failures_max: 5,
        breaker_open_ms: 10_000,
        in_flight_max: 4_096,
        quarantine_after: 3,
    };

    /// The default for a dependency outside.
    pub const OUTSIDE: Self = Self {
        intensity_max: 0,
        intensity_within_ms: 60_000,
        backoff_first_ms: 50,
        backoff_max_ms: 5_000,
        jitter_percent: 100,
        breaker_failures_max: 5,
        breaker_open_ms: 60_000,
        in_flight_max: 256,
        quarantine_after: 0,
    };

    /// The pause before the next attempt after so many failures in a row before the last one. `random` is from 0 to 1.
    pub fn backoff(&self, failures_before: u32, random: f64) -> Duration {
        let doublings = failures_before.min(DOUBLINGS_MAX);
        let pause = self
            .backoff_first_ms
            .saturating_mul(1 << doublings)
            .min(self.backoff_max_ms);
        let jitter = pause as f64 * f64::from(self.jitter_percent) / 100.0 * random;
        Duration::from_millis(pause.saturating_add(jitter as u64))
    }

    /// Checks the values.
    pub fn check(&self) -> Result<(), PolicyFault> {
        let positive = [
            ("intensity_within_ms", self.intensity_within_ms),
            ("backoff_first_ms", self.backoff_first_ms),
            ("breaker_failures_max", u64::from(self.breaker_failures_max)),
            ("breaker_open_ms", self.breaker_open_ms),
            ("in_flight_max", self.in_flight_max as u64),
        ];
        let fault = |key, reason: String| Err(PolicyFault { key, reason });
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return fault(key, "is 0; it must be more".to_owned());
        }
        if self.backoff_max_ms < self.backoff_first_ms {
            let reason = format!("is {}; it must be at least backoff_first_ms", self.backoff_max_ms);
            return fault("backoff_max_ms", reason);
        }
        if self.jitter_percent > 100 {
            let reason = format!("is {}; it goes from 0 to 100", self.jitter_percent);
            return fault("jitter_percent", reason);
        }
        Ok(())
    }
}

/// Values that differ from a policy's own, as a config file gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// See [`Policy::intensity_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intensity_max: Option<u32>,
    /// See [`Policy::intensity_within_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intensity_within_ms: Option<u64>,
    /// See [`Policy::backoff_first_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_first_ms: Option<u64>,
    /// See [`Policy::backoff_max_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u64>,
    /// See [`Policy::jitter_percent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<u32>,
    /// See [`Policy::breaker_failures_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_failures_max: Option<u32>,
    /// See [`Policy::breaker_open_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_open_ms: Option<u64>,
    /// See [`Policy::in_flight_max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<usize>,
    /// See [`Policy::quarantine_after`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_after: Option<u32>,
}

impl Overrides {
    /// A policy with these values in place of its own, checked.
    pub fn of(&self, policy: Policy) -> Result<Policy, PolicyFault> {
        let policy = Policy {
            intensity_max: self.intensity_max.unwrap_or(policy.intensity_max),
            intensity_within_ms: self.intensity_within_ms.unwrap_or(policy.intensity_within_ms),
            backoff_first_ms: self.backoff_first_ms.unwrap_or(policy.backoff_first_ms),
            backoff_max_ms: self.backoff_max_ms.unwrap_or(policy.backoff_max_ms),
            jitter_percent: self.jitter_percent.unwrap_or(policy.jitter_percent),
            breaker_failures_max: self.breaker_failures_max.unwrap_or(policy.breaker_failures_max),
            breaker_open_ms: self.breaker_open_ms.unwrap_or(policy.breaker_open_ms),
            in_flight_max: self.in_flight_max.unwrap_or(policy.in_flight_max),
            quarantine_after: self.quarantine_after.unwrap_or(policy.quarantine_after),
        };
        policy.check().map(|()| policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right_and_overrides_are_checked() {
        assert_eq!(Policy::ENTITY.check(), Ok(()));
        assert_eq!(Policy::OUTSIDE.check(), Ok(()));
        let overrides = Overrides {
            breaker_open_ms: Some(7),
            ..Overrides::default()
        };
        let policy = overrides.of(Policy::ENTITY).expect("right");
        assert_eq!(policy.breaker_open_ms, 7);
        assert_eq!(policy.quarantine_after, Policy::ENTITY.quarantine_after);
    }

    #[test]
    fn what_cannot_be_is_named_with_its_key() {
        let fault = |overrides: Overrides| overrides.of(Policy::OUTSIDE).expect_err("wrong").to_string();
        let wrong = Overrides {
            backoff_first_ms: Some(6_000),
            ..Overrides::default()
        };
        assert!(fault(wrong).starts_with("backoff_max_ms is 5000"));
        let wrong = Overrides {
            jitter_percent: Some(101),
            ..Overrides::default()
        };
        assert!(fault(wrong).starts_with("jitter_percent is 101"));
        let wrong = Overrides {
            in_flight_max: Some(0),
            ..Overrides::default()
        };
        assert!(fault(wrong).starts_with("in_flight_max is 0"));
        let unknown = serde_json::from_str::<Overrides>(r#"{"breaker": 1}"#).expect_err("unknown");
        assert!(unknown.to_string().contains("`breaker`"));
    }

    #[test]
    fn pauses_double_to_their_limit_and_jitter_is_added() {
        let policy = Policy {
            jitter_percent: 50,
            ..Policy::ENTITY
        };
        for failures in [0, 1, 5, 40, u32::MAX] {
            let least = (50 << failures.min(20)).min(5_000);
            assert_eq!(policy.backoff(failures, 0.0), Duration::from_millis(least));
            assert_eq!(policy.backoff(failures, 1.0), Duration::from_millis(least * 3 / 2));
        }
    }
}
