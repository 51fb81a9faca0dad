//! Makes a line of each event: written to standard error, and kept.

use std::{
    fmt,
    io::{self, Write as _},
    sync::Arc,
};

use proto::telemetry::v1::LogEntry;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use super::{
    LogFormat, context, line,
    ring::{Ring, now_ns},
};

/// Bytes of one value that are written; clients may send long ones.
const VALUE_BYTES_MAX: usize = 4_096;

/// Writes and keeps lines.
pub(super) struct Lines {
    format: LogFormat,
    ring: Arc<Ring>,
}

impl Lines {
    /// In this form, kept there.
    pub(super) fn new(format: LogFormat, ring: Arc<Ring>) -> Self {
        Self { format, ring }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields(LogEntry {
            at_unix_ns: now_ns(),
            level: metadata.level().as_str().to_lowercase(),
            target: metadata.target().to_owned(),
            ..LogEntry::default()
        });
        event.record(&mut fields);
        let mut entry = fields.0;
        if let Some((trace, request)) = context::current() {
            if entry.trace_id.is_empty() {
                entry.trace_id = trace.trace_hex();
            }
            if entry.request_id.is_empty() {
                entry.request_id = request;
            }
        }
        let entry = self.ring.push(entry);
        let text = match self.format {
            LogFormat::Human => line::human(&entry),
            LogFormat::Json => line::json(&entry).to_string(),
        };
        // Where standard error is gone there is nobody to tell.
        let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }
}

/// The fields of an event.
struct Fields(LogEntry);

impl Fields {
    fn put(&mut self, field: &Field, mut value: String) {
        if value.len() > VALUE_BYTES_MAX {
            let end = (0..=VALUE_BYTES_MAX).rev().find(|end| value.is_char_boundary(*end));
            value.truncate(end.unwrap_or_default());
            value.push('…');
        }
        let entry = &mut self.0;
        match field.name() {
            "message" => entry.message = value,
            "trace_id" => entry.trace_id = value,
            "entity" => entry.entity = value,
            "request_id" => entry.request_id = value,
            // Lines of libraries that write to the older facade bring their place like this.
            "log.target" => entry.target = value,
            name if name.starts_with("log.") => {}
            name => drop(entry.fields.insert(name.trim_start_matches("r#").to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }
}
