//! A node of the simulation: what it has on its device, and what is lost with its process.

use std::collections::{BTreeMap, VecDeque};

use super::{
    activation::{Caller, Gate, Leadership, Waits},
    author::outbox::Carrying,
    disk::Disk,
    glances::Fresh,
    storage::{Checkpoint, Fetch},
};
use crate::{
    config::NodeId,
    entity::EntityKey,
    journal::Shard,
    replication::{Driver, Input, driver::Write},
};

/// A node.
pub(super) struct Node {
    pub(super) id: NodeId,
    /// Counts the ends of its process: what was meant for an earlier one reaches nobody.
    pub(super) life: u64,
    /// Its driver does nothing before this time.
    pub(super) paused_until: u64,
    /// By how much its clock is ahead.
    pub(super) clock_ahead: u64,
    pub(super) disk: Disk,
    pub(super) run: Option<Running>,
}

/// What ends with the process.
pub(super) struct Running {
    pub(super) driver: Driver,
    pub(super) replicas: BTreeMap<u32, Replica>,
    pub(super) mailbox: Vec<Input>,
    pub(super) step_due: bool,
    /// Writes that wait for the log's thread, and those it is syncing.
    pub(super) writes: VecDeque<Write>,
    pub(super) syncing: Vec<Write>,
    /// Proposals.
    pub(super) waiting: BTreeMap<u64, Waits>,
    pub(super) reading: BTreeMap<u64, (Caller, EntityKey)>,
    /// Effects that it carries out just now, by number.
    pub(super) carrying: BTreeMap<u64, Carrying>,
    pub(super) gates: BTreeMap<u64, Gate>,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Groups of which a snapshot is asked.
    pub(super) snapshots_due: VecDeque<u32>,
    pub(super) fetches: BTreeMap<u64, Fetch>,
    pub(super) next_generation: u64,
    pub(super) next_number: u64,
}

/// A group's state on a node.
pub(super) struct Replica {
    pub(super) shard: Shard,
    /// Under which the state store keeps it.
    pub(super) generation: u64,
    pub(super) leader: Option<NodeId>,
    pub(super) leadership: Option<Leadership>,
    pub(super) fresh: Fresh,
}

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            life: 0,
            paused_until: 0,
            clock_ahead: 0,
            disk: Disk::default(),
            run: None,
        }
    }

    /// The running process; only for events of its own life.
    pub(super) fn running(&mut self) -> &mut Running {
        self.run.as_mut().expect("events of another life were sorted out")
    }
}

impl Running {
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
