//! `playhouse node cordon`, `uncordon`, `drain` and `remove`: what a node is used for.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use proto::cluster::v1::{SetStandingRequest, Standing};
use serde_json::json;

use super::progress::{node, shards_on, until};
use crate::{
    cli::{
        client::{Client, Target},
        failure::Failure,
        output::{print_json, print_text},
    },
    local::{
        control::{self, Order},
        layout::LocalCluster,
    },
};

/// How long the shards of a node may take to move.
const MOVE_MAX: Duration = Duration::from_mins(30);

/// Which node of which cluster.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The node's number.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_535))]
    node: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How far to go.
#[derive(Debug, Args)]
pub(crate) struct Away {
    /// Go on with fewer copies of the shards that no other node can take, or that are on nodes that are down.
    #[arg(long)]
    force: bool,
    /// Do not wait until everything has moved.
    #[arg(long)]
    no_wait: bool,
}

/// Give a node nothing more; it keeps what it has.
#[derive(Debug, Args)]
pub(crate) struct Cordon {
    #[command(flatten)]
    which: Which,
}

/// Use a cordoned or drained node for everything again.
#[derive(Debug, Args)]
pub(crate) struct Uncordon {
    #[command(flatten)]
    which: Which,
}

/// Move everything away from a node; it stays a member.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    away: Away,
}

/// Move everything away from a node, for good. A local cluster then stops its process.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    away: Away,
}

impl Cordon {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.which.set(Standing::Cordoned, false).await?;
        Ok(self.which.done("cordoned"))
    }
}

impl Uncordon {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.which.set(Standing::Serving, false).await?;
        Ok(self.which.done("serving"))
    }
}

impl Drain {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.which.set(Standing::Draining, self.away.force).await?;
        if !self.away.no_wait {
            self.which.until_empty(&client).await?;
        }
        Ok(self.which.done(if self.away.no_wait { "draining" } else { "drained" }))
    }
}

impl Remove {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.which.set(Standing::Leaving, self.away.force).await?;
        if self.away.no_wait {
            return Ok(self.which.done("leaving"));
        }
        self.which.until_empty(&client).await?;
        let id = self.which.node;
        until(&client, MOVE_MAX, &format!("node {id} leaves"), |status| {
            usize::from(node(status, id).is_some())
        })
        .await?;
        self.which.stop_process().await?;
        Ok(self.which.done("removed"))
    }
}

impl Which {
    async fn set(&self, standing: Standing, force: bool) -> Result<Client, Failure> {
        let client = self.target.connect().await?;
        let request = SetStandingRequest {
            node: self.node,
            standing: standing.into(),
            with_fewer_copies: force,
        };
        client.set_standing(request).await?;
        Ok(client)
    }

    async fn until_empty(&self, client: &Client) -> Result<(), Failure> {
        let id = self.node;
        until(client, MOVE_MAX, &format!("shards leave node {id}"), |status| {
            shards_on(status, id)
        })
        .await
    }

    /// Has the launcher of a local cluster forget the node.
    async fn stop_process(&self) -> Result<(), Failure> {
        if !self.target.address.is_empty() {
            return Ok(());
        }
        let Ok(id) = u8::try_from(self.node) else { return Ok(()) };
        let cluster = LocalCluster {
            base_port: self.target.base_port,
            data: None,
        };
        control::send(&cluster, Order::Forget, id).await.map(drop)
    }

    fn done(&self, done: &str) -> ExitCode {
        if self.json {
            print_json(&json!({"id": self.node, "done": done}));
        } else {
            print_text(&format!("node {} {done}", self.node));
        }
        ExitCode::SUCCESS
    }
}
