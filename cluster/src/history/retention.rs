//! How long a kind of entity keeps its history, and how many records of it.
//!
//! By default for ever. Where a kind keeps less, the shard's leader lets the oldest records of an entity go, some of them at a time,
//! each time by a record of the journal that carries the state which they added up to; so every replica does the same, and a replay or
//! a look into the past begins there. Three things are kept whatever the policy says: what is younger than the request ids are kept
//! (`requests_kept_ms`), because a caller that repeats is answered from it; what answered an effect of another entity that may come
//! again; and everything after such a record.

use serde::{Deserialize, Serialize};

/// What a kind keeps of the history of each entity. A record goes once it is over one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// At most so many records; `None` for any number.
    pub records_max: Option<u64>,
    /// None that are older than so many milliseconds; `None` for any age.
    pub age_max_ms: Option<u64>,
}

/// What of a history may go, as it stands when it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letting {
    /// Records up to this number are more than the kind keeps.
    over_number: u64,
    /// Records before this time are older than the kind keeps them,
    older_ms: u64,
    /// and all from here on are needed.
    needed_from_ms: u64,
    needed_from_seq: u64,
}

impl Retention {
    /// Everything, for ever.
    pub const FOR_EVER: Self = Self {
        records_max: None,
        age_max_ms: None,
    };

    /// Whether anything ever goes.
    pub fn is_for_ever(&self) -> bool {
        *self == Self::FOR_EVER
    }

    /// What may go of a history with so many records. `needed_from_seq` is the first record that answered another entity's effect
    /// which may come again.
    pub(crate) fn letting(&self, head_seq: u64, now_ms: u64, requests_kept_ms: u64, needed_from_seq: u64) -> Letting {
        Letting {
            over_number: self.records_max.map_or(0, |max| head_seq.saturating_sub(max)),
            older_ms: self.age_max_ms.map_or(0, |max| now_ms.saturating_sub(max)),
            needed_from_ms: now_ms.saturating_sub(requests_kept_ms),
            needed_from_seq,
        }
    }
}

impl Letting {
    /// Whether the record of this number and time may go, if all before it do.
    pub(crate) fn lets_go(&self, seq: u64, at_ms: u64) -> bool {
        let is_too_much = seq <= self.over_number || at_ms < self.older_ms;
        is_too_much && at_ms < self.needed_from_ms && seq < self.needed_from_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_a_limit_goes_unless_it_is_needed() {
        let number = Retention {
            records_max: Some(10),
            ..Retention::FOR_EVER
        };
        let letting = number.letting(15, 1_000, 100, u64::MAX);
        assert!(letting.lets_go(5, 10) && !letting.lets_go(6, 10));
        assert!(!letting.lets_go(5, 950), "a caller may still repeat it");
        assert!(
            !number.letting(15, 1_000, 100, 5).lets_go(5, 10),
            "its effect may come again"
        );
        let age = Retention {
            age_max_ms: Some(500),
            ..Retention::FOR_EVER
        };
        let letting = age.letting(15, 1_000, 100, u64::MAX);
        assert!(letting.lets_go(14, 499) && !letting.lets_go(1, 500));
        let letting = Retention::FOR_EVER.letting(1_000_000, u64::MAX, 0, u64::MAX);
        assert!(!letting.lets_go(1, 0));
    }
}
