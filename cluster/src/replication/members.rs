//! Who belongs to a group, and how replicas are named.
//!
//! A node that lost its folder must not come back under its old name: it could vote twice, or forget what it had
//! acknowledged. So a replica is named by its node and its incarnation, and a lost folder makes a new incarnation.

use proto::cluster::v1 as pb;
use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};

use crate::config::NodeId;

/// A replica's name within its group.
pub(crate) type RaftId = u64;

/// The replica that a node's incarnation holds.
pub(crate) fn raft_id(node: NodeId, incarnation: u64) -> RaftId {
    incarnation << 16 | u64::from(node)
}

/// The node that holds a replica.
pub(crate) fn node_of(id: RaftId) -> NodeId {
    (id & 0xffff) as NodeId
}

/// The members of a group. During a change of members the old and the new majority both count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) voters: Vec<RaftId>,
    pub(crate) learners: Vec<RaftId>,
    pub(crate) voters_outgoing: Vec<RaftId>,
    pub(crate) learners_next: Vec<RaftId>,
    pub(crate) auto_leave: bool,
}

impl Members {
    pub(crate) fn of_voters(voters: Vec<RaftId>) -> Self {
        Self {
            voters,
            ..Self::default()
        }
    }

    /// Every replica that is or was about to be part of the group.
    pub(crate) fn all(&self) -> impl Iterator<Item = RaftId> + '_ {
        let mut all: Vec<RaftId> = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }
}

/// One step of a change of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// Takes part in every decision.
    AddVoter(RaftId),
    /// Receives everything, decides nothing.
    AddLearner(RaftId),
    /// Belongs no longer.
    Remove(RaftId),
}

impl From<&ConfState> for Members {
    fn from(state: &ConfState) -> Self {
        Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Members> for ConfState {
    fn from(members: &Members) -> Self {
        let mut state = Self::default();
        state.voters.clone_from(&members.voters);
        state.learners.clone_from(&members.learners);
        state.voters_outgoing.clone_from(&members.voters_outgoing);
        state.learners_next.clone_from(&members.learners_next);
        state.auto_leave = members.auto_leave;
        state
    }
}

impl From<&Members> for pb::GroupMembers {
    fn from(members: &Members) -> Self {
        Self {
            voters: members.voters.clone(),
            learners: members.learners.clone(),
            voters_outgoing: members.voters_outgoing.clone(),
            learners_next: members.learners_next.clone(),
            auto_leave: members.auto_leave,
        }
    }
}

impl From<pb::GroupMembers> for Members {
    fn from(members: pb::GroupMembers) -> Self {
        Self {
            voters: members.voters,
            learners: members.learners,
            voters_outgoing: members.voters_outgoing,
            learners_next: members.learners_next,
            auto_leave: members.auto_leave,
        }
    }
}
