//! What becomes of a call that no leader takes, whoever it is; and of what another node says about who asked.

use std::sync::Arc;

use crate::{
    entity::{EntityKey, key::check},
    error::Error,
    history::caller::ASKED_BY_LEN_MAX,
    transport::outcome::Forwarded,
};

/// Who asked, as another node has passed it on; what this node would not take counts as nobody.
pub(super) fn asked_by(name: &str) -> Option<Arc<str>> {
    (!name.is_empty() && check(name, ASKED_BY_LEN_MAX).is_ok()).then(|| name.into())
}

/// The error of a call that was refused for good.
pub(super) fn refused(key: &EntityKey, answer: Forwarded) -> Error {
    match answer {
        Forwarded::Failed(reason) => Error::Failed {
            entity: key.to_string(),
            reason,
        },
        Forwarded::Invalid { field, reason } => Error::Invalid { field, reason },
        Forwarded::Forgotten(reason) => Error::Forgotten {
            entity: key.to_string(),
            reason,
        },
        other => unexpected(key, &other),
    }
}

pub(super) fn unexpected(key: &EntityKey, answer: &Forwarded) -> Error {
    Error::Failed {
        entity: key.to_string(),
        reason: format!("answered with something else than was asked: {answer:?}"),
    }
}
