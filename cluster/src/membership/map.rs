//! Who belongs to the cluster, and which node holds a replica of which shard: the state of the [`Roster`](super::Roster).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, NodeId},
    replication::{RaftId, node_of, raft_id},
    schema::card::{Card, Floor, raised},
};

/// The most replicas of the system shard: more would only make it slower.
const SYSTEM_REPLICAS_MAX: usize = 5;

/// What a node is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// For everything.
    Serving,
    /// Keeps what it has and is given nothing more.
    Cordoned,
    /// Gives away what it has. With `with_fewer_copies` also what no other node can take.
    Draining { with_fewer_copies: bool },
    /// Gives away all it has, and then belongs to the cluster no longer.
    Leaving { with_fewer_copies: bool },
}

impl Standing {
    /// Whether the node keeps what it has.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Self::Serving | Self::Cordoned)
    }

    /// Whether its shards may go on with fewer copies.
    pub(crate) fn may_lose_copies(self) -> bool {
        matches!(
            self,
            Self::Draining {
                with_fewer_copies: true
            } | Self::Leaving {
                with_fewer_copies: true
            }
        )
    }

    /// In a word, for people and scripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Cordoned => "cordoned",
            Self::Draining { .. } => "draining",
            Self::Leaving { .. } => "leaving",
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) address: SocketAddr,
    /// Of its data folder; `None` until it has said it.
    pub(crate) nonce: Option<u64>,
    pub(crate) standing: Standing,
    /// Of what its build can read; `None` until it has said it.
    #[serde(default)]
    pub(crate) schema: Option<u64>,
}

/// The members, and the home of every shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Map {
    /// The number of shards of entities; one more holds the map itself. 0 before the cluster has begun.
    pub(crate) shards: u32,
    /// How many copies a shard is to have where there are as many nodes.
    pub(crate) copies: usize,
    pub(crate) members: BTreeMap<NodeId, MemberRow>,
    /// For each shard, the system shard last, the replicas it is to have; the first one's node is to lead it.
    pub(crate) homes: Vec<Vec<RaftId>>,
    /// The name of the next replica. A name is given once, so that an empty replica is never taken for one that had voted.
    pub(crate) next_incarnation: u64,
    /// Folders of nodes that have left, by their number: they must not come back with what they once knew.
    pub(crate) left: BTreeMap<NodeId, BTreeSet<u64>>,
    /// What the members' builds can read, by fingerprint.
    #[serde(default)]
    pub(crate) cards: BTreeMap<u64, Arc<Card>>,
    /// What the journal may hold, because every member could read it at some time.
    #[serde(default)]
    pub(crate) floor: Floor,
}

impl Map {
    /// The map that every node of a new cluster begins with.
    pub(crate) fn first(config: &Config) -> Self {
        let nodes: Vec<NodeId> = config.members.iter().map(|member| member.id).collect();
        let home = |shard: usize, copies: usize| -> Vec<RaftId> {
            (0..copies.min(nodes.len()))
                .map(|k| raft_id(nodes[(shard + k) % nodes.len()], 0))
                .collect()
        };
        let mut homes: Vec<_> = (0..config.shards as usize)
            .map(|shard| home(shard, config.replicas))
            .collect();
        homes.push(home(config.shards as usize, system_copies(nodes.len())));
        Self {
            shards: config.shards,
            copies: config.replicas,
            members: config
                .members
                .iter()
                .map(|member| {
                    let row = MemberRow {
                        address: member.address,
                        nonce: None,
                        standing: Standing::Serving,
                        schema: None,
                    };
                    (member.id, row)
                })
                .collect(),
            homes,
            next_incarnation: 1,
            left: BTreeMap::new(),
            cards: BTreeMap::new(),
            floor: None,
        }
    }

    /// A member says what its build can read.
    pub(crate) fn announce(&mut self, node: NodeId, card: &Arc<Card>) {
        if let Some(member) = self.members.get_mut(&node) {
            let fingerprint = card.fingerprint();
            member.schema = Some(fingerprint);
            self.cards.insert(fingerprint, Arc::clone(card));
            self.raise_floor();
        }
    }

