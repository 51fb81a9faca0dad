//! Reads that any replica may answer, from what it has applied: no older than a bound, or at least as new as a version
//! token, or both. A replica that cannot show it does not answer.
//!
//! An entity that is read like this is not brought to life: its state is put together and dropped again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{freshness::Proof, mailbox::Event, replica::Replica};
use crate::{
    clock::steady_ns,
    entity::{EntityKey, activation::ReadState},
    token::VersionToken,
};

/// A question for all that is committed is given up after so long, and another one may be asked.
const QUESTION_MAX: Duration = Duration::from_secs(2);

/// What a read asks of whoever answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    /// How old the state may be; `None` where only the token counts.
    pub(crate) bound: Option<Duration>,
    /// How long a replica may wait until it can answer.
    pub(crate) patience: Duration,
}

/// An entity as a replica sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) state: ReadState,
    /// The state has everything that was acknowledged so long ago, or longer; `None` where that is not known.
    pub(crate) age: Option<Duration>,
    /// A position of the journal that holds everything of the state.
    pub(crate) token: VersionToken,
}

/// Why a replica does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotHere {
    /// It cannot show that it is new enough.
    TooOld,
    /// The token is not one of this journal.
    Foreign(String),
    /// The entity's stored form cannot be read.
    Failed(String),
    /// The entity is forgotten.
    Forgotten(String),
}

impl Replica {
    /// Reads an entity from what this replica has applied.
    pub(crate) async fn read_behind(
        self: &Arc<Self>,
        key: &EntityKey,
        behind: Behind,
        after: Option<VersionToken>,
    ) -> Result<Seen, NotHere> {
        let until = Instant::now() + behind.patience;
        if let Some(token) = after {
            self.belongs(token).map_err(NotHere::Foreign)?;
            if !self.reaches(token.index, until).await {
                return Err(NotHere::TooOld);
            }
        }
        loop {
            if let Some(bound) = behind.bound
                && !self.freshness().within(bound, until, || self.ask_for_all()).await
            {
                return Err(NotHere::TooOld);
            }
            let seen = self.see(key).await?;
            // Looked at last: putting the state together takes time too.
            match (behind.bound, seen.age) {
                (Some(bound), Some(age)) if age > bound => {}
                (Some(_), None) => return Err(NotHere::TooOld),
                _ => return Ok(seen),
            }
            if Instant::now() >= until {
                return Err(NotHere::TooOld);
            }
        }
    }

    /// An entity from what is applied now. So many at once as the node allows, and never on a thread that others wait for.
    async fn see(self: &Arc<Self>, key: &EntityKey) -> Result<Seen, NotHere> {
        let _permit = self.live().begin_recovery().await;
        loop {
            // Before the state is taken: what is applied meanwhile makes it newer, never older.
            let proof = self.freshness().proof();
            let loading = self.state().begin_load(key);
            let store = Arc::clone(loading.store());
            let is_in_memory = loading.is_in_memory();
            let (replica, id) = (Arc::clone(self), key.clone());
            let look = move || {
                let loaded = loading.look().map_err(|error| NotHere::Failed(error.to_string()))?;
                if let Some(tombstone) = &loaded.forgotten {
                    return Err(NotHere::Forgotten(tombstone.text()));
                }
                let live = replica.revive(&id, &loaded);
                let live = live.map_err(|fault| NotHere::Failed(fault.reason))?;
                Ok(ReadState {
                    head: loaded.head,
                    state: live.snapshot(),
                })
            };
            let state = if is_in_memory {
                look()
            } else {
                let looking = tokio::task::spawn_blocking(look).await;
                looking.unwrap_or_else(|_| Err(NotHere::Failed("the node is stopping".to_owned())))
            };
            // A snapshot that was installed meanwhile takes the rows of the store before it away.
            if Arc::ptr_eq(self.state().store(), &store) {
                self.live().read_cold.fetch_add(1, Ordering::Relaxed);
                return Ok(Seen {
                    state: state?,
                    age: proof.map(Proof::age),
                    token: self.token_of(self.applied()),
                });
            }
        }
    }

    /// Whether a token is one of this journal; why not if it is none.
    pub(crate) fn belongs(&self, token: VersionToken) -> Result<(), String> {
        let mark = self.mark();
        // A journal has no mark before its first leader's first record.
        if token.mark == mark || token.mark == 0 || mark == 0 {
            return Ok(());
        }
        Err(format!(
            "is one of another cluster, or from before this one was restored: shard {} has another journal now",
            token.shard
        ))
    }

    /// Whether a token is one that this journal can have given; for a leader that has applied all that is committed.
    pub(crate) fn has_given(&self, token: VersionToken) -> Result<(), String> {
        self.belongs(token)?;
        if token.index <= self.applied() {
            return Ok(());
        }
        Err(format!(
            "names a position that shard {} has never reached: it is one of another cluster, or from before this one was \
             restored",
            token.shard
        ))
    }

    /// Waits until a position is applied, at most until `until`; says whether it is.
    pub(crate) async fn reaches(self: &Arc<Self>, index: u64, until: Instant) -> bool {
        if self.applied() >= index {
            return true;
        }
        let reached = self.freshness().wait_for(index);
        // Looked at again: it may have been reached in between.
        if self.applied() >= index {
            return true;
        }
        self.freshness()
            .until_reached(reached, until, || self.ask_for_all())
            .await
    }

    /// Asks the leader for all that is committed, unless a question is under way.
    pub(crate) fn ask_for_all(self: &Arc<Self>) {
        if !self.freshness().begin() {
            return;
        }
        let replica = Arc::clone(self);
        tokio::spawn(async move {
            let asked_ns = steady_ns();
            let (done, caught_up) = tokio::sync::oneshot::channel();
            replica.mailbox().send(Event::Catch {
                group: replica.shard(),
                done,
            });
            let is_caught_up = matches!(timeout(QUESTION_MAX, caught_up).await, Ok(Ok(true)));
            replica.freshness().end(is_caught_up.then_some(asked_ns));
        });
    }
}
