//! What a node can read, and what the cluster's journal may hold.
//!
//! Each node tells the roster its [`Card`]. The [`Floor`] is what all members can read: it may be written, so it may be in the
//! journal, and it never becomes less. A node that cannot read the floor is not let in.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Part,
    compare::{Weight, compare, weight},
    described::{Described, Entry},
    title,
};
use crate::journal::keys::fnv;

/// The largest card, in bytes of its stored form.
pub(crate) const CARD_BYTES_MAX: usize = 512 << 10;
/// Conflicts that are said at one time.
const SAID_MAX: usize = 5;

/// What a node's build can read, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) kinds: BTreeMap<String, Described>,
}

/// What may be in the journal of a cluster, by kind. `None` until every member has told what it can read.
pub(crate) type Floor = Option<Card>;

/// Something that a build cannot read, or reads only in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) kind: String,
    pub(crate) part: Option<Part>,
    pub(crate) name: String,
    /// The version that is or may be written.
    pub(crate) version: u32,
    pub(crate) reason: String,
    pub(crate) weight: Weight,
}

impl Conflict {
    /// Where it is.
    pub(crate) fn place(&self) -> String {
        match self.part {
            Some(part) => format!("{} version {} of {}", title(part, &self.name), self.version, self.kind),
            None => format!("the kind {}", self.kind),
        }
    }
}

impl Card {
    /// Tells builds apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let texts = self
            .kinds
            .iter()
            .map(|(kind, described)| format!("{kind} {}\n", described.to_json()));
        fnv(texts.collect::<String>().as_bytes())
    }

    /// The last version of a name that can be read; 0 for none.
    pub(crate) fn reads(&self, kind: &str, part: Part, name: &str) -> u32 {
        self.kinds.get(kind).map_or(0, |described| described.reads(part, name))
    }

    /// Whatever of `written` this build cannot read, or reads only in part.
    pub(crate) fn conflicts(&self, written: &Self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (kind, theirs) in &written.kinds {
            let conflict = |part, name: &str, version, reason: String, weight| Conflict {
                kind: kind.clone(),
                part,
                name: name.to_owned(),
                version,
                reason,
                weight,
            };
            let Some(own) = self.kinds.get(kind) else {
                let reason = "this build does not have it".to_owned();
                conflicts.push(conflict(None, "", 1, reason, Weight::Breaks));
                continue;
            };
            for ((part, name), entry) in &theirs.entries {
                conflicts.extend(
                    misfit((theirs, entry), own, *part, name)
                        .into_iter()
                        .map(|(reason, weight)| conflict(Some(*part), name, entry.version, reason, weight)),
                );
            }
            for ((part, name), version) in &theirs.retired {
                if own.reads(*part, name) == 0 {
                    let reason = "this build does not read it any more: keep its upcast".to_owned();
                    conflicts.push(conflict(Some(*part), name, *version, reason, Weight::Breaks));
                }
            }
        }
        conflicts
    }

    /// Whether nothing that the other build writes is lost on this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.conflicts(other).is_empty()
    }

    /// Why a node with this build cannot take part, if it cannot.
    pub(crate) fn obstacle(&self, floor: &Floor) -> Option<String> {
        self.obstacle_of(floor.as_ref()?)
    }

    /// Why a node with this build cannot read what another build writes, if it cannot.
    pub(crate) fn obstacle_of(&self, written: &Self) -> Option<String> {
        let breaks: Vec<_> = self
            .conflicts(written)
            .into_iter()
            .filter(|conflict| conflict.weight == Weight::Breaks)
            .collect();
        (!breaks.is_empty()).then(|| refusal(&breaks))
    }
}

/// What people are told of what a build cannot read.
pub(crate) fn refusal(conflicts: &[Conflict]) -> String {
    let mut said: Vec<_> = conflicts
        .iter()
        .take(SAID_MAX)
        .map(|conflict| format!("{} ({})", conflict.place(), conflict.reason))
        .collect();
    if conflicts.len() > SAID_MAX {
        said.push(format!("and {} more", conflicts.len() - SAID_MAX));
    }
    format!(
        "this build cannot read what the cluster's journal may hold: {}. Start this node with a build that can; \
         `playhouse schema check` says of a build whether it is one",
        said.join("; ")
    )
}

