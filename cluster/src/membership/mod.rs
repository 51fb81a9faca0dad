//! Who belongs to the cluster.
//!
//! Reading order: [`map`] (members and the homes of shards), [`roster`] (the entity that decides about it), [`hello`] (how a
//! node with a new folder finds out whether it is the first of its kind), [`join`] (how one is let in).

pub(crate) mod hello;
pub(crate) mod join;
pub(crate) mod map;
pub(crate) mod roster;

pub(crate) use map::{Map, Standing};
pub(crate) use roster::{Roster, RosterCommand, RosterRejection};
