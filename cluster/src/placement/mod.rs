//! Where replicas and leaders belong, planned purely from what is known.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::NodeId,
    replication::{GroupStatus, MemberChange, RaftId, node_of},
};

/// How far behind a replica may be and still be given leadership, in entries.
const TRANSFER_LAG_MAX: u64 = 64;
/// How far behind a new replica may be and still become a voter, in entries.
const PROMOTE_LAG_MAX: u64 = 64;

/// What a node knows when it plans for the groups it leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The replica that each node now holds; another than a group's own means that the node lost its folder.
    pub(crate) replicas: BTreeMap<NodeId, RaftId>,
    /// Nodes that can be reached.
    pub(crate) reachable: BTreeSet<NodeId>,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// Give the group's leadership to a node.
    Transfer { group: u32, to: NodeId },
    /// Change the group's members.
    Change { group: u32, changes: Vec<MemberChange> },
}

/// The next move of a group that this node leads, if one is due: first its members, then its leader.
pub(crate) fn next_move(group: &GroupStatus, home: &[NodeId], view: &View) -> Option<Move> {
    if !group.is_leader || group.transferring || !group.members.voters_outgoing.is_empty() {
        return None;
    }
    let changes = member_changes(group, view);
    if !changes.is_empty() {
        return Some(Move::Change {
            group: group.group,
            changes,
        });
    }
    let preferred = *home.first()?;
    let to = group
        .members
        .voters
        .iter()
        .copied()
        .find(|id| node_of(*id) == preferred)?;
    let matched = group.matched.iter().find(|(id, _)| *id == to)?.1;
    let is_ready = view.reachable.contains(&preferred) && matched + TRANSFER_LAG_MAX >= group.last;
    is_ready.then_some(Move::Transfer {
        group: group.group,
        to: preferred,
    })
}

/// A replica whose node came back without its folder is replaced by the new one, first as a learner; a learner that has
/// caught up becomes a voter.
fn member_changes(group: &GroupStatus, view: &View) -> Vec<MemberChange> {
    let lost = group.members.all().find_map(|id| {
        view.replicas
            .get(&node_of(id))
            .filter(|now| **now != id)
            .map(|now| (id, *now))
    });
    if let Some((old, new)) = lost {
        let mut changes = vec![MemberChange::Remove(old)];
        if !group.members.all().any(|id| id == new) {
            changes.push(MemberChange::AddLearner(new));
        }
        return changes;
    }
    let caught_up = group.members.learners.iter().copied().find(|learner| {
        group
            .matched
            .iter()
            .any(|(id, matched)| id == learner && *matched > 0 && matched + PROMOTE_LAG_MAX >= group.last)
    });
    caught_up.map(MemberChange::AddVoter).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Members, raft_id};

    fn led_by(leader: NodeId, matched: &[(RaftId, u64)]) -> GroupStatus {
        GroupStatus {
            group: 0,
            term: 3,
            leader: Some(leader),
            is_leader: true,
            transferring: false,
            last: 1_000,
            members: Members::of_voters(vec![1, 2, 3]),
            matched: matched.to_vec(),
        }
    }

    fn everyone() -> View {
        View {
            replicas: BTreeMap::from([(1, 1), (2, 2), (3, 3)]),
            reachable: BTreeSet::from([1, 2, 3]),
        }
    }

    #[test]
    fn leadership_goes_home_once_the_home_node_has_caught_up() {
        let home = [2, 3, 1];
        let transfer = Some(Move::Transfer { group: 0, to: 2 });
        assert_eq!(
            next_move(&led_by(1, &[(2, 999), (3, 999)]), &home, &everyone()),
            transfer
        );
        assert_eq!(
            next_move(&led_by(1, &[(2, 100), (3, 999)]), &home, &everyone()),
            None,
            "too far behind"
        );
        let mut away = everyone();
        away.reachable.remove(&2);
        assert_eq!(
            next_move(&led_by(1, &[(2, 999), (3, 999)]), &home, &away),
            None,
            "not reachable"
        );
        assert_eq!(
            next_move(&led_by(2, &[(1, 999), (3, 999)]), &home, &everyone()),
            None,
            "at home already"
        );
    }

    #[test]
    fn a_lost_folder_is_replaced_as_a_learner_that_becomes_a_voter() {
        let new = raft_id(3, 77);
        let mut view = everyone();
        view.replicas.insert(3, new);
        let mut group = led_by(1, &[(2, 999), (3, 500)]);
        let replace = vec![MemberChange::Remove(3), MemberChange::AddLearner(new)];
        let planned = |changes| Some(Move::Change { group: 0, changes });
        assert_eq!(next_move(&group, &[1], &view), planned(replace));
        group.members = Members::of_voters(vec![1, 2]);
        group.members.learners = vec![new];
        group.last = 10;
        group.matched = vec![(2, 10), (new, 0)];
        assert_eq!(next_move(&group, &[1], &view), None, "nothing has reached it yet");
        group.last = 1_000;
        group.matched = vec![(2, 999), (new, 10)];
        assert_eq!(next_move(&group, &[1], &view), None, "still catching up");
        group.matched = vec![(2, 999), (new, 990)];
        assert_eq!(
            next_move(&group, &[1], &view),
            planned(vec![MemberChange::AddVoter(new)])
        );
    }
}
