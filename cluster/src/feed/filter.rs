//! Which entities' events are wanted.

use serde::{Deserialize, Serialize};

use super::group::Group;
use crate::{
    entity::{Entity as _, EntityKey},
    history::audit::Audit,
    membership::Roster,
    supervision::dependency::Dependency,
};

/// Kinds that one filter may name.
pub const KINDS_LEN_MAX: usize = 64;
/// The longest name of a kind, in bytes.
pub const KIND_LEN_MAX: usize = 64;

/// Which entities' events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedFilter {
    /// Only these kinds; none for all but the engine's own.
    pub kinds: Vec<String>,
    /// Only this entity.
    pub entity: Option<EntityKey>,
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many kinds.
    #[error("names {0} kinds; at most {KINDS_LEN_MAX} are allowed")]
    TooMany(usize),
    /// No kind can have this name.
    #[error("names the kind {0:?}, which is empty or longer than {KIND_LEN_MAX} bytes")]
    Name(String),
}

impl FeedFilter {
    /// All of these kinds.
    pub fn of_kinds<T: Into<String>>(kinds: impl IntoIterator<Item = T>) -> Self {
        Self {
            kinds: kinds.into_iter().map(Into::into).collect(),
            entity: None,
        }
    }

    /// One entity.
    pub fn of_entity(entity: EntityKey) -> Self {
        Self {
            kinds: Vec::new(),
            entity: Some(entity),
        }
    }

    /// Whether it keeps to the limits.
    pub fn check(&self) -> Result<(), FilterError> {
        if self.kinds.len() > KINDS_LEN_MAX {
            return Err(FilterError::TooMany(self.kinds.len()));
        }
        let wrong = |kind: &&String| kind.is_empty() || kind.len() > KIND_LEN_MAX;
        match self.kinds.iter().find(wrong) {
            Some(kind) => Err(FilterError::Name(kind.chars().take(KIND_LEN_MAX).collect())),
            None => Ok(()),
        }
    }

    /// Whether an entity's events are wanted.
    pub fn wants(&self, key: &EntityKey) -> bool {
        let is_named = self.entity.as_ref().is_some_and(|entity| entity == key);
        let is_kind = if self.kinds.is_empty() {
            is_named || !is_own(&key.kind)
        } else {
            self.kinds.iter().any(|kind| **kind == *key.kind)
        };
        is_kind && (is_named || self.entity.is_none())
    }
}

/// Whether a kind is one of the engine's own, which nobody gets who does not ask for it by name.
pub(crate) fn is_own(kind: &str) -> bool {
    [Roster::KIND, Dependency::KIND, Group::KIND, Audit::KIND].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> EntityKey {
        EntityKey::parse(text).expect("a key")
    }

    #[test]
    fn the_engines_own_events_are_for_those_who_ask_for_them() {
        let all = FeedFilter::default();
        assert!(all.wants(&key("order/1")));
        assert!(!all.wants(&key("breaker/provider")));
        assert!(FeedFilter::of_kinds(["breaker"]).wants(&key("breaker/provider")));
        assert!(FeedFilter::of_entity(key("breaker/provider")).wants(&key("breaker/provider")));
    }

    #[test]
    fn kinds_and_entity_must_both_fit() {
        let orders = FeedFilter::of_kinds(["order", "payment"]);
        assert!(orders.wants(&key("payment/1")) && !orders.wants(&key("stock/1")));
        let mut one = FeedFilter::of_entity(key("order/1"));
        assert!(one.wants(&key("order/1")) && !one.wants(&key("order/2")));
        one.kinds = vec!["payment".to_owned()];
        assert!(!one.wants(&key("order/1")));
    }

    #[test]
    fn a_filter_over_the_limits_says_which() {
        let many = FeedFilter::of_kinds((0..65).map(|n| format!("k{n}")));
        assert_eq!(many.check(), Err(FilterError::TooMany(65)));
        assert!(FeedFilter::of_kinds([""]).check().is_err());
        assert!(FeedFilter::of_kinds(["order"]).check().is_ok());
    }
}
