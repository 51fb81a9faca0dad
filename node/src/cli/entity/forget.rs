//! `playhouse entity forget`: an entity is forgotten for good, and every node is asked what it still has of it.

use std::process::ExitCode;

use clap::Args;
use proto::history::v1::{ForgetRequest, ForgottenRequest, ForgottenResponse, NodeRemains, Receipt};
use serde_json::{Value, json};
use ulid::Ulid;

use super::{point::time_text, show::parse_key};
use crate::cli::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Forget an entity for good.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Kind and id, for example order/42.
    #[arg(value_name = "KIND/ID", value_parser = parse_key)]
    key: String,
    /// Why; it stays in the receipt, so it must not name what is to be forgotten.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Forget nothing: ask every node what it still has of an entity that was forgotten. Exit code 1: something is left.
    #[arg(long, conflicts_with = "reason")]
    verify: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Forget {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        if !self.verify {
            let request = ForgetRequest {
                key: self.key.clone(),
                reason: self.reason.clone(),
            };
            let forgotten = client.forget(&Ulid::generate().to_string(), request).await?;
            let receipt = forgotten.receipt.unwrap_or_default();
            if self.json {
                print_json(&json!({"key": self.key, "receipt": receipt_json(&receipt)}));
            } else {
                print_text(&format!(
                    "{} is forgotten, {}\nin some seconds `playhouse entity forget --verify {}` says what each node still has of it",
                    self.key,
                    receipt_text(&receipt),
                    self.key
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let request = ForgottenRequest { key: self.key.clone() };
        let found = client.forgotten(request).await?;
        if self.json {
            print_json(&found_json(&found));
        } else {
            print_text(&found_text(&found));
        }
        match verdict(&found) {
            None => Ok(ExitCode::SUCCESS),
            Some(failure) => Err(failure),
        }
    }
}

/// Whether anything of the entity is left on a node.
fn is_clean(node: &NodeRemains) -> bool {
    node.error.is_empty()
        && (node.receipt.is_some() || !node.is_replica)
        && node.in_memory + node.rows + node.log_entries == 0
        && !node.files_to_rewrite
}

/// What is still to be done; nothing once nothing is left.
fn verdict(found: &ForgottenResponse) -> Option<Failure> {
    if found.receipt.is_none() {
        return Some(Failure::no(format!("{} is not forgotten", found.key)));
    }
    if found.nodes.iter().all(is_clean) {
        return None;
    }
    let silent: Vec<String> = of(found, |node| !node.error.is_empty());
    let late: Vec<String> = of(found, |node| {
        node.error.is_empty()
            && !is_clean(node)
            && (node.in_memory + node.rows + node.log_entries > 0 || !node.files_to_rewrite)
    });
    let files: Vec<String> = of(found, |node| node.error.is_empty() && node.files_to_rewrite);
    Some(if !silent.is_empty() {
        Failure::no(format!(
            "not proved: these nodes could not be asked: {}",
            silent.join(" ")
        ))
        .help("look at them with `playhouse status`, and ask again once they are back")
    } else if !late.is_empty() {
        Failure::no(format!("something is left on these nodes: {}", late.join(" ")))
            .help("the next checkpoint takes it away, some seconds after it was forgotten: ask again")
    } else {
        Failure::no(format!(
            "files of these nodes may still hold what was removed from them: {}",
            files.join(" ")
        ))
        .help("they are written anew when the node starts next: `playhouse restart --rolling`")
    })
}

fn of(found: &ForgottenResponse, is_wanted: impl Fn(&NodeRemains) -> bool) -> Vec<String> {
    let nodes = found.nodes.iter().filter(|node| is_wanted(node));
    nodes.map(|node| node.node.to_string()).collect()
}

fn receipt_text(receipt: &Receipt) -> String {
    let by = if receipt.asked_by.is_empty() {
        "nobody named"
    } else {
        &receipt.asked_by
    };
    let reason = if receipt.reason.is_empty() {
        "no reason given"
    } else {
        &receipt.reason
    };
    format!(
        "{}, by {by}, {reason} (request {}, position {})",
        time_text(receipt.at_unix_ms),
        receipt.request_id,
        receipt.position
    )
}

fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "at_unix_ms": receipt.at_unix_ms, "asked_by": receipt.asked_by, "reason": receipt.reason,
        "request_id": receipt.request_id, "position": receipt.position,
    })
}

fn found_json(found: &ForgottenResponse) -> Value {
    let nodes: Vec<Value> = (found.nodes.iter())
        .map(|node| {
            json!({
                "node": node.node, "error": node.error, "is_replica": node.is_replica, "applied": node.applied,
                "checkpoint": node.checkpoint, "has_receipt": node.receipt.is_some(), "in_memory": node.in_memory,
                "rows": node.rows, "log_entries": node.log_entries, "files_to_rewrite": node.files_to_rewrite,
                "clean": is_clean(node),
            })
        })
        .collect();
    json!({
        "key": found.key, "shard": found.shard, "receipt": found.receipt.as_ref().map(receipt_json), "nodes": nodes,
        "clean": verdict(found).is_none(),
    })
}

fn found_text(found: &ForgottenResponse) -> String {
    let mut rows = table(&[
        ">node",
        "replica",
        ">in memory",
        ">rows",
        ">log entries",
        "files",
        "left",
    ]);
    for node in &found.nodes {
        rows.add_row([
            node.node.to_string(),
            if node.is_replica { "yes" } else { "no" }.to_owned(),
            node.in_memory.to_string(),
            node.rows.to_string(),
            node.log_entries.to_string(),
            if node.files_to_rewrite {
                "at the next start"
            } else {
                "clean"
            }
            .to_owned(),
            match (node.error.as_str(), is_clean(node)) {
                ("", true) => "nothing".to_owned(),
                ("", false) => "something".to_owned(),
                (error, _) => format!("not known: {error}"),
            },
        ]);
    }
    let head = match &found.receipt {
        Some(receipt) => format!("{} is forgotten, {}", found.key, receipt_text(receipt)),
        None => format!("{} is not forgotten; it lives in shard {}", found.key, found.shard),
    };
    format!("{head}\n\n{}", render(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl Fn(&mut NodeRemains)) -> ForgottenResponse {
        let receipt = Receipt::default();
        let mut node = NodeRemains {
            node: 2,
            is_replica: true,
            receipt: Some(receipt.clone()),
            ..NodeRemains::default()
        };
        change(&mut node);
        ForgottenResponse {
            key: "order/7".to_owned(),
            shard: 1,
            receipt: Some(receipt),
            nodes: vec![node],
        }
    }

    #[test]
    fn nothing_is_proved_before_every_node_has_nothing_left() {
        assert!(verdict(&found(|_| {})).is_none());
        let text = |change: &dyn Fn(&mut NodeRemains)| verdict(&found(change)).expect("something is left").to_string();
        assert!(text(&|node| node.rows = 1).contains("something is left on these nodes: 2"));
        assert!(text(&|node| node.log_entries = 1).contains("something is left"));
        assert!(text(&|node| node.receipt = None).contains("something is left"));
        assert!(text(&|node| node.files_to_rewrite = true).contains("files of these nodes"));
        assert!(text(&|node| node.error = "it does not answer".to_owned()).contains("not proved"));
        let mut never = found(|_| {});
        never.receipt = None;
        assert!(
            verdict(&never)
                .expect("not forgotten")
                .to_string()
                .contains("is not forgotten")
        );
    }
}
