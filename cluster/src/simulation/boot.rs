//! How a node starts, as `engine::start` does it, and how it ends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    failpoints::{Side, Step},
    node::{Replica, Running},
    world::{Event, TICK, World},
};
use crate::{
    config::NodeId,
    journal::{
        Shard,
        keys::{self, Meta},
    },
    replication::{Boot, Driver, HardState, Input, Members, RaftId, Settings, driver::Write},
    store::{Batch, StateStore, log::StoredGroup},
};

/// Index and term at which every log begins.
const BEGIN: (u64, u64) = (1, 1);
/// Ticks between two looks at what should move.
const PLAN_TICKS: u64 = 20;

impl World {
    /// Writes the beginning of every group of a node of a new cluster.
    pub(super) fn begin_groups(&mut self, node: NodeId) {
        for (group, id) in self.homes.replicas_on(node) {
            let meta = Meta {
                applied: BEGIN,
                members: Members::of_voters(self.homes.home(group).to_vec()),
                ..Meta::default()
            };
            let stored = StoredGroup {
                cut: BEGIN,
                hard_state: HardState {
                    term: BEGIN.1,
                    vote: 0,
                    commit: BEGIN.0,
                },
                ..StoredGroup::default()
            };
            self.begin_group(node, group, id, &meta, stored);
        }
    }

    fn begin_group(&mut self, node: NodeId, group: u32, id: RaftId, meta: &Meta, stored: StoredGroup) {
        let disk = &mut self.node(node).disk;
        disk.stores.retain(|(of, _), _| *of != group);
        let mut batch = Batch::default();
        batch.put(keys::META.to_vec(), keys::encode(meta));
        let store = disk.store(group, 0);
        store.write(batch).expect("memory takes everything");
        store.sync();
        disk.groups.insert(group, stored);
        disk.held.insert(group, id);
    }

    /// Begins to hold a replica, as `Engine::open_replica` does it.
    pub(super) fn open_replica(&mut self, node: NodeId, group: u32, id: RaftId) {
        self.trace
            .note(self.now, format_args!("node {node} opens group {group} as {id}"));
        if self.crashes_at(node, Step::ReplicaBegun, Side::Before) {
            return;
        }
        self.begin_group(node, group, id, &Meta::default(), StoredGroup::default());
        if self.crashes_at(node, Step::ReplicaBegun, Side::After) {
            return;
        }
        let shard = Shard::open(self.node(node).disk.store(group, 0)).expect("an empty store");
        let replica = Replica {
            shard,
            generation: 0,
            leader: None,
            leadership: None,
            fresh: super::glances::Fresh::default(),
        };
        self.node(node).running().replicas.insert(group, replica);
        let boot = Boot {
            group,
            id,
            hard_state: HardState::default(),
            cut: (0, 0),
            entries: Vec::new(),
            applied: 0,
            members: Members::default(),
            generation: 0,
            campaign: false,
        };
        self.arrives(node, Input::Open(Box::new(boot)));
    }

