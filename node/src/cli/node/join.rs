//! `playhouse node join`: one more node of a local cluster.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::progress::{is_settled, node, until};
use crate::{
    cli::{
        client::Target,
        failure::Failure,
        output::{print_json, print_text},
    },
    local::{
        control::{self, Done, Order},
        layout::LocalCluster,
    },
};

/// How long the shards may take to spread.
const SPREAD_MAX: Duration = Duration::from_mins(10);

/// Start one more node of a local cluster, and wait until it has its part of the shards.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Do not wait until shards have moved to it.
    #[arg(long)]
    no_wait: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: LocalCluster,
}

impl Join {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let Done {
            node: id, pid, grpc, ..
        } = control::send(&self.cluster, Order::Join, 0).await?;
        if !self.no_wait {
            let target = Target {
                base_port: self.cluster.base_port()?,
                address: Vec::new(),
            };
            let client = target.connect().await?;
            let id = u32::from(id);
            until(&client, SPREAD_MAX, format!("shards move to node {id}"), |status| {
                let is_member = node(status, id).is_some();
                let moving = usize::from(!is_member || !is_settled(status));
                status.moves_left as usize + moving
            })
            .await?;
        }
        if self.json {
            print_json(&json!({"id": id, "pid": pid, "grpc": grpc, "done": "joined"}));
        } else {
            print_text(&format!("node {id} (pid {pid}, {grpc}) joined"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
