//! The next move of one shard towards its home, as its leader plans it.

use std::collections::BTreeSet;

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
    /// Nodes that can be reached and are well enough to lead.
    pub(crate) can_lead: BTreeSet<NodeId>,
    /// The planning node itself should lead nothing now.
    pub(crate) is_unwell: bool,
    /// Nodes whose build would pass over something that this node's build writes: none is led back to them.
    pub(crate) reads_less: BTreeSet<NodeId>,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// Give the group's leadership to a node.
    Transfer { group: u32, to: NodeId },
    /// Change the group's members.
    Change { group: u32, changes: Vec<MemberChange> },
}

/// The next move of a group that this node leads, if one is due: an unwell leader makes place, then the members are seen to,
/// then who leads them.
pub(crate) fn next_move(group: &GroupStatus, own: NodeId, home: &[RaftId], view: &View) -> Option<Move> {
    if !group.is_leader || group.transferring || !group.members.voters_outgoing.is_empty() {
        return None;
    }
    let transfer = |to| Move::Transfer { group: group.group, to };
    if view.is_unwell
        && let Some(to) = best_leader(group, own, home, view).or_else(|| any_leader(group, own, view))
    {
        return Some(transfer(to));
    }
    match member_changes(group, own, home) {
        Changes::Due(changes) => Some(Move::Change {
            group: group.group,
            changes,
        }),
        // Its own replica goes: somebody else has to see to that.
        Changes::LeadFromElsewhere => best_leader(group, own, home, view).map(transfer),
        Changes::None => {
            let preferred = node_of(*home.first()?);
            let is_due =
                preferred != own && !view.reads_less.contains(&preferred) && can_lead(group, preferred, home, view);
            is_due.then_some(transfer(preferred))
        }
    }
}

/// What is to be done about a group's members.
enum Changes {
    None,
    Due(Vec<MemberChange>),
    LeadFromElsewhere,
}

/// Replicas come as learners, become voters once they have caught up, and only then others go, with the same change: at
/// no time are there fewer good copies than before. Only a replica goes at once whose node is to have another one.
fn member_changes(group: &GroupStatus, own: NodeId, home: &[RaftId]) -> Changes {
    let members = &group.members;
    let is_member = |id: RaftId| members.all().any(|member| member == id);
    if let Some(stray) = members.learners.iter().find(|id| !home.contains(id)) {
        return Changes::Due(vec![MemberChange::Remove(*stray)]);
    }
    // A node holds one replica of a shard: a second one comes only after the first has gone.
    let before_it = |new: RaftId| members.all().find(|id| node_of(*id) == node_of(new) && *id != new);
    let missing = home.iter().copied().filter(|id| !is_member(*id));
    if let Some(missing) = missing.clone().find(|id| before_it(*id).is_none()) {
        return Changes::Due(vec![MemberChange::AddLearner(missing)]);
    }
    // The node lost its replica, or is to have another one: the old one goes at once, but one at a time, never the leader's
    // own, and one that is alive only if nobody else is missing.
    let replaced = missing
        .filter_map(|new| Some((before_it(new)?, new)))
        .find(|(old, _)| node_of(*old) != own);
    if let Some((old, new)) = replaced
        && members.learners.iter().all(|learner| *learner == old)
        && (!group.heard.contains(&old) || others(group, old).all(|id| hears(group, own, id)))
    {
        return Changes::Due(vec![MemberChange::Remove(old), MemberChange::AddLearner(new)]);
    }
    let extra: Vec<RaftId> = members.voters.iter().copied().filter(|id| !home.contains(id)).collect();
    // A leader does not remove itself. Dead ones go first, and then such that those that stay can go on.
    let removable = extra
        .iter()
        .copied()
        .filter(|id| node_of(*id) != own && can_spare(group, own, *id))
        .min_by_key(|id| group.heard.contains(id));
    let caught_up = members.learners.iter().copied().find(|learner| {
        let matched = matched(group, *learner);
        matched > 0 && matched + PROMOTE_LAG_MAX >= group.last
    });
    if let Some(learner) = caught_up {
        let mut changes = vec![MemberChange::AddVoter(learner)];
        changes.extend(removable.map(MemberChange::Remove));
        return Changes::Due(changes);
    }
    if !members.learners.is_empty() || extra.is_empty() {
        return Changes::None;
    }
    match removable {
        Some(id) => Changes::Due(vec![MemberChange::Remove(id)]),
        None if extra.iter().any(|id| node_of(*id) == own) => Changes::LeadFromElsewhere,
        None => Changes::None,
    }
}