    pub(super) fn start(&mut self, node: NodeId, is_first: bool) {
        self.tell(format!("node {node} starts"));
        if let Some(what) = self.damage_of_log(node) {
            return self.cannot_start(node, &what);
        }
        let (mut boots, mut replicas, mut newest) = (Vec::new(), BTreeMap::new(), 0);
        let disk = &mut self.node(node).disk;
        let held = disk.held.clone();
        // What an early end has left of replicas that are gone.
        disk.groups.retain(|group, _| held.contains_key(group));
        disk.stores.retain(|(group, _), _| held.contains_key(group));
        for (group, id) in held {
            let campaign = is_first && self.homes.home(group).first() == Some(&id);
            let disk = &mut self.node(node).disk;
            let stored = disk.groups[&group].clone();
            disk.stores
                .retain(|(of, generation), _| *of != group || *generation == stored.generation);
            let shard = match Shard::open(disk.store(group, stored.generation)) {
                Ok(shard) => shard,
                Err(error) => return self.cannot_start(node, &error),
            };
            let meta = shard.meta().clone();
            if meta.applied.0 < stored.cut.0 {
                let what = format!(
                    "node {node} group {group}: the state ends at {}, and the log begins after {}",
                    meta.applied.0, stored.cut.0
                );
                return self.violated("cut", what);
            }
            let mut hard_state = stored.hard_state;
            hard_state.commit = hard_state.commit.max(meta.applied.0);
            boots.push(Boot {
                group,
                id,
                hard_state,
                cut: stored.cut,
                entries: stored.entries,
                applied: meta.applied.0,
                members: meta.members,
                generation: stored.generation,
                campaign,
            });
            newest = newest.max(stored.generation);
            let verdict = self.checks.digests.at(group, meta.applied.0, meta.digest, node);
            self.verdict("digests", verdict);
            let replica = Replica {
                shard,
                generation: stored.generation,
                leader: None,
                leadership: None,
                fresh: super::glances::Fresh::default(),
            };
            replicas.insert(group, replica);
        }
        let settings = Settings {
            heartbeat_ticks: 3,
            election_ticks: 10,
            append_records_max: 4,
            append_bytes_max: 600,
            seed: self.seed ^ u64::from(node) << 32,
            life: self.nodes[&node].life << 32,
        };
        let life = self.nodes[&node].life;
        self.node(node).paused_until = 0;
        self.node(node).run = Some(Running {
            driver: Driver::new(node, &settings, boots),
            replicas,
            mailbox: Vec::new(),
            step_due: false,
            writes: VecDeque::new(),
            syncing: Vec::new(),
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            carrying: BTreeMap::new(),
            gates: BTreeMap::new(),
            checkpoint: None,
            snapshots_due: VecDeque::new(),
            fetches: BTreeMap::new(),
            next_generation: newest + 1,
            next_number: 0,
        });
        self.hear_of_maps(node);
        let phase = self.rng.below(TICK);
        self.after(phase, node, Event::Tick { life });
        self.after(phase + 1, node, Event::Checkpoint { life });
        self.after(phase + PLAN_TICKS * TICK, node, Event::Plan { life });
        self.alarms_start(node);
    }

    /// Ends a node's process at once. What was not synced is lost, or not.
    pub(super) fn crash(&mut self, node: NodeId) {
        let Some(run) = self.node(node).run.take() else { return };
        self.tell(format!("node {node} crashes"));
        self.count("crashes", 1);
        self.end_process(node, &run.syncing);
    }

    /// Ends a node whose device has just refused: of what was under way nothing is there.
    pub(super) fn crash_losing_writes(&mut self, node: NodeId) {
        if let Some(run) = self.node(node).run.take() {
            self.tell(format!("node {node} ends"));
            drop(run);
            self.end_process(node, &[]);
        }
    }

    fn end_process(&mut self, node: NodeId, under_way: &[Write]) {
        let lost_vote = self.flaws.forgotten_vote;
        let it = self.nodes.get_mut(&node).expect("nodes never leave");
        it.life += 1;
        let mut rng = self.rng.clone();
        let verdict = it.disk.crash(&mut rng, under_way);
        if lost_vote {
            for stored in it.disk.groups.values_mut() {
                stored.hard_state.vote = 0;
                stored.hard_state.term = stored.entries.last().map_or(stored.cut.1, |entry| entry.term);
            }
        }
        self.rng = rng;
        self.verdict("log", verdict);
        // Peers notice most of the time.
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            if self.rng.chance(700) {
                let delay = self.rng.between(1, 3 * TICK);
                self.link_down(other, node, delay);
            }
        }
    }

    /// Crashes a node, and empties its device: it comes back as a new replica.
    pub(super) fn wipe(&mut self, node: NodeId) {
        self.crash(node);
        self.tell(format!("node {node} loses its disk"));
        self.count("disks lost", 1);
        let keeps_name = self.flaws.wiped_under_old_name;
        let held = std::mem::take(&mut self.node(node).disk).held;
        self.node(node).disk.is_credulous = self.flaws.damage_served;
        if keeps_name {
            for (group, id) in held {
                self.begin_group(node, group, id, &Meta::default(), StoredGroup::default());
            }
        } else {
            self.renew_replicas(node);
        }
    }

    pub(super) fn plan_again(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        self.after(PLAN_TICKS * TICK, node, Event::Plan { life });
    }
}

/// The store that a replica works on.
pub(super) fn store_of(world: &mut World, node: NodeId, group: u32, generation: u64) -> Arc<dyn StateStore> {
    world.node(node).disk.store(group, generation)
}
