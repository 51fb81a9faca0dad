//! The next change of the cluster's map, as the roster's leader plans it: one shard at a time, and none while one is
//! still on its way.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use crate::{
    config::NodeId,
    entity::{Context, Entity as _},
    membership::{Map, Roster, RosterCommand, Standing},
    replication::{RaftId, node_of},
};

/// More steps than that are never needed; a look ahead ends there.
const STEPS_PER_SHARD_MAX: usize = 8;

/// What is seen of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Members that cannot be reached.
    pub(crate) down: BTreeSet<NodeId>,
    /// Members that still hold a replica of some shard, or did so when they were last asked.
    pub(crate) holding: BTreeSet<NodeId>,
    /// Each shard whose leader answers.
    pub(crate) shards: BTreeMap<u32, SeenShard>,
}

/// A shard, in the words of its leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenShard {
    pub(crate) voters: Vec<RaftId>,
    /// Some belong to it that do not vote, or vote no longer.
    pub(crate) is_changing: bool,
}

/// What the roster is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A shard gets another home, or another node to lead it.
    Place {
        shard: u32,
        from: Vec<RaftId>,
        to: Vec<NodeId>,
    },
    /// A leaving node has nothing any more.
    Release(NodeId),
}

impl Step {
    /// What the roster is told.
    pub(crate) fn command(self) -> RosterCommand {
        match self {
            Self::Place { shard, from, to } => RosterCommand::Place { shard, from, to },
            Self::Release(node) => RosterCommand::Release { node },
        }
    }
}

/// The next step, if one is due.
pub(crate) fn next_step(map: &Map, seen: &Seen) -> Option<Step> {
    let plan = Plan { map, seen };
    if let Some(step) = plan.leader_that_goes() {
        return Some(step);
    }
    let moving: Vec<u32> = (0..=map.system_shard())
        .filter(|shard| plan.is_moving(*shard))
        .collect();
    if !moving.is_empty() {
        // A new replica whose node went away must not hold up everything: its shard stays where it was.
        return moving.into_iter().find_map(|shard| plan.stuck(shard));
    }
    plan.replica_that_goes()
        .or_else(|| plan.empty_node())
        .or_else(|| plan.copy_that_lacks())
        .or_else(|| plan.uneven_replicas())
        .or_else(|| plan.uneven_leaders())
}

impl Seen {
    /// Everything as the map says, for a look ahead.
    pub(crate) fn followed(map: &Map, down: &BTreeSet<NodeId>) -> Self {
        let followed = |home: &Vec<RaftId>| SeenShard {
            voters: home.clone(),
            is_changing: false,
        };
        Self {
            down: down.clone(),
            holding: BTreeSet::new(),
            shards: (0..).zip(map.homes.iter().map(followed)).collect(),
        }
    }
}

/// Whether it is worth while to ask all nodes how things are: a step may be due, or a shard may wait for a node that is down.
pub(crate) fn is_look_due(map: &Map, down: &BTreeSet<NodeId>) -> bool {
    let waits = map.homes.iter().flatten().any(|id| down.contains(&node_of(*id)));
    waits || next_step(map, &Seen::followed(map, down)).is_some()
}

/// How many steps there are to the end, if everything that is up stays so.
pub(crate) fn steps_left(map: &Map, down: &BTreeSet<NodeId>) -> usize {
    let mut map = map.clone();
    let context = Context {
        key: Roster::key(),
        version: 0,
        now_ms: 0,
    };
    let max = STEPS_PER_SHARD_MAX * map.homes.len();
    (0..max)
        .find(|_| {
            let Some(step) = next_step(&map, &Seen::followed(&map, down)) else {
                return true;
            };
            match Roster::decide(&map, step.command(), &context) {
                Ok(decision) => decision.events.iter().for_each(|event| Roster::evolve(&mut map, event)),
                // Cannot be: the plan keeps to what the roster takes.
                Err(_) => return true,
            }
            false
        })
        .unwrap_or(max)
}

struct Plan<'a> {
    map: &'a Map,
    seen: &'a Seen,
}

