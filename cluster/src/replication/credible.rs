//! Which messages a peer of this program can have sent. The library takes all else as a broken invariant and ends the process, and
//! whoever reaches the cluster's port can send it.
//!
//! This is no authentication: who knows the cluster well enough can still pretend to be a peer.

use proto::cluster::v1 as pb;
use protobuf::{Message as _, ProtobufEnum};
use raft::eraftpb::{ConfChangeV2, EntryType, MessageType};

use super::{
    catch_up::QUESTION_LEN,
    members::{Members, RaftId, node_of},
};

/// No group comes so far; sums of such numbers do not overflow.
const NUMBER_MAX: u64 = 1 << 60;

/// What a replica knows of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) id: RaftId,
    pub(super) term: u64,
    /// Where its log ends.
    pub(super) last: u64,
    /// The term of the last entry that it knows to be committed.
    pub(super) committed_term: u64,
    pub(super) committed: u64,
}

/// Whether a peer can have sent this to a replica that knows so much.
pub(super) fn is_credible(wire: &pb::RaftMessage, known: Known) -> bool {
    let Some(kind) = i32::try_from(wire.kind).ok().and_then(MessageType::from_i32) else {
        return false;
    };
    let numbers = [
        wire.term,
        wire.log_term,
        wire.index,
        wire.commit,
        wire.commit_term,
        wire.reject_hint,
        wire.request_snapshot,
    ];
    // Without a term is what a replica asks itself, and questions, which are passed on.
    let has_term = (wire.term == 0) == (kind == MessageType::MsgReadIndex);
    if !has_term || node_of(wire.from) == 0 || wire.from == known.id || numbers.iter().any(|n| *n > NUMBER_MAX) {
        return false;
    }
    match kind {
        MessageType::MsgAppend => is_append(wire, known),
        MessageType::MsgHeartbeat => wire.entries.is_empty() && wire.commit <= known.last,
        MessageType::MsgSnapshot => {
            let snapshot = wire.snapshot.as_ref();
            snapshot.is_some_and(|snapshot| is_snapshot(wire, snapshot, known))
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => match &wire.entries[..] {
            [asked] => asked.data.len() == QUESTION_LEN,
            _ => false,
        },
        // Nobody holds more than the leader that asked; who rejects says how far it has come instead.
        MessageType::MsgAppendResponse => wire.entries.is_empty() && (wire.reject || wire.index <= known.last),
        MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgSnapStatus
        | MessageType::MsgTimeoutNow => wire.entries.is_empty(),
        // Made by the library for itself, or by this node.
        _ => false,
    }
}

/// Entries follow each other and what they say they follow; no leader is behind what is committed.
fn is_append(wire: &pb::RaftMessage, known: Known) -> bool {
    let mut term = wire.log_term;
    let follow = (1..).zip(&wire.entries).all(|(place, entry)| {
        let is_next = entry.index == wire.index + place && (term..=wire.term).contains(&entry.term);
        term = entry.term;
        is_next && is_entry(entry)
    });
    // A leader of the past may be behind, and is told so.
    let may_be_behind = wire.term < known.term || wire.index < known.committed;
    follow && wire.log_term <= wire.term && (may_be_behind || wire.log_term >= known.committed_term)
}

fn is_entry(entry: &pb::RaftEntry) -> bool {
    match i32::try_from(entry.kind).ok().and_then(EntryType::from_i32) {
        Some(EntryType::EntryNormal) => true,
        Some(EntryType::EntryConfChange | EntryType::EntryConfChangeV2) => {
            ConfChangeV2::default().merge_from_bytes(&entry.data).is_ok()
        }
        None => false,
    }
}

fn is_snapshot(wire: &pb::RaftMessage, snapshot: &pb::RaftSnapshot, known: Known) -> bool {
    let Some(members) = snapshot.members.clone() else {
        return false;
    };
    let is_position = (1..=NUMBER_MAX).contains(&snapshot.index) && (1..=wire.term).contains(&snapshot.term);
    // There is one entry at each committed position.
    let is_ours = snapshot.index != known.committed || snapshot.term == known.committed_term;
    is_position && is_ours && wire.entries.is_empty() && are_members(&Members::from(members))
}

/// Whether a group can have these members.
fn are_members(members: &Members) -> bool {
    let is_unique = |ids: &[RaftId]| {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == ids.len()
    };
    let lists = [
        &members.voters,
        &members.learners,
        &members.voters_outgoing,
        &members.learners_next,
    ];
    let votes = |id: &RaftId| members.voters.contains(id) || members.voters_outgoing.contains(id);
    !members.voters.is_empty()
        && lists.iter().all(|ids| is_unique(ids) && ids.iter().all(|id| node_of(*id) != 0))
        && !members.learners.iter().any(votes)
        // Those that vote until the change is over, and learn from then on.
        && members
            .learners_next
            .iter()
            .all(|id| members.voters_outgoing.contains(id) && !members.voters.contains(id))
}
