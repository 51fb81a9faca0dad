//! The answers of forwarded calls on the wire.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{admission::Overload, config::NodeId, journal::Reply};

/// The end of a forwarded call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Forwarded {
    /// The entity's reply or rejection.
    Reply(Reply),
    /// The entity's state.
    State(StateView),
    /// This node does not lead the shard; it thinks that this one does.
    NotLeader(Option<NodeId>),
    /// Perhaps done.
    Unknown,
    /// A limit was reached: which, and when to come again.
    Overloaded { limit: String, retry_ms: u64 },
    /// The entity's own code failed.
    Failed(String),
    /// The call is wrong.
    Invalid { field: String, reason: String },
}

/// An entity that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateView {
    pub(crate) version: u64,
    pub(crate) state: Bytes,
    /// Where they were asked for: events with their version, time, request and trace.
    pub(crate) events: Vec<EventView>,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventView {
    pub(crate) version: u64,
    pub(crate) event: Bytes,
    pub(crate) at_ms: u64,
    pub(crate) request: String,
    pub(crate) trace: crate::trace::TraceContext,
}

impl Forwarded {
    pub(crate) fn overloaded(overload: Overload) -> Self {
        Self::Overloaded {
            limit: overload.limit.to_string(),
            retry_ms: u64::try_from(overload.retry_after.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
