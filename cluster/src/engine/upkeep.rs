//! What goes on beside the calls: snapshots to build and fetch, leaders to bring home, replicas to replace.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use proto::cluster::v1 as pb;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::Engine;
use crate::{
    config::NodeId,
    membership::Map,
    placement::{self, Move, View},
    replication::{GroupStatus, Input, Task},
    shard::{checkpointer, end_node, mailbox::Event, snapshot},
    store::StateStore,
};

/// How long the next part of a snapshot may take to come.
const CHUNK_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at what should move.
const PLAN_INTERVAL: Duration = Duration::from_millis(250);

impl Engine {
    /// Does what the driver needs done.
    pub(super) async fn do_tasks(self: Arc<Self>, mut queue: mpsc::UnboundedReceiver<Task>) {
        while let Some(task) = queue.recv().await {
            match task {
                Task::BuildSnapshot { group } => {
                    if let Some(checkpoints) = self.checkpoints.get() {
                        // The thread ends only with the node.
                        let _ = checkpoints.send(checkpointer::Request::Snapshot(group));
                    }
                }
                Task::FetchSnapshot {
                    group,
                    source,
                    index,
                    message,
                } => {
                    let engine = Arc::clone(&self);
                    tokio::spawn(async move {
                        let input = match engine.fetch(group, source, index).await {
                            Ok(generation) => Input::SnapshotFetched {
                                group,
                                generation,
                                message,
                            },
                            Err(reason) => {
                                tracing::warn!(group, source, reason, "a snapshot could not be fetched");
                                Input::FetchFailed { group }
                            }
                        };
                        engine.mailbox.input(input);
                    });
                }
                Task::Closed { group } => {
                    let engine = Arc::clone(&self);
                    tokio::task::spawn_blocking(move || engine.forget_replica(group));
                }
                Task::DropGeneration { group, generation } => {
                    let db = Arc::clone(&self.db);
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = db.drop_shard(group, generation) {
                            tracing::warn!(group, %error, "an old state could not be removed");
                        }
                    });
                }
            }
        }
    }

    /// Fetches a snapshot's rows under a new generation, down to the device.
    async fn fetch(&self, group: u32, source: NodeId, index: u64) -> Result<u64, String> {
        let peer = self.links.peer(source).ok_or("the source is no member")?;
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let store = self.db.shard(group, generation).map_err(|error| error.to_string())?;
        let request = pb::FetchSnapshotRequest { shard: group, index };
        let fetched = async {
            let stream = peer.client.clone().fetch_snapshot(request).await;
            let mut chunks = stream.map_err(|status| status.message().to_owned())?.into_inner();
            let mut is_whole = false;
            while let Some(chunk) = timeout(CHUNK_MAX, chunks.next())
                .await
                .map_err(|_| format!("no chunk came for {} s", CHUNK_MAX.as_secs()))?
            {
                let chunk = chunk.map_err(|status| status.message().to_owned())?;
                is_whole = chunk.last;
                let store = Arc::clone(&store);
                blocking(move || snapshot::store_chunk(&*store, chunk).map_err(|error| error.to_string())).await?;
            }
            let db = Arc::clone(&self.db);
            blocking(move || db.sync().map_err(|error| error.to_string())).await?;
            let is_asked =
                snapshot::is_complete(&*store as &dyn StateStore, index).map_err(|error| error.to_string())?;
            if !(is_whole && is_asked) {
                return Err("it ended too early".to_owned());
            }
            self.note_forgotten(group, &*store).map_err(|error| error.to_string())?;
            Ok(generation)
        };
        let outcome = fetched.await;
        if outcome.is_err()
            && let Err(error) = self.db.drop_shard(group, generation)
        {
            tracing::warn!(group, %error, "an unfinished state could not be removed");
        }
        outcome
    }

    /// The groups of this node; `None` once it has stopped.
    pub(crate) async fn group_status(&self) -> Option<Vec<GroupStatus>> {
        if !self.has_begun.load(Ordering::Acquire) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.mailbox.send(Event::Status(sender));
        receiver.await.ok()
    }

    /// Looks again and again at what should move, and begins the next move of each group.
    pub(super) async fn keep_planning(self: Arc<Self>) {
        let mut changes = self.map.subscribe();
        while let Some(groups) = self.group_status().await {
            let map = self.map();
            let view = self.view(&map);
            self.fleet.set_heirs(self.heirs(&map, &groups));
            for group in groups {
                if self.leaving.load(Ordering::Relaxed) {
                    return;
                }
                match placement::next_move(&group, self.node(), map.home(group.group), &view) {
                    Some(Move::Transfer { group, to }) => {
                        tracing::debug!(group, to, "leadership goes elsewhere");
                        self.mailbox.input(Input::Transfer { group, to });
                    }
                    Some(Move::Change { group, changes }) => {
                        tracing::info!(group, ?changes, "the members of a shard change");
                        self.mailbox.input(Input::ChangeMembers { group, changes });
                    }
                    None => {}
                }
            }
            tokio::select! {
                () = sleep(PLAN_INTERVAL) => {}
                // Its sender lives as long as the engine.
                _ = changes.changed() => {}
            }
        }
    }

    fn view(&self, map: &Map) -> View {
        let peers = self.links.all().into_iter();
        View {
            can_lead: peers
                .filter(|(_, peer)| peer.can_lead())
                .map(|(node, _)| node)
                .collect(),
            is_unwell: self.unwell().is_some(),
            reads_less: self.reads_less(map).into_iter().collect(),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => end_node("the state store panicked; the panic above says where"),
        Err(error) => Err(error.to_string()),
    }
}
