//! `playhouse schema`: what is stored, in which version, which nodes can read it, and whether this build could take part.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::schema::v1::{CheckRequest, CheckResponse, DescribeRequest, DescribeResponse, Finding};
use serde_json::{Value, json};

use super::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// Look at what is stored, and check a build before it is rolled out.
#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// List what the cluster's journal may hold, by kind, part and version, and the build of each node.
    List(List),
    /// Check whether this build can read all that the running cluster's journal may hold: before it is rolled out.
    Check(Check),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this kind of entity.
    #[arg(long)]
    kind: Option<String>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Schema {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Check(check) => check.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let mut described = client.describe(DescribeRequest {}).await?;
        if let Some(kind) = &self.kind {
            described.entries.retain(|entry| entry.kind == *kind);
            if described.entries.is_empty() {
                return Err(Failure::no(format!(
                    "the cluster's nodes know no kind {kind:?} in common"
                )));
            }
        }
        if self.json {
            print_json(&list_json(&described));
        } else {
            print_text(list_text(&described).trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Check {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let schema_json = actors::registry().schema_json();
        let checked = client.check(CheckRequest { schema_json }).await?;
        if self.json {
            print_json(&check_json(&checked));
        } else {
            print_text(check_text(&checked).trim_end());
        }
        Ok(if checked.unreadable.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

fn list_json(described: &DescribeResponse) -> Value {
    json!({
        "known": described.is_known, "mixed": described.is_mixed,
        "builds": described.builds.iter().map(|build| {
            json!({"node": build.node, "fingerprint": build.fingerprint})
        }).collect::<Vec<_>>(),
        "entries": described.entries.iter().map(|entry| json!({
            "kind": entry.kind, "part": entry.part, "name": entry.name, "version": entry.version,
            "retired": entry.is_retired,
            "shape": serde_json::from_str::<Value>(&entry.shape_json).unwrap_or(Value::Null),
        })).collect::<Vec<_>>(),
    })
}

fn list_text(described: &DescribeResponse) -> String {
    let builds: Vec<_> = described
        .builds
        .iter()
        .map(|build| match build.fingerprint.as_str() {
            "" => format!("node {} has not said it", build.node),
            fingerprint => format!("node {} {fingerprint}", build.node),
        })
        .collect();
    let mut text = format!("builds: {}\n", builds.join(", "));
    if described.is_mixed {
        text.push_str("the builds differ: nothing is written that one of them cannot read\n");
    }
    if !described.is_known {
        text.push_str("not every node has said what it can read yet\n");
        return text;
    }
    let mut rows = table(&["kind", "part", "name", ">version", "looks like"]);
    for entry in &described.entries {
        let shape = if entry.is_retired {
            "(only read)".to_owned()
        } else {
            in_short(&entry.shape_json)
        };
        rows.add_row([
            entry.kind.clone(),
            entry.part.clone(),
            entry.name.clone(),
            entry.version.to_string(),
            shape,
        ]);
    }
    text.push_str(&render(&rows));
    text
}

/// The names of fields and variants; all of a shape is too long for a line.
fn in_short(shape_json: &str) -> String {
    let shape: Value = serde_json::from_str(shape_json).unwrap_or(Value::Null);
    match &shape {
        Value::String(word) => word.clone(),
        Value::Object(object) => {
            let names = object.values().next().and_then(Value::as_object);
            names.map_or_else(
                || shape.to_string(),
                |names| names.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            )
        }
        other => other.to_string(),
    }
}

fn check_json(checked: &CheckResponse) -> Value {
    let findings = |findings: &[Finding]| -> Value {
        findings
            .iter()
            .map(|finding| {
                json!({
                    "kind": finding.kind, "part": finding.part, "name": finding.name, "version": finding.version,
                    "reason": finding.reason,
                })
            })
            .collect()
    };
    json!({
        "ok": checked.unreadable.is_empty(), "known": checked.is_known,
        "unreadable": findings(&checked.unreadable), "passed_over": findings(&checked.passed_over),
        "held_back": findings(&checked.held_back),
    })
}

fn check_text(checked: &CheckResponse) -> String {
    if !checked.is_known {
        return "not every node of the cluster has said what it can read yet: nothing to compare with\n".to_owned();
    }
    let mut text = String::new();
    for (title, findings) in [
        (
            "a node with this build would not be let in; it cannot read what the journal may hold:",
            &checked.unreadable,
        ),
        (
            "this build would pass over; commands with it wait for a node that knows it:",
            &checked.passed_over,
        ),
        ("held back until every node runs this build:", &checked.held_back),
    ] {
        if !findings.is_empty() {
            text.push_str(title);
            text.push('\n');
            findings.iter().for_each(|finding| text.push_str(&line(finding)));
        }
    }
    if checked.unreadable.is_empty() {
        text.push_str("this build reads all that the cluster's journal may hold\n");
    }
    text
}

fn line(finding: &Finding) -> String {
    let Finding {
        kind,
        part,
        name,
        version,
        reason,
    } = finding;
    match (part.as_str(), name.as_str()) {
        ("", _) => format!("  the kind {kind}: {reason}\n"),
        (part, "*") => format!("  {part} version {version} of {kind}: {reason}\n"),
        (part, name) => format!("  {part} {name} version {version} of {kind}: {reason}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_kind_event_and_version() {
        let finding = Finding {
            kind: "order".to_owned(),
            part: "event".to_owned(),
            name: "Placed".to_owned(),
            version: 2,
            reason: "this build reads it up to version 1".to_owned(),
        };
        let checked = CheckResponse {
            is_known: true,
            unreadable: vec![finding],
            ..CheckResponse::default()
        };
        let text = check_text(&checked);
        assert!(
            text.contains("  event Placed version 2 of order: this build reads it up to version 1\n"),
            "{text}"
        );
        assert_eq!(check_json(&checked)["ok"], false);
        let well = CheckResponse {
            is_known: true,
            ..CheckResponse::default()
        };
        assert_eq!(
            check_text(&well),
            "this build reads all that the cluster's journal may hold\n"
        );
    }

    #[test]
    fn a_shape_is_said_in_short() {
        assert_eq!(in_short(r#"{"fields": {"a": "u64", "b?": "string"}}"#), "a, b?");
        assert_eq!(in_short("\"u64\""), "u64");
    }
}
