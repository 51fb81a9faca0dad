//! The thread that moves tails into the state store, syncs it, and only then lets the log be cut. It also makes the
//! snapshots that replicas far behind are sent.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{end_node, end_with, mailbox::Mailbox, replica::Replica, slots::Slots, snapshot};
use crate::{
    config::Limits,
    entity::Registry,
    journal::{checkpoint, keys::Meta},
    replication::{Input, driver::SnapshotPosition},
    store::{StoreError, erase::Erasure, log::Log, state::StateDb},
};

/// How often the thread looks for shards that are due.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a snapshot is kept for a replica to fetch it.
const SNAPSHOT_KEPT: Duration = Duration::from_mins(2);

/// What the thread is asked.
pub(crate) enum Request {
    /// Make a checkpoint of this shard and a snapshot from it.
    Snapshot(u32),
    /// Make a last checkpoint of every shard, and end.
    Stop,
    /// End without one.
    Halt,
}

/// What the thread works with.
pub(crate) struct Parts {
    pub(crate) replicas: Arc<Slots>,
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    pub(crate) db: Arc<StateDb>,
    pub(crate) log: Arc<Log>,
    pub(crate) erasure: Arc<Erasure>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) snapshots: PathBuf,
    /// This node's data folder.
    pub(crate) data: PathBuf,
}

/// Begins the thread.
pub(crate) fn spawn(parts: Parts) -> std::io::Result<(mpsc::Sender<Request>, thread::JoinHandle<()>)> {
    let (sender, requests) = mpsc::channel();
    let join = thread::Builder::new().name("checkpointer".into()).spawn(move || {
        let now = Instant::now();
        let interval = Duration::from_millis(parts.limits.checkpoint_interval_ms);
        let count = parts.replicas.iter().count().max(1) as u32;
        // The shards take turns, so that one does not wait for the work of all.
        let last = (0..)
            .zip(parts.replicas.iter())
            .map(|(n, replica)| (replica.shard(), now.checked_sub(interval * n / count).unwrap_or(now)))
            .collect();
        let snapshots = BTreeMap::new();
        let checkpointer = Checkpointer { parts, last, snapshots };
        if catch_unwind(AssertUnwindSafe(|| checkpointer.run(&requests))).is_err() {
            end_node("a checkpoint panicked; the panic above says where");
        }
    })?;
    Ok((sender, join))
}

struct Checkpointer {
    parts: Parts,
    /// When each shard had its last checkpoint.
    last: BTreeMap<u32, Instant>,
    /// When each snapshot that is still there was made.
    snapshots: BTreeMap<u32, Instant>,
}

