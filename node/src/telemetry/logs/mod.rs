//! Log lines: on standard error, for people or as JSON, and the latest ones in memory for who asks.
//!
//! `PLAYHOUSE_LOG` says which are written (`info` if it says nothing), until somebody sets it otherwise at run time.
//!
//! [`layer`] makes a [`line`] of each event, [`ring`] keeps them, [`context`] says which request is being served.

pub(crate) mod context;
mod layer;
pub(crate) mod line;
pub(crate) mod ring;

use std::{
    env,
    sync::{Arc, OnceLock},
};

use cluster::config::NodeId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use layer::Lines;
use ring::Ring;

/// The variable that says which log lines are written, for example `info,cluster=debug`.
const FILTER_VARIABLE: &str = "PLAYHOUSE_LOG";
/// What is written where nobody says.
const FILTER_DEFAULT: &str = "info";
/// Bytes of what says which lines are written.
const DIRECTIVES_BYTES_MAX: usize = 1_024;

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

/// The log of this process.
static LOG: OnceLock<Log> = OnceLock::new();

/// The log of a process: what it has written, and what it writes.
pub(crate) struct Log {
    ring: Arc<Ring>,
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Mutex<String>,
}

/// Installs the log for this process, as that of a node (0 for what is none). Does nothing where one is installed already.
pub(crate) fn install(format: LogFormat, node: NodeId) {
    let said = env::var(FILTER_VARIABLE).ok().filter(|said| filter_of(said).is_ok());
    let directives = said.unwrap_or_else(|| FILTER_DEFAULT.to_owned());
    let filter = filter_of(&directives).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let (filter, handle) = reload::Layer::new(filter);
    let ring = Arc::new(Ring::new(u32::from(node)));
    let lines = Lines::new(format, Arc::clone(&ring));
    // An error means that a log is there already, as in tests that start several nodes in one process.
    if tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = LOG.set(Log {
            ring,
            filter: handle,
            directives: Mutex::new(directives),
        });
    }
}

/// The log of this process; `None` where another one is installed.
pub(crate) fn log() -> Option<&'static Log> {
    LOG.get()
}

impl Log {
    /// The latest lines.
    pub(crate) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Writes what this says from now on; gives what was said before.
    pub(crate) fn set(&self, directives: &str) -> Result<String, String> {
        let filter = filter_of(directives)?;
        let mut said = self.directives.lock();
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        Ok(std::mem::replace(&mut *said, directives.to_owned()))
    }
}

/// What is wrong with what is to be written.
pub(crate) fn check(directives: &str) -> Result<(), String> {
    filter_of(directives).map(drop)
}

/// `info,cluster=debug`: a level for all, and others for targets.
fn filter_of(directives: &str) -> Result<EnvFilter, String> {
    if directives.len() > DIRECTIVES_BYTES_MAX {
        return Err(format!("is longer than {DIRECTIVES_BYTES_MAX} bytes"));
    }
    if directives.trim().is_empty() {
        return Err("is empty; write a level, for example info,cluster=debug".to_owned());
    }
    for part in directives.split(',') {
        // The library would take a misspelt level for a target of which everything is written.
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "has {part:?}: {level:?} is no level; there are error, warn, info, debug, trace and off"
            ));
        }
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_misspelt_ones_are_named() {
        for good in ["info", "warn,cluster=debug", "off,node::api=trace", "INFO"] {
            assert!(filter_of(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("", "empty"),
            ("inf", "\"inf\" is no level"),
            ("info,cluster=loud", "\"loud\""),
            ("info,", "\"\""),
        ] {
            let reason = filter_of(bad).expect_err(bad);
            assert!(reason.contains(said), "{reason}");
        }
    }
}
