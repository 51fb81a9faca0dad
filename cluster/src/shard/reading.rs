//! What a replica knows of itself for reads: how far it has come, how new it is, what is true now where it leads, and who
//! waits for an entity's next event.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{SemaphorePermit, oneshot};

use super::{
    freshness::Freshness,
    mailbox::Event,
    replica::{MAILBOX_QUARTERS, Replica},
};
use crate::{
    clock::steady_ns,
    entity::{
        EntityKey,
        activation::{ActivationMessage, ReadState, Undelivered},
    },
    journal::{Decided, Shard, history::whole_history},
    store::StoreError,
    token::VersionToken,
};

/// Waits for an entity's next event; forgotten when it is dropped.
pub(crate) struct Watch<'a> {
    replica: &'a Replica,
    key: &'a EntityKey,
    event: oneshot::Receiver<()>,
}

impl Watch<'_> {
    /// Resolves with the event.
    pub(crate) async fn next(&mut self) {
        // The sender goes only after it has sent.
        let _ = (&mut self.event).await;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.event.close();
        let mut watchers = self.replica.watchers.lock();
        if let Some(of_key) = watchers.get_mut(self.key) {
            of_key.retain(|watcher| !watcher.is_closed());
            if of_key.is_empty() {
                watchers.remove(self.key);
            }
        }
    }
}

impl Replica {
    /// The position of the last applied entry.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// The journal's mark; 0 before its first leader has drawn one.
    pub(crate) fn mark(&self) -> u64 {
        self.mark.load(Ordering::SeqCst)
    }

    /// The token of a position.
    pub(crate) fn token_of(&self, index: u64) -> VersionToken {
        VersionToken {
            shard: self.shard,
            index,
            mark: self.mark(),
        }
    }

    /// Waits for room to read from the store.
    pub(crate) async fn begin_recovery(&self) -> SemaphorePermit<'_> {
        self.surroundings.live.begin_recovery().await
    }

    /// How new the state is.
    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Takes note of how far the state has come; while it is held, so that nobody sees it without.
    pub(super) fn reached(&self, state: &Shard) {
        self.mark.store(state.meta().mark, Ordering::SeqCst);
        self.applied.store(state.meta().applied.0, Ordering::SeqCst);
    }

    /// The state of an entity, as it is at some time after the call; waits for what it rests on to be committed.
    pub(crate) async fn read(self: &Arc<Self>, key: &EntityKey) -> Result<ReadState, Undelivered> {
        self.confirm().await?;
        let is_wanted = match self.leadership.lock().as_mut() {
            // A read of one that has failed is counted where its failures are.
            Some(leadership) if !leadership.failures.is_empty() => true,
            Some(leadership) => leadership.population.contains(key) || leadership.population.is_wanted(key),
            None => return Err(Undelivered::NotLeader),
        };
        if !is_wanted {
            // Everything that anyone was told of is applied here. A look at a cold entity does not make it a hot one.
            let (loaded, live) = Arc::clone(self)
                .recover(key.clone())
                .await
                .map_err(Undelivered::Failed)?;
            if let Some(tombstone) = &loaded.forgotten {
                return Err(Undelivered::Forgotten(tombstone.text()));
            }
            let live = live.map_err(|fault| Undelivered::Failed(fault.reason))?;
            self.surroundings.live.read_cold.fetch_add(1, Ordering::Relaxed);
            return Ok(ReadState {
                head: loaded.head,
                state: live.snapshot(),
            });
        }
        let (reader, answer) = oneshot::channel();
        self.deliver(key, ActivationMessage::Read(reader), MAILBOX_QUARTERS)?;
        answer.await.unwrap_or(Err(Undelivered::NotLeader))
    }

    /// Makes sure that this node leads and knows all that is committed, without writing anything.
    pub(crate) async fn confirm(&self) -> Result<(), Undelivered> {
        let asked_ns = steady_ns();
        let (done, confirmed) = oneshot::channel();
        self.surroundings.mailbox.send(Event::Read {
            group: self.shard,
            done,
        });
        match confirmed.await {
            Ok(true) => {
                self.freshness.prove(asked_ns);
                Ok(())
            }
            Ok(false) | Err(_) => Err(Undelivered::NotLeader),
        }
    }

    /// Begins to wait for the entity's next event.
    pub(crate) fn watch<'a>(&'a self, key: &'a EntityKey) -> Watch<'a> {
        let (sender, event) = oneshot::channel();
        self.watchers.lock().entry(key.clone()).or_default().push(sender);
        Watch {
            replica: self,
            key,
            event,
        }
    }

    /// Whether this node leads the shard, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.lock().is_some()
    }

    /// Every kept record of an entity, and the version before the first of them.
    pub(crate) fn history(&self, key: &EntityKey) -> Result<(u64, Vec<Arc<Decided>>), StoreError> {
        let loading = self.state().begin_load(key);
        let base = loading.extent()?.base;
        let (store, tail) = self.state().history_parts(key, base.seq + 1);
        Ok((base.version, whole_history(&*store, tail, key, base.seq + 1)?))
    }
}
