//! Which node is to hold a replica of which group: the cluster's map, in a shape that is enough here. Nodes see its versions
//! late and at different times; which version is the newest is beyond doubt, as the roster's own shard sees to.

use std::collections::BTreeSet;

use super::{
    failpoints::{Side, Step},
    faults::Shape,
    rng::Rng,
    world::{Event, TICK, World},
};
use crate::{
    config::NodeId,
    placement::{self, Said, SaidReplica},
    replication::{Input, RaftId, node_of, raft_id},
};

/// The longest time between two changes of homes, and until a node sees one, in ticks.
const MOVE_TICKS_MAX: u64 = 120;
const SEEN_TICKS_MAX: u64 = 60;

/// All versions of the map.
pub(super) struct Homes {
    versions: Vec<Vec<Vec<RaftId>>>,
    next_incarnation: u64,
    /// Of its own, so that runs in which nothing moves are what they are without moves.
    rng: Rng,
}

impl Homes {
    pub(super) fn new(seed: u64, shape: &Shape) -> Self {
        let home = |group: u32| -> Vec<RaftId> {
            (0..shape.replicas)
                .map(|k| raft_id((group as NodeId + k) % shape.nodes + 1, 0))
                .collect()
        };
        Self {
            versions: vec![(0..shape.groups).map(home).collect()],
            next_incarnation: 1,
            rng: Rng::new(seed ^ 0x686f_6d65),
        }
    }

    fn newest(&self) -> &Vec<Vec<RaftId>> {
        self.versions.last().expect("there is a first one")
    }

    /// The replicas that a group is to have.
    pub(super) fn home(&self, group: u32) -> &[RaftId] {
        &self.newest()[group as usize]
    }

    /// The groups that a node is to hold.
    pub(super) fn replicas_on(&self, node: NodeId) -> Vec<(u32, RaftId)> {
        replicas_on(self.newest(), node)
    }

    fn name(&mut self, node: NodeId) -> RaftId {
        self.next_incarnation += 1;
        raft_id(node, self.next_incarnation - 1)
    }
}

fn replicas_on(homes: &[Vec<RaftId>], node: NodeId) -> Vec<(u32, RaftId)> {
    let all = (0..)
        .zip(homes)
        .flat_map(|(group, home)| home.iter().map(move |id| (group, *id)));
    all.filter(|(_, id)| node_of(*id) == node).collect()
}

impl World {
    /// The nodes that a group is to live on.
    pub(super) fn home_of(&self, group: u32) -> Vec<NodeId> {
        self.homes.home(group).iter().map(|id| node_of(*id)).collect()
    }

    /// The home of a group, as a node sees it.
    pub(super) fn seen_home(&self, node: NodeId, group: u32) -> Vec<RaftId> {
        self.homes.versions[self.nodes[&node].disk.seen][group as usize].clone()
    }

    /// Sees to the next change of a home.
    pub(super) fn move_again(&mut self) {
        if self.shape.moves {
            let delay = self.homes.rng.between(TICK, MOVE_TICKS_MAX * TICK);
            self.after(delay, 0, Event::Move);
        }
    }

    /// Gives a group another home: one replica goes to a node that has none of it.
    pub(super) fn move_a_group(&mut self) {
        if self.calm || !self.shape.moves {
            return;
        }
        let group = self.homes.rng.below(u64::from(self.shape.groups)) as u32;
        let taken: BTreeSet<NodeId> = self.home_of(group).into_iter().collect();
        let free: Vec<NodeId> = self
            .nodes
            .keys()
            .copied()
            .filter(|node| !taken.contains(node))
            .collect();
        if !free.is_empty() {
            let node = self.homes.rng.pick(&free);
            let new = self.homes.name(node);
            let mut homes = self.homes.newest().clone();
            let home = &mut homes[group as usize];
            let place = self.homes.rng.below(home.len() as u64) as usize;
            home[place] = new;
            self.trace
                .note(self.now, format_args!("group {group} moves to {home:?}"));
            self.count("moves", 1);
            self.publish(homes);
        }
        self.move_again();
    }

    /// A node lost its disk: all its replicas get new names.
    pub(super) fn renew_replicas(&mut self, node: NodeId) {
        let mut homes = self.homes.newest().clone();
        for id in homes.iter_mut().flatten().filter(|id| node_of(**id) == node) {
            *id = self.homes.name(node);
        }
        self.publish(homes);
        // It is told when it is let in.
        self.node(node).disk.seen = self.homes.versions.len() - 1;
    }

    fn publish(&mut self, homes: Vec<Vec<RaftId>>) {
        self.homes.versions.push(homes);
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.hear_of_maps(node);
        }
    }

    /// A node is to see the newest map before long.
    pub(super) fn hear_of_maps(&mut self, node: NodeId) {
        let version = self.homes.versions.len() - 1;
        let delay = self.homes.rng.between(1, SEEN_TICKS_MAX * TICK);
        self.after(delay, node, Event::Map { version });
    }

    pub(super) fn see_map(&mut self, node: NodeId, version: usize) {
        if self.nodes[&node].run.is_none() {
            return;
        }
        let disk = &mut self.node(node).disk;
        disk.seen = disk.seen.max(version);
        let homes = self.homes.versions[self.nodes[&node].disk.seen].clone();
        for (group, id) in replicas_on(&homes, node) {
            let it = self.node(node);
            // It may have crashed as it began the one before.
            let Some(run) = &it.run else { return };
            let is_free = !it.disk.held.contains_key(&group) && !run.replicas.contains_key(&group);
            if is_free {
                self.open_replica(node, group, id);
            }
        }
    }

    /// Closes the replicas of a node that have left their group, and opens what could not be opened before.
    pub(super) fn close_replicas(&mut self, node: NodeId) {
        let held = self.nodes[&node].disk.held.clone();
        for (group, id) in held {
            if self.seen_home(node, group).contains(&id) {
                continue;
            }
            if self.flaws.closes_early || self.is_out(node, group, id) {
                self.trace
                    .note(self.now, format_args!("node {node} closes group {group}"));
                self.count("replicas closed", 1);
                if self.crashes_at(node, Step::ReplicaClosed, Side::Before) {
                    return;
                }
                self.node(node).disk.held.remove(&group);
                if self.crashes_at(node, Step::ReplicaClosed, Side::After) {
                    return;
                }
                self.arrives(node, Input::Close { group });
            }
        }
        let seen = self.nodes[&node].disk.seen;
        self.see_map(node, seen);
    }

    /// Whether a replica has left its group, as `placement::is_out` tells from what nodes say.
    fn is_out(&self, node: NodeId, group: u32, id: RaftId) -> bool {
        let running = self
            .nodes
            .values()
            .filter_map(|other| Some((other.id, other.run.as_ref()?)));
        let said: Vec<Said> = running
            .filter(|(other, _)| self.network.connects(self.now, node, *other))
            .map(|(other, run)| {
                let status = run.driver.status().into_iter().find(|status| status.group == group);
                let replica = status.and_then(|status| {
                    Some(SaidReplica {
                        id: status.replica,
                        term: status.term,
                        is_leader: status.is_leader,
                        members: status.members.all().collect(),
                        voters: status.members.voters.clone(),
                        durable_members: run.replicas.get(&group)?.shard.durable_members().all().collect(),
                    })
                });
                Said { node: other, replica }
            })
            .collect();
        placement::is_out(id, &said, &BTreeSet::new())
    }
}
