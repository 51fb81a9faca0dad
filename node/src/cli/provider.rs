//! `playhouse provider`: the payment provider, a process of its own.

use std::process::ExitCode;

use clap::Args;

use crate::{
    local::process,
    provider,
    telemetry::logs::{self, LogFormat},
};

/// Run the payment provider.
#[derive(Debug, Args)]
pub(crate) struct Provider {
    #[command(flatten)]
    options: provider::Options,
    /// End when the process with this number ends; for launchers.
    #[arg(long, value_name = "PID", hide = true)]
    die_with_parent: Option<u32>,
}

impl Provider {
    pub(crate) fn run(self) -> ExitCode {
        if let Some(code) = self.die_with_parent.and_then(process::die_with_parent) {
            return code;
        }
        logs::install(LogFormat::Human, 0);
        process::block_on(provider::run(self.options))
    }
}
