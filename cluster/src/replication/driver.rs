//! All groups of one node: inputs in, effects out.
//!
//! [`Driver::step`] is given what has happened and returns what is to be done. Whoever runs it carries the
//! [`Output`] out in the order of its fields, and then steps again.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::cluster::v1 as pb;

pub(crate) use super::group_log::SnapshotPosition;
use super::{
    Entry,
    group::Group,
    members::{MemberChange, Members, RaftId},
};
use crate::config::NodeId;

/// Times in ticks and limits of one append.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) heartbeat_ticks: usize,
    pub(crate) election_ticks: usize,
    pub(crate) append_records_max: usize,
    pub(crate) append_bytes_max: usize,
    /// Spreads the election time-outs; different for each node.
    pub(crate) seed: u64,
    /// Drawn anew at each start of the process: nothing that an earlier one asked may answer what this one asks.
    pub(crate) life: u64,
}

/// What must be durable of a group beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HardState {
    pub(crate) term: u64,
    pub(crate) vote: RaftId,
    pub(crate) commit: u64,
}

/// A group as it stands on disk when the node starts.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) group: u32,
    pub(crate) id: RaftId,
    pub(crate) hard_state: HardState,
    /// Index and term of the last entry that is no longer in the log.
    pub(crate) cut: (u64, u64),
    pub(crate) entries: Vec<Entry>,
    /// The position that the state store has reached, and the members there.
    pub(crate) applied: u64,
    pub(crate) members: Members,
    /// Under which generation the state store keeps the group.
    pub(crate) generation: u64,
    /// Whether to stand for election at once: for the preferred leader of a new cluster.
    pub(crate) campaign: bool,
}

/// What has happened.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// One tick has passed.
    Tick,
    /// Messages of a peer.
    Messages(Vec<pb::GroupMessage>),
    /// A record to append, decided by the leader of `term`.
    Propose {
        group: u32,
        term: u64,
        record: Bytes,
        ticket: u64,
    },
    /// Somebody wants to read what is committed now.
    Read { group: u32, ticket: u64 },
    /// Somebody wants to know, on whichever replica, when it has applied all that is committed now.
    Catch { group: u32, ticket: u64 },
    /// The write of this number, and so each one before it, has reached the device.
    Written(u64),
    /// The connection to a node broke.
    LinkDown(NodeId),
    /// Give the group's leadership to a node.
    Transfer { group: u32, to: NodeId },
    /// Change the group's members.
    ChangeMembers { group: u32, changes: Vec<MemberChange> },
    /// The state store holds everything up to `index` on the device: the log may be cut there, but for `keep_bytes` that
    /// replicas may still want.
    Checkpointed { group: u32, index: u64, keep_bytes: usize },
    /// A snapshot can be fetched.
    SnapshotBuilt { group: u32, position: SnapshotPosition },
    /// There is no snapshot to fetch (any more): none could be built, or it was removed.
    SnapshotGone { group: u32 },
    /// The data of a snapshot is on this node's device, under `generation`; now take the message that announced it.
    SnapshotFetched {
        group: u32,
        generation: u64,
        message: Box<pb::RaftMessage>,
    },
    /// The data of a snapshot could not be fetched.
    FetchFailed { group: u32 },
    /// This node holds a replica of one more group.
    Open(Box<Boot>),
    /// This node's replica of the group belongs to it no longer: forget it, and its part of the log.
    Close { group: u32 },
}

/// What is to be done, in the order of the fields.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be sent at once.
    pub(crate) send: Vec<(NodeId, pb::GroupMessage)>,
    /// To be written in one batch and synced; then [`Input::Written`] is due.
    pub(crate) write: Option<Write>,
    /// Group and index of the entries that proposals were put into; `write` holds them.
    pub(crate) appended: Vec<(u32, u64)>,
    /// To be applied, in this order.
    pub(crate) applied: Vec<Applied>,
    /// Proposals that will not be answered by an applied entry.
    pub(crate) failed: Vec<(u64, Failure)>,
    /// What waited to read or to catch up: it may now (true), or not here (false).
    pub(crate) reads: Vec<(u64, bool)>,
    /// Groups whose leadership has changed.
    pub(crate) roles: Vec<Role>,
    /// Work for others.
    pub(crate) tasks: Vec<Task>,
}