fn others(group: &GroupStatus, replica: RaftId) -> impl Iterator<Item = RaftId> + '_ {
    group.members.voters.iter().copied().filter(move |id| *id != replica)
}

fn hears(group: &GroupStatus, own: NodeId, replica: RaftId) -> bool {
    node_of(replica) == own || group.heard.contains(&replica)
}

/// Whether those that stay can decide without a replica.
fn can_spare(group: &GroupStatus, own: NodeId, replica: RaftId) -> bool {
    let stay = others(group, replica).count();
    let alive = others(group, replica).filter(|id| hears(group, own, *id)).count();
    alive > stay / 2
}

fn matched(group: &GroupStatus, replica: RaftId) -> u64 {
    let found = group.matched.iter().find(|(id, _)| *id == replica);
    found.map_or(0, |(_, matched)| *matched)
}

/// Whether a replica votes, and has what is needed to take over without a wait.
fn can_take_over(group: &GroupStatus, replica: RaftId, view: &View) -> bool {
    view.can_lead.contains(&node_of(replica))
        && group.members.voters.contains(&replica)
        && matched(group, replica) + TRANSFER_LAG_MAX >= group.last
}

/// Whether a node's replica can take over, and belongs to the home.
fn can_lead(group: &GroupStatus, node: NodeId, home: &[RaftId], view: &View) -> bool {
    let replica = home.iter().copied().find(|id| node_of(*id) == node);
    replica.is_some_and(|id| can_take_over(group, id, view))
}

fn best_leader(group: &GroupStatus, own: NodeId, home: &[RaftId], view: &View) -> Option<NodeId> {
    home.iter()
        .map(|id| node_of(*id))
        .find(|node| *node != own && can_lead(group, *node, home, view))
}

