//! What people and the command line are told of the cluster's schema.

use super::{
    Part,
    card::{Card, Conflict, Floor},
    compare::Weight,
};
use crate::config::NodeId;

/// What the cluster's journal may hold, and the build of each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaView {
    /// Every node has said what its build can read; until then there are no entries.
    pub is_known: bool,
    /// Each node with the fingerprint of its build; `None` until it has said it.
    pub builds: Vec<(NodeId, Option<u64>)>,
    /// All that may be written.
    pub entries: Vec<EntryView>,
}

/// Something that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// The kind of entity.
    pub kind: String,
    /// Which of its types.
    pub part: Part,
    /// The variant, or `*` for a part that has none.
    pub name: String,
    /// The last version that all nodes read.
    pub version: u32,
    /// What it looks like, in the notation of committed schemas; nothing for what is only read.
    pub shape: Option<serde_json::Value>,
}

/// What would come of a node with some build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaCheck {
    /// It is known what all nodes can read.
    pub is_known: bool,
    /// What the build cannot read: it would not be let in.
    pub unreadable: Vec<SchemaFinding>,
    /// What it would pass over.
    pub passed_over: Vec<SchemaFinding>,
    /// What it writes and some node cannot read yet.
    pub held_back: Vec<SchemaFinding>,
}

/// One finding about a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFinding {
    /// The kind of entity.
    pub kind: String,
    /// Which of its types; `None` where it is about the whole kind.
    pub part: Option<Part>,
    /// The variant, or `*` for a part that has none.
    pub name: String,
    /// The version that it is about.
    pub version: u32,
    /// What is the matter, in words.
    pub reason: String,
}

impl From<Conflict> for SchemaFinding {
    fn from(conflict: Conflict) -> Self {
        let Conflict {
            kind,
            part,
            name,
            version,
            reason,
            weight: _,
        } = conflict;
        Self {
            kind,
            part,
            name,
            version,
            reason,
        }
    }
}

/// All that may be written.
pub(crate) fn entries(floor: &Floor) -> Vec<EntryView> {
    let kinds = floor.iter().flat_map(|floor| &floor.kinds);
    kinds
        .flat_map(|(kind, described)| {
            let written = described.entries.iter().map(|((part, name), entry)| EntryView {
                kind: kind.clone(),
                part: *part,
                name: name.clone(),
                version: entry.version,
                shape: Some(entry.shape.to_json()),
            });
            let retired = described.retired.iter().map(|((part, name), version)| EntryView {
                kind: kind.clone(),
                part: *part,
                name: name.clone(),
                version: *version,
                shape: None,
            });
            written.chain(retired)
        })
        .collect()
}

/// What would come of a node with a build in a cluster whose journal may hold what `floor` says.
pub(crate) fn check(build: &Card, floor: &Floor) -> SchemaCheck {
    let Some(floor) = floor else {
        return SchemaCheck::default();
    };
    let (unreadable, passed_over): (Vec<_>, Vec<_>) = build
        .conflicts(floor)
        .into_iter()
        .partition(|conflict| conflict.weight == Weight::Breaks);
    SchemaCheck {
        is_known: true,
        unreadable: unreadable.into_iter().map(SchemaFinding::from).collect(),
        passed_over: passed_over.into_iter().map(SchemaFinding::from).collect(),
        held_back: held_back(build, floor),
    }
}

/// What a build writes that is beyond the floor.
pub(crate) fn held_back(build: &Card, floor: &Card) -> Vec<SchemaFinding> {
    let mut findings = Vec::new();
    for (kind, described) in &build.kinds {
        let mut find = |part, name: &str, version, reason: &str| {
            findings.push(SchemaFinding {
                kind: kind.clone(),
                part,
                name: name.to_owned(),
                version,
                reason: reason.to_owned(),
            });
        };
        if !floor.kinds.contains_key(kind) {
            find(None, "*", 1, "some node does not have it yet");
            continue;
        }
        for ((part, name), entry) in &described.entries {
            let known = floor.reads(kind, *part, name);
            if entry.version > known {
                let reason = match known {
                    0 => "some node does not know it yet".to_owned(),
                    known => format!("some node reads it up to version {known} only"),
                };
                find(Some(*part), name, entry.version, &reason);
            }
        }
    }
    findings
}
