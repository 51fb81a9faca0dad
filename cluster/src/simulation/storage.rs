//! Checkpoints and snapshots, step by step, so that a crash can fall between any two: as `shard::checkpointer`,
//! `shard::snapshot` and `engine::upkeep` do them.

use std::sync::Arc;

use bytes::Bytes;
use proto::cluster::v1 as pb;

use super::{
    disk::{Row, Rows},
    failpoints::{Side, Step},
    world::{Event, TICK, World},
};
use crate::{
    config::NodeId,
    journal::{
        checkpoint,
        keys::{self, EntityRow, Meta},
        tail::Tail,
    },
    replication::{Input, driver::SnapshotPosition},
    store::{Batch, StateStore, memory::MemoryStore},
};

/// Log entries kept behind a checkpoint, in bytes: a few, so that replicas that were away need snapshots.
const KEEP_BYTES: usize = 1_200;
/// For how long request ids are kept: for ever, here.
const REQUESTS_KEPT_MS: u64 = u64::MAX / 2;

/// A checkpoint under way.
pub(super) struct Checkpoint {
    parts: Vec<Part>,
    stage: Stage,
    /// Make a snapshot of this group at the end.
    snapshot: Option<u32>,
}

struct Part {
    group: u32,
    store: Arc<dyn StateStore>,
    tail: Arc<Tail>,
    meta: Meta,
}

#[derive(Clone, Copy)]
enum Stage {
    Write,
    Sync,
    Thaw,
}

/// A snapshot on its way to this node.
pub(super) struct Fetch {
    group: u32,
    source: NodeId,
    source_life: u64,
    generation: u64,
    index: u64,
    message: Box<pb::RaftMessage>,
    /// The source's open file, and how much of it has come.
    rows: Option<Arc<Rows>>,
    done: usize,
}

impl World {
    /// The next step of the checkpointer's thread.
    pub(super) fn checkpoint(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        let delay = match self.node(node).running().checkpoint.take() {
            None => self.begin_checkpoint(node),
            Some(job) => self.go_on(node, job),
        };
        self.after(delay, node, Event::Checkpoint { life });
    }

    fn begin_checkpoint(&mut self, node: NodeId) -> u64 {
        let snapshot = self.node(node).running().snapshots_due.pop_front();
        let groups: Vec<u32> = if let Some(group) = snapshot {
            vec![group]
        } else {
            let held = self.nodes[&node].run.iter().flat_map(|run| &run.replicas);
            // As the checkpointer does it: members must not be forgotten by a restart.
            let held: Vec<(u32, bool)> = held
                .map(|(group, replica)| (*group, replica.shard.is_membership_dirty()))
                .collect();
            let due = |(group, is_due): (u32, bool)| (self.rng.chance(500) || is_due).then_some(group);
            held.into_iter().filter_map(due).collect()
        };
        let run = self.node(node).running();
        let mut parts = Vec::new();
        for group in groups {
            let Some(replica) = run.replicas.get_mut(&group) else {
                continue;
            };
            let shard = &mut replica.shard;
            if shard.is_dirty() {
                let (tail, meta) = shard.freeze();
                let store = Arc::clone(shard.store());
                parts.push(Part {
                    group,
                    store,
                    tail,
                    meta,
                });
            }
        }
        if parts.is_empty() && snapshot.is_none() {
            return self.rng.between(TICK, self.shape.checkpoint_max);
        }
        run.checkpoint = Some(Checkpoint {
            parts,
            stage: Stage::Write,
            snapshot,
        });
        self.rng.between(0, TICK)
    }

