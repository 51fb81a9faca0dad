//! Consensus: many Raft groups of one node, as a function from inputs to effects.
//!
//! The only place that names the Raft library. [`driver`] takes ticks, peer messages, proposals and "this write has reached
//! the device", and answers with messages to send, one batch to write and sync, and entries to apply. It owns no socket,
//! disk, clock or task, so the very same code runs in a node (`shard::runtime`) and in the simulation (`simulation`).
//!
//! Reading order: [`driver`], [`group`] (one group's part of it), [`group_log`] (the log as the library reads it), [`message`]
//! (the wire form), [`credible`] (what a peer can have sent), [`catch_up`] (how a replica learns that
//! it has everything), [`members`] (who belongs to a group), [`batch`] (many records in one entry).
//!
//! The orders that must hold, each guarded by the simulation:
//! - messages that promise something durable leave only after the sync, and after the group was told of it;
//! - an answer to a proposal is given only when its entry is applied, and only if index and term are those it was given;
//! - entries leave the log only behind a checkpoint that has reached the device.

#[cfg(test)]
mod announced;
pub(crate) mod batch;
mod catch_up;
mod credible;
pub(crate) mod driver;
mod election;
#[cfg(test)]
mod fresh;
mod group;
mod group_log;
pub(crate) mod members;
mod message;
#[cfg(test)]
mod strangers;

/// An entry of a group's log, in the form in which the log stores it.
pub(crate) use raft::eraftpb::Entry;

pub(crate) use driver::{
    Applied, Boot, Driver, Failure, GroupStatus, GroupWrite, HardState, Input, Output, Role, Settings, Task,
};
pub(crate) use members::{MemberChange, Members, RaftId, node_of, raft_id};
