//! The span of a call at the edge: whose part of a trace it is, what is known of it, how it ended.
//!
//! Something is known of every call, so that one that fails or is slow can be told of even where its trace is not recorded.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use cluster::{
    RequestId, SpanRecord, TraceContext,
    trace::{Attribute, SpanKind},
};
use parking_lot::Mutex;
use tonic::Code;

use crate::telemetry::{Telemetry, logs::context};

/// What of a span follows from a call's own span id and its request id.
pub(crate) fn edge_span(parent: &TraceContext, request: &str) -> TraceContext {
    parent.derived(&format!("edge {:016x} {request}", parent.span_id))
}

/// A call under way; one that is dropped before it ended was given up by its caller.
pub(super) struct CallSpan {
    name: &'static str,
    own: TraceContext,
    parent: TraceContext,
    begun: Instant,
    notes: Mutex<Vec<(&'static str, Attribute)>>,
    has_ended: AtomicBool,
    telemetry: Telemetry,
}

impl CallSpan {
    /// Begins a call of this name. Under a caller's span and request id it is the same span whoever tells of it.
    pub(super) fn begin(
        name: &'static str,
        telemetry: Telemetry,
        traceparent: Option<&str>,
        (request, is_given): (&RequestId, bool),
    ) -> Self {
        let parent = telemetry.trace_of(name, traceparent);
        let own = match parent.span_id {
            0 => parent.child(),
            _ if is_given => edge_span(&parent, request.as_str()),
            _ => parent.child(),
        };
        context::set(&own, request.as_str());
        Self {
            name,
            own,
            parent,
            begun: Instant::now(),
            notes: Mutex::default(),
            has_ended: AtomicBool::new(false),
            telemetry,
        }
    }

    /// For what the call causes.
    pub(super) fn trace(&self) -> &TraceContext {
        &self.own
    }

    /// Adds what has become known.
    pub(super) fn note(&self, name: &'static str, value: impl Into<Attribute>) {
        let mut notes = self.notes.lock();
        if !notes.iter().any(|(known, _)| *known == name) {
            notes.push((name, value.into()));
        }
    }

    /// The call has its answer, or has failed with this code for this reason. Only the first time counts.
    pub(super) fn end(&self, request: &RequestId, failure: Option<(Code, String)>) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let took = self.begun.elapsed();
        if let Some((code, reason)) = &failure {
            let (call, ms) = (self.name, took.as_millis() as u64);
            if matches!(code, Code::Cancelled) {
                tracing::trace!(call, ms, "a call was given up by its caller");
            } else if matches!(code, Code::Internal | Code::DataLoss | Code::Unknown) {
                tracing::warn!(call, %code, reason, ms, "a call failed");
            } else {
                tracing::debug!(call, %code, reason, ms, "a call failed");
            }
        }
        // Who gives up has its reasons, and often an answer from elsewhere.
        let has_failed = failure.as_ref().is_some_and(|(code, _)| *code != Code::Cancelled);
        if !self.own.sampled && !has_failed && !self.telemetry.is_slow(took) {
            return;
        }
        let (service, method) = self.name.split_once('/').unwrap_or((self.name, ""));
        let code = failure.as_ref().map_or(Code::Ok, |(code, _)| *code);
        let mut span = SpanRecord::begin_as(self.name, self.own, &self.parent)
            .of_kind(SpanKind::Server)
            .since(took)
            .with("request.id", request.as_str().to_owned())
            .with("rpc.system", "grpc")
            .with("rpc.service", service.to_owned())
            .with("rpc.method", method.to_owned())
            .with("rpc.grpc.status_code", i64::from(i32::from(code)));
        span.attributes.append(&mut self.notes.lock());
        let span = span.finish(failure.map(|(_, reason)| reason));
        self.telemetry.record_call(self.name, span, took);
    }
}

/// A call whose caller has gone without waiting for its answer.
pub(super) fn given_up() -> (Code, String) {
    (Code::Cancelled, "the caller has gone before the answer".to_owned())
}
