//! What the engine could not do. A rejection is no error: it is the domain's answer.

use std::time::Duration;

use crate::entity::KeyError;

/// Why the engine could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A queue is full. Nothing was done; try again after the delay.
    #[error("too much is in flight ({what}); try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// Which limit was hit.
        what: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The shard has no leader that can be reached, or no majority. Nothing of this call is known to have been done.
    #[error("{reason}; try again in {} ms", retry_after.as_millis())]
    Unavailable {
        /// What is missing.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Leadership or a connection was lost with the command on its way. It may or may not take effect; asking again
    /// under the same request id is safe and says which.
    #[error("the outcome is unknown ({reason}); ask again with the same request id")]
    Unknown {
        /// What was lost.
        reason: String,
    },
    /// The deadline passed. As with [`Error::Unknown`], asking again under the same request id is safe.
    #[error("not answered within {} ms; ask again with the same request id", after.as_millis())]
    TimedOut {
        /// The caller's time limit.
        after: Duration,
    },
    /// The call itself is wrong.
    #[error("{field} {reason}")]
    Invalid {
        /// The part of the call that is wrong.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The entity's own code panicked, or its stored form cannot be read. The command was not taken.
    #[error("{entity} failed: {reason}")]
    Failed {
        /// The entity.
        entity: String,
        /// The panic's message, or what could not be read.
        reason: String,
    },
    /// The entity is quarantined: it failed again and again. The command was not taken; it may be repeated once the
    /// quarantine is lifted.
    #[error(
        "{entity} is quarantined: {reason}; see `playhouse quarantine show {entity}`, then `playhouse quarantine retry` \
         or `skip`"
    )]
    Quarantined {
        /// The entity.
        entity: String,
        /// At what it failed, and how.
        reason: String,
    },
    /// The entity failed at this very command, and people have skipped it: it was not and will not be done.
    #[error("{entity} skips this command for good: {reason}")]
    Skipped {
        /// The entity.
        entity: String,
        /// How the entity failed at it.
        reason: String,
    },
    /// The entity was forgotten, and its id decides nothing any more. The command was not taken.
    #[error("{entity} is {reason}")]
    Forgotten {
        /// The entity.
        entity: String,
        /// When, by whom and why.
        reason: String,
    },
}

impl Error {
    /// Whether the same call, repeated as it is, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded { .. } | Self::Unavailable { .. } | Self::Unknown { .. } | Self::TimedOut { .. } => true,
            Self::Invalid { .. }
            | Self::Failed { .. }
            | Self::Quarantined { .. }
            | Self::Skipped { .. }
            | Self::Forgotten { .. } => false,
        }
    }

    /// An invalid key, said of the named field.
    pub fn key(field: &str, error: &KeyError) -> Self {
        Self::Invalid {
            field: field.to_owned(),
            reason: error.to_string(),
        }
    }
}

/// How an ask ended when it did not end with a reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError<R> {
    /// The domain said no, and says it again under the same request id.
    #[error("rejected: {0:?}")]
    Rejected(R),
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] Error),
}
