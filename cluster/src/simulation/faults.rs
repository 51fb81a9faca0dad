//! What goes wrong, and how often: drawn for each run, so that runs differ in kind and not only in order.

use std::collections::BTreeSet;

use super::{
    network::Network,
    rng::Rng,
    world::{Event, TICK, World},
};
use crate::{config::NodeId, replication::Input};

/// A kind of thing that goes wrong. A run can be made without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node crashes, and loses what was not synced.
    Crash,
    /// Links are cut, in one direction or both.
    Partition,
    /// A node stands still.
    Pause,
    /// A leadership moves.
    Transfer,
    /// A node loses its disk.
    LostDisk,
    /// All nodes stop at once.
    StopAll,
    /// Replicas move between nodes.
    Move,
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Duplicate,
    /// A node's clock jumps, forward or back.
    ClockJump,
    /// A link comes and goes many times.
    Flap,
    /// What is sent waits for a long time, and then comes all at once.
    Clog,
    /// Two halves of the nodes can talk only to one in between.
    Bridge,
    /// A sync of the log fails.
    FailedSync,
    /// A disk is full.
    FullDisk,
    /// A disk is slow.
    SlowDisk,
    /// A bit flips in the state, the log, or a snapshot.
    FlippedBit,
    /// Many operations come at once.
    Burst,
    /// Most operations are for one entity.
    HotKeys,
    /// A node crashes before or after a single durable step.
    Failpoints,
}

/// Those of every run, by their weights.
const COMMON: [Fault; 6] = [
    Fault::Crash,
    Fault::Partition,
    Fault::Pause,
    Fault::Transfer,
    Fault::LostDisk,
    Fault::StopAll,
];

/// Those of runs with weather, by their weights.
pub(super) const STORMS: [Fault; 9] = [
    Fault::ClockJump,
    Fault::Flap,
    Fault::Clog,
    Fault::Bridge,
    Fault::FailedSync,
    Fault::FullDisk,
    Fault::SlowDisk,
    Fault::FlippedBit,
    Fault::Burst,
];

impl Fault {
    /// All of them, with the names under which they can be left out.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::Crash, "crash"),
        (Self::Partition, "partition"),
        (Self::Pause, "pause"),
        (Self::Transfer, "transfer"),
        (Self::LostDisk, "lost-disk"),
        (Self::StopAll, "stop-all"),
        (Self::Move, "move"),
        (Self::Loss, "loss"),
        (Self::Duplicate, "duplicate"),
        (Self::ClockJump, "clock-jump"),
        (Self::Flap, "flap"),
        (Self::Clog, "clog"),
        (Self::Bridge, "bridge"),
        (Self::FailedSync, "failed-sync"),
        (Self::FullDisk, "full-disk"),
        (Self::SlowDisk, "slow-disk"),
        (Self::FlippedBit, "flipped-bit"),
        (Self::Burst, "burst"),
        (Self::HotKeys, "hot-keys"),
        (Self::Failpoints, "failpoints"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(fault, _)| *fault == self);
        found.expect("all of them are there").1
    }

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, of)| *of == name);
        found.map(|(fault, _)| *fault)
    }
}

/// What kind of run this is.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) nodes: NodeId,
    pub(super) replicas: NodeId,
    pub(super) groups: u32,
    pub(super) clients: usize,
    /// The longest time of one sync of the log, between two checkpoints, between two operations of a client, and between
    /// two faults; in moments.
    pub(super) sync_max: u64,
    pub(super) checkpoint_max: u64,
    pub(super) think_max: u64,
    fault_max: u64,
    /// Weights of the faults, in the order of [`World::fault`].
    weights: [u64; 6],
    pub(super) network: Network,
    /// Groups move between nodes.
    pub(super) moves: bool,
}

impl Shape {
    pub(super) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let mut own = Rng::new(seed ^ 0x6d6f_7665);
        let moves = own.chance(300);
        let drawn = if rng.chance(150) { 5 } else { 3 };
        let nodes = if moves { own.between(4, 5) as NodeId } else { drawn };
        let mut network = Network {
            loss_permille: rng.pick(&[0, 5, 30, 100]),
            duplicates_permille: rng.pick(&[0, 10, 50]),
            delay_max: rng.pick(&[3, 10, 25]),
            in_order: rng.chance(500),
            ..Network::default()
        };
        if rng.chance(200) {
            network.loss_permille = 0;
        }
        Self {
            nodes,
            replicas: if rng.chance(500) && !moves { nodes } else { 3 },
            groups: rng.between(2, 3) as u32,
            clients: rng.between(3, 7) as usize,
            sync_max: rng.pick(&[2, 8, 40]),
            checkpoint_max: rng.pick(&[5, 20, 60]) * TICK,
            think_max: rng.pick(&[2, 10, 40]),
            fault_max: rng.pick(&[30, 80]) * TICK,
            weights: std::array::from_fn(|_| rng.pick(&[0, 1, 3])),
            network,
            moves,
        }
    }
}

