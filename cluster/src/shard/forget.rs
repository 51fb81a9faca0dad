//! What a shard's leader does to forget an entity, and what any replica says of how far it has.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{mailbox::Event, replica::Replica};
use crate::{
    entity::{EntityKey, activation::Undelivered},
    journal::{Forgotten, Record, Tombstone, Trimmed, forget::rows_of},
    replication::Failure,
    store::StoreError,
};

/// What of an entity a replica still has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remains {
    /// What it knows of the entity being forgotten.
    pub(crate) tombstone: Option<Tombstone>,
    /// How far it has applied its journal, and up to where that is on its device.
    pub(crate) applied: u64,
    pub(crate) checkpoint: u64,
    /// Records, effects, timers and the like of it in memory, and rows in the store.
    pub(crate) in_memory: u64,
    pub(crate) rows: u64,
}

impl Replica {
    /// Forgets an entity; `None` if there is nothing of it. One that is forgotten already stays as it was.
    pub(crate) async fn forget(self: &Arc<Self>, forgotten: Forgotten) -> Result<Option<Arc<Tombstone>>, Undelivered> {
        self.confirm().await?;
        let key = forgotten.entity.clone();
        {
            let state = self.state();
            let known = state.tombstone(&key).map_err(|error| failed(&error))?;
            let head = state.head(&key).map_err(|error| failed(&error))?;
            if known.is_some() || !state.has_anything_of(&key, head) {
                return Ok(known);
            }
        }
        self.propose(Record::Forgotten(Box::new(forgotten))).await?;
        self.state().tombstone(&key).map_err(|error| failed(&error))
    }

    /// Lets the beginning of a history go.
    pub(crate) async fn trim(self: &Arc<Self>, trimmed: Trimmed) -> Result<(), Undelivered> {
        self.propose(Record::Trimmed(Box::new(trimmed))).await
    }

    /// Proposes a record that is not an activation's; resolves when it is applied here.
    async fn propose(self: &Arc<Self>, record: Record) -> Result<(), Undelivered> {
        let term = self.leadership().as_ref().map(|leadership| leadership.term);
        let (done, fate) = oneshot::channel();
        self.mailbox().send(Event::Propose {
            group: self.shard(),
            term: term.ok_or(Undelivered::NotLeader)?,
            record: record.encode(),
            on_fate: Box::new(move |fate| {
                // Whoever asked may have gone.
                let _ = done.send(match fate {
                    Ok(_) => Ok(()),
                    Err(Failure::NotLeader) => Err(Undelivered::NotLeader),
                    Err(Failure::Unknown) => Err(Undelivered::Unknown),
                });
            }),
        });
        fate.await.unwrap_or(Err(Undelivered::Unknown))
    }

    /// What there still is of an entity here. Reads the store.
    pub(crate) fn remains(&self, key: &EntityKey) -> Result<Remains, StoreError> {
        let (mut remains, store) = {
            let state = self.state();
            let row = state.quarantined().row(key);
            let in_memory = state.page_parts(key, 0).in_memory()
                + state.outbox_of(key).count()
                + state.timers_of(key).len()
                + usize::from(row.is_some());
            let remains = Remains {
                tombstone: state.tombstone(key)?.map(|tombstone| (*tombstone).clone()),
                applied: state.meta().applied.0,
                checkpoint: state.checkpoint_index(),
                in_memory: in_memory as u64,
                rows: 0,
            };
            (remains, Arc::clone(state.store()))
        };
        remains.rows = rows_of(&*store, key)?;
        Ok(remains)
    }
}

fn failed(error: &StoreError) -> Undelivered {
    Undelivered::Failed(error.to_string())
}
