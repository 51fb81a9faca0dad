//! Spans of the engine's own work, for traces that are recorded; for all others they cost a comparison.

use std::{borrow::Cow, sync::Arc};

use crate::trace::{SpanRecord, SpanSink, TraceContext};

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