impl Shape {
    /// The same run in which nothing goes wrong.
    pub(super) fn without_faults(&mut self) {
        self.weights = [0; 6];
        self.moves = false;
    }

    /// The same run without some kinds of faults.
    pub(super) fn without(&mut self, left_out: &BTreeSet<Fault>) {
        for (weight, fault) in self.weights.iter_mut().zip(COMMON) {
            if left_out.contains(&fault) {
                *weight = 0;
            }
        }
        self.moves &= !left_out.contains(&Fault::Move);
        if left_out.contains(&Fault::Loss) {
            self.network.loss_permille = 0;
        }
        if left_out.contains(&Fault::Duplicate) {
            self.network.duplicates_permille = 0;
        }
    }
}

impl World {
    /// Does one thing wrong, and sees to the next.
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        self.repair();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let node = self.rng.pick(&nodes);
        let total: u64 = self.shape.weights.iter().sum();
        let mut drawn = self.rng.below(total.max(1));
        let kind = self.shape.weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        match kind {
            Some(0) => {
                self.crash(node);
                self.come_back(node);
            }
            Some(1) => self.partition(node, &nodes),
            Some(2) => {
                let pause = self.rng.between(TICK, 40 * TICK);
                self.node(node).paused_until = self.now + pause;
                self.tell(format!("node {node} pauses"));
                self.count("pauses", 1);
            }
            Some(3) => {
                let (group, to) = (
                    self.rng.below(u64::from(self.shape.groups)) as u32,
                    self.rng.pick(&nodes),
                );
                for node in nodes {
                    if self.nodes[&node].run.is_some() {
                        self.arrives(node, Input::Transfer { group, to });
                    }
                }
            }
            Some(4) if self.can_lose_disk() => {
                self.wipe(node);
                self.come_back(node);
            }
            Some(5) => {
                // Everything stops at once.
                for node in nodes {
                    self.crash(node);
                    self.come_back(node);
                }
            }
            _ => {}
        }
        let delay = self.rng.between(TICK, self.shape.fault_max);
        self.after(delay, 0, Event::Fault);
    }

    pub(super) fn come_back(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        let longest = self.rng.pick(&[5, 40, 150]);
        let delay = self.rng.between(1, longest * TICK);
        self.after(delay, node, Event::Start { life });
    }

    fn partition(&mut self, node: NodeId, nodes: &[NodeId]) {
        match self.rng.below(4) {
            0 => self.network.isolate(node, nodes, true, false),
            1 => self.network.isolate(node, nodes, false, true),
            2 => self.network.isolate(node, nodes, true, true),
            _ => {
                let other = self.rng.pick(nodes);
                self.network.cut.extend([(node, other), (other, node)]);
            }
        }
        self.tell(format!("links are cut: {:?}", self.network.cut));
        self.count("partitions", 1);
        for (from, to) in self.network.cut.clone() {
            if self.nodes[&from].run.is_some() && self.rng.chance(400) {
                let delay = self.rng.between(1, 20 * TICK);
                self.link_down(from, to, delay);
            }
        }
        let delay = self.rng.between(5 * TICK, 120 * TICK);
        self.after(delay, 0, Event::Heal);
    }

    /// Whether another disk may be lost: every replica has seen the end of all changes of members, and no disk is damaged.
    pub(super) fn can_lose_disk(&self) -> bool {
        let is_damaged = self.nodes.values().any(|node| node.disk.damage.is_there);
        !is_damaged
            && (0..self.shape.groups)
                .all(|group| self.home_of(group).into_iter().all(|node| self.is_whole(node, group)))
    }

    /// Whether a replica is there and has seen the end of all changes of members, for good: one that restarts, and has forgotten that
    /// a change was committed, may need the vote of a member that is gone.
    pub(super) fn is_whole(&self, node: NodeId, group: u32) -> bool {
        let replica = self.nodes[&node].run.as_ref().and_then(|run| run.replicas.get(&group));
        replica.is_some_and(|replica| {
            let durable = self.nodes[&node].disk.synced_meta(group, replica.generation);
            self.has_all_members(group, &replica.shard.meta().members)
                && durable.is_some_and(|meta| self.has_all_members(group, &meta.members))
        })
    }

    /// The faults end: links heal, nodes that are down start.
    pub(super) fn calm_down(&mut self) {
        self.tell("calm".to_owned());
        self.calm = true;
        self.network.calm();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.node(node).paused_until = 0;
            self.node(node).disk.calm();
            if self.nodes[&node].run.is_none() {
                self.start(node, false);
            }
        }
        if self.author.is_none() {
            self.last_operations();
        }
    }
}
