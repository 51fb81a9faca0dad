//! Lets the beginning of histories go where their kind keeps less than everything: for the shards that this node leads, a little at a
//! time, by records of the journal.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Engine;
use crate::{
    entity::EntityKey,
    history::{Base, Point, Retention, travel::Course},
    journal::Trimmed,
    shard::replica::Replica,
};

/// Entities that are looked at before the task rests.
const PAGE_LEN: usize = 100;
/// How long it rests after each page.
const REST: Duration = Duration::from_millis(50);
/// Records that one entity is rid of at a time; the next round takes more.
const TRIMMED_RECORDS_MAX: u64 = 8_192;
/// A part that is smaller than this, in records, is left until there is more, unless it is a quarter of what is kept.
const WORTH_RECORDS: u64 = 128;

impl Engine {
    /// Goes over the entities of the kinds that keep less than everything, for as long as the node runs.
    pub(super) async fn keep_retention(self: Arc<Self>) {
        let interval = Duration::from_millis(self.limits().retention_interval_ms.max(1));
        loop {
            tokio::select! {
                () = sleep(interval) => {}
                () = self.until_stopping() => return,
            }
            for kind in self.registry().names() {
                let retention = self.registry().retention(kind);
                if retention.is_for_ever() {
                    continue;
                }
                for shard in 0..=self.shards() {
                    let Some(replica) = self.replica(shard).filter(|replica| replica.leads()) else {
                        continue;
                    };
                    self.sweep(&replica, kind, retention).await;
                }
            }
        }
    }

    async fn sweep(self: &Arc<Self>, replica: &Arc<Replica>, kind: &'static str, retention: Retention) {
        let mut after: Option<EntityKey> = None;
        while replica.leads() && !self.is_stopping() {
            let (engine, reader, last) = (Arc::clone(self), Arc::clone(replica), after.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let keys = reader.state().keys_after(kind, last.as_ref(), PAGE_LEN).ok()?;
                let last = keys.last().cloned()?;
                let due = keys.iter().filter_map(|key| engine.due(&reader, key, retention));
                Some((last, due.collect::<Vec<_>>()))
            });
            let Ok(Some((last, due))) = looked.await else { return };
            for trimmed in due {
                let entity = trimmed.entity.clone();
                if let Err(reason) = replica.trim(trimmed).await {
                    tracing::debug!(%entity, ?reason, "the beginning of a history was not let go; the next round tries again");
                }
            }
            after = Some(last);
            sleep(REST).await;
        }
    }

    /// What is to go of an entity's history now, if it is worth while. Reads the store.
    fn due(&self, replica: &Arc<Replica>, key: &EntityKey, retention: Retention) -> Option<Trimmed> {
        let limits = self.limits();
        let loading = replica.state().begin_load(key);
        let extent = loading.extent().ok()?;
        if extent.forgotten.is_some() || extent.head.seq == extent.base.seq {
            return None;
        }
        let needed_from = loading.first_taken_effect().ok()?;
        let letting = retention.letting(extent.head.seq, replica.now_ms(), limits.requests_kept_ms, needed_from);
        // Nearly all entities have nothing to let go, and their first record says so.
        let first = replica
            .state()
            .page_parts(key, extent.base.seq)
            .read(extent.base.seq + 1)
            .ok()?;
        first
            .first()
            .filter(|record| letting.lets_go(record.seq, record.at_ms))?;
        let mut course = Course::begin(self.registry(), key, &extent.base, Point::Version(u64::MAX)).ok()?;
        let mut after = extent.base.seq;
        let up_to = extent.head.seq.min(extent.base.seq + TRIMMED_RECORDS_MAX);
        'pages: while after < up_to {
            let records = replica.state().page_parts(key, after).read(up_to).ok()?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                if !letting.lets_go(record.seq, record.at_ms) {
                    break 'pages;
                }
                course.take(record).ok()?;
                after = record.seq;
            }
        }
        let gone = after - extent.base.seq;
        let left = extent.head.seq - after;
        if gone == 0 || (gone < WORTH_RECORDS && gone < left / 4) {
            return None;
        }
        let base: Base = course.here();
        (base
            .state
            .as_ref()
            .is_some_and(|state| state.len() <= limits.value_bytes_max))
        .then(|| Trimmed {
            entity: key.clone(),
            base,
        })
    }
}
