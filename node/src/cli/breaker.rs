//! `playhouse breaker`: the breakers to dependencies outside, as each node has them, and what people want of them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::cluster::v1::{BreakerStatus, ForceBreakerRequest, StatusRequest};
use serde_json::{Value, json};

use super::{
    client::Target,
    failure::Failure,
    order::RequestId,
    output::{print_json, print_text, render, table},
};

/// Show and force the breakers to dependencies outside.
#[derive(Debug, Subcommand)]
pub(crate) enum Breaker {
    /// Show the breakers of all nodes.
    List(List),
    /// Let nothing through, on all nodes.
    Open(Force),
    /// Let everything through, on all nodes.
    Close(Force),
    /// Follow the results of calls again, on all nodes.
    Auto(Force),
}

/// Show the breakers of all nodes.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Which breaker.
#[derive(Debug, Args)]
pub(crate) struct Force {
    /// The dependency, for example payment-provider.
    #[arg(value_name = "NAME")]
    dependency: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

impl Breaker {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Open(force) => force.run("open").await,
            Self::Close(force) => force.run("closed").await,
            Self::Auto(force) => force.run("auto").await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let breakers = client.status(StatusRequest {}).await?.breakers;
        if self.json {
            print_json(&breakers.iter().map(breaker_json).collect());
        } else {
            print_text(&breakers_text(&breakers));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Force {
    async fn run(self, forced: &str) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let message = ForceBreakerRequest {
            dependency: self.dependency.clone(),
            forced: forced.to_owned(),
        };
        client.force_breaker(&self.request.get(), message).await?;
        if self.json {
            print_json(&json!({"dependency": self.dependency, "forced": forced}));
        } else {
            print_text(&format!("the breaker to {} is on {forced}", self.dependency));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A breaker for scripts.
pub(crate) fn breaker_json(breaker: &BreakerStatus) -> Value {
    json!({
        "node": breaker.node, "dependency": breaker.dependency, "state": breaker.state, "failures": breaker.failures,
        "forced": breaker.forced, "open_left_ms": breaker.open_left_ms, "in_flight": breaker.in_flight,
    })
}

fn breakers_text(breakers: &[BreakerStatus]) -> String {
    let mut rows = table(&[
        "dependency",
        ">node",
        "state",
        "forced",
        ">failures",
        ">open for",
        ">calls",
    ]);
    for breaker in breakers {
        rows.add_row([
            breaker.dependency.clone(),
            breaker.node.to_string(),
            breaker.state.clone(),
            breaker.forced.clone(),
            breaker.failures.to_string(),
            format!("{} ms", breaker.open_left_ms),
            breaker.in_flight.to_string(),
        ]);
    }
    render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_is_shown_whole() {
        let breaker = BreakerStatus {
            node: 2,
            dependency: "payment-provider".to_owned(),
            state: "open".to_owned(),
            failures: 5,
            forced: "auto".to_owned(),
            open_left_ms: 59_000,
            in_flight: 1,
        };
        assert_eq!(breaker_json(&breaker)["open_left_ms"], 59_000);
        let text = breakers_text(&[breaker]);
        assert!(
            text.contains("payment-provider  ") && text.contains("59000 ms"),
            "{text}"
        );
    }
}