/// A node that can lead although its replica is to go. For a leader that is unwell only: two that are both to go would give the
/// leadership to each other for ever.
fn any_leader(group: &GroupStatus, own: NodeId, view: &View) -> Option<NodeId> {
    let mut voters = group.members.voters.iter().copied();
    voters
        .find(|id| node_of(*id) != own && can_take_over(group, *id, view))
        .map(node_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Members, raft_id};

    fn led_by(leader: NodeId, matched: &[(RaftId, u64)]) -> GroupStatus {
        GroupStatus {
            group: 0,
            replica: RaftId::from(leader),
            term: 3,
            leader: Some(leader),
            is_leader: true,
            transferring: false,
            first: 1,
            last: 1_000,
            members: Members::of_voters(vec![1, 2, 3]),
            matched: matched.to_vec(),
            heard: matched.iter().map(|(id, _)| *id).collect(),
        }
    }

    fn everyone() -> View {
        View {
            can_lead: BTreeSet::from([1, 2, 3, 4]),
            is_unwell: false,
            ..View::default()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what it is compared with is an option")]
    fn planned(changes: &[MemberChange]) -> Option<Move> {
        Some(Move::Change {
            group: 0,
            changes: changes.to_vec(),
        })
    }

    #[test]
    fn leadership_goes_home_once_the_home_node_has_caught_up() {
        let home = [2, 3, 1];
        let transfer = Some(Move::Transfer { group: 0, to: 2 });
        let near = led_by(1, &[(2, 999), (3, 999)]);
        assert_eq!(next_move(&near, 1, &home, &everyone()), transfer);
        let far = led_by(1, &[(2, 100), (3, 999)]);
        assert_eq!(next_move(&far, 1, &home, &everyone()), None, "too far behind");
        let mut away = everyone();
        away.can_lead.remove(&2);
        assert_eq!(next_move(&near, 1, &home, &away), None, "not reachable, or not well");
        let at_home = led_by(2, &[(1, 999), (3, 999)]);
        assert_eq!(next_move(&at_home, 2, &home, &everyone()), None);
    }

    #[test]
    fn a_node_that_is_unwell_gives_its_leadership_to_one_that_is_not() {
        let mut view = everyone();
        view.is_unwell = true;
        let group = led_by(1, &[(2, 100), (3, 999)]);
        assert_eq!(
            next_move(&group, 1, &[1, 2, 3], &view),
            Some(Move::Transfer { group: 0, to: 3 }),
            "the one that has caught up"
        );
        view.can_lead.clear();
        assert_eq!(next_move(&group, 1, &[1, 2, 3], &view), None, "nobody is better");
    }

    #[test]
    fn a_node_that_is_unwell_gives_its_leadership_away_before_it_changes_members() {
        let mut view = everyone();
        view.is_unwell = true;
        let home = [4, raft_id(3, 77), raft_id(1, 78)];
        let group = led_by(1, &[(3, 999)]);
        assert_eq!(
            next_move(&group, 1, &home, &view),
            Some(Move::Transfer { group: 0, to: 3 }),
            "it is to go, but it can lead"
        );
        view.is_unwell = false;
        assert_eq!(
            next_move(&group, 1, &home, &view),
            planned(&[MemberChange::AddLearner(4)])
        );
    }

    #[test]
    fn a_lost_folder_is_replaced_as_a_learner_that_becomes_a_voter() {
        let new = raft_id(3, 77);
        let home = [1, 2, new];
        let mut group = led_by(1, &[(2, 999), (3, 500)]);
        let replace = [MemberChange::Remove(3), MemberChange::AddLearner(new)];
        assert_eq!(next_move(&group, 1, &home, &everyone()), planned(&replace));
        group.members = Members::of_voters(vec![1, 2]);
        group.members.learners = vec![new];
        group.last = 10;
        group.matched = vec![(2, 10), (new, 0)];
        assert_eq!(
            next_move(&group, 1, &home, &everyone()),
            None,
            "nothing has reached it yet"
        );
        group.last = 1_000;
        group.matched = vec![(2, 999), (new, 10)];
        assert_eq!(next_move(&group, 1, &home, &everyone()), None, "still catching up");
        group.matched = vec![(2, 999), (new, 990)];
        assert_eq!(
            next_move(&group, 1, &home, &everyone()),
            planned(&[MemberChange::AddVoter(new)])
        );
    }

    #[test]
    fn a_replica_that_is_alive_is_not_given_up_while_another_is_missing() {
        let home = [raft_id(1, 9), 2, 3];
        let mut group = led_by(3, &[(1, 999), (2, 999)]);
        let replace = [MemberChange::Remove(1), MemberChange::AddLearner(raft_id(1, 9))];
        assert_eq!(next_move(&group, 3, &home, &everyone()), planned(&replace));
        group.heard = vec![1];
        let moved = next_move(&group, 3, &home, &everyone());
        assert!(
            !matches!(moved, Some(Move::Change { .. })),
            "node 2 is not heard from: {moved:?}"
        );
        group.heard = vec![2];
        assert_eq!(
            next_move(&group, 3, &home, &everyone()),
            planned(&replace),
            "a dead one goes"
        );
    }

    #[test]
    fn a_replica_moves_by_way_of_a_learner_and_the_old_one_goes_with_the_promotion() {
        let home = [1, 2, 4];
        let mut group = led_by(1, &[(2, 999), (3, 999)]);
        assert_eq!(
            next_move(&group, 1, &home, &everyone()),
            planned(&[MemberChange::AddLearner(4)])
        );
        group.members.learners = vec![4];
        group.matched.push((4, 998));
        assert_eq!(
            next_move(&group, 1, &home, &everyone()),
            planned(&[MemberChange::AddVoter(4), MemberChange::Remove(3)])
        );
        group.members = Members::of_voters(vec![1, 2, 4]);
        assert_eq!(next_move(&group, 1, &home, &everyone()), None);
    }

    #[test]
    fn a_leader_whose_own_replica_goes_hands_over_first() {
        let home = [2, 3, 4];
        let mut group = led_by(1, &[(2, 999), (3, 999), (4, 999)]);
        group.members.learners = vec![4];
        let promote = planned(&[MemberChange::AddVoter(4)]);
        assert_eq!(next_move(&group, 1, &home, &everyone()), promote);
        group.members = Members::of_voters(vec![1, 2, 3, 4]);
        let transfer = Some(Move::Transfer { group: 0, to: 2 });
        assert_eq!(next_move(&group, 1, &home, &everyone()), transfer);
        let next = led_by(2, &[(1, 999), (3, 999), (4, 999)]);
        let next = GroupStatus {
            members: group.members,
            ..next
        };
        assert_eq!(
            next_move(&next, 2, &home, &everyone()),
            planned(&[MemberChange::Remove(1)])
        );
    }

    #[test]
    fn a_learner_that_is_wanted_no_longer_goes() {
        let mut group = led_by(1, &[(2, 999), (3, 999)]);
        group.members.learners = vec![4];
        assert_eq!(
            next_move(&group, 1, &[1, 2, 3], &everyone()),
            planned(&[MemberChange::Remove(4)])
        );
    }
}
