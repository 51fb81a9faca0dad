//! `playhouse status`: nodes, shards, leaders, replicas, lag.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use clap::Args;
use proto::cluster::v1::{LoadStatus, NodeStatus, ShardStatus, StatusRequest, StatusResponse};
use serde_json::{Value, json};

use super::{
    breaker::breaker_json,
    client::Target,
    failure::Failure,
    output::{bytes, print_json, print_text, render, table},
};

/// Show nodes, shards, leaders, replicas and lag.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let status = client.status(StatusRequest {}).await?;
        if self.json {
            print_json(&status_json(&status));
        } else {
            print_text(&status_text(&status));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn status_json(status: &StatusResponse) -> Value {
    let breakers: Vec<Value> = status.breakers.iter().map(breaker_json).collect();
    json!({
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(shard_json).collect::<Vec<_>>(),
        "system": status.system.as_ref().map(shard_json),
        "roster_version": status.roster_version,
        "moves_left": status.moves_left,
        "breakers": breakers,
    })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "id": node.id, "up": node.up, "address": node.address, "http": node.http, "pid": node.pid, "version": node.version,
        "leads": node.leads, "activations": node.activations, "resident_bytes": node.resident_bytes,
        "uptime_ms": node.uptime_ms, "standing": node.standing, "replicas": node.replicas, "unwell": node.unwell,
        "load": node.load.as_ref().map(load_json),
        "times": node.times.map(|t| json!({
            "sync_last_us": t.sync_last_us, "sync_mean_us": t.sync_mean_us, "sync_age_us": t.sync_age_us,
            "wait_last_us": t.wait_last_us, "wait_mean_us": t.wait_mean_us, "wait_age_us": t.wait_age_us,
        })),
        "links": node.links.iter().map(|l| json!({
            "to": l.to, "up": l.up, "consensus_messages": l.consensus_messages, "consensus_bytes": l.consensus_bytes,
            "forwarded": l.forwarded, "unanswered": l.unanswered,
        })).collect::<Vec<_>>(),
    })
}

/// The nodes that answer and do not reach each other.
fn cut_lines(nodes: &[NodeStatus]) -> Vec<String> {
    let is_up = |id: u32| nodes.iter().any(|node| node.id == id && node.up);
    let cut = nodes.iter().flat_map(|node| {
        let cut = node.links.iter().filter(|link| !link.up && is_up(link.to));
        cut.map(|link| format!("node {} does not reach node {}", node.id, link.to))
    });
    cut.collect()
}

fn load_json(load: &LoadStatus) -> Value {
    let refused: BTreeMap<&String, &u64> = load.refused.iter().collect();
    json!({
        "live_max": load.live_max, "activated": load.activated, "left_idle": load.left_idle,
        "left_for_room": load.left_for_room, "read_cold": load.read_cold, "recovering": load.recovering,
        "recoveries_waiting": load.recoveries_waiting, "calls": load.calls, "work": load.work,
        "work_max": load.work_max, "refused": refused, "chains_ended": load.chains_ended,
        "last_chain": load.last_chain,
    })
}

/// What of a node's load deserves a line of its own.
fn load_lines(node: &NodeStatus) -> Vec<String> {
    let Some(load) = &node.load else { return Vec::new() };
    let mut lines = Vec::new();
    let refused: BTreeMap<&String, &u64> = load.refused.iter().collect();
    if !refused.is_empty() {
        let each: Vec<String> = (refused.iter())
            .map(|(limit, count)| format!("{count} by {limit}"))
            .collect();
        lines.push(format!("node {} has refused calls: {}", node.id, each.join(", ")));
    }
    if load.recoveries_waiting > 0 {
        lines.push(format!(
            "node {}: {} entities wait to be brought back, {} are being read",
            node.id, load.recoveries_waiting, load.recovering
        ));
    }
    if load.chains_ended > 0 {
        lines.push(format!(
            "node {} has ended {} chains of effects that were too deep, the last one {}",
            node.id, load.chains_ended, load.last_chain
        ));
    }
    lines
}