/// What is wrong with reading an entry by another build.
fn misfit((theirs, entry): (&Described, &Entry), own: &Described, part: Part, name: &str) -> Vec<(String, Weight)> {
    let known = own.reads(part, name);
    if known == 0 {
        return vec![("this build does not know it".to_owned(), Weight::Breaks)];
    }
    if known < entry.version {
        let reason = format!("this build reads it up to version {known}");
        return vec![(reason, Weight::Breaks)];
    }
    // An earlier version than its own goes through upcasts, whatever it looks like.
    let same = own.entry(part, name).filter(|own| own.version == entry.version);
    let Some(same) = same.filter(|_| own.is_declared && theirs.is_declared) else {
        return Vec::new();
    };
    let findings = compare(theirs.side(&entry.shape), own.side(&same.shape));
    let findings = findings.into_iter().filter(|finding| finding.weight > Weight::Fine);
    findings.map(|finding| (finding.say(), finding.weight)).collect()
}

/// The floor once it is known what all members read: what all of them can, and whatever it was before.
pub(crate) fn raised(floor: &Floor, cards: &[Arc<Card>]) -> Floor {
    let (first, rest) = cards.split_first()?;
    let mut meet = rest.iter().fold((**first).clone(), |meet, card| common(&meet, card));
    if let Some(before) = floor {
        for (kind, described) in &before.kinds {
            let now = meet.kinds.entry(kind.clone()).or_insert_with(|| described.clone());
            for (key, entry) in &described.entries {
                if now.reads(key.0, &key.1) == 0 {
                    now.entries.insert(key.clone(), entry.clone());
                }
            }
            for (key, version) in &described.retired {
                if !now.entries.contains_key(key) {
                    now.retired.entry(key.clone()).or_insert(*version);
                }
            }
            for (name, shape) in &described.types {
                now.types.entry(name.clone()).or_insert_with(|| shape.clone());
            }
        }
    }
    Some(meet)
}

/// What two builds can both read.
fn common(a: &Card, b: &Card) -> Card {
    let kinds = a.kinds.iter().filter_map(|(kind, one)| {
        let other = b.kinds.get(kind)?;
        Some((kind.clone(), both(one, other)))
    });
    Card { kinds: kinds.collect() }
}

fn both(one: &Described, other: &Described) -> Described {
    let is_declared = one.is_declared && other.is_declared;
    // Which of them has the later form of the same version: the one that loses nothing of the other's.
    let mut entries = BTreeMap::new();
    let mut types = one.types.clone();
    for (key, a) in &one.entries {
        let version = a.version.min(other.reads(key.0, &key.1));
        let Some(b) = other.entry(key.0, &key.1) else {
            if version > 0 {
                entries.insert(
                    key.clone(),
                    Entry {
                        version,
                        shape: a.shape.clone(),
                    },
                );
            }
            continue;
        };
        let b_is_later = if a.version == b.version {
            let forth = compare(one.side(&a.shape), other.side(&b.shape));
            weight(&forth) == Weight::Fine
        } else {
            b.version == version
        };
        let shape = if b_is_later { &b.shape } else { &a.shape };
        if b_is_later {
            let mut names = std::collections::BTreeSet::new();
            shape.names(&other.types, &mut names);
            for name in names {
                if let Some(found) = other.types.get(&name) {
                    types.insert(name, found.clone());
                }
            }
        }
        entries.insert(
            key.clone(),
            Entry {
                version,
                shape: shape.clone(),
            },
        );
    }
    for (key, b) in &other.entries {
        let version = b.version.min(one.reads(key.0, &key.1));
        if version > 0 && !one.entries.contains_key(key) {
            // One build writes it still, and the other one reads it.
            entries.insert(
                key.clone(),
                Entry {
                    version,
                    shape: b.shape.clone(),
                },
            );
        }
    }
    let retired = one.retired.iter().filter_map(|(key, a)| {
        let version = *other.retired.get(key)?.min(a);
        Some((key.clone(), version))
    });
    Described {
        is_declared,
        entries,
        retired: retired.collect(),
        types,
    }
}
