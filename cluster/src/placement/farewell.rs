//! When a replica that has left its group may go.

use std::collections::BTreeSet;

use crate::{
    config::NodeId,
    replication::{RaftId, node_of},
};

/// What a node that has begun says of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) node: NodeId,
    /// Its replica, if it holds one.
    pub(crate) replica: Option<SaidReplica>,
}

/// What a node says of its replica of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SaidReplica {
    pub(crate) id: RaftId,
    pub(crate) term: u64,
    pub(crate) is_leader: bool,
    /// All that belong to the group, as the replica has applied it.
    pub(crate) members: Vec<RaftId>,
    /// Those of them that vote.
    pub(crate) voters: Vec<RaftId>,
    /// The members, as a restart would begin with it.
    pub(crate) durable_members: Vec<RaftId>,
}

/// Whether a replica belongs to its group no longer, for good: its leader says so, and every voter would say so after a
/// restart. One that had to begin with the members of before could need the vote of the one that went, and nobody else's
/// would do. A voter whose node holds it no more is never going to restart; nor is one whose node people have `given_up`.
pub(crate) fn is_out(replica: RaftId, said: &[Said], given_up: &BTreeSet<NodeId>) -> bool {
    let replicas = || said.iter().filter_map(|said| said.replica.as_ref());
    let leader = replicas().filter(|said| said.is_leader).max_by_key(|said| said.term);
    leader.is_some_and(|leader| {
        leader.id != replica
            && !leader.members.contains(&replica)
            && leader
                .voters
                .iter()
                .filter(|voter| !given_up.contains(&node_of(**voter)))
                .all(|voter| {
                    let node = said.iter().find(|said| said.node == node_of(*voter));
                    node.is_some_and(|node| {
                        let held = node.replica.as_ref().filter(|held| held.id == *voter);
                        held.is_none_or(|held| !held.durable_members.contains(&replica))
                    })
                })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: RaftId, is_leader: bool, durable_members: &[RaftId]) -> Said {
        Said {
            node: node_of(id),
            replica: Some(SaidReplica {
                id,
                term: 4,
                is_leader,
                members: vec![1, 2, 4],
                voters: vec![1, 2, 4],
                durable_members: durable_members.to_vec(),
            }),
        }
    }

    #[test]
    fn a_replica_stays_until_every_voter_knows_for_good_that_it_left() {
        let mut all = vec![
            said(1, true, &[1, 2, 4]),
            said(2, false, &[1, 2, 3]),
            said(4, false, &[1, 2, 4]),
        ];
        let nobody = BTreeSet::new();
        assert!(
            !is_out(3, &all, &nobody),
            "node 2 would ask for its vote after a restart"
        );
        all[1] = said(2, false, &[1, 2, 4]);
        assert!(is_out(3, &all, &nobody));
        all.remove(2);
        assert!(!is_out(3, &all, &nobody), "nobody knows what node 4 would say");
        assert!(
            is_out(3, &all, &BTreeSet::from([4])),
            "and nobody waits for it any more"
        );
    }

    #[test]
    fn a_voter_whose_node_lost_it_says_nothing_any_more() {
        let lost = Said { node: 4, replica: None };
        let all = [said(1, true, &[1, 2, 4]), said(2, false, &[1, 2, 4]), lost];
        assert!(is_out(3, &all, &BTreeSet::new()));
    }

    #[test]
    fn nobody_but_a_leader_knows() {
        let all = [1, 2, 4].map(|id| said(id, false, &[1, 2, 4]));
        assert!(!is_out(3, &all, &BTreeSet::new()));
    }
}
