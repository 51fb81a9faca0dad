//! The answers of forwarded calls on the wire.

use std::time::Duration;

use bytes::Bytes;
use proto::history::v1 as history;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::{
    admission::Overload,
    config::NodeId,
    entity::{EntityKey, decision::EffectRequest, release::Released},
    error::Error,
    journal::{EffectId, OutboxRow, Reply, Tombstone, quarantine::QuarantineRow},
    token::VersionToken,
};

/// The end of a forwarded call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Forwarded {
    /// The entity's reply or rejection.
    Reply(Reply, VersionToken),
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
    /// The entity is on its way back after a failure.
    Restarting { after_ms: u64, reason: String },
    /// The entity is quarantined.
    Quarantined(String),
    /// The command was skipped for good.
    Skipped(String),
    /// What came of lifting a quarantine.
    Released(Released),
    /// What is known of a quarantine.
    Quarantine(Option<Box<QuarantineView>>),
    /// The open effects of an entity.
    Outbox(Vec<OutboxView>),
    /// The entity is forgotten.
    Forgotten(String),
    /// What is left of an entity that was to be forgotten; nothing if there was nothing.
    Tombstone(Option<Box<Tombstone>>),
    /// This replica cannot show that what it holds is new enough for the read.
    TooOld,
}

/// An effect that is not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxView {
    pub(crate) id: String,
    pub(crate) target: String,
    /// What a service is asked, as JSON.
    pub(crate) json: String,
    /// How often this leader has tried in vain, and why.
    pub(crate) attempts: u32,
    pub(crate) waits_for: String,
}

impl OutboxView {
    pub(crate) fn new(id: &EffectId, row: &OutboxRow) -> Self {
        let (target, json) = match &row.effect.request {
            EffectRequest::Command { to, .. } => (to.to_string(), String::new()),
            EffectRequest::Call { service, request } => {
                (service.clone(), String::from_utf8_lossy(request).into_owned())
            }
            EffectRequest::SetTimer { name, .. } | EffectRequest::CancelTimer { name } => {
                (name.to_string(), String::new())
            }
        };
        Self {
            id: id.to_string(),
            target,
            json,
            attempts: 0,
            waits_for: String::new(),
        }
    }
}

/// An entity that is or was quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuarantineView {
    pub(crate) entity: EntityKey,
    pub(crate) shard: u32,
    pub(crate) row: QuarantineRow,
}

/// An entity that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateView {
    pub(crate) version: u64,
    pub(crate) state: Bytes,
    /// Where they were asked for: events with their version, time, request and trace.
    pub(crate) events: Vec<EventView>,
    /// A position of the journal that holds all of it.
    pub(crate) token: VersionToken,
    /// How old it may be, in microseconds; 0 where it is linearizable, `None` where it is not known.
    pub(crate) age_us: Option<u64>,
    /// Who answered.
    pub(crate) node: NodeId,
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

/// When to come again to a node that does not say so itself.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The status under which an error goes to another node.
pub(crate) fn status_of(error: &Error) -> Status {
    let text = error.to_string();
    match error {
        Error::Overloaded { .. } => Status::resource_exhausted(text),
        Error::Invalid { field, reason } => Status::invalid_argument(format!("{field}\n{reason}")),
        Error::Forgotten { entity, reason } => Status::failed_precondition(format!("{entity}\n{reason}")),
        Error::Failed { entity, reason } => Status::data_loss(format!("{entity}\n{reason}")),
        _ => Status::unavailable(text),
    }
}

/// The error that another node's status stands for.
pub(crate) fn error_of(status: &Status) -> Error {
    let two = || {
        let (first, second) = status.message().split_once('\n').unwrap_or(("", status.message()));
        (first.to_owned(), second.to_owned())
    };
    match status.code() {
        Code::ResourceExhausted => Error::Overloaded {
            what: status.message().to_owned(),
            retry_after: RETRY_AFTER,
        },
        Code::InvalidArgument => {
            let (field, reason) = two();
            Error::Invalid { field, reason }
        }
        Code::FailedPrecondition => {
            let (entity, reason) = two();
            Error::Forgotten { entity, reason }
        }
        Code::DataLoss => {
            let (entity, reason) = two();
            Error::Failed { entity, reason }
        }
        _ => Error::Unavailable {
            reason: status.message().to_owned(),
            retry_after: RETRY_AFTER,
        },
    }
}

/// Hands on the pages that another node sends.
pub(crate) async fn relay_history(
    mut pages: Streaming<history::RecordsPage>,
    sender: &mpsc::Sender<Result<history::RecordsPage, Error>>,
) -> Result<(), Error> {
    while let Some(page) = pages.message().await.map_err(|status| error_of(&status))? {
        if sender.send(Ok(page)).await.is_err() {
            break;
        }
    }
    Ok(())
}

impl Forwarded {
    pub(crate) fn overloaded(overload: Overload) -> Self {
        Self::Overloaded {
            limit: overload.limit.to_string(),
            retry_ms: u64::try_from(overload.retry_after.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
