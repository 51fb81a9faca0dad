//! W3C trace context: which request something belongs to, in the envelope, in the record and in the outbox; and finished
//! spans, as they are handed to whoever exports them.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{clock::unix_ns, journal::keys::fnv};

/// The trace and the span that caused something. All zero where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct TraceContext {
    /// The trace.
    pub trace_id: u128,
    /// The span within it.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// The stored form: the trace id in two halves, because MessagePack has no integer of 128 bits.
type Stored = (u64, u64, u64, bool);

impl From<Stored> for TraceContext {
    fn from((high, low, span_id, sampled): Stored) -> Self {
        Self {
            trace_id: u128::from(high) << 64 | u128::from(low),
            span_id,
            sampled,
        }
    }
}

impl From<TraceContext> for Stored {
    fn from(context: TraceContext) -> Self {
        (
            (context.trace_id >> 64) as u64,
            context.trace_id as u64,
            context.span_id,
            context.sampled,
        )
    }
}

impl TraceContext {
    /// A new trace with a first span.
    pub fn random(sampled: bool) -> Self {
        Self {
            trace_id: rand::random(),
            span_id: rand::random(),
            sampled,
        }
    }

    /// Reads a `traceparent` header; `None` for what is none.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// Whether there is a trace.
    pub fn is_some(&self) -> bool {
        self.trace_id != 0
    }

    /// The same trace with a new span.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: rand::random(),
            ..*self
        }
    }

    /// The same trace with a span whose id follows from `name`. Whoever works on that again, here or on another node, makes
    /// the same span: so what was caused by it finds its parent even if the first one could not tell of it any more.
    #[must_use]
    pub fn derived(&self, name: &str) -> Self {
        let seed = fnv(&self.trace_id.to_be_bytes());
        Self {
            span_id: mixed(seed ^ fnv(name.as_bytes())),
            ..*self
        }
    }

    /// A trace of its own for something that this one caused long before; the same for the same `name`.
    #[must_use]
    pub fn caused(&self, name: &str) -> Self {
        let first = self.derived(name).span_id;
        Self {
            trace_id: u128::from(first) << 64 | u128::from(mixed(first ^ self.span_id)),
            ..*self
        }
        .derived(name)
    }

    /// The trace id as 32 hexadecimal digits.
    pub fn trace_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// Spreads a hash over all bits; never 0, which means that there is none.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).max(1)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that a span carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number, for example of nanoseconds.
    Number(i64),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// On which side of a call a span stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanKind {
    /// On none: a part of a node's own work.
    #[default]
    Internal,
    /// It serves a call that came from outside.
    Server,
    /// It calls somebody and waits for the answer.
    Client,
    /// It carries out what was intended before.
    Producer,
}

/// A span that has ended. Its ids are those that travelled, so that parts of one trace from several nodes meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// What was done, for example `ask order`; few different ones.
    pub name: Cow<'static, str>,
    /// On which side of a call it stands.
    pub kind: SpanKind,
    /// The trace, and this span's own id in it.
    pub trace: TraceContext,
    /// The span that caused it; 0 where there is none.
    pub parent_span_id: u64,
    /// Spans that it belongs to without being their part: a timer or a replay long after its cause.
    pub links: Vec<TraceContext>,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// When it ended, in nanoseconds since 1970.
    pub end_unix_ns: u64,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed; `None` where it did not.
    pub error: Option<String>,
}

impl SpanRecord {
    /// A span that begins now, as a child of `parent`; it is sent to a sink once [`SpanRecord::finish`] has closed it.
    pub fn begin(name: impl Into<Cow<'static, str>>, parent: &TraceContext) -> Self {
        Self::begin_as(name, parent.child(), parent)
    }

    /// The same with an id that is known already, for example a [`TraceContext::derived`] one.
    pub fn begin_as(name: impl Into<Cow<'static, str>>, own: TraceContext, parent: &TraceContext) -> Self {
        let now = unix_ns();
        Self {
            name: name.into(),
            kind: SpanKind::Internal,
            trace: own,
            parent_span_id: parent.span_id,
            links: Vec::new(),
            start_unix_ns: now,
            end_unix_ns: now,
            attributes: Vec::new(),
            error: None,
        }
    }

    /// On this side of a call.
    #[must_use]
    pub fn of_kind(self, kind: SpanKind) -> Self {
        Self { kind, ..self }
    }

    /// It began so long before now.
    #[must_use]
    pub fn since(self, ago: Duration) -> Self {
        let start_unix_ns = unix_ns().saturating_sub(ago.as_nanos() as u64);
        Self { start_unix_ns, ..self }
    }

    /// Adds what is known.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Attribute>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Ends it now, with the reason if it failed.
    #[must_use]
    pub fn finish(mut self, error: Option<String>) -> Self {
        // The wall clock may be set back while a span is open; a span never ends before it began.
        self.end_unix_ns = unix_ns().max(self.start_unix_ns);
        self.error = error;
        self
    }
}

/// Takes finished spans. Must neither block nor fail: what it cannot keep it drops.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one.
    fn record(&self, span: SpanRecord);

    /// Takes one of a trace that is not recorded, because of what became of it: it has failed. There may be many of these at
    /// once, so a sink keeps only so many a second.
    fn record_late(&self, span: SpanRecord) {
        drop(span);
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    #[test]
    fn a_traceparent_reads_back() {
        let context = TraceContext::random(true);
        assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
    }

    #[test]
    fn a_derived_span_is_the_same_for_the_same_work_and_another_for_any_other() {
        let context = TraceContext::random(true);
        let derived = context.derived("order/1#1.0");
        assert_eq!(derived, context.child().derived("order/1#1.0"), "whoever caused it");
        assert_ne!(derived, context.derived("order/1#1.1"));
        assert_ne!(
            derived.span_id,
            TraceContext::random(true).derived("order/1#1.0").span_id
        );
        assert_eq!(derived.trace_id, context.trace_id);
        let caused = context.caused("timer");
        assert_eq!(caused, context.caused("timer"));
        assert_ne!(caused.trace_id, context.trace_id);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00",
            "00-0-0-0",
            "00-00000000000000000000000000000000-0000000000000000-01",
            "é-é-é-é",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
