//! The roster: an entity of the engine's own that decides who belongs to the cluster and where replicas live. It lives in a
//! shard of its own, so whatever holds for entities holds for it: one writer, events on a majority, a history to look at.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::map::{Map, MemberRow, Standing};
use crate::{
    config::NodeId,
    entity::{Context, Decision, Entity, EntityKey, NoToken, Outcome},
    replication::{RaftId, node_of, raft_id},
    schema::card::Card,
};

/// The entity.
pub(crate) struct Roster;

/// What can be asked of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum RosterCommand {
    /// The cluster begins with this map.
    Begin(Map),
    /// A node says who it is. A new number joins; a known one whose folder was lost gets new replicas.
    Join {
        node: NodeId,
        address: SocketAddr,
        nonce: u64,
        /// The node knows that it had a folder before.
        is_lost: bool,
    },
    /// Changes what a node is used for.
    SetStanding { node: NodeId, standing: Standing },
    /// One step of placement: this shard, which is at home `from`, is to live on these nodes; the first is to lead.
    Place {
        shard: u32,
        from: Vec<RaftId>,
        to: Vec<NodeId>,
    },
    /// A leaving node has nothing any more.
    Release { node: NodeId },
    /// A member says what its build can read.
    Announce { node: NodeId, card: Arc<Card> },
}

/// What has happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum RosterEvent {
    Begun(Map),
    Joined {
        node: NodeId,
        address: SocketAddr,
        nonce: u64,
    },
    /// A member is known by its folder, or listens elsewhere.
    Introduced {
        node: NodeId,
        address: SocketAddr,
        nonce: u64,
    },
    /// A member lost its folder: its replicas get new names.
    Renewed {
        node: NodeId,
        address: SocketAddr,
        nonce: u64,
    },
    StandingSet {
        node: NodeId,
        standing: Standing,
    },
    Placed {
        shard: u32,
        home: Vec<RaftId>,
        next_incarnation: u64,
    },
    Left {
        node: NodeId,
    },
    Announced {
        node: NodeId,
        card: Arc<Card>,
    },
}

/// Why the roster says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum RosterRejection {
    #[error("the cluster has not begun yet; try again once `status` shows its leaders")]
    NotBegun,
    #[error("node {0} is no member; `status` lists them")]
    NoMember(NodeId),
    #[error("{address} is the address of node {node}")]
    AddressTaken { address: SocketAddr, node: NodeId },
    #[error("node {0} has left the cluster with this data folder; start it with an empty one")]
    HasLeft(NodeId),
    #[error("node {0} is another one: it runs with another data folder; take a number that is free")]
    NumberTaken(NodeId),
    #[error("node {0} is leaving the cluster already")]
    IsLeaving(NodeId),
    #[error("node {0} is the last one that keeps anything; the data would be gone with it")]
    LastNode(NodeId),
    #[error(
        "{copies} copies of each shard are wanted and only {others} other nodes can hold one; add a node first, or go on with fewer copies by `--force`"
    )]
    TooFewNodes { copies: usize, others: usize },
    #[error("the shard has another home by now")]
    Moved,
    #[error("node {0} still has replicas")]
    NotEmpty(NodeId),
    #[error("{0}")]
    Unreadable(String),
}

impl Roster {
    /// Where it is found.
    pub(crate) fn key() -> EntityKey {
        EntityKey {
            kind: Self::KIND.into(),
            id: "roster".into(),
        }
    }
}

impl Entity for Roster {
    const KIND: &'static str = "cluster";
    type State = Map;
    type Command = RosterCommand;
    type Event = RosterEvent;
    type Reply = ();
    type Rejection = RosterRejection;
    type Token = NoToken;

