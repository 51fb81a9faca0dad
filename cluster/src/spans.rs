//! Spans of the engine's own work, for traces that are recorded; for all others they cost a comparison.

use std::{borrow::Cow, sync::Arc, time::Instant};

use crate::{
    clock::unix_ns,
    trace::{Attribute, SpanKind, SpanRecord, SpanSink, TraceContext},
};

/// Where the engine's spans go.
#[derive(Clone, Default)]
pub(crate) struct Spans(pub(crate) Option<Arc<dyn SpanSink>>);

/// A span under way; it is handed in when it is dropped, and ends then if it has not ended before.
pub(crate) struct Span {
    open: Option<(SpanRecord, Arc<dyn SpanSink>)>,
    is_over: bool,
}

impl Spans {
    /// Begins a span below `parent`.
    pub(crate) fn begin(&self, name: impl Into<Cow<'static, str>>, parent: &TraceContext) -> Span {
        match &self.0 {
            Some(sink) if parent.sampled => Span::of(SpanRecord::begin(name, parent), sink),
            _ => Span::NONE,
        }
    }

    /// The same with an id that is known already.
    pub(crate) fn begin_as(
        &self,
        name: impl FnOnce() -> Cow<'static, str>,
        own: TraceContext,
        parent: &TraceContext,
    ) -> Span {
        match &self.0 {
            Some(sink) if own.sampled => Span::of(SpanRecord::begin_as(name(), own, parent), sink),
            _ => Span::NONE,
        }
    }

    /// A span below `parent` that is over already.
    pub(crate) fn over(&self, name: &'static str, parent: &TraceContext, from: Instant, to: Instant) -> Span {
        match &self.0 {
            Some(sink) if parent.sampled => {
                let mut span = Span::of(over(name, parent, from, to), sink);
                span.is_over = true;
                span
            }
            _ => Span::NONE,
        }
    }

    /// Hands in a failure of a trace that is not recorded.
    pub(crate) fn late(&self, record: impl FnOnce() -> SpanRecord) {
        if let Some(sink) = &self.0 {
            sink.record_late(record());
        }
    }
}

impl Span {
    /// One that is not recorded.
    const NONE: Self = Self {
        open: None,
        is_over: false,
    };

    fn of(record: SpanRecord, sink: &Arc<dyn SpanSink>) -> Self {
        Self {
            open: Some((record, Arc::clone(sink))),
            is_over: false,
        }
    }

    /// Whether it is recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        self.open.is_some()
    }

    /// Hands in a part of it that is over.
    pub(crate) fn part(&self, name: &'static str, from: Instant, to: Instant) {
        if let Some((whole, sink)) = &self.open {
            sink.record(over(name, &whole.trace, from, to));
        }
    }

    /// Hands in a part of it that has failed now.
    pub(crate) fn failed_part(&self, name: &'static str, from: Instant, attempt: u32, reason: &str) {
        if let Some((whole, sink)) = &self.open {
            let mut part = over(name, &whole.trace, from, Instant::now()).with("retry.attempt", i64::from(attempt));
            part.error = Some(reason.to_owned());
            sink.record(part);
        }
    }

    /// When it began, as near as the two clocks can say; `None` where it is not recorded.
    pub(crate) fn begun(&self) -> Option<Instant> {
        let (record, _) = self.open.as_ref()?;
        let age = std::time::Duration::from_nanos(unix_ns().saturating_sub(record.start_unix_ns));
        Instant::now().checked_sub(age)
    }

    /// It began before now, but not later.
    pub(crate) fn began_at(&mut self, start_unix_ns: u64) {
        if let Some((record, _)) = &mut self.open {
            record.start_unix_ns = record.start_unix_ns.min(start_unix_ns);
        }
    }

    /// Says why it failed.
    pub(crate) fn fail(&mut self, reason: &impl ToString) {
        if let Some((record, _)) = &mut self.open {
            record.error = Some(reason.to_string());
        }
    }

    /// It has not failed after all.
    pub(crate) fn succeed(&mut self) {
        if let Some((record, _)) = &mut self.open {
            record.error = None;
        }
    }

    /// It belongs to another trace without being its part.
    pub(crate) fn link(&mut self, cause: TraceContext) {
        if let Some((record, _)) = &mut self.open {
            record.links.push(cause);
        }
    }

    /// Adds what is known, for example which entity.
    #[must_use]
    pub(crate) fn with<V: Into<Attribute>>(mut self, name: &'static str, value: impl FnOnce() -> V) -> Self {
        self.note(name, value);
        self
    }

    /// Adds what has become known.
    pub(crate) fn note<V: Into<Attribute>>(&mut self, name: &'static str, value: impl FnOnce() -> V) {
        if let Some((record, _)) = &mut self.open {
            record.attributes.push((name, value().into()));
        }
    }

    /// On which side of a call it stands.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: SpanKind) -> Self {
        if let Some((record, _)) = &mut self.open {
            record.kind = kind;
        }
        self
    }
}

/// A span that is over.
fn over(name: &'static str, parent: &TraceContext, from: Instant, to: Instant) -> SpanRecord {
    let now = (Instant::now(), unix_ns());
    let unix_ns = |at: Instant| {
        now.1
            .saturating_sub(now.0.saturating_duration_since(at).as_nanos() as u64)
    };
    let mut record = SpanRecord::begin(name, parent);
    record.start_unix_ns = unix_ns(from);
    record.end_unix_ns = unix_ns(to).max(record.start_unix_ns);
    record
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((record, sink)) = self.open.take() {
            if self.is_over {
                sink.record(record);
            } else {
                let error = record.error.clone();
                sink.record(record.finish(error));
            }
        }
    }
}
