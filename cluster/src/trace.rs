//! W3C trace context: which request something belongs to, in the envelope, in the record and in the outbox; and finished
//! spans, as they are handed to whoever exports them.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::clock::unix_ns;

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

    /// The trace id as 32 hexadecimal digits.
    pub fn trace_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
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

/// A span that has ended. Its ids are those that travelled, so that parts of one trace from several nodes meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRecord {
    /// What was done, for example `ask order`; few different ones.
    pub name: Cow<'static, str>,
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
        let now = unix_ns();
        Self {
            name: name.into(),
            trace: parent.child(),
            parent_span_id: parent.span_id,
            links: Vec::new(),
            start_unix_ns: now,
            end_unix_ns: now,
            attributes: Vec::new(),
            error: None,
        }
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
