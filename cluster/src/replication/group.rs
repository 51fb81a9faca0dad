//! One Raft group's part of the driver.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proto::cluster::v1 as pb;
use raft::{
    ProgressState, RawNode, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Message, MessageType},
};

use super::{
    Entry, batch,
    catch_up::CatchUp,
    credible::{Known, is_credible},
    driver::{Boot, Failure, GroupStatus, GroupWrite, Output, Role, Settings, Task},
    election,
    group_log::GroupLog,
    members::{MemberChange, Members, RaftId, node_of},
    message,
};
use crate::config::NodeId;

/// Entries of one group that may be under way at once; what waits meanwhile goes into the next one.
const APPENDS_IN_FLIGHT_MAX: usize = 2;
/// Rounds of heartbeats that may be under way for reads.
const READ_ROUNDS_MAX: usize = 4;
/// Largest Raft message, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Appends under way to one follower.
const WINDOW: usize = 32;

mod ready;
mod snapshots;

/// What must wait for a write before it counts.
struct Held {
    write: u64,
    ready: u64,
    messages: Vec<(NodeId, pb::GroupMessage)>,
    drop_generation: Option<u64>,
}

/// An entry of our own whose fate is open.
struct InFlight {
    index: u64,
    term: u64,
    tickets: Vec<u64>,
}

pub(super) struct Group {
    id: u32,
    node: NodeId,
    settings: Settings,
    raw: RawNode<GroupLog>,
    applied: (u64, u64),
    generation: u64,
    pending: VecDeque<(Bytes, u64)>,
    in_flight: VecDeque<InFlight>,
    reads: Vec<u64>,
    catch_up: CatchUp,
    rounds: BTreeMap<u64, Vec<u64>>,
    next_round: u64,
    confirmed: Vec<(u64, Vec<u64>)>,
    held: VecDeque<Held>,
    hard_state_dirty: bool,
    /// The term this group leads in, as of the last look.
    leading: Option<u64>,
    role: Option<Role>,
    building_snapshot: bool,
    fetching: bool,
    staged: Option<u64>,
    /// Ticks since the start, and when each other replica was last heard from.
    ticks: u64,
    heard: BTreeMap<RaftId, u64>,
    /// For replicas that are being sent a snapshot: since how many ticks.
    snapshot_ticks: BTreeMap<RaftId, u32>,
    cut: Option<(u64, u64)>,
}

impl Group {
    pub(super) fn new(node: NodeId, settings: Settings, boot: Boot) -> Self {
        let mut log = GroupLog {
            hard_state: message::hard_state_out(&boot.hard_state),
            members: boot.members,
            cut: boot.cut,
            entries: VecDeque::new(),
            bytes: 0,
            snapshot: None,
            snapshot_wanted: false.into(),
        };
        log.append(&boot.entries);
        let applied_term = raft::Storage::term(&log, boot.applied).unwrap_or(0);
        let config = raft::Config {
            id: boot.id,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            min_election_tick: settings.election_ticks,
            max_election_tick: settings.election_ticks * 2,
            applied: boot.applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: WINDOW,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            // Lets a leader send entries that do not follow the message's index, and a follower then acknowledges what
            // it does not have.
            batch_append: false,
            ..raft::Config::default()
        };
        let mut raw = RawNode::new(&config, log, &slog::Logger::root(slog::Discard, slog::o!()))
            .expect("the settings were checked and the log is consistent");
        if boot.campaign {
            // Refused only for a replica that is no voter, which then waits to be told.
            let _ = raw.campaign();
        }
        Self {
            id: boot.group,
            node,
            raw,
            applied: (boot.applied, applied_term),
            generation: boot.generation,
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            reads: Vec::new(),
            catch_up: CatchUp::new(boot.id, settings.life, settings.election_ticks),
            rounds: BTreeMap::new(),
            next_round: 1,
            confirmed: Vec::new(),
            held: VecDeque::new(),
            settings,
            hard_state_dirty: false,
            leading: None,
            role: None,
            building_snapshot: false,
            fetching: false,
            staged: None,
            ticks: 0,
            heard: BTreeMap::new(),
            snapshot_ticks: BTreeMap::new(),
            cut: None,
        }
    }

    fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn is_serving(&self) -> bool {
        self.is_leader() && self.applied.1 == self.raw.raft.term
    }

    fn can_propose(&self) -> bool {
        !self.pending.is_empty()
            && self.is_leader()
            && self.raw.raft.lead_transferee.is_none()
            && self.in_flight.len() < APPENDS_IN_FLIGHT_MAX
    }

    fn can_read(&self) -> bool {
        !self.reads.is_empty() && (!self.is_leader() || (self.is_serving() && self.rounds.len() < READ_ROUNDS_MAX))
    }

    /// Whether [`Self::advance`] has something to do.
    pub(super) fn is_active(&self) -> bool {
        self.raw.has_ready()
            || self.can_propose()
            || self.can_read()
            || self.catch_up.can_ask()
            || self.cut.is_some()
            || self.leading != self.is_leader().then_some(self.raw.raft.term)
            || (!self.is_leader() && !self.pending.is_empty())
    }

    pub(super) fn tick(&mut self, output: &mut Output) {
        // The library draws its time-out from a generator of its own; ours is a function of what the group knows, so that a
        // simulation can repeat it.
        let raft = &mut self.raw.raft;
        let voters = raft.prs().conf().to_conf_state().voters;
        let timeout = election::timeout(&self.settings, self.id, raft.term, raft.id, voters);
        raft.set_randomized_election_timeout(timeout);
        self.raw.tick();
        self.ticks += 1;
        self.watch_snapshots(output);
        self.catch_up.tick(output);
    }

    pub(super) fn receive(&mut self, wire: pb::RaftMessage, output: &mut Output) {
        // Meant for the replica that this node held before it lost its folder: what that one had, this one has not.
        if wire.to != self.raw.raft.id {
            return;
        }
        if !is_credible(&wire, self.known()) {
            tracing::warn!(
                group = self.id,
                from = wire.from,
                kind = wire.kind,
                "a message no peer sends was dropped"
            );
            return;
        }
        self.heard.insert(wire.from, self.ticks);
        let announced = wire.snapshot.as_ref().map(|s| (s.index, s.source_node));
        if let Some((index, source)) = announced
            && index > self.raw.raft.raft_log.committed
            && wire.term >= self.raw.raft.term
        {
            // The data comes first; the message is taken once it is on the device.
            if !self.fetching {
                self.fetching = true;
                output.tasks.push(Task::FetchSnapshot {
                    group: self.id,
                    source: source as NodeId,
                    index,
                    message: Box::new(wire),
                });
            }
            return;
        }
        if message::is_failed_fetch(&wire) {
            self.raw.report_snapshot(wire.from, SnapshotStatus::Failure);
            return;
        }
        // Passed on by one that leads no longer, it could go round for ever.
        if message::is_read_index(&wire) && !self.is_leader() {
            return;
        }
        if let Some(message) = message::from_wire(wire) {
            // Refused are messages of replicas that no longer belong, and of the past: nothing to do about either.
            let _ = self.raw.step(message);
        }
    }

    fn known(&self) -> Known {
        let log = &self.raw.raft.raft_log;
        Known {
            id: self.raw.raft.id,
            term: self.raw.raft.term,
            last: log.last_index(),
            committed: log.committed,
            committed_term: log.term(log.committed).unwrap_or_default(),
        }
    }

    pub(super) fn enqueue(&mut self, term: u64, record: Bytes, ticket: u64, output: &mut Output) {
        if self.is_leader() && self.raw.raft.term == term {
            self.pending.push_back((record, ticket));
        } else {
            output.failed.push((ticket, Failure::NotLeader));
        }
    }

    pub(super) fn enqueue_read(&mut self, ticket: u64) {
        self.reads.push(ticket);
    }

    pub(super) fn enqueue_catch(&mut self, ticket: u64) {
        self.catch_up.enqueue(ticket);
    }