/// One batch for the log.
#[derive(Debug, Default)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) groups: BTreeMap<u32, GroupWrite>,
}

/// A group's part of a batch.
#[derive(Debug, Default)]
pub(crate) struct GroupWrite {
    pub(crate) hard_state: Option<HardState>,
    /// Begin anew behind a snapshot: index, term and generation. Comes before the entries.
    pub(crate) install: Option<(u64, u64, u64)>,
    /// Entries to append; they replace what stands from the first of them on.
    pub(crate) entries: Vec<Entry>,
    /// Entries up to this index and term are no longer needed.
    pub(crate) cut: Option<(u64, u64)>,
    /// Nothing of the group is needed any more.
    pub(crate) remove: bool,
}

/// One step of a group's state.
#[derive(Debug, Clone)]
pub(crate) enum Applied {
    /// A committed entry. `tickets` are this node's own proposals in it, one for each record; none if it is another's.
    Entry {
        group: u32,
        index: u64,
        term: u64,
        data: Bytes,
        tickets: Vec<u64>,
        /// The members from here on, where the entry changed them.
        members: Option<Members>,
    },
    /// The state is now that of the fetched snapshot.
    Install { group: u32, generation: u64 },
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not appended, for certain.
    NotLeader,
    /// Appended, and leadership was lost before it was known to be committed.
    Unknown,
}

/// Who leads a group, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) group: u32,
    pub(crate) term: u64,
    pub(crate) leader: Option<NodeId>,
    /// This node leads and has applied all that was committed before its term.
    pub(crate) serving: bool,
}

/// Work that the driver needs done; it goes on meanwhile.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Make a checkpoint and keep a copy of it for peers to fetch.
    BuildSnapshot { group: u32 },
    /// Fetch a snapshot's data from `source`.
    FetchSnapshot {
        group: u32,
        source: NodeId,
        index: u64,
        message: Box<pb::RaftMessage>,
    },
    /// The data under this generation will not be used.
    DropGeneration { group: u32, generation: u64 },
    /// The group was closed, and its part of the log is gone from the device.
    Closed { group: u32 },
}

/// A group, for people and for planning.
#[derive(Debug, Clone)]
pub(crate) struct GroupStatus {
    pub(crate) group: u32,
    /// This node's own replica.
    pub(crate) replica: RaftId,
    pub(crate) term: u64,
    pub(crate) leader: Option<NodeId>,
    pub(crate) is_leader: bool,
    pub(crate) transferring: bool,
    /// The log's entries: from the first one,
    pub(crate) first: u64,
    /// to the last one.
    pub(crate) last: u64,
    pub(crate) members: Members,
    /// For a leader: what each other replica is known to hold.
    pub(crate) matched: Vec<(RaftId, u64)>,
    /// For a leader: the other replicas that it has heard from lately.
    pub(crate) heard: Vec<RaftId>,
}

/// All groups of one node.
pub(crate) struct Driver {
    node: NodeId,
    settings: Settings,
    groups: BTreeMap<u32, Group>,
    /// Closed, and to be removed from the log with the next write.
    closing: Vec<u32>,
    /// Those whose removal is on its way to the device, with the write's number.
    closed: Vec<(u64, u32)>,
    next_write: u64,
}

impl Driver {
    pub(crate) fn new(node: NodeId, settings: &Settings, boots: Vec<Boot>) -> Self {
        let groups = boots
            .into_iter()
            .map(|boot| (boot.group, Group::new(node, settings.clone(), boot)))
            .collect();
        Self {
            node,
            settings: settings.clone(),
            groups,
            closing: Vec::new(),
            closed: Vec::new(),
            next_write: 1,
        }
    }

