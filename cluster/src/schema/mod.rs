//! What stored values look like, in which version, and who can read them.
//!
//! Reading order: [`upcast`] (how values of an earlier build become those of this one), [`stored`] (a value without its type,
//! for upcasts), [`versioned`] (how stored bytes say their version), [`shape`] (what a value looks like, in a few words),
//! [`derive`] (shapes out of types), [`described`] (all shapes of one kind of entity), [`compare`] (what is incompatible about
//! two of them), [`check`] and [`example`] (an author's test against the committed schema), [`card`] (what a node can read, and
//! what the cluster's journal may hold), [`fleet`] (what this node knows of the others' builds), [`restrain`] (nothing is written that
//! a member cannot read), [`view`] (what people are told).

pub(crate) mod card;
mod check;
pub(crate) mod compare;
mod derive;
pub(crate) mod described;
mod example;
pub(crate) mod fleet;
pub(crate) mod restrain;
mod shape;
mod stored;
#[cfg(test)]
mod tests;
pub(crate) mod upcast;
pub(crate) mod versioned;
pub(crate) mod view;

use serde::{Deserialize, Serialize};

pub use check::{Report, check, check_in};
pub use derive::{JsonSchema, Schema, schemars};
pub use stored::Stored;
pub use upcast::Upcast;
pub use view::{EntryView, SchemaCheck, SchemaFinding, SchemaView};

/// The name of a part that has no variants: its whole type.
pub const WHOLE: &str = "*";

/// The types of an entity whose values are stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What it can be told.
    Command,
    /// What has happened to it.
    Event,
    /// Why it says no.
    Rejection,
    /// What callers are told.
    Reply,
    /// What the events add up to; stored as snapshots.
    State,
    /// What its effects and timers come back with.
    Token,
}

impl Part {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 6] = [
        Self::Command,
        Self::Event,
        Self::Rejection,
        Self::Reply,
        Self::State,
        Self::Token,
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
            Self::Rejection => "rejection",
            Self::Reply => "reply",
            Self::State => "state",
            Self::Token => "token",
        }
    }

    /// The part of that name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// A part and the variant in it, for people: `event Deposited`, `state`.
pub(crate) fn title(part: Part, name: &str) -> String {
    if name == WHOLE {
        part.name().to_owned()
    } else {
        format!("{} {name}", part.name())
    }
}