    fn decide(map: &Map, command: RosterCommand, _: &Context) -> Result<Decision<Self>, RosterRejection> {
        if map.shards == 0 && !matches!(command, RosterCommand::Begin(_)) {
            return Err(RosterRejection::NotBegun);
        }
        let event = match command {
            RosterCommand::Begin(first) => (map.shards == 0).then_some(RosterEvent::Begun(first)),
            RosterCommand::Join {
                node,
                address,
                nonce,
                is_lost,
            } => join(map, node, address, nonce, is_lost)?,
            RosterCommand::SetStanding { node, standing } => set_standing(map, node, standing)?,
            RosterCommand::Place { shard, from, to } => Some(place(map, shard, &from, &to)?),
            RosterCommand::Release { node } => {
                if map.replicas_on(node).next().is_some() {
                    return Err(RosterRejection::NotEmpty(node));
                }
                map.members.contains_key(&node).then_some(RosterEvent::Left { node })
            }
            RosterCommand::Announce { node, card } => announce(map, node, card)?,
        };
        let nothing = Decision::reply(());
        Ok(match event {
            Some(event) => nothing.event(event),
            None => nothing,
        })
    }

    fn evolve(map: &mut Map, event: &RosterEvent) {
        match event.clone() {
            RosterEvent::Begun(first) => *map = first,
            RosterEvent::Joined { node, address, nonce } => {
                let row = MemberRow {
                    address,
                    nonce: Some(nonce),
                    standing: Standing::Serving,
                    schema: None,
                };
                map.members.insert(node, row);
            }
            RosterEvent::Introduced { node, address, nonce } => introduce(map, node, address, nonce),
            RosterEvent::Renewed { node, address, nonce } => {
                introduce(map, node, address, nonce);
                let Map {
                    homes,
                    next_incarnation,
                    ..
                } = map;
                for id in homes.iter_mut().flatten().filter(|id| node_of(**id) == node) {
                    *id = raft_id(node, *next_incarnation);
                    *next_incarnation += 1;
                }
            }
            RosterEvent::StandingSet { node, standing } => {
                if let Some(member) = map.members.get_mut(&node) {
                    member.standing = standing;
                }
            }
            RosterEvent::Placed {
                shard,
                home,
                next_incarnation,
            } => {
                if let Some(place) = map.homes.get_mut(shard as usize) {
                    *place = home;
                }
                map.next_incarnation = next_incarnation;
            }
            RosterEvent::Left { node } => {
                if let Some(nonce) = map.members.remove(&node).and_then(|member| member.nonce) {
                    map.left.entry(node).or_default().insert(nonce);
                }
                map.raise_floor();
            }
            RosterEvent::Announced { node, card } => map.announce(node, &card),
        }
    }

    fn resume(token: NoToken, _: Outcome) -> RosterCommand {
        match token {}
    }
}

fn introduce(map: &mut Map, node: NodeId, address: SocketAddr, nonce: u64) {
    if let Some(member) = map.members.get_mut(&node) {
        member.address = address;
        member.nonce = Some(nonce);
    }
}

fn join(
    map: &Map,
    node: NodeId,
    address: SocketAddr,
    nonce: u64,
    is_lost: bool,
) -> Result<Option<RosterEvent>, RosterRejection> {
    if map.left.get(&node).is_some_and(|nonces| nonces.contains(&nonce)) {
        return Err(RosterRejection::HasLeft(node));
    }
    let other = map
        .members
        .iter()
        .find(|(id, row)| **id != node && row.address == address);
    if let Some((other, _)) = other {
        return Err(RosterRejection::AddressTaken { address, node: *other });
    }
    let Some(member) = map.members.get(&node) else {
        return Ok(Some(RosterEvent::Joined { node, address, nonce }));
    };
    match member.nonce {
        Some(known) if known == nonce => {
            Ok((member.address != address).then_some(RosterEvent::Introduced { node, address, nonce }))
        }
        // Only a node that says so is one that lost its folder: two machines may have been given one number.
        _ if is_lost => Ok(Some(RosterEvent::Renewed { node, address, nonce })),
        Some(_) => Err(RosterRejection::NumberTaken(node)),
        None => Ok(Some(RosterEvent::Introduced { node, address, nonce })),
    }
}

