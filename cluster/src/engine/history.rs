//! How an entity's history is read: from the leader of its shard, page by page, and on from there when the leader changes.

use std::{sync::Arc, time::Duration};

use proto::history::v1 as pb;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::Engine;
use crate::{
    entity::EntityKey,
    error::Error,
    history::Head,
    shard::{replica::Replica, shard_of},
    store::StoreError,
    transport::outcome::{error_of, relay_history},
};

/// Histories that a node reads at one time, as a leader. More are asked to come again.
pub(crate) const HISTORIES_IN_FLIGHT_MAX: usize = 16;
/// Pages that may wait for whoever asked.
const PAGES_AHEAD_LEN: usize = 2;
/// Before a leader is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// What callers are told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A larger state is not sent along with the records.
const STATE_BYTES_MAX: usize = 4 << 20;

/// Pages on their way to whoever asked.
pub(crate) type Pages = mpsc::Receiver<Result<pb::RecordsPage, Error>>;

impl Engine {
    /// The records of an entity after a number, up to the last one that there is now; the first page says how far they go. Follows
    /// the leader; gives up when nothing has come for as long as the caller waits.
    pub(crate) fn history(self: &Arc<Self>, key: &EntityKey, request: pb::RecordsRequest, patience: Duration) -> Pages {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD_LEN);
        let (engine, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move {
            if let Err(error) = engine.follow(&key, request, patience, &sender).await {
                // Whoever asked may have gone.
                let _ = sender.send(Err(error)).await;
            }
        });
        pages
    }

    async fn follow(
        self: &Arc<Self>,
        key: &EntityKey,
        mut request: pb::RecordsRequest,
        patience: Duration,
        sender: &mpsc::Sender<Result<pb::RecordsPage, Error>>,
    ) -> Result<(), Error> {
        if self.registry().get(&key.kind).is_none() {
            return Err(Error::Invalid {
                field: "kind".to_owned(),
                reason: format!("{:?} is not a kind of entity this cluster carries", key.kind),
            });
        }
        let mut head: Option<pb::Head> = None;
        let mut since = Instant::now();
        loop {
            let mut pages = self.from_leader(key, request.clone());
            let ended = loop {
                let page = match timeout(patience, pages.recv()).await {
                    Ok(Some(Ok(page))) => page,
                    Ok(Some(Err(error))) => break Some(error),
                    Ok(None) => break None,
                    Err(_) => return Err(Error::TimedOut { after: patience }),
                };
                since = Instant::now();
                if let Some(last) = page.records.last() {
                    request.after_record = last.record;
                }
                // After a change of leaders the extent comes again; what was said first counts.
                let page = match &head {
                    None => {
                        head.clone_from(&page.head);
                        page
                    }
                    Some(head) => until(head.record, page),
                };
                if sender.send(Ok(page)).await.is_err() {
                    return Ok(());
                }
            };
            let is_whole = head.as_ref().is_some_and(|head| request.after_record >= head.record);
            match ended {
                None => return Ok(()),
                Some(_) if is_whole => return Ok(()),
                Some(error) if !error.is_retryable() || since.elapsed() >= patience => return Err(error),
                Some(_) => sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// The same from the node that leads now.
    fn from_leader(self: &Arc<Self>, key: &EntityKey, request: pb::RecordsRequest) -> Pages {
        let shard = shard_of(key, self.shards());
        let (sender, pages) = mpsc::channel(PAGES_AHEAD_LEN);
        let leader = self.route(shard).leader;
        let (engine, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move {
            let ended = match leader {
                Some(leader) if leader != engine.node() => match engine.links.peer(leader) {
                    Some(peer) => {
                        let mut client = peer.client.clone();
                        match client.history(request).await {
                            Ok(answer) => relay_history(answer.into_inner(), &sender).await,
                            Err(status) => Err(error_of(&status)),
                        }
                    }
                    None => Err(no_leader(shard)),
                },
                _ => engine.history_here(&key, &request, &sender).await,
            };
            if let Err(error) = ended {
                // Whoever asked may have gone.
                let _ = sender.send(Err(error)).await;
            }
        });
        pages
    }

    /// Sends the records of an entity whose shard this node leads.
    pub(crate) async fn history_here(
        self: &Arc<Self>,
        key: &EntityKey,
        request: &pb::RecordsRequest,
        sender: &mpsc::Sender<Result<pb::RecordsPage, Error>>,
    ) -> Result<(), Error> {
        let shard = shard_of(key, self.shards());
        let replica = self.replica(shard).ok_or_else(|| no_leader(shard))?;
        let _place = self.histories.try_acquire().map_err(|_| Error::Overloaded {
            what: format!("histories read on node {} at one time", self.node()),
            retry_after: RETRY_AFTER,
        })?;
        replica.confirm().await.map_err(|_| no_leader(shard))?;
        let first = beginning(&replica, key, request.with_state).await?;
        let base = first.base.as_ref().map_or(0, |base| base.record);
        let up_to = first.head.as_ref().map_or(0, |head| head.record);
        if sender.send(Ok(first)).await.is_err() {
            return Ok(());
        }
        let mut after = request.after_record.max(base);
        while after < up_to {
            let parts = replica.state().page_parts(key, after);
            let records = on_the_side(&replica, move || parts.read(up_to)).await?;
            let Some(last) = records.last() else {
                // A checkpoint has moved them into the store just now.
                sleep(Duration::from_millis(1)).await;
                continue;
            };
            after = last.seq;
            let page = pb::RecordsPage {
                records: records.into_iter().map(pb::Record::from).collect(),
                ..pb::RecordsPage::default()
            };
            if sender.send(Ok(page)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The first page: where the history begins, how far it goes, and the state there.
async fn beginning(replica: &Arc<Replica>, key: &EntityKey, with_state: bool) -> Result<pb::RecordsPage, Error> {
    let loading = replica.state().begin_load(key);
    let (reader, id) = (Arc::clone(replica), key.clone());
    on_the_side(replica, move || {
        let extent = loading.extent()?;
        if let Some(tombstone) = extent.forgotten {
            return Ok(Err(Error::Forgotten {
                entity: id.to_string(),
                reason: tombstone.text(),
            }));
        }
        let mut head = Head {
            seq: extent.head.seq,
            version: extent.head.version,
            state: None,
        };
        if with_state {
            let loaded = loading.look()?;
            let live = reader.revive(&id, &loaded).ok();
            let state = live.filter(|_| loaded.head.seq == head.seq).map(|live| live.snapshot());
            head.state = state.filter(|state| state.len() <= STATE_BYTES_MAX);
        }
        Ok(Ok(pb::RecordsPage {
            base: Some(extent.base.into()),
            head: Some(head.into()),
            records: Vec::new(),
        }))
    })
    .await?
}

/// Reads the store on a thread that nobody else waits for, when the node has room for it.
async fn on_the_side<T: Send + 'static>(
    replica: &Arc<Replica>,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    let _permit = replica.begin_recovery().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Failed {
            entity: format!("shard {}", replica.shard()),
            reason: error.to_string(),
        }),
        Err(_) => Err(no_leader(replica.shard())),
    }
}

fn until(last: u64, mut page: pb::RecordsPage) -> pb::RecordsPage {
    page.records.retain(|record| record.record <= last);
    pb::RecordsPage {
        records: page.records,
        ..pb::RecordsPage::default()
    }
}

fn no_leader(shard: u32) -> Error {
    Error::Unavailable {
        reason: format!("shard {shard} has no leader that can be reached"),
        retry_after: RETRY_AFTER,
    }
}
