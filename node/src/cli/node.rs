//! `playhouse node`: one node from a configuration file.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{app, local::process};

/// Run one node from a configuration file.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when the process with this number ends; for launchers.
    #[arg(long, value_name = "PID", hide = true)]
    die_with_parent: Option<u32>,
}

impl Node {
    pub(crate) fn run(self) -> ExitCode {
        if let Some(code) = self.die_with_parent.and_then(process::die_with_parent) {
            return code;
        }
        process::block_on(app::run_node(&self.config))
    }
}
