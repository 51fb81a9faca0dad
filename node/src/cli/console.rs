//! `playhouse console`: a link that lets a browser into the console of a local cluster, once.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    failure::Failure,
    output::{print_json, print_text},
};
use crate::local::{
    control::{self, Order},
    layout::LocalCluster,
};

/// Print a link that opens the console of a local cluster; it works once.
#[derive(Debug, Args)]
pub(crate) struct Console {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: LocalCluster,
}

impl Console {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        // Which node it is does not matter: the launcher takes one that answers.
        let done = control::send(&self.cluster, Order::Console, 0).await?;
        if self.json {
            print_json(&json!({ "node": done.node, "link": done.link }));
        } else {
            print_text(&done.link);
        }
        Ok(ExitCode::SUCCESS)
    }
}
