//! Notes for the audit who has looked at something, and who has changed something by hand.

use std::{
    fmt::Display,
    time::{SystemTime, UNIX_EPOCH},
};

use cluster::history::AuditEntry;

use super::request::{Call, Edge};

/// Bytes of a subject, an action or a failure that are kept.
const TEXT_BYTES_MAX: usize = 512;

impl Edge {
    /// Somebody looks at something.
    pub(super) fn looked(&self, call: &Call, action: &str, subject: &str) {
        self.cluster.note_read(entry(call, action, subject, None));
    }

    /// Somebody has changed something by hand, or was not let.
    pub(super) async fn did(&self, call: &Call, action: &str, subject: &str, failure: Option<&impl Display>) {
        let failure = failure.map(ToString::to_string);
        self.cluster
            .note_done(entry(call, action, subject, failure.as_deref()))
            .await;
    }
}

fn entry(call: &Call, action: &str, subject: &str, failure: Option<&str>) -> AuditEntry {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AuditEntry {
        at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        asked_by: call.asked_by(),
        action: bounded(action),
        subject: bounded(subject),
        request_id: call.id().to_string(),
        trace_id: call.trace().trace_hex(),
        failure: bounded(failure.unwrap_or_default()),
    }
}

/// What a client sends may be long; the audit is bounded.
fn bounded(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_BYTES_MAX))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_letters() {
        assert_eq!(bounded("show"), "show");
        let long = "ä".repeat(TEXT_BYTES_MAX);
        assert_eq!(bounded(&long).len(), TEXT_BYTES_MAX);
        assert_eq!(bounded(&format!("x{long}")).len(), TEXT_BYTES_MAX - 1);
    }
}
