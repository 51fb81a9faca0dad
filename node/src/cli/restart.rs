//! `playhouse restart`: starts a node of a local cluster again; one that runs is stopped cleanly first.

use std::process::ExitCode;

use clap::Args;

use super::{failure::Failure, kill::LocalNode};
use crate::local::control::Order;

/// Start a node of a local cluster again.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    node: LocalNode,
}

impl Restart {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.node.order(Order::Restart, "started").await
    }
}
