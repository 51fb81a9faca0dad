//! How an effect comes back to the entity that wanted it.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Entity;
use crate::schema::{Part, versioned};

/// The outcome of an effect, as it is delivered: once, with the token that the effect was recorded with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The other side did it. For entities their reply, for services their answer as JSON.
    Replied(Bytes),
    /// The other entity's rejection.
    Rejected(Bytes),
    /// It was given up, for the reason that is said; by the policy of the service, or because the other side cannot
    /// take such a command at all.
    Failed(String),
    /// A timer of the entity has fired.
    Fired {
        /// When it was due, in milliseconds since 1970; it fires at that time or later.
        due_ms: u64,
        /// For one that repeats: how many more times it should have fired meanwhile.
        missed: u64,
    },
}

/// The outcome of a command to an entity of a known kind.
#[derive(Debug, Clone)]
pub enum Answer<T: Entity> {
    /// Accepted, with its reply.
    Replied(T::Reply),
    /// The domain said no.
    Rejected(T::Rejection),
    /// Given up.
    Failed(String),
}

impl Outcome {
    /// Reads the outcome of a command that was sent to an entity of kind `T`.
    pub fn answer<T: Entity>(&self) -> Answer<T> {
        match self {
            Self::Replied(bytes) => match versioned::decode::<T, _>(Part::Reply, bytes) {
                Ok(reply) => Answer::Replied(reply),
                Err(error) => Answer::Failed(format!("unreadable reply of {}: {error}", T::KIND)),
            },
            Self::Rejected(bytes) => match versioned::decode::<T, _>(Part::Rejection, bytes) {
                Ok(rejection) => Answer::Rejected(rejection),
                Err(error) => Answer::Failed(format!("unreadable rejection of {}: {error}", T::KIND)),
            },
            Self::Failed(reason) => Answer::Failed(reason.clone()),
            Self::Fired { .. } => Answer::Failed("not an answer: a timer has fired".to_owned()),
        }
    }

    /// Reads the answer of a service.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        match self {
            Self::Replied(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| format!("unreadable answer: {error}"))
            }
            Self::Rejected(_) => Err("rejected".to_owned()),
            Self::Failed(reason) => Err(reason.clone()),
            Self::Fired { .. } => Err("not an answer: a timer has fired".to_owned()),
        }
    }

    /// The outcome that an entity's reply makes; for tests.
    pub fn replied<T: Entity>(reply: &T::Reply) -> Self {
        Self::Replied(versioned::encode::<T>(Part::Reply, reply))
    }

    /// The outcome that an entity's rejection makes; for tests.
    pub fn rejected<T: Entity>(rejection: &T::Rejection) -> Self {
        Self::Rejected(versioned::encode::<T>(Part::Rejection, rejection))
    }
}
