//! `playhouse kill`, `pause` and `resume`: what can happen to a node, on purpose. The launcher of the local cluster
//! does it, since only it can be sure that a process number is still its child.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    failure::Failure,
    output::{print_json, print_text},
};
use crate::local::{
    NODES_MAX,
    control::{self, Done, Order},
    layout::LocalCluster,
};

/// Which node of which local cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalNode {
    /// The node's number.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub(crate) node: u8,
    /// One line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) cluster: LocalCluster,
}

impl LocalNode {
    /// Has the launcher do it, and says what was done.
    pub(crate) async fn order(self, order: Order, done: &str) -> Result<ExitCode, Failure> {
        let Done { node, pid, grpc, .. } = control::send(&self.cluster, order, self.node).await?;
        if self.json {
            print_json(&json!({"id": node, "pid": pid, "grpc": grpc, "done": done}));
        } else {
            print_text(&format!("node {node} (pid {pid}, {grpc}) {done}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Kill a node of a local cluster with SIGKILL.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    node: LocalNode,
}

/// Stop a node of a local cluster with SIGSTOP.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    node: LocalNode,
}

/// Let a paused node go on with SIGCONT.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    node: LocalNode,
}

impl Kill {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.node.order(Order::Kill, "killed").await
    }
}

impl Pause {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.node.order(Order::Pause, "paused").await
    }
}

impl Resume {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.node.order(Order::Resume, "resumed").await
    }
}
