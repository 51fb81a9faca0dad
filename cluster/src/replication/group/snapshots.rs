//! A group's snapshots: where the log may be cut behind them, whom they are sent to, and how one is fetched.

use std::collections::BTreeMap;

use proto::cluster::v1 as pb;
use raft::{ProgressState, SnapshotStatus};

use super::{
    super::{
        driver::{Output, SnapshotPosition, Task},
        members::{Members, RaftId},
        message,
    },
    Group,
};

/// A replica that has not taken its snapshot is told of it again after each so many ticks.
const ANNOUNCE_TICKS: u32 = 40;
/// Bytes of a group's log that are kept for a replica while it fetches a snapshot.
const FETCH_LOG_BYTES_MAX: usize = 128 << 20;

impl Group {
    /// Announces snapshots again that nobody has taken: either what announced one or what said that it could not be fetched may
    /// be lost, and the library waits for ever. Who is fetching already does not mind.
    pub(super) fn watch_snapshots(&mut self, output: &mut Output) {
        if !self.is_leader() {
            self.snapshot_ticks.clear();
            return;
        }
        let progress = self.raw.raft.prs();
        let receiving: BTreeMap<RaftId, (u64, u64)> = progress
            .iter()
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(id, progress)| (*id, (progress.matched, progress.pending_snapshot)))
            .collect();
        self.snapshot_ticks.retain(|id, _| receiving.contains_key(id));
        let members = Members::from(&progress.conf().to_conf_state());
        self.heard.retain(|id, _| members.all().any(|member| member == *id));
        for (id, (matched, pending)) in receiving {
            let ticks = self.snapshot_ticks.entry(id).or_default();
            *ticks += 1;
            if !ticks.is_multiple_of(ANNOUNCE_TICKS) {
                continue;
            }
            let log = self.raw.store();
            let snapshot = log.snapshot.as_ref().filter(|snapshot| snapshot.index == pending);
            match snapshot {
                Some(snapshot) if matched < log.cut.0 => {
                    let raft = &self.raw.raft;
                    let message = message::announcement(raft.id, id, raft.term, snapshot);
                    output.send.push(self.envelope(message));
                }
                // Another one has replaced it, or what it has by now is in the log.
                _ => self.raw.report_snapshot(id, SnapshotStatus::Failure),
            }
        }
    }

    pub(in crate::replication) fn checkpointed(&mut self, index: u64, keep_bytes: usize) {
        let applied = self.applied.0;
        let is_fetched = !self.snapshot_ticks.is_empty();
        let log = self.raw.mut_store();
        // What follows a snapshot that a replica is fetching stays, or it would need another one right after it.
        let floor = match &log.snapshot {
            Some(snapshot) if is_fetched && log.bytes < FETCH_LOG_BYTES_MAX => snapshot.index,
            _ => u64::MAX,
        };
        let to = log.cut_point(index.min(applied), keep_bytes).min(floor);
        if to > log.cut.0 {
            log.cut_to(to);
            self.cut = Some(log.cut);
        }
    }

    pub(in crate::replication) fn snapshot_built(&mut self, position: SnapshotPosition) {
        self.building_snapshot = false;
        self.raw.mut_store().snapshot = Some(position);
    }

    pub(in crate::replication) fn snapshot_gone(&mut self) {
        self.building_snapshot = false;
        self.raw.mut_store().snapshot = None;
    }

    pub(in crate::replication) fn fetched(&mut self, generation: u64, wire: pb::RaftMessage, output: &mut Output) {
        self.fetching = false;
        // Meant for a replica that this node held before this one.
        if wire.to != self.raw.raft.id {
            output.tasks.push(Task::DropGeneration {
                group: self.id,
                generation,
            });
            return;
        }
        self.staged = Some(generation);
        if let Some(message) = message::from_wire(wire) {
            let _ = self.raw.step(message);
        }
    }

    /// The data could not be fetched: the leader is told, or it would wait for a replica that does nothing.
    pub(in crate::replication) fn fetch_failed(&mut self, output: &mut Output) {
        self.fetching = false;
        let raft = &self.raw.raft;
        if raft.leader_id != 0 && raft.leader_id != raft.id {
            let message = message::failed_fetch(raft.id, raft.leader_id, raft.term);
            output.send.push(self.envelope(message));
        }
    }
}