fn announce(map: &Map, node: NodeId, card: Arc<Card>) -> Result<Option<RosterEvent>, RosterRejection> {
    let member = map.members.get(&node).ok_or(RosterRejection::NoMember(node))?;
    if member.schema == Some(card.fingerprint()) {
        return Ok(None);
    }
    match card.obstacle(&map.floor) {
        Some(reason) => Err(RosterRejection::Unreadable(reason)),
        None => Ok(Some(RosterEvent::Announced { node, card })),
    }
}

fn set_standing(map: &Map, node: NodeId, standing: Standing) -> Result<Option<RosterEvent>, RosterRejection> {
    let member = map.members.get(&node).ok_or(RosterRejection::NoMember(node))?;
    let is_leaving = matches!(member.standing, Standing::Leaving { .. });
    if is_leaving && !matches!(standing, Standing::Leaving { .. }) {
        return Err(RosterRejection::IsLeaving(node));
    }
    if !standing.keeps() {
        let others = map
            .members
            .iter()
            .filter(|(id, row)| **id != node && row.standing.keeps());
        let serving = others
            .clone()
            .filter(|(_, row)| row.standing == Standing::Serving)
            .count();
        if others.count() == 0 {
            return Err(RosterRejection::LastNode(node));
        }
        if serving < map.copies.min(map.members.len()) && !standing.may_lose_copies() {
            return Err(RosterRejection::TooFewNodes {
                copies: map.copies,
                others: serving,
            });
        }
    }
    Ok((member.standing != standing).then_some(RosterEvent::StandingSet { node, standing }))
}

