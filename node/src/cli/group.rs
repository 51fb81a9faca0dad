//! `playhouse group`: who reads what in consumer groups, how far they are, and from where they go on.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, Subcommand};
use proto::events::v1::{
    DeleteGroupRequest, GetGroupRequest, Group as View, ListGroupsRequest, Position, ResetGroupRequest, Start,
    start::At,
};
use serde_json::{Value, json};

use super::{
    client::Target,
    entity::time_text,
    events::parse_start,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Look at consumer groups, reset and delete them.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List all groups.
    List(List),
    /// Show a group's members, and how far it is in each shard.
    Show(Show),
    /// Let a group go on from elsewhere; what its members have under way is void.
    Reset(Reset),
    /// Delete a group without members.
    Delete(Delete),
}

/// List all groups.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Show one group.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its name.
    group: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Let a group go on from elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Its name.
    group: String,
    /// Where it goes on: beginning, now, a cursor, or a time (2026-11-21T10:30:00Z, or unix milliseconds).
    #[arg(long, value_parser = parse_start)]
    to: At,
    /// Only this shard; repeat it for more.
    #[arg(long)]
    shard: Vec<u32>,
    #[command(flatten)]
    target: Target,
}

/// Delete a group.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Its name.
    group: String,
    #[command(flatten)]
    target: Target,
}

impl Group {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => {
                let client = list.target.connect().await?;
                let groups = client.list_groups(ListGroupsRequest {}).await?.groups;
                if list.json {
                    let groups: Vec<Value> = groups.iter().map(group_json).collect();
                    print_json(&json!({"groups": groups}));
                } else if groups.is_empty() {
                    print_text("there is no consumer group");
                } else {
                    print_text(&list_text(&groups));
                }
            }
            Self::Show(show) => {
                let client = show.target.connect().await?;
                let group = client.get_group(GetGroupRequest { group: show.group }).await?;
                if show.json {
                    print_json(&group_json(&group));
                } else {
                    print_text(&group_text(&group));
                }
            }
            Self::Reset(reset) => {
                let client = reset.target.connect().await?;
                let message = ResetGroupRequest {
                    group: reset.group.clone(),
                    start: Some(Start { at: Some(reset.to) }),
                    shards: reset.shard,
                };
                client.reset_group(message).await?;
                print_text(&format!("group {} goes on from there", reset.group));
            }
            Self::Delete(delete) => {
                let client = delete.target.connect().await?;
                let group = delete.group.clone();
                client.delete_group(DeleteGroupRequest { group }).await?;
                print_text(&format!("group {} is deleted", delete.group));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a group reads, in a few words.
fn reads(group: &View) -> String {
    match &group.filter {
        Some(filter) if !filter.entity.is_empty() => filter.entity.clone(),
        Some(filter) if !filter.kinds.is_empty() => filter.kinds.join(", "),
        _ => "all kinds".to_owned(),
    }
}

fn position(position: Option<Position>) -> String {
    match position {
        None => "-".to_owned(),
        Some(Position { index, place: u32::MAX }) => index.to_string(),
        Some(Position { index, place }) => format!("{index}.{place}"),
    }
}

fn list_text(groups: &[View]) -> String {
    let mut rows = table(&["group", "reads", ">members", ">shards", ">dead letters"]);
    for group in groups {
        rows.add_row([
            group.name.clone(),
            reads(group),
            group.members.len().to_string(),
            group.partitions.len().to_string(),
            group.dead_letters.to_string(),
        ]);
    }
    render(&rows)
}

fn group_text(group: &View) -> String {
    let mut text = format!(
        "group {}  reads {}  {} attempts  {} dead letters\n\n",
        group.name,
        reads(group),
        group.attempts_max,
        group.dead_letters
    );
    let mut members = table(&["member", ">shards", "lease until"]);
    for member in &group.members {
        members.add_row([
            member.name.clone(),
            member.shards.to_string(),
            time_text(member.lease_until_unix_ms),
        ]);
    }
    if group.members.is_empty() {
        text.push_str("it has no members\n");
    } else {
        let _ = writeln!(text, "{}", render(&members));
    }
    let mut shards = table(&[">shard", "member", ">epoch", ">done", ">end", "refused"]);
    for partition in &group.partitions {
        let refused = match partition.refused_attempts {
            0 => String::new(),
            attempts => format!("{attempts} times: {}", partition.refused_reason),
        };
        let owner = if partition.owner.is_empty() {
            "-"
        } else {
            &partition.owner
        };
        let recalled = if partition.is_recalled { " (recalled)" } else { "" };
        shards.add_row([
            partition.shard.to_string(),
            format!("{owner}{recalled}"),
            partition.epoch.to_string(),
            position(partition.committed),
            position(partition.end),
            refused,
        ]);
    }
    let _ = write!(text, "\n{}", render(&shards));
    text
}

fn group_json(group: &View) -> Value {
    let members: Vec<Value> = (group.members.iter())
        .map(|member| {
            json!({"name": member.name, "shards": member.shards, "lease_until_unix_ms": member.lease_until_unix_ms})
        })
        .collect();
    let partitions: Vec<Value> = (group.partitions.iter())
        .map(|partition| {
            json!({
                "shard": partition.shard, "owner": partition.owner, "epoch": partition.epoch,
                "is_recalled": partition.is_recalled, "committed": position(partition.committed),
                "end": partition.end.map(|end| position(Some(end))),
                "refused_attempts": partition.refused_attempts, "refused_reason": partition.refused_reason,
            })
        })
        .collect();
    let filter = group.filter.clone().unwrap_or_default();
    json!({
        "name": group.name, "kinds": filter.kinds, "entity": filter.entity, "attempts_max": group.attempts_max,
        "members": members, "partitions": partitions, "dead_letters": group.dead_letters,
    })
}

#[cfg(test)]
mod tests {
    use proto::events::v1::Partition;

    use super::*;

    #[test]
    fn people_see_how_far_a_group_is() {
        let group = View {
            name: "mailer".to_owned(),
            attempts_max: 5,
            partitions: vec![Partition {
                shard: 3,
                owner: "m-1".to_owned(),
                committed: Some(Position { index: 7, place: 1 }),
                end: Some(Position {
                    index: 9,
                    place: u32::MAX,
                }),
                refused_attempts: 2,
                refused_reason: "no address".to_owned(),
                ..Partition::default()
            }],
            ..View::default()
        };
        let text = group_text(&group);
        for part in [
            "reads all kinds",
            "it has no members",
            "m-1",
            "7.1",
            "2 times: no address",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(list_text(std::slice::from_ref(&group)).contains("mailer"));
        assert_eq!(group_json(&group)["partitions"][0]["end"], "9");
    }
}
