//! How new what a call reads must be, as its metadata says, and how new it was, as that of the answer says.
//!
//! | key | direction | value |
//! | --- | --- | --- |
//! | `x-read` | in | `linearizable` (as without it), or `stale=500ms`: any replica may answer that is no older; `ms` or `s` |
//! | `x-read-after` | in | version tokens, divided by commas: what is read is at least as new |
//! | `x-version-token` | out | of the entity that was read or told: for `x-read-after` of later reads |
//! | `x-staleness-ms` | out | of a read: how old it may be, rounded up; 0 where it is linearizable |
//!
//! They count for the calls that show one entity. Commands are always decided by the leader.

use std::time::Duration;

use cluster::{Consistency, QueryOptions, ReadOptions, VersionToken, Versioned};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::status::Fault;

/// How new a read must be.
pub(crate) const READ_KEY: &str = "x-read";
/// What a read must have seen.
pub(crate) const READ_AFTER_KEY: &str = "x-read-after";
/// How far the shard of the entity had come.
pub(crate) const VERSION_TOKEN_KEY: &str = "x-version-token";
/// How old what was read may be.
const STALENESS_KEY: &str = "x-staleness-ms";
/// The longest bound of a stale read.
const STALE_MAX_MS: u64 = 86_400_000;
/// Version tokens of one call: more than a cluster has busy shards for one caller.
const TOKENS_MAX: usize = 64;

/// How new what a call reads must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    consistency: Option<Consistency>,
    after: Vec<VersionToken>,
}

/// How new what a call read or did is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Newness {
    pub(crate) token: Option<VersionToken>,
    pub(crate) staleness: Option<Duration>,
}

impl Reading {
    /// Reads a call's metadata.
    pub(crate) fn of(metadata: &MetadataMap) -> Result<Self, Fault> {
        // Nearly all calls have neither.
        if metadata.get(READ_KEY).is_none() && metadata.get(READ_AFTER_KEY).is_none() {
            return Ok(Self::default());
        }
        let text = |key: &'static str, value: &MetadataValue<_>| {
            value
                .to_str()
                .map(str::to_owned)
                .map_err(|_| Fault::invalid(key, "is not plain ASCII text"))
        };
        let read = metadata.get(READ_KEY).map(|value| text(READ_KEY, value)).transpose()?;
        let after = metadata
            .get_all(READ_AFTER_KEY)
            .iter()
            .map(|value| text(READ_AFTER_KEY, value))
            .collect::<Result<Vec<_>, _>>()?;
        Self::parse(read.as_deref().unwrap_or_default(), &after)
    }

    /// Reads the same from texts; an empty one stands for none.
    pub(crate) fn parse(read: &str, after: &[String]) -> Result<Self, Fault> {
        let consistency = match read.trim() {
            "" => None,
            "linearizable" => Some(Consistency::Linearizable),
            other => Some(Consistency::Stale(bound(other).ok_or_else(|| {
                Fault::invalid(
                    READ_KEY,
                    format!(
                        "is neither `linearizable` nor `stale=` with a time up to {STALE_MAX_MS} ms, as in stale=500ms"
                    ),
                )
            })?)),
        };
        let mut tokens = Vec::new();
        let texts = after.iter().flat_map(|texts| texts.split(','));
        for (place, token) in texts.map(str::trim).filter(|text| !text.is_empty()).enumerate() {
            if place >= TOKENS_MAX {
                return Err(Fault::invalid(
                    READ_AFTER_KEY,
                    format!("has more than {TOKENS_MAX} tokens; one for each shard is enough"),
                ));
            }
            let token = token.parse().map_err(|error| Fault::invalid(READ_AFTER_KEY, error))?;
            VersionToken::keep(&mut tokens, token);
        }
        Ok(Self {
            consistency,
            after: tokens,
        })
    }

    /// For a question to a read model, which the nearest replicas answer where nothing is said.
    pub(crate) fn query_options(&self) -> QueryOptions {
        QueryOptions {
            consistency: self.consistency,
            after: self.after.clone(),
        }
    }

    /// For the engine.
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            consistency: self.consistency.unwrap_or(Consistency::Tokens),
            after: self.after.clone(),
            ..ReadOptions::default()
        }
    }
}

/// The bound of `stale=500ms` or `stale=2s`.
fn bound(text: &str) -> Option<Duration> {
    let time = text.strip_prefix("stale=")?;
    let (digits, unit_ms) = match time.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (time.strip_suffix('s')?, 1_000),
    };
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms = digits.parse::<u64>().ok()? * unit_ms;
    (ms <= STALE_MAX_MS).then(|| Duration::from_millis(ms))
}

impl Newness {
    /// That of what was read.
    pub(crate) fn of<S>(read: &Versioned<S>) -> Self {
        Self {
            token: Some(read.token),
            staleness: read.staleness,
        }
    }

    /// In whole milliseconds, rounded up.
    pub(crate) fn staleness_ms(&self) -> Option<u64> {
        let staleness = self.staleness?;
        u64::try_from(staleness.as_micros().div_ceil(1_000)).ok()
    }

    /// Says so in the metadata of the answer.
    pub(crate) fn tell(&self, metadata: &mut MetadataMap) {
        if let Some(token) = self.token
            && let Ok(token) = MetadataValue::try_from(token.to_string())
        {
            metadata.insert(VERSION_TOKEN_KEY, token);
        }
        if let Some(ms) = self.staleness_ms() {
            metadata.insert(STALENESS_KEY, MetadataValue::from(ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "v1-3-1f4-feed-2c136b57";

    fn consistency(read: &str) -> Option<Consistency> {
        Reading::parse(read, &[]).expect("readable").consistency
    }

    #[test]
    fn a_bound_is_read_in_both_units_and_nonsense_is_refused() {
        assert_eq!(consistency(""), None);
        assert_eq!(consistency("linearizable"), Some(Consistency::Linearizable));
        assert_eq!(
            consistency("stale=500ms"),
            Some(Consistency::Stale(Duration::from_millis(500)))
        );
        assert_eq!(
            consistency("stale=2s"),
            Some(Consistency::Stale(Duration::from_secs(2)))
        );
        for nonsense in [
            "stale",
            "stale=",
            "stale=ms",
            "stale=-1ms",
            "stale=1m",
            "stale=1.5s",
            "stale=86401s",
            "any",
            "é",
        ] {
            assert!(Reading::parse(nonsense, &[]).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn tokens_are_read_and_their_number_has_a_limit() {
        let two = [format!("{TOKEN}, {TOKEN}"), TOKEN.to_owned()];
        let reading = Reading::parse("", &two).expect("readable");
        assert_eq!(reading.after.len(), 1);
        assert_eq!(reading.options().consistency, Consistency::Tokens);
        assert!(Reading::parse("", &["v1-0-0-0".to_owned()]).is_err());
        let many = vec![TOKEN; TOKENS_MAX + 1].join(",");
        let refused = Reading::parse("", &[many]).expect_err("too many").to_string();
        assert!(refused.contains("64"), "{refused}");
    }

    #[test]
    fn staleness_is_rounded_up() {
        let newness = |micros| Newness {
            token: None,
            staleness: Some(Duration::from_micros(micros)),
        };
        assert_eq!(
            [0, 1, 1_000, 1_001].map(|us| newness(us).staleness_ms()),
            [Some(0), Some(1), Some(1), Some(2)]
        );
    }
}