impl Checkpointer {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        loop {
            match requests.recv_timeout(LOOK_INTERVAL) {
                Ok(Request::Snapshot(shard)) => self.snapshot(shard),
                Ok(Request::Stop) => {
                    let all = self.parts.replicas.iter().collect();
                    return self.checkpoint(all);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let due = self.due();
                    self.checkpoint(due);
                    self.remove_old_snapshots();
                }
                Ok(Request::Halt) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn due(&self) -> Vec<Arc<Replica>> {
        let interval = Duration::from_millis(self.parts.limits.checkpoint_interval_ms);
        self.parts
            .replicas
            .iter()
            .filter(|replica| {
                let state = replica.state();
                let last = self.last.get(&replica.shard());
                let is_old = last.is_none_or(|last| last.elapsed() >= interval);
                let is_old = is_old || state.forgets();
                let is_large = state.tail_bytes() > self.parts.limits.tail_bytes_max / 2;
                state.is_dirty() && (is_old || is_large || state.is_membership_dirty())
            })
            .collect()
    }

    fn checkpoint(&mut self, replicas: Vec<Arc<Replica>>) {
        if replicas.is_empty() {
            return;
        }
        let begun = Instant::now();
        let written: Result<Vec<(Arc<Replica>, Meta, bool)>, StoreError> = replicas
            .into_iter()
            .filter_map(|replica| {
                let written = self.write(&replica);
                written
                    .map(|written| written.map(|(meta, forgets)| (replica, meta, forgets)))
                    .transpose()
            })
            .collect();
        let outcome = written.and_then(|written| self.parts.db.sync().map(|()| written));
        match outcome {
            Ok(written) => {
                for (replica, meta, forgets) in written {
                    let moved = replica.state().thaw(&meta);
                    drop(moved);
                    replica.meter().checkpointed(begun.elapsed());
                    self.last.insert(replica.shard(), Instant::now());
                    self.parts.mailbox.input(Input::Checkpointed {
                        group: replica.shard(),
                        index: meta.applied.0,
                        // What was forgotten must not stay in the log. A replica that is behind gets a snapshot then.
                        keep_bytes: if forgets {
                            0
                        } else {
                            self.parts.limits.tail_bytes_max / 2
                        },
                    });
                }
            }
            Err(error) => end_with(&self.parts.data, "the state store cannot be written", &error),
        }
        if let Err(error) = self.parts.log.purge() {
            tracing::warn!(%error, "old files of the log could not be removed");
        }
    }

    /// Moves one shard's tail into the store, not yet synced. `None` if there was nothing to move, or if the shard was
    /// replaced by a snapshot, or left this node, meanwhile.
    fn write(&self, replica: &Arc<Replica>) -> Result<Option<(Meta, bool)>, StoreError> {
        let (tail, meta, store) = {
            let mut state = replica.state();
            if !state.is_dirty() {
                return Ok(None);
            }
            let (tail, meta) = state.freeze();
            (tail, meta, Arc::clone(state.store()))
        };
        if tail.forgets {
            // Before the rows go: should the node end in between, they are gone for good at the next start but one.
            self.parts.erasure.note(replica.shard(), meta.applied.0)?;
        }
        let kept_ms = self.parts.limits.requests_kept_ms;
        let written = checkpoint::batch(&*store, &self.parts.registry, &tail, &meta, kept_ms)
            .and_then(|batch| store.write(batch));
        match written {
            Ok(()) => Ok(Some((meta, tail.forgets))),
            // A snapshot was installed meanwhile, and what this was written to has been dropped.
            Err(_) if !Arc::ptr_eq(replica.state().store(), &store) => Ok(None),
            Err(_) if !self.is_held(replica) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_held(&self, replica: &Arc<Replica>) -> bool {
        let held = self.parts.replicas.get(replica.shard());
        held.is_some_and(|held| Arc::ptr_eq(&held, replica))
    }

    fn snapshot(&mut self, shard: u32) {
        let Some(replica) = self.parts.replicas.get(shard) else {
            return self.parts.mailbox.input(Input::SnapshotGone { group: shard });
        };
        self.checkpoint(vec![Arc::clone(&replica)]);
        let store = Arc::clone(replica.state().store());
        let made = snapshot::write(&*store, &self.parts.snapshots, shard);
        self.snapshots.insert(shard, Instant::now());
        replica.meter().snapshots_made.fetch_add(1, Ordering::Relaxed);
        self.parts.mailbox.input(match made {
            Ok(meta) => Input::SnapshotBuilt {
                group: shard,
                position: SnapshotPosition {
                    index: meta.applied.0,
                    term: meta.applied.1,
                    members: meta.members,
                },
            },
            Err(error) => {
                tracing::warn!(shard, %error, "no snapshot could be made for a replica that needs one");
                if error.is_damage() {
                    self.parts.mailbox.found_damage(&error);
                }
                Input::SnapshotGone { group: shard }
            }
        });
    }

    fn remove_old_snapshots(&mut self) {
        let old = self.snapshots.extract_if(.., |_, made| made.elapsed() > SNAPSHOT_KEPT);
        for (shard, _) in old {
            self.parts.mailbox.input(Input::SnapshotGone { group: shard });
            if let Err(error) = snapshot::remove(&self.parts.snapshots, shard) {
                tracing::warn!(shard, %error, "an old snapshot could not be removed");
            }
        }
    }
}
