//! Spans of the engine's own work, for traces that are recorded; for all others they cost a comparison.

use std::{borrow::Cow, sync::Arc, time::Instant};

use crate::{
    clock::unix_ns,
    trace::{SpanRecord, SpanSink, TraceContext},
};

/// Where the engine's spans go.
#[derive(Clone, Default)]
pub(crate) struct Spans(pub(crate) Option<Arc<dyn SpanSink>>);

/// A span under way; it ends when it is dropped.
pub(crate) struct Span(Option<(SpanRecord, Arc<dyn SpanSink>)>);

impl Spans {
    /// Begins the first span of a trace that another one caused, without being its part.
    pub(crate) fn begin_linked(
        &self,
        name: impl Into<Cow<'static, str>>,
        trace: &TraceContext,
        cause: TraceContext,
    ) -> Span {
        let mut span = self.begin(name, trace);
        if let Some((record, _)) = &mut span.0 {
            record.parent_span_id = 0;
            record.links.push(cause);
        }
        span
    }

    /// Begins a span below `parent`.
    pub(crate) fn begin(&self, name: impl Into<Cow<'static, str>>, parent: &TraceContext) -> Span {
        match &self.0 {
            Some(sink) if parent.sampled => Span(Some((SpanRecord::begin(name, parent), Arc::clone(sink)))),
            _ => Span(None),
        }
    }
}

impl Span {
    /// The context for what happens within this span.
    pub(crate) fn context(&self, parent: &TraceContext) -> TraceContext {
        self.0.as_ref().map_or(*parent, |(record, _)| record.trace)
    }

    /// Hands in a part of it that is over.
    pub(crate) fn part(&self, name: &'static str, from: Instant, to: Instant) {
        if let Some((whole, sink)) = &self.0 {
            let now = (Instant::now(), unix_ns());
            let unix_ns = |at: Instant| {
                now.1
                    .saturating_sub(now.0.saturating_duration_since(at).as_nanos() as u64)
            };
            let mut part = SpanRecord::begin(name, &whole.trace);
            part.start_unix_ns = unix_ns(from);
            part.end_unix_ns = unix_ns(to).max(part.start_unix_ns);
            sink.record(part);
        }
    }

    /// When it began, as near as the two clocks can say; `None` where it is not recorded.
    pub(crate) fn begun(&self) -> Option<Instant> {
        let (record, _) = self.0.as_ref()?;
        let age = std::time::Duration::from_nanos(unix_ns().saturating_sub(record.start_unix_ns));
        Instant::now().checked_sub(age)
    }

    /// Says why it failed.
    pub(crate) fn fail(&mut self, reason: &impl ToString) {
        if let Some((record, _)) = &mut self.0 {
            record.error = Some(reason.to_string());
        }
    }

    /// Adds what is known, for example which entity.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl FnOnce() -> String) -> Self {
        if let Some((record, _)) = &mut self.0 {
            record.attributes.push((name, value().into()));
        }
        self
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((record, sink)) = self.0.take() {
            let error = record.error.clone();
            sink.record(record.finish(error));
        }
    }
}