    pub(super) fn written(&mut self, number: u64, output: &mut Output) {
        while self.held.front().is_some_and(|held| held.write <= number) {
            let held = self.held.pop_front().expect("the front was seen");
            // The group is told first: an answer must not overtake what it answers for.
            self.raw.on_persist_ready(held.ready);
            output.send.extend(held.messages);
            if let Some(generation) = held.drop_generation {
                output.tasks.push(Task::DropGeneration {
                    group: self.id,
                    generation,
                });
            }
        }
    }

    pub(super) fn link_down(&mut self, node: NodeId) {
        if !self.is_leader() {
            return;
        }
        let peers: Vec<(RaftId, ProgressState)> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| node_of(**id) == node)
            .map(|(id, progress)| (*id, progress.state))
            .collect();
        for (id, state) in peers {
            self.raw.report_unreachable(id);
            if state == ProgressState::Snapshot {
                self.raw.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    pub(super) fn transfer(&mut self, to: NodeId) {
        let voters = self.raw.raft.prs().conf().to_conf_state().voters;
        if let Some(id) = voters.into_iter().find(|id| node_of(*id) == to)
            && self.is_leader()
        {
            self.raw.transfer_leader(id);
        }
    }

    pub(super) fn change_members(&mut self, changes: &[MemberChange]) {
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(
            changes
                .iter()
                .map(|step| {
                    let (kind, id) = match *step {
                        MemberChange::AddVoter(id) => (ConfChangeType::AddNode, id),
                        MemberChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
                        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
                    };
                    let mut single = ConfChangeSingle::default();
                    single.set_change_type(kind);
                    single.node_id = id;
                    single
                })
                .collect::<Vec<_>>()
                .into(),
        );
        if self.is_leader() {
            // Dropped while another change is under way; whoever planned it plans again.
            let _ = self.raw.propose_conf_change(vec![], change);
        }
    }

    /// Ends the replica: whoever waits for it is told.
    pub(super) fn close(mut self, output: &mut Output) {
        let lost = self.in_flight.drain(..).flat_map(|entry| entry.tickets);
        output.failed.extend(lost.map(|ticket| (ticket, Failure::Unknown)));
        let refused = self.pending.drain(..).map(|(_, ticket)| ticket);
        output.failed.extend(refused.map(|ticket| (ticket, Failure::NotLeader)));
        let rounds = std::mem::take(&mut self.rounds).into_values().flatten();
        let confirmed = self.confirmed.drain(..).flat_map(|(_, tickets)| tickets);
        let reads = self.reads.drain(..).chain(rounds).chain(confirmed);
        output.reads.extend(reads.map(|ticket| (ticket, false)));
        self.catch_up.close(output);
        output.roles.push(Role {
            group: self.id,
            term: self.raw.raft.term,
            leader: None,
            serving: false,
        });
    }

    /// Takes one step: proposes what waits, and turns what the library has ready into effects.
    pub(super) fn advance(&mut self, write: u64, part: &mut GroupWrite, output: &mut Output) {
        self.propose(output);
        self.read(output);
        self.catch_up.ask(&mut self.raw, output);
        if self.raw.has_ready() {
            self.take_ready(write, part, output);
        }
        if let Some(cut) = self.cut.take() {
            part.cut = Some(cut);
        }
        if let Some(generation) = self.staged.take_if(|_| self.raw.snap().is_none()) {
            output.tasks.push(Task::DropGeneration {
                group: self.id,
                generation,
            });
        }
        self.settle_leadership(output);
        self.answer_reads(output);
        self.catch_up.applied(self.applied.0, output);
        if self.raw.store().snapshot_wanted.take() && !self.building_snapshot {
            self.building_snapshot = true;
            output.tasks.push(Task::BuildSnapshot { group: self.id });
        }
    }

    fn propose(&mut self, output: &mut Output) {
        while self.can_propose() {
            let mut bytes = 0;
            let count = self
                .pending
                .iter()
                .take(self.settings.append_records_max)
                .take_while(|(record, _)| {
                    bytes += record.len();
                    bytes <= self.settings.append_bytes_max
                })
                .count()
                .max(1);
            let (records, tickets): (Vec<Bytes>, Vec<u64>) = self.pending.drain(..count).unzip();
            let entry = Entry {
                data: batch::pack(records.iter()),
                ..Entry::default()
            };
            // The library's own `propose` would copy the data.
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgPropose);
            message.from = self.raw.raft.id;
            message.entries = vec![entry].into();
            match self.raw.raft.step(message) {
                Ok(()) => {
                    let index = self.raw.raft.raft_log.last_index();
                    output.appended.push((self.id, index));
                    self.in_flight.push_back(InFlight {
                        index,
                        term: self.raw.raft.term,
                        tickets,
                    });
                }
                Err(_) => output
                    .failed
                    .extend(tickets.into_iter().map(|ticket| (ticket, Failure::NotLeader))),
            }
        }
    }

    fn read(&mut self, output: &mut Output) {
        if !self.can_read() {
            return;
        }
        let tickets = std::mem::take(&mut self.reads);
        if self.is_leader() {
            let round = self.next_round;
            self.next_round += 1;
            self.rounds.insert(round, tickets);
            self.raw.read_index(round.to_be_bytes().to_vec());
        } else {
            output.reads.extend(tickets.into_iter().map(|ticket| (ticket, false)));
        }
    }

    fn envelope(&self, message: Message) -> (NodeId, pb::GroupMessage) {
        let to = node_of(message.to);
        let message = message::to_wire(message, self.node);
        (
            to,
            pb::GroupMessage {
                group: self.id,
                message: Some(message),
            },
        )
    }

    fn settle_leadership(&mut self, output: &mut Output) {
        let leading = self.is_leader().then_some(self.raw.raft.term);
        if leading != self.leading || leading.is_none() {
            if leading != self.leading {
                let lost = self.in_flight.drain(..).flat_map(|entry| entry.tickets);
                output.failed.extend(lost.map(|ticket| (ticket, Failure::Unknown)));
            }
            let refused = self.pending.drain(..).map(|(_, ticket)| ticket);
            output.failed.extend(refused.map(|ticket| (ticket, Failure::NotLeader)));
            let rounds = std::mem::take(&mut self.rounds).into_values().flatten();
            output.reads.extend(rounds.map(|ticket| (ticket, false)));
            let confirmed = self.confirmed.drain(..).flat_map(|(_, tickets)| tickets);
            output.reads.extend(confirmed.map(|ticket| (ticket, false)));
        }
        self.leading = leading;
        let leader = self.raw.raft.leader_id;
        let role = Role {
            group: self.id,
            term: self.raw.raft.term,
            leader: (leader != 0).then(|| node_of(leader)),
            serving: self.is_serving(),
        };
        if self.role != Some(role) {
            self.role = Some(role);
            output.roles.push(role);
        }
    }

    fn answer_reads(&mut self, output: &mut Output) {
        let applied = self.applied.0;
        self.confirmed.retain_mut(|(index, tickets)| {
            let due = *index <= applied;
            if due {
                output.reads.extend(tickets.drain(..).map(|ticket| (ticket, true)));
            }
            !due
        });
    }

    fn heard_lately(&self) -> Vec<RaftId> {
        let since = self.ticks.saturating_sub(2 * self.settings.election_ticks as u64);
        let lately = self.heard.iter().filter(|(_, at)| **at >= since);
        lately.map(|(id, _)| *id).collect()
    }

    pub(super) fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        let matched = if self.is_leader() {
            raft.prs()
                .iter()
                .filter(|(id, _)| **id != raft.id)
                .map(|(id, progress)| (*id, progress.matched))
                .collect()
        } else {
            Vec::new()
        };
        GroupStatus {
            group: self.id,
            replica: raft.id,
            term: raft.term,
            leader: (raft.leader_id != 0).then(|| node_of(raft.leader_id)),
            is_leader: self.is_leader(),
            transferring: raft.lead_transferee.is_some(),
            last: raft.raft_log.last_index(),
            members: Members::from(&raft.prs().conf().to_conf_state()),
            matched,
            heard: self.heard_lately(),
        }
    }
}
