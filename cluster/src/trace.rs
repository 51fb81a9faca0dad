//! W3C trace context: which request something belongs to, in the envelope, in the record and in the outbox.

use std::fmt;

use serde::{Deserialize, Serialize};

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
