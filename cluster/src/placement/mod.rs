//! Where replicas and leaders belong, planned purely from what is known.
//!
//! Two plans, each one move at a time and each made anew from what is there, so that it goes on after a crash at any point:
//! [`plan`] changes the homes of shards in the cluster's map; [`group`] brings a shard's members and leader to its home.
//! [`farewell`] says when a replica that has left its group may go.

pub(crate) mod farewell;
pub(crate) mod group;
pub(crate) mod plan;

pub(crate) use farewell::{Said, SaidReplica, is_out};
pub(crate) use group::{Move, View, next_move};