    fn go_on(&mut self, node: NodeId, mut job: Checkpoint) -> u64 {
        match job.stage {
            Stage::Write => {
                if self.device_fails(node) || self.crashes_at(node, Step::CheckpointRows, Side::Before) {
                    return TICK;
                }
                for part in &job.parts {
                    let batch =
                        checkpoint::batch(&*part.store, &self.registry, &part.tail, &part.meta, REQUESTS_KEPT_MS);
                    match batch {
                        Ok(batch) => part.store.write(batch).expect("memory takes everything"),
                        Err(error) => {
                            self.ends_for_damage(node, &error);
                            return TICK;
                        }
                    }
                }
                if self.crashes_at(node, Step::CheckpointRows, Side::After) {
                    return TICK;
                }
                job.stage = Stage::Sync;
            }
            Stage::Sync => {
                if self.crashes_at(node, Step::CheckpointSync, Side::Before) {
                    return TICK;
                }
                if !self.flaws.checkpoint_without_sync {
                    self.node(node).disk.sync_stores();
                }
                if self.crashes_at(node, Step::CheckpointSync, Side::After) {
                    return TICK;
                }
                job.stage = Stage::Thaw;
            }
            Stage::Thaw => {
                if !self.crashes_at(node, Step::CheckpointEnd, Side::Before) {
                    self.end_checkpoint(node, job);
                    self.crashes_at(node, Step::CheckpointEnd, Side::After);
                }
                return self.rng.between(TICK, self.shape.checkpoint_max);
            }
        }
        self.node(node).running().checkpoint = Some(job);
        self.rng.between(1, 2 * TICK) * self.nodes[&node].disk.slower(self.now)
    }

    fn end_checkpoint(&mut self, node: NodeId, job: Checkpoint) {
        for part in job.parts {
            let group = part.group;
            let (mut index, mut keep_bytes) = (part.meta.applied.0, KEEP_BYTES);
            if self.flaws.cut_too_far {
                (index, keep_bytes) = (u64::MAX, 0);
            }
            self.trace.note(
                self.now,
                format_args!("node {node} group {group} has a checkpoint at {index}"),
            );
            self.count("checkpoints", 1);
            // It may have left this node meanwhile, or have come back as another one.
            let replica = self.node(node).running().replicas.get_mut(&group);
            let Some(replica) = replica.filter(|replica| Arc::ptr_eq(replica.shard.store(), &part.store)) else {
                continue;
            };
            replica.shard.thaw(&part.meta);
            self.arrives(
                node,
                Input::Checkpointed {
                    group,
                    index,
                    keep_bytes,
                },
            );
        }
        if let Some(group) = job.snapshot {
            self.build_snapshot(node, group);
        }
    }

    fn build_snapshot(&mut self, node: NodeId, group: u32) {
        if self.rng.chance(100) && !self.calm {
            return self.arrives(node, Input::SnapshotGone { group });
        }
        let Some(replica) = self.node(node).running().replicas.get(&group) else {
            return;
        };
        let generation = replica.generation;
        let rows = self.node(node).disk.store(group, generation).rows();
        let Some(rows) = self.sound(node, rows) else {
            return self.arrives(node, Input::SnapshotGone { group });
        };
        if self.crashes_at(node, Step::SnapshotFile, Side::Before) {
            return;
        }
        let meta = rows.iter().find(|(key, _)| key == keys::META).map(|(_, value)| value);
        let meta: Meta =
            keys::decode(keys::META, meta.expect("every store begins with it")).expect("it was written whole");
        let row = |(key, value): (Vec<u8>, Bytes)| Row {
            sum: crc32fast::hash(&value),
            key,
            value,
        };
        let rows = Arc::new(rows.into_iter().map(row).collect());
        self.node(node).disk.snapshots.insert(group, (meta.applied.0, rows));
        if self.crashes_at(node, Step::SnapshotFile, Side::After) {
            return;
        }
        self.trace.note(
            self.now,
            format_args!("node {node} group {group} has a snapshot at {}", meta.applied.0),
        );
        self.count("snapshots built", 1);
        let position = SnapshotPosition {
            index: meta.applied.0,
            term: meta.applied.1,
            members: meta.members,
        };
        self.arrives(node, Input::SnapshotBuilt { group, position });
    }

    pub(super) fn drop_generation(&mut self, node: NodeId, group: u32, generation: u64) {
        if !self.crashes_at(node, Step::GenerationDropped, Side::Before) {
            self.node(node).disk.stores.remove(&(group, generation));
            self.crashes_at(node, Step::GenerationDropped, Side::After);
        }
    }

