//! Raft messages on the wire, in our own protobuf types: what comes from the network never reaches the decoder of the
//! Raft library's protobuf version.

use proto::cluster::v1 as pb;
use protobuf::ProtobufEnum;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

use super::{
    driver::HardState,
    group_log::SnapshotPosition,
    members::{Members, RaftId},
};
use crate::config::NodeId;

/// The wire form of a message. A snapshot travels as its position only; `source` is the node that holds its data.
pub(super) fn to_wire(message: Message, source: NodeId) -> pb::RaftMessage {
    let snapshot = (message.get_msg_type() == MessageType::MsgSnapshot).then(|| {
        let meta = message.get_snapshot().get_metadata();
        pb::RaftSnapshot {
            index: meta.index,
            term: meta.term,
            members: Some((&Members::from(meta.get_conf_state())).into()),
            source_node: u32::from(source),
        }
    });
    pb::RaftMessage {
        kind: message.get_msg_type().value() as u32,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        reject: message.reject,
        context: message.context,
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        snapshot,
    }
}

/// Reads a message from the wire; `None` for one that no version of this program sends.
pub(super) fn from_wire(wire: pb::RaftMessage) -> Option<Message> {
    let mut message = Message::default();
    message.set_msg_type(MessageType::from_i32(i32::try_from(wire.kind).ok()?)?);
    message.from = wire.from;
    message.to = wire.to;
    message.term = wire.term;
    message.log_term = wire.log_term;
    message.index = wire.index;
    message.commit = wire.commit;
    message.commit_term = wire.commit_term;
    message.reject_hint = wire.reject_hint;
    message.request_snapshot = wire.request_snapshot;
    message.priority = wire.priority;
    message.reject = wire.reject;
    message.context = wire.context;
    let entries: Option<Vec<Entry>> = wire.entries.into_iter().map(entry_from_wire).collect();
    message.entries = entries?.into();
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let position = wire.snapshot?;
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = position.index;
        meta.term = position.term;
        meta.set_conf_state(ConfState::from(&Members::from(position.members?)));
        message.set_snapshot(snapshot);
    }
    Some(message)
}

/// Tells a replica of a snapshot, as the library does once.
pub(super) fn announcement(from: RaftId, to: RaftId, term: u64, snapshot: &SnapshotPosition) -> Message {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    message.from = from;
    message.to = to;
    message.term = term;
    message.set_snapshot(snapshot.to_raft());
    message
}

/// Tells a leader that a snapshot's data could not be fetched. The library knows the message only as one to itself.
pub(super) fn failed_fetch(from: RaftId, to: RaftId, term: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapStatus);
    message.from = from;
    message.to = to;
    message.term = term;
    message.reject = true;
    message
}

/// Whether a message is one of [`failed_fetch`].
pub(super) fn is_failed_fetch(wire: &pb::RaftMessage) -> bool {
    wire.kind == MessageType::MsgSnapStatus.value() as u32
}

/// Whether a message is a replica's question for all that is committed.
pub(super) fn is_read_index(wire: &pb::RaftMessage) -> bool {
    wire.kind == MessageType::MsgReadIndex.value() as u32
}

fn entry_to_wire(entry: Entry) -> pb::RaftEntry {
    pb::RaftEntry {
        kind: entry.get_entry_type().value() as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
    }
}

fn entry_from_wire(wire: pb::RaftEntry) -> Option<Entry> {
    let mut entry = Entry::default();
    entry.set_entry_type(EntryType::from_i32(i32::try_from(wire.kind).ok()?)?);
    entry.term = wire.term;
    entry.index = wire.index;
    entry.data = wire.data;
    entry.context = wire.context;
    Some(entry)
}

/// What must be durable of a group, as the library holds it.
pub(super) fn hard_state_out(state: &HardState) -> raft::eraftpb::HardState {
    raft::eraftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..raft::eraftpb::HardState::default()
    }
}

/// What must be durable of a group, as it is stored.
pub(super) fn hard_state_in(state: &raft::eraftpb::HardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}
