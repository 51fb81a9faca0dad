//! `playhouse node`: run one node from a configuration file; and what a cluster's nodes are used for.

mod join;
pub(super) mod progress;
mod standing;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::{app, local::process};

/// Run one node from a configuration file, or change what the nodes of a cluster are used for.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Node {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// End when the process with this number ends; for launchers.
    #[arg(long, value_name = "PID", hide = true)]
    die_with_parent: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Start one more node of a local cluster, and wait until it has its part of the shards.
    Join(join::Join),
    /// Give a node nothing more; it keeps what it has.
    Cordon(standing::Cordon),
    /// Use a cordoned or drained node for everything again.
    Uncordon(standing::Uncordon),
    /// Move everything away from a node; it stays a member.
    Drain(standing::Drain),
    /// Move everything away from a node, for good.
    Remove(standing::Remove),
}

impl Node {
    /// Runs the node if that is what was asked; that makes a runtime of its own.
    pub(crate) fn run_node(&self) -> Option<ExitCode> {
        if self.change.is_some() {
            return None;
        }
        let config = self.run.config.as_deref()?;
        if let Some(code) = self.run.die_with_parent.and_then(process::die_with_parent) {
            return Some(code);
        }
        Some(process::block_on(app::run_node(config)))
    }

    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.change {
            Some(Change::Join(join)) => join.run().await,
            Some(Change::Cordon(cordon)) => cordon.run().await,
            Some(Change::Uncordon(uncordon)) => uncordon.run().await,
            Some(Change::Drain(drain)) => drain.run().await,
            Some(Change::Remove(remove)) => remove.run().await,
            None => Err(Failure::usage(
                "name a configuration file with `--config`, or say what to do with which node",
            )),
        }
    }
}