fn place(map: &Map, shard: u32, from: &[RaftId], to: &[NodeId]) -> Result<RosterEvent, RosterRejection> {
    if map.home(shard) != from || to.is_empty() {
        return Err(RosterRejection::Moved);
    }
    let mut next_incarnation = map.next_incarnation;
    let mut home = Vec::with_capacity(to.len());
    for node in to {
        if !map.members.contains_key(node) {
            return Err(RosterRejection::NoMember(*node));
        }
        let kept = from.iter().copied().find(|id| node_of(*id) == *node);
        home.push(kept.unwrap_or_else(|| {
            next_incarnation += 1;
            raft_id(*node, next_incarnation - 1)
        }));
    }
    let mut distinct = home.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != home.len() {
        return Err(RosterRejection::Moved);
    }
    Ok(RosterEvent::Placed {
        shard,
        home,
        next_incarnation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::map::tests::config;

    fn address(node: NodeId) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7000 + node))
    }

    fn join_of(node: NodeId, nonce: u64, is_lost: bool) -> RosterCommand {
        RosterCommand::Join {
            node,
            address: address(node),
            nonce,
            is_lost,
        }
    }

    fn decide(map: &mut Map, command: RosterCommand) -> Result<usize, RosterRejection> {
        let context = Context {
            key: Roster::key(),
            version: 0,
            now_ms: 0,
        };
        let events = Roster::decide(map, command, &context)?.events;
        for event in &events {
            Roster::evolve(map, event);
        }
        Ok(events.len())
    }

    fn begun() -> Map {
        let mut map = Map::default();
        let first = Map::first(&config(3, 4));
        decide(&mut map, RosterCommand::Begin(first)).expect("it begins");
        for node in 1..=3 {
            decide(&mut map, join_of(node, u64::from(node), false)).expect("a first member");
        }
        map
    }

    #[test]
    fn a_cluster_begins_once_and_knows_its_folders() {
        let mut map = Map::default();
        assert_eq!(decide(&mut map, join_of(1, 1, false)), Err(RosterRejection::NotBegun));
        map = begun();
        assert_eq!(decide(&mut map, RosterCommand::Begin(Map::first(&config(5, 9)))), Ok(0));
        assert_eq!(decide(&mut map, join_of(2, 2, false)), Ok(0), "nothing new");
        assert_eq!(map.members[&2].nonce, Some(2));
    }

    #[test]
    fn a_lost_folder_gets_new_replicas_and_a_second_machine_of_that_number_none() {
        let mut map = begun();
        let before: Vec<_> = map.replicas_on(2).collect();
        assert_eq!(
            decide(&mut map, join_of(2, 77, false)),
            Err(RosterRejection::NumberTaken(2))
        );
        assert_eq!(decide(&mut map, join_of(2, 77, true)), Ok(1));
        let after: Vec<_> = map.replicas_on(2).collect();
        assert_eq!(before.len(), after.len());
        assert!(
            before
                .iter()
                .zip(&after)
                .all(|(old, new)| old.0 == new.0 && old.1 != new.1)
        );
        assert_eq!(decide(&mut map, join_of(2, 77, true)), Ok(0), "said again");
    }

    #[test]
    fn who_has_left_comes_back_only_with_an_empty_folder() {
        let mut map = begun();
        decide(&mut map, join_of(4, 4, false)).expect("it joins");
        let leaving = Standing::Leaving {
            with_fewer_copies: false,
        };
        let set = |node, standing| RosterCommand::SetStanding { node, standing };
        assert_eq!(decide(&mut map, set(4, leaving)), Ok(1));
        assert_eq!(
            decide(&mut map, set(4, Standing::Serving)),
            Err(RosterRejection::IsLeaving(4))
        );
        assert_eq!(decide(&mut map, RosterCommand::Release { node: 4 }), Ok(1));
        assert_eq!(decide(&mut map, join_of(4, 4, false)), Err(RosterRejection::HasLeft(4)));
        assert_eq!(decide(&mut map, join_of(4, 5, false)), Ok(1));
        assert_eq!(
            decide(&mut map, RosterCommand::Release { node: 1 }),
            Err(RosterRejection::NotEmpty(1))
        );
    }

    #[test]
    fn copies_are_given_up_only_when_told_to() {
        let mut map = begun();
        let drain = |with_fewer_copies| RosterCommand::SetStanding {
            node: 3,
            standing: Standing::Draining { with_fewer_copies },
        };
        assert_eq!(
            decide(&mut map, drain(false)),
            Err(RosterRejection::TooFewNodes { copies: 3, others: 2 })
        );
        assert_eq!(decide(&mut map, drain(true)), Ok(1));
        decide(&mut map, join_of(4, 4, false)).expect("it joins");
        let cordon = RosterCommand::SetStanding {
            node: 9,
            standing: Standing::Cordoned,
        };
        assert_eq!(decide(&mut map, cordon), Err(RosterRejection::NoMember(9)));
    }

    #[test]
    fn a_replica_that_comes_to_a_node_again_has_another_name() {
        let mut map = begun();
        decide(&mut map, join_of(4, 4, false)).expect("it joins");
        let home = map.home(0).to_vec();
        let to = |nodes: &[NodeId], from: &[RaftId]| RosterCommand::Place {
            shard: 0,
            from: from.to_vec(),
            to: nodes.to_vec(),
        };
        assert_eq!(decide(&mut map, to(&[4, 2, 3], &home)), Ok(1));
        assert_eq!(decide(&mut map, to(&[4, 2, 3], &home)), Err(RosterRejection::Moved));
        let moved = map.home(0).to_vec();
        assert_eq!(moved[1..], home[1..]);
        decide(&mut map, to(&[1, 2, 3], &moved)).expect("back");
        assert_ne!(map.home(0)[0], home[0]);
        let back = map.home(0).to_vec();
        assert_eq!(
            decide(&mut map, to(&[2, 2], &back)),
            Err(RosterRejection::Moved),
            "a node twice"
        );
    }
}
