//! `playhouse restart`: starts a node of a local cluster again; one that runs is stopped cleanly first. With `--rolling`
//! all of them, one after another, each only once the one before it has its part again.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use proto::{cluster::v1::StatusRequest, schema::v1::DescribeRequest};
use serde_json::json;
use tokio::time::Instant;

use super::{
    client::{Client, Target},
    failure::Failure,
    kill::LocalNode,
    node::progress::{is_led, is_settled, until},
    output::{print_json, print_text},
};
use crate::local::{
    NODES_MAX,
    control::{self, Order},
    layout::LocalCluster,
};

/// How long a restarted node may take to have its part again.
const SETTLE_MAX: Duration = Duration::from_mins(5);
/// Between two questions whether the builds of the nodes differ.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Start a node of a local cluster again, or all of them one after another.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// The node's number.
    #[arg(required_unless_present = "rolling", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    node: Option<u8>,
    /// All nodes, one after another, without an interruption for clients.
    #[arg(long, conflicts_with = "node")]
    rolling: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: LocalCluster,
}

impl Restart {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.node {
            Some(node) => {
                let node = LocalNode {
                    node,
                    json: self.json,
                    cluster: self.cluster,
                };
                node.order(Order::Restart, "started").await
            }
            None => self.roll().await,
        }
    }

    async fn roll(&self) -> Result<ExitCode, Failure> {
        let target = Target {
            base_port: self.cluster.base_port()?,
            address: Vec::new(),
        };
        let client = target.connect().await?;
        let status = client.status(StatusRequest {}).await?;
        let nodes: Vec<u8> = status
            .nodes
            .iter()
            .filter_map(|node| u8::try_from(node.id).ok())
            .collect();
        for node in &nodes {
            settled(&client, &format!("before node {node}: every shard is at home")).await?;
            control::send(&self.cluster, Order::Restart, *node).await?;
            settled(&client, &format!("after node {node}: every shard is at home")).await?;
        }
        if self.json {
            print_json(&json!({"restarted": nodes}));
        } else {
            print_text(&format!("{} nodes restarted", nodes.len()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until every shard is at home; or, while the builds of the nodes differ, until all of them are led well: a shard may
/// then be led by a node that knows more than the one that is to lead it.
async fn settled(client: &Client, what: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let described = client.describe(DescribeRequest {}).await;
        if described.is_ok_and(|described| described.is_mixed) {
            return until(client, SETTLE_MAX, what, |status| usize::from(!is_led(status))).await;
        }
        let waited = until(client, LOOK_AGAIN, what, |status| usize::from(!is_settled(status))).await;
        if waited.is_ok() || Instant::now() > deadline {
            return waited;
        }
    }
}
