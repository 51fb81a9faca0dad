//! The spans of calls on their way to a leader.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use crate::{
    config::NodeId,
    entity::EntityKey,
    spans::Span,
    trace::{SpanKind, TraceContext},
    transport::outcome::Forwarded,
};

impl Engine {
    /// One attempt at another node. Nothing hangs below it, so that a record's trace does not rest on what only this node
    /// knows.
    pub(super) fn forward_span(
        &self,
        node: NodeId,
        shard: u32,
        key: &EntityKey,
        trace: &TraceContext,
        was_repeated: &AtomicBool,
    ) -> Span {
        let mut span = self
            .spans()
            .begin("forward", trace)
            .of_kind(SpanKind::Client)
            .with("to", || i64::from(node))
            .with("entity", || key.to_string())
            .with("shard", || i64::from(shard));
        if was_repeated.load(Ordering::Relaxed) {
            span.note("retry", || "true");
        }
        // Should nobody wait for it any more, it is dropped as it is.
        span.fail(&"given up without an answer");
        span
    }
}

/// The attempt has ended like this.
pub(super) fn answered(mut span: Span, answer: &Forwarded) {
    match miss(answer) {
        Some(reason) => span.fail(&reason),
        None => span.succeed(),
    }
}

/// Why an attempt brought nothing; `None` where it did.
fn miss(answer: &Forwarded) -> Option<String> {
    match answer {
        Forwarded::Reply(..)
        | Forwarded::State(_)
        | Forwarded::Released(_)
        | Forwarded::Quarantine(_)
        | Forwarded::Outbox(_)
        | Forwarded::Tombstone(_) => None,
        Forwarded::NotLeader(_) => Some("it does not lead the shard".to_owned()),
        Forwarded::Unknown => Some("the connection broke: the outcome is unknown".to_owned()),
        Forwarded::TooOld => Some("its replica cannot show that it is new enough".to_owned()),
        Forwarded::Overloaded { limit, .. } => Some(format!("overloaded: {limit}")),
        Forwarded::Invalid { field, reason } => Some(format!("{field} {reason}")),
        Forwarded::Failed(reason)
        | Forwarded::Restarting { reason, .. }
        | Forwarded::Quarantined(reason)
        | Forwarded::Skipped(reason)
        | Forwarded::Forgotten(reason) => Some(reason.clone()),
    }
}
