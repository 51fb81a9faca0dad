//! What is asked of the models of a replica, on the wire and by users, and what is told of them.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::Place;
use crate::{cluster::Consistency, config::NodeId, feed::Position, token::VersionToken};

/// The largest part of an answer that one shard gives, in bytes.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// All parts of an answer together, in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Shards that are asked at one time for one question.
pub(crate) const SHARDS_ASKED_MAX: usize = 32;

/// How new an answer must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// `None`: as the nearest replica of each shard has it. [`Consistency::Stale`]: no older than that.
    /// [`Consistency::Linearizable`]: with everything that was acknowledged before the call; the leaders answer.
    /// [`Consistency::Tokens`] is the same as `None`.
    pub consistency: Option<Consistency>,
    /// The answer has at least what these rest on.
    pub after: Vec<VersionToken>,
}

/// An answer of a projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Projected<A> {
    /// What was answered.
    pub answer: A,
    /// The version of the projection that answered.
    pub version: u32,
    /// Everything that was acknowledged so long before is part of it; `None` where some shard's replica does not know.
    pub staleness: Option<Duration>,
    /// How far each shard's model had come: a later question that presents these sees at least as much.
    pub tokens: Vec<VersionToken>,
}

/// A projection, and its copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectionView {
    /// Its name,
    pub name: String,
    /// and its version.
    pub version: u32,
    /// A later version of it is carried beside it.
    pub is_former: bool,
    /// The kinds of entities that feed it.
    pub kinds: Vec<String>,
    /// Its copies, by shard and node, as far as their nodes can be reached.
    pub replicas: Vec<ReplicaModel>,
}

/// The copy of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaModel {
    /// The shard,
    pub shard: u32,
    /// and the node.
    pub node: NodeId,
    /// The last entry of the journal that the replica has applied.
    pub applied: u64,
    /// What answers; `None` until it is built for the first time.
    pub serving: Option<GenerationView>,
    /// What is being built beside it.
    pub building: Option<GenerationView>,
    /// Generations whose rows are still to be removed.
    pub removing: u32,
    /// Whether the last rebuild made the same rows as were there before; `None` without one, and where events were forgotten or let
    /// go meanwhile.
    pub compared: Option<bool>,
    /// Why it stands still; empty where it does not.
    pub fault: String,
}

impl ReplicaModel {
    /// Entries of the journal that are not in what answers, or in what is built where nothing answers.
    pub fn lag(&self) -> u64 {
        let generation = self.serving.or(self.building);
        self.applied
            .saturating_sub(generation.map_or(0, |generation| generation.reached))
    }
}

/// One building of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationView {
    /// Its number, from 1.
    pub generation: u64,
    /// All entries of the journal up to this one are in it.
    pub reached: u64,
    /// The last record that it took in. Copies with the same one hold the same rows.
    pub last: Position,
    /// Events that it took in.
    pub events: u64,
    /// Rows,
    pub rows: u64,
    /// and the bytes of their keys and values.
    pub bytes: u64,
    /// Of all rows.
    pub digest: u64,
}

impl GenerationView {
    pub(crate) fn of(generation: u64, place: &Place) -> Self {
        Self {
            generation,
            reached: place.reached(),
            last: place.last,
            events: place.events,
            rows: place.rows,
            bytes: place.bytes,
            digest: place.digest,
        }
    }
}

/// What a rebuild has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildBegun {
    /// The version that is built.
    pub version: u32,
    /// Shard, node, and the generation that is built there.
    pub building: Vec<(u32, NodeId, u64)>,
    /// Nodes that could not be told, and why.
    pub not_told: Vec<(NodeId, String)>,
}

/// How new a part of an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Newness {
    /// As it is.
    Any,
    /// No older than so many microseconds.
    Within(u64),
    /// With everything that was acknowledged before the question; only a leader can tell.
    Leader,
}

/// What is asked of another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Question {
    /// A part of an answer.
    Part(PartQuestion),
    /// How all models of the node stand.
    Views,
    /// Begin a rebuild.
    Rebuild { name: String, version: u32 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartQuestion {
    pub(crate) shard: u32,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) query: Bytes,
    pub(crate) newness: Newness,
    pub(crate) after: Option<VersionToken>,
    pub(crate) patience_ms: u32,
}

/// What a node answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Told {
    Part {
        bytes: Bytes,
        token: VersionToken,
        age_us: Option<u64>,
    },
    /// It has no replica of the shard.
    NotHere,
    /// It does not lead the shard.
    NotLeader,
    /// It carries no such projection, or not in this version.
    Unknown,
    /// It has not built it yet: how far it is, and how far it has to go.
    NotBuilt {
        reached: u64,
        applied: u64,
    },
    /// It could not become new enough in the time it was given.
    TooOld,
    /// It has too much to do.
    Busy,
    /// The question is wrong.
    Invalid {
        field: String,
        reason: String,
    },
    Failed(String),
    Views(Vec<(String, u32, ReplicaModel)>),
    /// Shards and the generations that are built.
    Rebuilding(Vec<(u32, u64)>),
}