    /// What all members can read may be written from now on.
    pub(crate) fn raise_floor(&mut self) {
        let builds: BTreeSet<Option<u64>> = self.members.values().map(|member| member.schema).collect();
        self.cards.retain(|build, _| builds.contains(&Some(*build)));
        if !builds.contains(&None) {
            let cards: Vec<_> = self.cards.values().cloned().collect();
            self.floor = raised(self.floor.as_ref(), &cards);
        }
    }

    /// The members that run another build than that of a fingerprint, with what theirs can read.
    pub(crate) fn cards_of_others(&self, build: u64) -> impl Iterator<Item = (NodeId, &Arc<Card>)> {
        let others = self
            .members
            .iter()
            .filter(move |(_, member)| member.schema != Some(build));
        others.filter_map(|(node, member)| Some((*node, self.cards.get(&member.schema?)?)))
    }

    /// The shard that holds the map itself.
    pub(crate) fn system_shard(&self) -> u32 {
        self.shards
    }

    /// The replicas that a shard is to have.
    pub(crate) fn home(&self, shard: u32) -> &[RaftId] {
        self.homes.get(shard as usize).map_or(&[], Vec::as_slice)
    }

    /// The nodes that a shard is to live on; the first is to lead it.
    pub(crate) fn nodes_of(&self, shard: u32) -> impl Iterator<Item = NodeId> + '_ {
        self.home(shard).iter().map(|id| node_of(*id))
    }

    /// The shards that a node is to hold, with the replica it is to hold of each.
    pub(crate) fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = (u32, RaftId)> + '_ {
        (0..).zip(&self.homes).flat_map(move |(shard, home)| {
            let mine = home.iter().copied().filter(move |id| node_of(*id) == node);
            mine.map(move |id| (shard, id))
        })
    }

    pub(crate) fn standing(&self, node: NodeId) -> Option<Standing> {
        self.members.get(&node).map(|member| member.standing)
    }

    /// Whether a node keeps what it has.
    pub(crate) fn keeps(&self, node: NodeId) -> bool {
        self.standing(node).is_some_and(Standing::keeps)
    }

    /// The nodes that people have given up: they leave, whatever becomes of what they have.
    pub(crate) fn given_up(&self) -> BTreeSet<NodeId> {
        let for_good = Standing::Leaving {
            with_fewer_copies: true,
        };
        let leaving = self.members.iter().filter(|(_, member)| member.standing == for_good);
        leaving
            .map(|(node, _)| *node)
            .chain(self.left.keys().copied())
            .collect()
    }

    /// How many copies a shard is to have with so many nodes.
    pub(crate) fn copies_of(&self, shard: u32, nodes: usize) -> usize {
        if shard == self.system_shard() {
            system_copies(nodes)
        } else {
            self.copies.min(nodes)
        }
    }
}

/// An even number of copies survives no more failures than one less; two nodes still keep two copies.
fn system_copies(nodes: usize) -> usize {
    match nodes {
        0..=2 => nodes,
        _ => nodes.min(SYSTEM_REPLICAS_MAX).next_multiple_of(2) - 1,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{Limits, Member};

    pub(crate) fn config(nodes: u16, shards: u32) -> Config {
        Config {
            node: 1,
            data: "data".into(),
            members: (1..=nodes)
                .map(|id| Member {
                    id,
                    address: SocketAddr::from(([127, 0, 0, 1], 7000 + id)),
                })
                .collect(),
            join: Vec::new(),
            shards,
            replicas: 3,
            chaos: false,
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_first_map_spreads_replicas_and_leaders_evenly() {
        let map = Map::first(&config(5, 10));
        for node in 1..=5 {
            assert_eq!(map.replicas_on(node).filter(|(shard, _)| *shard < 10).count(), 6);
            let leads = (0..10).filter(|shard| map.nodes_of(*shard).next() == Some(node));
            assert_eq!(leads.count(), 2);
        }
        assert_eq!(map.home(map.system_shard()).len(), 5);
    }

    #[test]
    fn the_system_shard_has_an_odd_number_of_copies() {
        assert_eq!([1, 2, 3, 4, 5, 6, 9].map(system_copies), [1, 2, 3, 3, 5, 5, 5]);
    }
}
