//! How a payment provider is called: where, how often, for how long, and what happens when it is down. Pauses, breaker and
//! bulkhead stand in its supervision policy.

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

/// How a payment provider is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Where it listens, for example `http://127.0.0.1:7000`.
    pub url: String,
    /// What becomes of authorisations while it is down. Captures, voids and refunds always wait.
    #[serde(default)]
    pub when_down: WhenDown,
    /// With [`WhenDown::Refuse`]: an authorisation that has no answer for so long is given up.
    #[serde(default = "defaults::authorise_give_up_ms")]
    pub authorise_give_up_ms: u64,
    /// How long one call may take.
    #[serde(default = "defaults::timeout_ms")]
    pub timeout_ms: u64,
    /// Calls a second.
    #[serde(default = "defaults::calls_per_s_max")]
    pub calls_per_s_max: NonZeroU32,
    /// Repetitions a second that are always allowed; beyond it they are a fifth of first calls.
    #[serde(default = "defaults::retries_per_s_min")]
    pub retries_per_s_min: NonZeroU32,
}

/// What becomes of authorisations while the provider is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// They wait until it is back.
    Wait,
    /// They are given up after [`Policy::authorise_give_up_ms`], and their orders refused.
    #[default]
    Refuse,
}

mod defaults {
    use std::num::NonZeroU32;

    pub(super) fn authorise_give_up_ms() -> u64 {
        15_000
    }
    pub(super) fn timeout_ms() -> u64 {
        2_000
    }
    pub(super) fn calls_per_s_max() -> NonZeroU32 {
        NonZeroU32::new(10_000).expect("it is not 0")
    }
    pub(super) fn retries_per_s_min() -> NonZeroU32 {
        NonZeroU32::new(50).expect("it is not 0")
    }
}

impl Policy {
    /// The defaults, for a provider at this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            when_down: WhenDown::default(),
            authorise_give_up_ms: defaults::authorise_give_up_ms(),
            timeout_ms: defaults::timeout_ms(),
            calls_per_s_max: defaults::calls_per_s_max(),
            retries_per_s_min: defaults::retries_per_s_min(),
        }
    }

    /// The first value that cannot be, with what is wrong with it.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        match reqwest::Url::parse(&self.url) {
            Err(error) => return Some(("url", format!("is no URL: {error}"))),
            Ok(url) if url.scheme() != "http" => {
                return Some((
                    "url",
                    format!("has the scheme {}; only http is supported", url.scheme()),
                ));
            }
            Ok(_) => {}
        }
        (self.timeout_ms == 0).then(|| ("timeout_ms", "is 0; it must be more".to_owned()))
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}
