//! What a node is told at its start. Every limit has a name and ends in its unit.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The number of a node, from 1 to 65535, fixed for the place it has in the cluster.
pub type NodeId = u16;

/// A node of the cluster and where its peers reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a node is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's number.
    pub node: NodeId,
    /// Where everything durable of this node is kept.
    pub data: PathBuf,
    /// All nodes that the cluster begins with, this one included. What was decided since wins over it.
    pub members: Vec<Member>,
    /// For a node that joins a running cluster: where some of its members listen. Such a node names itself alone as a
    /// member; all else it is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<SocketAddr>,
    /// The number of shards; fixed when the cluster first starts.
    #[serde(default = "default_shards")]
    pub shards: u32,
    /// How many nodes hold a copy of each shard; fewer where there are fewer nodes.
    #[serde(default = "default_replicas")]
    pub replicas: usize,
    /// Whether this node may be told to hurt itself ([`crate::faults`]). For clusters that one tries things out on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chaos: bool,
    /// Limits and times.
    #[serde(default)]
    pub limits: Limits,
}

fn default_shards() -> u32 {
    16
}

fn default_replicas() -> usize {
    3
}

/// Limits and times of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One tick of all Raft groups.
    pub tick_ms: u64,
    /// A leader says that it lives after this many ticks.
    pub heartbeat_ticks: usize,
    /// A follower waits at least this many ticks for its leader, and at most twice as many.
    pub election_ticks: usize,
    /// Commands that may wait for one entity.
    pub mailbox_len_max: usize,
    /// Records of one entity that may be decided and not yet committed. With 1 an entity takes its next command only when the
    /// last one is durable: that is for comparing.
    pub gate_records_max: usize,
    /// Commands and reads that may be under way on this node.
    pub in_flight_max: usize,
    /// Commands under way to other nodes on behalf of effects.
    pub effects_in_flight_max: usize,
    /// Timers that may be set in one shard. All of them are in memory on each of its replicas.
    pub timers_per_shard_max: usize,
    /// The largest command or event, in bytes.
    pub value_bytes_max: usize,
    /// Records of one append.
    pub append_records_max: usize,
    /// Bytes of one append.
    pub append_bytes_max: usize,
    /// Bytes of a shard's journal in memory before a checkpoint moves them to the store.
    pub tail_bytes_max: usize,
    /// A checkpoint is made after this time even when little has happened.
    pub checkpoint_interval_ms: u64,
    /// An entity that nothing has reached for so long leaves memory.
    pub idle_ms: u64,
    /// For calls that come without a deadline.
    pub default_timeout_ms: u64,
    /// How long request ids and their replies are kept.
    pub requests_kept_ms: u64,
    /// A node whose tasks run so late gives its leaderships away.
    pub scheduler_lag_ms_max: u64,
    /// One whose log takes so long for a sync does so too,
    pub sync_ms_max: u64,
    /// and one whose consensus is behind by so much.
    pub mailbox_wait_ms_max: u64,
    /// Entities that this node may have live at one time.
    pub live_entities_max: usize,
    /// Entities that are brought back from the store at one time.
    pub recoveries_in_flight_max: usize,
    /// Bytes of the commands that may be under way on this node.
    pub in_flight_bytes_max: usize,
    /// The node takes fewer commands when all of them take longer than this.
    pub queue_delay_max_ms: u64,
    /// Effects of one shard that may be open before it takes no more commands of clients.
    pub outbox_len_max: usize,
    /// How deep a chain of effects may become.
    pub effect_depth_max: u32,
    /// Effects of others that one entity keeps in mind because they may come again.
    pub effect_requests_max: usize,
    /// Subscriptions and consumers that this node may serve at one time.
    pub subscriptions_max: usize,
    /// How often it is looked for histories that are longer or older than their kind keeps them.
    pub retention_interval_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tick_ms: 25,
            heartbeat_ticks: 4,
            election_ticks: 12,
            mailbox_len_max: 4096,
            gate_records_max: 32_768,
            in_flight_max: 32_768,
            effects_in_flight_max: 4096,
            timers_per_shard_max: 100_000,
            value_bytes_max: 1 << 20,
            append_records_max: 512,
            append_bytes_max: 256 << 10,
            tail_bytes_max: 8 << 20,
            checkpoint_interval_ms: 5_000,
            idle_ms: 15_000,
            default_timeout_ms: 10_000,
            requests_kept_ms: 24 * 3_600_000,
            scheduler_lag_ms_max: 500,
            sync_ms_max: 1_000,
            mailbox_wait_ms_max: 1_000,
            live_entities_max: 100_000,
            recoveries_in_flight_max: 64,
            in_flight_bytes_max: 256 << 20,
            queue_delay_max_ms: 200,
            outbox_len_max: 16_384,
            effect_depth_max: 64,
            effect_requests_max: 20_000,
            subscriptions_max: 64,
            retention_interval_ms: 600_000,
        }
    }
}

impl Config {
    /// The address of a member.
    pub fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.members.iter().find(|m| m.id == node).map(|m| m.address)
    }

    /// The length of one tick.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.limits.tick_ms)
    }
}
