//! The spans of a command at its entity: how long it waited, how it was decided, what was written of it.

use std::{fmt::Write as _, time::Instant};

use super::{EntityKey, RequestId, envelope::Envelope};
use crate::{journal::Decided, shard::replica::Replica, spans::Span, trace::TraceContext};

/// Events of one record that its span names.
const EVENTS_NAMED_MAX: usize = 16;

/// What the spans of a command say of it.
pub(super) struct Traced<'a> {
    trace: TraceContext,
    request: &'a RequestId,
    asked_by: Option<&'a str>,
    /// When it was put into the mailbox.
    sent: Option<Instant>,
}

impl<'a> Traced<'a> {
    /// Of a command that waited since then.
    pub(super) fn of(envelope: &'a Envelope, sent: Option<Instant>) -> Self {
        Self {
            trace: envelope.trace,
            request: &envelope.request,
            asked_by: envelope.asked_by.as_deref(),
            sent,
        }
    }

    /// Of one that is decided once more, within another trace.
    pub(super) fn again(trace: TraceContext, request: &'a RequestId) -> Self {
        Self {
            trace,
            request,
            asked_by: None,
            sent: None,
        }
    }

    /// The command is decided from now on; its wait is over.
    pub(super) fn decide(&self, replica: &Replica, key: &EntityKey) -> Span {
        let span = about(replica.spans().begin("decide", &self.trace), replica, key)
            .with("request.id", || self.request.to_string());
        if !span.is_recorded() {
            return span;
        }
        if let (Some(sent), Some(begun)) = (self.sent, span.begun()) {
            drop(about(
                replica.spans().over("mailbox", &self.trace, sent, begun),
                replica,
                key,
            ));
        }
        match self.asked_by {
            Some(asked_by) => span.with("asked_by", || asked_by.to_owned()),
            None => span,
        }
    }
}

/// The record of a decision is on its way from now on. `before` is the entity's version without it.
pub(super) fn commit(replica: &Replica, decided: &Decided, before: u64) -> Span {
    let mut span = about(
        replica.spans().begin("commit", &decided.trace),
        replica,
        &decided.entity,
    )
    .with("record", || decided.seq as i64);
    if span.is_recorded() && !decided.events.is_empty() {
        span.note("events", || events(replica, decided, before));
    }
    span
}

fn about(span: Span, replica: &Replica, key: &EntityKey) -> Span {
    let mut span = span
        .with("entity", || key.to_string())
        .with("entity.kind", || key.kind.to_string())
        .with("shard", || i64::from(replica.shard()));
    if span.is_recorded() && replica.registry().is_saga(&key.kind) {
        span.note("saga", || key.to_string());
    }
    span
}

/// `Placed@1 Confirmed@2`: what was written, and the version after each.
fn events(replica: &Replica, decided: &Decided, before: u64) -> String {
    let kind = replica.registry().get(&decided.entity.kind);
    let mut text = String::new();
    for (event, version) in decided.events.iter().take(EVENTS_NAMED_MAX).zip(before + 1..) {
        let name = kind.and_then(|kind| kind.event_json(event).ok()).map(|(name, _)| name);
        let _ = write!(text, "{}@{version} ", name.as_deref().unwrap_or("unreadable"));
    }
    if decided.events.len() > EVENTS_NAMED_MAX {
        let _ = write!(text, "and {} more", decided.events.len() - EVENTS_NAMED_MAX);
    }
    text.trim_end().to_owned()
}