fn shard_json(shard: &ShardStatus) -> Value {
    let lag: BTreeMap<String, u64> = shard.lag.iter().map(|(node, lag)| (node.to_string(), *lag)).collect();
    json!({
        "id": shard.id, "leader": shard.leader, "term": shard.term, "replicas": shard.replicas, "lag": lag,
        "timers": shard.timers, "timers_overdue_ms": shard.timers_overdue_ms,
        "home": shard.home, "applied": shard.applied, "entities": shard.entities, "outbox": shard.outbox,
        "checkpoint": shard.checkpoint, "quarantined": shard.quarantined,
        "commit": shard.commit.map(|c| json!({
            "queue_us": c.queue_us, "sync_us": c.sync_us, "majority_us": c.majority_us, "apply_us": c.apply_us,
        })),
    })
}

fn status_text(status: &StatusResponse) -> String {
    let mut nodes = table(&[
        "node",
        "state",
        "address",
        ">pid",
        ">leads",
        ">replicas",
        ">live entities",
        ">memory",
        ">log sync",
        ">driver wait",
        ">up for",
    ]);
    for node in &status.nodes {
        let state = match (node.up, node.standing.as_str()) {
            (false, _) => "down",
            (true, _) if !node.unwell.is_empty() => "unwell",
            (true, "" | "serving") => "up",
            (true, standing) => standing,
        };
        let cells = if node.up {
            [
                node.pid.to_string(),
                node.leads.to_string(),
                node.replicas.to_string(),
                match &node.load {
                    Some(load) => format!("{} of {}", node.activations, load.live_max),
                    None => node.activations.to_string(),
                },
                bytes(node.resident_bytes),
                millis(node.times.unwrap_or_default().sync_mean_us),
                millis(node.times.unwrap_or_default().wait_mean_us),
                format!("{} s", node.uptime_ms / 1_000),
            ]
        } else {
            std::array::from_fn(|_| "-".to_owned())
        };
        nodes.add_row(
            [node.id.to_string(), state.to_owned(), node.address.clone()]
                .into_iter()
                .chain(cells),
        );
    }
    let mut shards = table(&[
        "shard",
        "leader",
        ">term",
        "replicas",
        "behind",
        ">applied",
        ">entities",
        ">outbox",
        ">timers",
        ">overdue",
        ">checkpoint",
    ]);
    for shard in status.shards.iter().chain(&status.system) {
        let name = if Some(shard) == status.system.as_ref() {
            "roster".to_owned()
        } else {
            shard.id.to_string()
        };
        let replicas: Vec<String> = shard.replicas.iter().map(u32::to_string).collect();
        let mut lag: Vec<_> = shard.lag.iter().filter(|(_, behind)| **behind > 0).collect();
        lag.sort_unstable();
        let behind: Vec<String> = lag.iter().map(|(node, behind)| format!("{node} by {behind}")).collect();
        shards.add_row([
            name,
            if shard.leader == 0 {
                "none".to_owned()
            } else {
                shard.leader.to_string()
            },
            shard.term.to_string(),
            moving_to(shard).map_or_else(
                || replicas.join(" "),
                |home| format!("{} -> {home}", replicas.join(" ")),
            ),
            if behind.is_empty() {
                "-".to_owned()
            } else {
                behind.join(", ")
            },
            shard.applied.to_string(),
            shard.entities.to_string(),
            shard.outbox.to_string(),
            shard.timers.to_string(),
            if shard.timers_overdue_ms == 0 {
                "-".to_owned()
            } else {
                format!("{} ms", shard.timers_overdue_ms)
            },
            shard.checkpoint.to_string(),
        ]);
    }
    let mut text = format!("{}\n\n{}", render(&nodes), render(&shards));
    if status.moves_left > 0 {
        let _ = write!(
            text,
            "\n\n{} more steps until all shards are where they belong",
            status.moves_left
        );
    }
    for node in status.nodes.iter().filter(|node| !node.unwell.is_empty()) {
        let _ = write!(text, "\n\nnode {} leads nothing for now: {}", node.id, node.unwell);
    }
    for line in cut_lines(&status.nodes) {
        let _ = write!(text, "\n\n{line}");
    }
    for breaker in status.breakers.iter().filter(|breaker| breaker.state != "closed") {
        let _ = write!(
            text,
            "\n\nnode {}: the breaker to {} is {} after {} failures",
            breaker.node, breaker.dependency, breaker.state, breaker.failures
        );
    }
    let quarantined: u64 = status.shards.iter().map(|shard| shard.quarantined).sum();
    if quarantined > 0 {
        let _ = write!(
            text,
            "\n\n{quarantined} entities are quarantined; see `playhouse quarantine list`"
        );
    }
    for line in status.nodes.iter().flat_map(load_lines) {
        let _ = write!(text, "\n\n{line}");
    }
    text
}