impl Plan<'_> {
    fn shards(&self) -> impl Iterator<Item = u32> + use<> {
        0..=self.map.system_shard()
    }

    fn nodes(&self, shard: u32) -> Vec<NodeId> {
        self.map.nodes_of(shard).collect()
    }

    fn place(&self, shard: u32, to: Vec<NodeId>) -> Step {
        Step::Place {
            shard,
            from: self.map.home(shard).to_vec(),
            to,
        }
    }

    /// Whether a node may be given more.
    fn takes(&self, node: NodeId) -> bool {
        self.map.standing(node) == Some(Standing::Serving) && !self.seen.down.contains(&node)
    }

    fn takers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.map.members.keys().copied().filter(|node| self.takes(*node))
    }

    /// The shards that entities live in: the one of the roster has nearly nothing to do.
    fn busy_shards(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.map.system_shard()
    }

    /// How many replicas, and how many leaderships, each node that may be given more is to have.
    fn loads(&self) -> BTreeMap<NodeId, (usize, usize)> {
        let mut loads: BTreeMap<NodeId, (usize, usize)> = self.takers().map(|node| (node, (0, 0))).collect();
        for shard in self.busy_shards() {
            for (place, node) in self.map.nodes_of(shard).enumerate() {
                if let Some((replicas, leads)) = loads.get_mut(&node) {
                    *replicas += 1;
                    *leads += usize::from(place == 0);
                }
            }
        }
        loads
    }

    /// Whether a shard's members are not yet those of its home. One without a leader waits for nobody.
    fn is_moving(&self, shard: u32) -> bool {
        let home: BTreeSet<RaftId> = self.map.home(shard).iter().copied().collect();
        let seen = self.seen.shards.get(&shard);
        seen.is_some_and(|seen| seen.is_changing || seen.voters.iter().copied().collect::<BTreeSet<_>>() != home)
    }

    fn stuck(&self, shard: u32) -> Option<Step> {
        let voters = &self.seen.shards.get(&shard)?.voters;
        let home = self.map.home(shard);
        let is_stuck = |id: &RaftId| {
            let node = node_of(*id);
            // One that lost its folder comes back under the new name.
            let is_renewed = voters.iter().any(|voter| node_of(*voter) == node);
            !voters.contains(id) && !is_renewed && self.seen.down.contains(&node)
        };
        if !home.iter().any(is_stuck) {
            return None;
        }
        let mut to: Vec<NodeId> = home.iter().filter(|id| !is_stuck(id)).map(|id| node_of(*id)).collect();
        to.extend(
            voters
                .iter()
                .map(|id| node_of(*id))
                .filter(|node| self.map.members.contains_key(node) && !home.iter().any(|id| node_of(*id) == *node)),
        );
        (!to.is_empty()).then(|| self.place(shard, to))
    }

    /// A shard is to be led by a node that gives away what it has: first of all, somebody else leads it.
    fn leader_that_goes(&self) -> Option<Step> {
        let loads = self.loads();
        self.shards().find_map(|shard| {
            let mut nodes = self.nodes(shard);
            let leader = *nodes.first()?;
            if self.map.keeps(leader) {
                return None;
            }
            let next = nodes
                .iter()
                .copied()
                .filter(|node| self.map.keeps(*node))
                .min_by_key(|node| loads.get(node).map_or(usize::MAX, |(_, leads)| *leads))?;
            nodes.retain(|node| *node != next);
            nodes.insert(0, next);
            Some(self.place(shard, nodes))
        })
    }

    /// The node with the fewest replicas that has none of these.
    fn taker_but(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let loads = self.loads();
        let free = loads.iter().filter(|(node, _)| !nodes.contains(node));
        free.min_by_key(|(_, (replicas, _))| *replicas).map(|(node, _)| *node)
    }

    /// A replica on a node that gives away what it has.
    fn replica_that_goes(&self) -> Option<Step> {
        self.shards().find_map(|shard| {
            let mut nodes = self.nodes(shard);
            let place = nodes.iter().position(|node| !self.map.keeps(*node))?;
            let going = nodes[place];
            if let Some(taker) = self.taker_but(&nodes) {
                nodes[place] = taker;
            } else {
                let may_go = self.map.standing(going).is_none_or(Standing::may_lose_copies);
                let stay = nodes.iter().filter(|node| self.map.keeps(**node)).count();
                let wanted = self.map.copies_of(shard, self.keepers());
                // The system shard has fewer copies where there are fewer nodes, and that is no loss.
                if stay == 0 || !(may_go || stay >= wanted) {
                    return None;
                }
                nodes.remove(place);
            }
            Some(self.place(shard, nodes))
        })
    }

    fn keepers(&self) -> usize {
        self.map.members.keys().filter(|node| self.map.keeps(**node)).count()
    }

    fn empty_node(&self) -> Option<Step> {
        let leaving = |node: &NodeId| matches!(self.map.standing(*node), Some(Standing::Leaving { .. }));
        let mut nodes = self.map.members.keys().copied();
        let is_empty =
            |node: &NodeId| self.map.replicas_on(*node).next().is_none() && !self.seen.holding.contains(node);
        let node = nodes.find(|node| leaving(node) && is_empty(node))?;
        Some(Step::Release(node))
    }

    fn copy_that_lacks(&self) -> Option<Step> {
        self.shards().find_map(|shard| {
            let mut nodes = self.nodes(shard);
            let wanted = self.map.copies_of(shard, self.keepers());
            match nodes.len().cmp(&wanted) {
                // Copies that are not needed: the last one is not the leader.
                Ordering::Greater => drop(nodes.pop()),
                Ordering::Less => nodes.push(self.taker_but(&nodes)?),
                Ordering::Equal => return None,
            }
            Some(self.place(shard, nodes))
        })
    }

    fn uneven_replicas(&self) -> Option<Step> {
        let loads = self.loads();
        let (most, (high, _)) = loads.iter().max_by_key(|(_, (replicas, _))| *replicas)?;
        let (least, (low, _)) = loads.iter().min_by_key(|(_, (replicas, _))| *replicas)?;
        if high - low < 2 {
            return None;
        }
        let can_move = |shard: &u32| {
            let nodes = self.nodes(*shard);
            nodes.contains(most) && !nodes.contains(least)
        };
        // Rather one that is led from elsewhere: then nobody notices.
        let leads = |shard: &u32| self.map.nodes_of(*shard).next() == Some(*most);
        let shard = self.busy_shards().filter(can_move).min_by_key(|shard| leads(shard))?;
        let mut nodes = self.nodes(shard);
        let place = nodes.iter().position(|node| node == most)?;
        nodes[place] = *least;
        Some(self.place(shard, nodes))
    }

    /// Leaderships go from the node with the most, perhaps by way of others, to one with fewer: nodes that share a shard can
    /// pass one on. The last part of the way is gone first, so that no node ever has more than before.
    fn uneven_leaders(&self) -> Option<Step> {
        let loads = self.loads();
        let (most, (_, high)) = loads.iter().max_by_key(|(_, (_, leads))| *leads)?;
        let mut came_by: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut queue = VecDeque::from([*most]);
        while let Some(node) = queue.pop_front() {
            for shard in self
                .shards()
                .filter(|shard| self.map.nodes_of(*shard).next() == Some(node))
            {
                for next in self.map.nodes_of(shard).skip(1) {
                    let Some((_, leads)) = loads.get(&next) else { continue };
                    if next == *most || came_by.contains_key(&next) {
                        continue;
                    }
                    came_by.insert(next, shard);
                    if leads + 2 <= *high {
                        let mut nodes = self.nodes(shard);
                        nodes.retain(|other| *other != next);
                        nodes.insert(0, next);
                        return Some(self.place(shard, nodes));
                    }
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::map::tests::config;

    /// A cluster whose shards follow the map at once.
    struct World {
        map: Map,
        down: BTreeSet<NodeId>,
        steps: usize,
    }

    impl World {
        fn new(nodes: u16, shards: u32) -> Self {
            let mut world = Self {
                map: Map::default(),
                down: BTreeSet::new(),
                steps: 0,
            };
            world.tell(RosterCommand::Begin(Map::first(&config(nodes, shards))));
            world
        }

        fn tell(&mut self, command: RosterCommand) {
            let context = Context {
                key: Roster::key(),
                version: 0,
                now_ms: 0,
            };
            let decision = Roster::decide(&self.map, command, &context).expect("accepted");
            for event in decision.events {
                Roster::evolve(&mut self.map, &event);
            }
        }

        fn join(&mut self, node: NodeId) {
            self.tell(RosterCommand::Join {
                node,
                address: format!("127.0.0.1:{}", 7000 + node).parse().expect("an address"),
                nonce: u64::from(node),
                is_lost: false,
            });
        }

        fn stand(&mut self, node: NodeId, standing: Standing) {
            self.tell(RosterCommand::SetStanding { node, standing });
        }

        fn seen(&self) -> Seen {
            Seen::followed(&self.map, &self.down)
        }

        fn take(&mut self, step: Step) {
            self.steps += 1;
            assert!(self.steps < 500, "it never ends");
            self.tell(step.command());
        }

        fn settle(&mut self) {
            while let Some(step) = next_step(&self.map, &self.seen()) {
                self.take(step);
            }
        }

        fn spread(&self) -> Vec<(NodeId, usize, usize)> {
            let leads = |node| {
                (0..self.map.shards)
                    .filter(|shard| self.map.nodes_of(*shard).next() == Some(node))
                    .count()
            };
            self.map
                .members
                .keys()
                .map(|node| {
                    let replicas = self
                        .map
                        .replicas_on(*node)
                        .filter(|(shard, _)| *shard < self.map.shards);
                    (*node, replicas.count(), leads(*node))
                })
                .collect()
        }
    }

    const DRAIN: Standing = Standing::Draining {
        with_fewer_copies: false,
    };

    #[test]
    fn a_new_cluster_has_nothing_to_move() {
        for nodes in 1..=7 {
            let mut world = World::new(nodes, 16);
            world.settle();
            assert!(
                !is_look_due(&world.map, &BTreeSet::new()),
                "nobody is asked for nothing"
            );
            assert!(
                is_look_due(&world.map, &BTreeSet::from([1])),
                "one that is down may be waited for"
            );
            assert!(world.steps <= 3, "{nodes} nodes: {} steps", world.steps);
        }
    }

    #[test]
    fn a_node_that_joins_gets_its_part() {
        let mut world = World::new(3, 16);
        world.join(4);
        let left = steps_left(&world.map, &BTreeSet::new());
        world.settle();
        assert_eq!(world.steps, left, "the number of steps was known before");
        for (node, replicas, leads) in world.spread() {
            assert_eq!((replicas, leads), (12, 4), "node {node}");
        }
    }

    #[test]
    fn a_drained_node_has_nothing_and_the_others_the_same() {
        let mut world = World::new(5, 16);
        world.stand(2, DRAIN);
        world.settle();
        for (node, replicas, leads) in world.spread() {
            let part = if node == 2 { (0, 0) } else { (12, 4) };
            assert_eq!((replicas, leads), part, "node {node}");
        }
        assert!((0..16).all(|shard| world.map.home(shard).len() == 3));
        assert_eq!(world.map.home(16).len(), 3, "four nodes need no more");
        world.stand(2, Standing::Serving);
        world.settle();
        assert!(
            world
                .spread()
                .iter()
                .all(|(_, replicas, _)| (9..=10).contains(replicas))
        );
    }

    #[test]
    fn a_leaving_node_is_let_go_once_it_is_empty() {
        let mut world = World::new(4, 8);
        world.stand(
            1,
            Standing::Leaving {
                with_fewer_copies: false,
            },
        );
        world.settle();
        assert!(!world.map.members.contains_key(&1));
        assert!(world.map.homes.iter().all(|home| home.len() == 3));
    }

    #[test]
    fn with_too_few_nodes_copies_go_only_when_told_to() {
        let mut world = World::new(3, 4);
        world.stand(
            3,
            Standing::Leaving {
                with_fewer_copies: true,
            },
        );
        world.settle();
        assert!(!world.map.members.contains_key(&3));
        assert!(world.map.homes.iter().all(|home| home.len() == 2));
    }

    #[test]
    fn a_cordoned_node_keeps_what_it_has_and_is_given_nothing() {
        let mut world = World::new(4, 16);
        let before = world.map.replicas_on(4).count();
        world.stand(4, Standing::Cordoned);
        world.join(5);
        world.settle();
        assert_eq!(world.map.replicas_on(4).count(), before);
        assert!(world.map.replicas_on(5).count() > 8);
    }

    #[test]
    fn leaders_leave_a_draining_node_before_anything_else_moves() {
        let mut world = World::new(5, 16);
        world.stand(2, DRAIN);
        while world.spread()[1].2 > 0 {
            let replicas = world.map.replicas_on(2).count();
            let step = next_step(&world.map, &world.seen()).expect("a step is due");
            world.take(step);
            assert_eq!(world.map.replicas_on(2).count(), replicas);
        }
    }

    #[test]
    fn nothing_else_moves_while_a_shard_is_on_its_way() {
        let mut world = World::new(3, 8);
        world.join(4);
        let before = world.seen();
        assert!(is_look_due(&world.map, &BTreeSet::new()));
        let step = next_step(&world.map, &before).expect("a step is due");
        world.take(step);
        assert_eq!(next_step(&world.map, &before), None, "the shard has not followed yet");
    }

    /// One member that went away in the middle of a move must not hold up all others.
    #[test]
    fn a_move_to_a_node_that_went_away_is_taken_back() {
        let mut world = World::new(3, 8);
        world.join(4);
        let mut seen = world.seen();
        let step = next_step(&world.map, &seen).expect("a step is due");
        world.take(step);
        seen.down.insert(4);
        let back = next_step(&world.map, &seen).expect("it is taken back");
        world.take(back);
        assert!(world.map.replicas_on(4).next().is_none());
        world.down.insert(4);
        let after = next_step(&world.map, &world.seen());
        assert_eq!(after, None, "what is down is given nothing");
    }

    #[test]
    fn a_shard_without_a_leader_holds_up_no_other() {
        let mut world = World::new(3, 8);
        world.join(4);
        let mut seen = world.seen();
        seen.shards.remove(&5);
        assert!(next_step(&world.map, &seen).is_some());
    }
}
