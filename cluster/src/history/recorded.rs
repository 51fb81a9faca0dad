//! What is recorded of one decision, as history keeps it: enough to decide it again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    entity::{EntityKey, decision::EffectRequest},
    journal::{Decided, Reply},
    trace::TraceContext,
};

/// One recorded decision of an entity. Command, reply, events and effects are in the entity's own encoding (MessagePack with
/// field names).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The entity.
    pub entity: EntityKey,
    /// Its number among the entity's records, from 1.
    pub seq: u64,
    /// When it was decided, by the leader's clock, in milliseconds since 1970. What [`Context::now_ms`](crate::Context) said then.
    pub at_ms: u64,
    /// The idempotency key of the command.
    pub request_id: String,
    /// Who asked, as they said: `tenant/caller`. Empty where nobody said, and for what the cluster itself asked.
    pub asked_by: String,
    /// The trace it belongs to.
    pub trace: TraceContext,
    /// Where the command came from.
    pub cause: Cause,
    /// The command.
    pub command: Bytes,
    /// The reply, or the rejection.
    pub reply: Result<Bytes, Bytes>,
    /// What happened, in order.
    pub events: Vec<Bytes>,
    /// What was to be done; `None` for records of builds that did not keep it in history.
    pub effects: Option<Vec<RecordedEffect>>,
    /// People have skipped the command, for this reason: it was never decided.
    pub skipped: Option<String>,
}

/// Where a recorded command came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A client, or the cluster itself.
    Call,
    /// An effect of an entity; its id names the record that caused it.
    Effect,
    /// The outcome of this effect of the entity itself.
    Outcome(String),
    /// A timer of the entity.
    Timer {
        /// Its name.
        name: String,
        /// When it was due, in milliseconds since 1970.
        due_ms: u64,
    },
}

/// A recorded effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEffect {
    /// Who is to do what.
    pub request: EffectRequest,
    /// Comes back with the outcome; `None` where nobody waits for one.
    pub token: Option<Bytes>,
}

/// Where a history begins whose first records are no longer kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The number of the last record that is gone; 0 where none is.
    pub seq: u64,
    /// The number of events up to there.
    pub version: u64,
    /// When that record was decided, in milliseconds since 1970.
    pub at_ms: u64,
    /// The state then, in the entity's own encoding; `None` for an entity that no event has reached.
    pub state: Option<Bytes>,
}

impl Recorded {
    /// What a journal's record says; `is_stored` for one from a history row, which may be that of an older build.
    pub(crate) fn new(record: &Decided, is_stored: bool) -> Self {
        let reply: &Reply = &record.reply;
        let cause = match (&record.fires, record.acknowledges.first()) {
            (Some(firing), _) => Cause::Timer {
                name: firing.name.to_string(),
                due_ms: firing.due_ms,
            },
            (None, Some(effect)) => Cause::Outcome(effect.to_string()),
            // Ids of clients must not contain it.
            (None, None) if record.request.as_str().contains('#') => Cause::Effect,
            (None, None) => Cause::Call,
        };
        let effects = record.effects.iter().map(|effect| RecordedEffect {
            request: effect.request.clone(),
            token: effect.token.clone(),
        });
        Self {
            entity: record.entity.clone(),
            seq: record.seq,
            at_ms: record.at_ms,
            request_id: record.request.to_string(),
            asked_by: record.asked_by.as_deref().unwrap_or_default().to_owned(),
            trace: record.trace,
            cause,
            command: record.command.clone(),
            reply: reply.clone(),
            events: record.events.clone(),
            effects: (record.keeps_effects || !is_stored).then(|| effects.collect()),
            skipped: record.lift.as_ref().and_then(|lift| lift.skipped.clone()),
        }
    }

    /// Bytes of its command, reply, events and effects, about.
    pub fn bytes(&self) -> usize {
        let reply = match &self.reply {
            Ok(reply) => reply.len(),
            Err(rejection) => rejection.len(),
        };
        let effects = self.effects.iter().flatten().map(|effect| match &effect.request {
            EffectRequest::Command { command, .. } => command.len(),
            EffectRequest::Call { request, .. } => request.len(),
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => 0,
        });
        self.command.len() + reply + self.events.iter().map(Bytes::len).chain(effects).sum::<usize>()
    }
}