    /// Takes what has happened and says what is to be done.
    pub(crate) fn step(&mut self, inputs: impl IntoIterator<Item = Input>) -> Output {
        let mut output = Output::default();
        for input in inputs {
            self.take(input, &mut output);
        }
        let mut write = Write {
            number: self.next_write,
            ..Write::default()
        };
        for (id, group) in &mut self.groups {
            let mut part = GroupWrite::default();
            while group.is_active() {
                group.advance(write.number, &mut part, &mut output);
            }
            if part.hard_state.is_some() || part.install.is_some() || !part.entries.is_empty() || part.cut.is_some() {
                write.groups.insert(*id, part);
            }
        }
        for group in self.closing.drain(..) {
            let remove = GroupWrite {
                remove: true,
                ..GroupWrite::default()
            };
            write.groups.insert(group, remove);
            self.closed.push((write.number, group));
        }
        if !write.groups.is_empty() {
            self.next_write += 1;
            output.write = Some(write);
        }
        output
    }

    /// Every group as it stands.
    pub(crate) fn status(&self) -> Vec<GroupStatus> {
        self.groups.values().map(Group::status).collect()
    }

    fn take(&mut self, input: Input, output: &mut Output) {
        match input {
            Input::Tick => self.groups.values_mut().for_each(|group| group.tick(output)),
            Input::Messages(messages) => {
                for pb::GroupMessage { group, message } in messages {
                    if let (Some(group), Some(message)) = (self.groups.get_mut(&group), message) {
                        group.receive(message, output);
                    }
                }
            }
            Input::Propose {
                group,
                term,
                record,
                ticket,
            } => match self.groups.get_mut(&group) {
                Some(group) => group.enqueue(term, record, ticket, output),
                None => output.failed.push((ticket, Failure::NotLeader)),
            },
            Input::Read { group, ticket } => match self.groups.get_mut(&group) {
                Some(group) => group.enqueue_read(ticket),
                None => output.reads.push((ticket, false)),
            },
            Input::Catch { group, ticket } => match self.groups.get_mut(&group) {
                Some(group) => group.enqueue_catch(ticket),
                None => output.reads.push((ticket, false)),
            },
            Input::Written(number) => {
                self.groups.values_mut().for_each(|group| group.written(number, output));
                let gone = self.closed.extract_if(.., |(write, _)| *write <= number);
                output.tasks.extend(gone.map(|(_, group)| Task::Closed { group }));
            }
            Input::Open(boot) => {
                let group = boot.group;
                // A replica that was closed may be opened again, and asks under new names.
                self.settings.life = self.settings.life.wrapping_add(1);
                let opened = Group::new(self.node, self.settings.clone(), *boot);
                assert!(
                    self.groups.insert(group, opened).is_none(),
                    "a node holds one replica of a group"
                );
            }
            Input::Close { group } => {
                if let Some(closed) = self.groups.remove(&group) {
                    closed.close(output);
                    self.closing.push(group);
                }
            }
            Input::LinkDown(node) => self.groups.values_mut().for_each(|group| group.link_down(node)),
            Input::Transfer { group, to } => self.with(group, |group| group.transfer(to)),
            Input::ChangeMembers { group, changes } => self.with(group, |group| group.change_members(&changes)),
            Input::Checkpointed {
                group,
                index,
                keep_bytes,
            } => self.with(group, |group| group.checkpointed(index, keep_bytes)),
            Input::SnapshotBuilt { group, position } => self.with(group, |group| group.snapshot_built(position)),
            Input::SnapshotGone { group } => self.with(group, Group::snapshot_gone),
            Input::SnapshotFetched {
                group,
                generation,
                message,
            } => match self.groups.get_mut(&group) {
                Some(group) => group.fetched(generation, *message, output),
                None => output.tasks.push(Task::DropGeneration { group, generation }),
            },
            Input::FetchFailed { group } => self.with(group, |group| group.fetch_failed(output)),
        }
    }

    fn with(&mut self, group: u32, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(&group) {
            change(group);
        }
    }
}
