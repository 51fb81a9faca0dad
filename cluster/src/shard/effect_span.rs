//! The span of an effect: from the decision that wanted it until it has its outcome, whoever carries it out and however often.
//!
//! Its id follows from the effect's, and its beginning from the record. So each attempt, here or by the next leader, tells of
//! the same span, and what the effect caused finds its parent even if the node that tried first is gone. An attempt that failed
//! has a span of its own below it.

use std::{borrow::Cow, time::Instant};

use crate::{
    entity::{Outcome, decision::EffectRequest},
    journal::{EffectId, OutboxRow},
    spans::{Span, Spans},
    trace::{SpanKind, SpanRecord, TraceContext},
};

/// Failed attempts that are told of one by one; later ones only at powers of two.
const ATTEMPTS_TOLD_MAX: u32 = 8;

/// One attempt of an effect.
pub(super) struct EffectSpan<'a> {
    spans: &'a Spans,
    id: &'a EffectId,
    row: &'a OutboxRow,
    trace: TraceContext,
    attempt: u32,
    begun: Instant,
    span: Span,
}

impl<'a> EffectSpan<'a> {
    /// An attempt begins.
    pub(super) fn begin(spans: &'a Spans, id: &'a EffectId, row: &'a OutboxRow, attempt: u32) -> Self {
        let trace = if row.trace.is_some() {
            row.trace.derived(&format!("{id}"))
        } else {
            row.trace
        };
        let begun = Instant::now();
        let mut span = spans
            .begin_as(|| name(row), trace, &row.trace)
            .of_kind(kind(row))
            .with("effect", || id.to_string())
            .with("entity", || id.entity.to_string());
        match &row.effect.request {
            EffectRequest::Command { to, .. } => span.note("to", || to.to_string()),
            EffectRequest::Call { service, .. } => span.note("peer.service", || service.clone()),
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => {}
        }
        // The record says when in whole milliseconds.
        span.began_at((row.at_ms + 1).saturating_mul(1_000_000));
        if let (0, Some(whole)) = (attempt, span.begun()) {
            span.part("outbox", whole, begun);
        }
        if attempt > 0 {
            span.note("retry.attempt", || i64::from(attempt));
        }
        Self {
            spans,
            id,
            row,
            trace,
            attempt,
            begun,
            span,
        }
    }

    /// For what the effect causes.
    pub(super) fn trace(&self) -> TraceContext {
        self.trace
    }

    /// The attempt has an outcome, or is to be repeated for this reason.
    pub(super) fn end(mut self, once: Result<&Outcome, &str>) {
        let told = match once {
            Ok(Outcome::Failed(reason)) => Some(reason.as_str()),
            Ok(Outcome::Rejected(_)) => {
                self.span.note("outcome", || "rejected");
                None
            }
            Ok(_) => None,
            Err(reason) => {
                if self.attempt < ATTEMPTS_TOLD_MAX || self.attempt.is_power_of_two() {
                    self.span.failed_part("attempt", self.begun, self.attempt, reason);
                }
                Some(reason)
            }
        };
        let Some(reason) = told else { return };
        self.span.fail(&reason);
        if self.trace.is_some() && !self.trace.sampled {
            self.spans.late(|| {
                SpanRecord::begin_as(name(self.row), self.trace, &self.row.trace)
                    .of_kind(kind(self.row))
                    .with("effect", self.id.to_string())
                    .with("entity", self.id.entity.to_string())
                    .with("retry.attempt", i64::from(self.attempt))
                    .since(self.begun.elapsed())
                    .finish(Some(reason.to_owned()))
            });
        }
    }
}

fn name(row: &OutboxRow) -> Cow<'static, str> {
    match &row.effect.request {
        EffectRequest::Command { to, .. } => format!("effect {}", to.kind).into(),
        EffectRequest::Call { service, .. } => format!("call {service}").into(),
        EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => "effect timer".into(),
    }
}

fn kind(row: &OutboxRow) -> SpanKind {
    match &row.effect.request {
        EffectRequest::Call { .. } => SpanKind::Client,
        _ => SpanKind::Producer,
    }
}