/// Where a shard is going, if it is not there yet.
fn moving_to(shard: &ShardStatus) -> Option<String> {
    let mut home = shard.home.clone();
    home.sort_unstable();
    let home_text = home.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    (!home.is_empty() && home != shard.replicas).then_some(home_text)
}

/// Microseconds as milliseconds; nothing where there is no figure.
fn millis(us: u64) -> String {
    if us == 0 {
        "-".to_owned()
    } else {
        format!("{:.2} ms", us as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use proto::cluster::v1::{CommitTimes, LinkStatus, NodeTimes};

    use super::*;

    fn example() -> StatusResponse {
        StatusResponse {
            nodes: vec![
                NodeStatus {
                    id: 1,
                    up: true,
                    address: "127.0.0.1:7001".to_owned(),
                    pid: 4711,
                    activations: 12,
                    times: Some(NodeTimes {
                        sync_mean_us: 1_234,
                        ..Default::default()
                    }),
                    load: Some(LoadStatus {
                        live_max: 100,
                        refused: [("mailbox_len_max".to_owned(), 3)].into(),
                        chains_ended: 1,
                        last_chain: "a/1 -> b/2 -> a/1".to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                NodeStatus {
                    id: 2,
                    address: "127.0.0.1:7002".to_owned(),
                    ..Default::default()
                },
            ],
            shards: vec![ShardStatus {
                id: 0,
                leader: 1,
                term: 3,
                replicas: vec![1, 2, 3],
                home: vec![1, 2, 4],
                lag: [(2, 7), (3, 0)].into(),
                applied: 12,
                commit: Some(CommitTimes {
                    majority_us: 300,
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn scripts_find_the_agreed_shape() {
        let value = status_json(&example());
        assert_eq!(value["nodes"][0]["id"], 1);
        assert_eq!(value["nodes"][0]["up"], true);
        assert_eq!(value["nodes"][1]["up"], false);
        assert_eq!(value["shards"][0]["leader"], 1);
        assert_eq!(value["shards"][0]["term"], 3);
        assert_eq!(value["shards"][0]["replicas"], json!([1, 2, 3]));
        assert_eq!(value["shards"][0]["lag"], json!({"2": 7, "3": 0}));
        assert_eq!(value["shards"][0]["applied"], 12);
        assert_eq!(value["shards"][0]["commit"]["majority_us"], 300);
        assert_eq!(value["nodes"][0]["times"]["sync_mean_us"], 1_234);
    }

    #[test]
    fn nodes_that_do_not_reach_each_other_are_named_unless_one_is_down() {
        let link = |to, up| LinkStatus {
            to,
            up,
            ..Default::default()
        };
        let node = |id, up, links| NodeStatus {
            id,
            up,
            links,
            ..Default::default()
        };
        let nodes = [
            node(1, true, vec![link(2, false), link(3, false)]),
            node(2, true, vec![link(1, true), link(3, false)]),
            node(3, false, Vec::new()),
        ];
        assert_eq!(cut_lines(&nodes), ["node 1 does not reach node 2"]);
    }

    #[test]
    fn people_see_who_is_down_and_who_is_behind() {
        let text = status_text(&example());
        assert!(text.contains("2     down   127.0.0.1:7002"), "{text}");
        assert!(text.contains("2 by 7"), "{text}");
        assert!(text.contains("1 2 3 -> 1 2 4"), "{text}");
        assert!(text.contains("1.23 ms"), "{text}");
    }

    #[test]
    fn people_see_what_was_refused_and_why() {
        let text = status_text(&example());
        assert!(text.contains("12 of 100"), "{text}");
        assert!(
            text.contains("node 1 has refused calls: 3 by mailbox_len_max"),
            "{text}"
        );
        assert!(text.contains("the last one a/1 -> b/2 -> a/1"), "{text}");
    }
}
