//! What was recorded of an entity, and what can be learned from it: its state at any time, what lies between two times, and where
//! another build would have decided otherwise.
//!
//! Reading order: [`recorded`] (what is kept of each decision), [`travel`] (the state at a version or a time), [`mod@diff`] (what differs
//! between two states), [`mod@replay`] (every recorded command decided once more), [`caller`] (who asked), [`retention`] (how long it is kept), [`audit`]
//! (who has looked). All of that is pure: it works
//! on a list of records and a [`Registry`](crate::Registry). [`reading`] gets the records of a running cluster, [`wire`] is how they go
//! over the network; which node they come from stands in `cluster/src/engine/history.rs`.
//!
//! An author tries a changed rule against what has really happened:
//!
//! ```
//! use cluster::history::{History, replay};
//! # use cluster::{Context, Decision, Entity, NoToken, Outcome};
//! # use serde::{Deserialize, Serialize};
//! # struct Account;
//! # #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! # struct State { balance: u64 }
//! # impl Entity for Account {
//! #     const KIND: &'static str = "account";
//! #     type State = State;
//! #     type Command = u64;
//! #     type Event = u64;
//! #     type Reply = u64;
//! #     type Rejection = ();
//! #     type Token = NoToken;
//! #     fn decide(state: &State, n: u64, _: &Context) -> Result<Decision<Self>, ()> {
//! #         Ok(Decision::reply(state.balance + n).event(n))
//! #     }
//! #     fn evolve(state: &mut State, n: &u64) { state.balance += n }
//! #     fn resume(token: NoToken, _: Outcome) -> u64 { match token {} }
//! # }
//! // Of a running cluster: `cluster.history(&key, &request).await?.whole(10_000).await?`
//! let history = History::default();
//! let replayed = replay::<Account>(&history).expect("this build can read it");
//! assert!(replayed.is_equal(), "{replayed}");
//! ```

pub mod audit;
mod auditing;
pub mod caller;
pub mod diff;
pub mod reading;
pub mod recorded;
pub mod replay;
pub mod retention;
pub mod travel;
pub mod wire;

#[cfg(test)]
mod tests;

pub use audit::AuditEntry;
pub use caller::Caller;
pub use diff::{Change, diff};
pub use reading::{HistoryFault, HistoryReader};
pub use recorded::{Base, Cause, Recorded, RecordedEffect};
pub use replay::{Difference, Replayed, Replayer, replay, replay_in};
pub use retention::Retention;
pub use travel::{Moment, Point, at, at_in};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entity::EntityKey;

/// An entity's history, or the part of it that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Where it begins.
    pub base: Base,
    /// Every record after that, in order.
    pub records: Vec<Recorded>,
    /// How far the entity had come.
    pub head: Head,
}

/// How far an entity had come when its history was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of its last record; 0 where it has none.
    pub seq: u64,
    /// The number of its events.
    pub version: u64,
    /// Its state, as the cluster's build has made it; `None` where that was not asked for, or cannot be told.
    pub state: Option<Bytes>,
}

/// Why something cannot be told of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Nothing has happened to it.
    #[error("{0} has no events: nothing has happened to it")]
    Nothing(EntityKey),
    /// The point lies before the first record.
    #[error("{entity} did not exist yet {point}: its first record is of {first_ms} (unix ms)")]
    BeforeFirst {
        /// The entity.
        entity: EntityKey,
        /// What was asked for.
        point: Point,
        /// When its first record was decided, in milliseconds since 1970.
        first_ms: u64,
    },
    /// The version has not been reached.
    #[error("{entity} has only come to version {head}, not to {version}")]
    Beyond {
        /// The entity.
        entity: EntityKey,
        /// What was asked for.
        version: u64,
        /// How far it has come.
        head: u64,
    },
    /// The point lies in a part of the history that is no longer kept.
    #[error("the history of {entity} is kept from version {first} ({first_ms} unix ms) on; what was {point} is gone")]
    NotKept {
        /// The entity.
        entity: EntityKey,
        /// What was asked for.
        point: Point,
        /// The first version whose state can be told.
        first: u64,
        /// When it was reached, in milliseconds since 1970.
        first_ms: u64,
    },
    /// This build cannot read a record, or cannot take it into the state.
    #[error("record {seq} of {entity} cannot be taken by this build: {reason}")]
    Unreadable {
        /// The entity.
        entity: EntityKey,
        /// The record's number.
        seq: u64,
        /// Why not.
        reason: String,
    },
    /// This build does not know the kind.
    #[error("this build knows no kind of entity named {0:?}")]
    UnknownKind(String),
    /// A record is missing, or comes twice.
    #[error("the history of {entity} has record {found} where {expected} should be")]
    Gap {
        /// The entity.
        entity: EntityKey,
        /// The number that should come next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
}