    pub(super) fn begin_fetch(
        &mut self,
        node: NodeId,
        group: u32,
        source: NodeId,
        index: u64,
        message: Box<pb::RaftMessage>,
    ) {
        self.trace.note(
            self.now,
            format_args!("node {node} group {group} fetches {index} from {source}"),
        );
        let (life, source_life) = (self.nodes[&node].life, self.nodes[&source].life);
        let run = self.node(node).running();
        let generation = run.next_generation;
        run.next_generation += 1;
        let number = run.number();
        let fetch = Fetch {
            group,
            source,
            source_life,
            generation,
            index,
            message,
            rows: None,
            done: 0,
        };
        run.fetches.insert(number, fetch);
        // Nothing stands under a generation that was never there.
        let _: Arc<MemoryStore> = self.node(node).disk.store(group, generation);
        let delay = self.rng.between(1, self.network.delay_max);
        self.after(delay, node, Event::Fetch { life, fetch: number });
    }

    /// The next chunk of a snapshot comes, or does not.
    pub(super) fn fetch(&mut self, node: NodeId, number: u64) {
        let mut fetch = self
            .node(node)
            .running()
            .fetches
            .remove(&number)
            .expect("it goes on until it ends");
        let source = &self.nodes[&fetch.source];
        let is_there = source.run.is_some() && source.life == fetch.source_life;
        if fetch.rows.is_none() {
            let file = source.disk.snapshots.get(&fetch.group);
            fetch.rows = file
                .filter(|(index, _)| *index == fetch.index)
                .map(|(_, rows)| Arc::clone(rows));
        }
        let breaks = !self.calm && self.rng.chance(50);
        let Some(rows) = fetch.rows.clone().filter(|_| is_there && !breaks) else {
            return self.fetch_ends(node, &fetch, false);
        };
        if !self.network.connects(self.now, node, fetch.source) {
            return self.fetch_ends(node, &fetch, false);
        }
        let chunk = self.rng.between(1, 12) as usize;
        let end = (fetch.done + chunk).min(rows.len());
        let mut batch = Batch::default();
        let is_sound = |row: &Row| crc32fast::hash(&row.value) == row.sum;
        if !rows[fetch.done..end].iter().all(is_sound) && !self.flaws.damage_served {
            self.damaged_snapshot(fetch.source, fetch.group);
            return self.fetch_ends(node, &fetch, false);
        }
        for row in &rows[fetch.done..end] {
            batch.put(row.key.clone(), self.received(&row.key, &row.value));
        }
        if self.crashes_at(node, Step::SnapshotRows, Side::Before) {
            return;
        }
        let store = self.node(node).disk.store(fetch.group, fetch.generation);
        store.write(batch).expect("memory takes everything");
        if self.crashes_at(node, Step::SnapshotRows, Side::After) {
            return;
        }
        fetch.done = end;
        let cut_short = self.flaws.snapshot_without_end && rows.len() > 2 && end + 1 >= rows.len();
        if end == rows.len() || cut_short {
            if self.crashes_at(node, Step::SnapshotSync, Side::Before) {
                return;
            }
            self.node(node).disk.sync_stores();
            if self.crashes_at(node, Step::SnapshotSync, Side::After) {
                return;
            }
            return self.fetch_ends(node, &fetch, true);
        }
        let life = self.nodes[&node].life;
        self.node(node).running().fetches.insert(number, fetch);
        let delay = self.rng.between(1, self.network.delay_max + 5);
        self.after(delay, node, Event::Fetch { life, fetch: number });
    }

    fn received(&self, key: &[u8], value: &[u8]) -> Vec<u8> {
        if self.flaws.snapshot_without_requests && key.starts_with(keys::ENTITIES) {
            let mut row: EntityRow = keys::decode(key, value).expect("an entity's row");
            row.requests.clear();
            return keys::encode(&row);
        }
        value.to_vec()
    }

    fn fetch_ends(&mut self, node: NodeId, fetch: &Fetch, is_whole: bool) {
        let (group, generation) = (fetch.group, fetch.generation);
        self.trace.note(
            self.now,
            format_args!("node {node} group {group} has fetched {generation}: {is_whole}"),
        );
        if is_whole {
            let message = fetch.message.clone();
            self.arrives(
                node,
                Input::SnapshotFetched {
                    group,
                    generation,
                    message,
                },
            );
        } else {
            self.node(node).disk.stores.remove(&(group, generation));
            self.arrives(node, Input::FetchFailed { group });
        }
    }
}
