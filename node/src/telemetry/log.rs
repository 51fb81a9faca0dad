//! Log lines on standard error, for people or as JSON; `PLAYHOUSE_LOG` says which (default `info`).

use std::io;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// The variable that says which log lines are written, for example `info,cluster=debug`.
const FILTER_VARIABLE: &str = "PLAYHOUSE_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Installs the log for this process. Does nothing where one is installed already.
pub(crate) fn install(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error means that a log is there already, as in tests that start several nodes in one process.
    let _ = match format {
        LogFormat::Human => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
