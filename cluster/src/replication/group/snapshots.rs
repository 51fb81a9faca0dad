//! A group's snapshots: where the log may be cut behind them, whom they are sent to, and how one is fetched.

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

/// A replica that has not taken its snapshot after so many ticks is sent another.
const SNAPSHOT_TICKS_MAX: u32 = 2_400;
/// Bytes of a group's log that are kept for a replica while it fetches a snapshot.
const FETCH_LOG_BYTES_MAX: usize = 128 << 20;

impl Group {
    pub(super) fn watch_snapshots(&mut self) {
        if !self.is_leader() {
            self.snapshot_ticks.clear();
            return;
        }
        let receiving: Vec<RaftId> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        self.snapshot_ticks.retain(|id, _| receiving.contains(id));
        let members = Members::from(&self.raw.raft.prs().conf().to_conf_state());
        self.heard.retain(|id, _| members.all().any(|member| member == *id));
        for id in receiving {
            let ticks = self.snapshot_ticks.entry(id).or_default();
            *ticks += 1;
            if *ticks > SNAPSHOT_TICKS_MAX {
                self.snapshot_ticks.remove(&id);
                self.raw.report_snapshot(id, SnapshotStatus::Failure);
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
