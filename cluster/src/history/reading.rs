//! What a running cluster is asked of its histories. Long ones come page by page, and are evolved page by page: none is ever in memory
//! as a whole, unless who asked wants it so.

use proto::history::v1 as pb;
use serde_json::Value;

use super::{
    AuditEntry, Base, Change, Head, History, HistoryError, Moment, Point, Recorded, diff, travel::Course, wire,
};
use crate::{
    cluster::{Cluster, Request},
    engine::{forget::receipt, history::Pages},
    entity::EntityKey,
    error::Error,
    shard::shard_of,
};

/// The longest reason for forgetting, in bytes.
pub const FORGET_REASON_LEN_MAX: usize = 500;

/// Why a cluster does not tell something of a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryFault {
    /// There is no such thing to tell.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// An entity's records, as they come.
pub struct HistoryReader {
    key: EntityKey,
    base: Base,
    head: Head,
    pages: Pages,
    ended: bool,
}

impl HistoryReader {
    /// Where the kept history begins.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// How far the entity had come when this was asked for: the last record that comes.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next records, in order, about 256 KiB of them; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Vec<Recorded>, Error>> {
        while !self.ended {
            let page = match self.pages.recv().await {
                Some(Ok(page)) => self.read(page),
                Some(Err(error)) => Err(error),
                None => break,
            };
            match page {
                Ok(records) if records.is_empty() => {}
                Ok(records) => return Some(Ok(records)),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// All of it; refused where there are more than `records_max` records.
    pub async fn whole(mut self, records_max: usize) -> Result<History, Error> {
        let mut records = Vec::new();
        while let Some(page) = self.next().await {
            records.extend(page?);
            if records.len() > records_max {
                return Err(Error::Invalid {
                    field: "history".to_owned(),
                    reason: format!(
                        "of {} has more than {records_max} records; read it page by page",
                        self.key
                    ),
                });
            }
        }
        Ok(History {
            base: self.base,
            records,
            head: self.head,
        })
    }

    fn read(&self, page: pb::RecordsPage) -> Result<Vec<Recorded>, Error> {
        let records = page.records.into_iter();
        let read: Result<Vec<_>, String> = records.map(|record| wire::recorded(&self.key, record)).collect();
        read.map_err(|reason| Error::Failed {
            entity: self.key.to_string(),
            reason,
        })
    }
}

impl Cluster {
    /// What was recorded of an entity, from its first kept record on, or from the one after `after`. Comes from the leader of the
    /// entity's shard; the request's time limits each wait, not the whole.
    pub async fn history(&self, key: &EntityKey, after: u64, request: &Request) -> Result<HistoryReader, Error> {
        self.records(key, after, true, request).await
    }

    async fn records(
        &self,
        key: &EntityKey,
        after_record: u64,
        with_state: bool,
        request: &Request,
    ) -> Result<HistoryReader, Error> {
        let records = pb::RecordsRequest {
            key: key.to_string(),
            after_record,
            with_state,
        };
        let mut pages = self.engine.history(key, records, request.timeout);
        let first = match pages.recv().await {
            Some(first) => first?,
            None => {
                return Err(Error::Unknown {
                    reason: "the node is stopping".to_owned(),
                });
            }
        };
        Ok(HistoryReader {
            key: key.clone(),
            base: first.base.map(Base::from).unwrap_or_default(),
            head: first.head.map(Head::from).unwrap_or_default(),
            pages,
            ended: false,
        })
    }

    /// An entity of any kind as it was at a point: its state as JSON.
    pub async fn state_at(
        &self,
        key: &EntityKey,
        point: Point,
        request: &Request,
    ) -> Result<Moment<Value>, HistoryFault> {
        let mut reader = self.records(key, 0, false, request).await?;
        let mut course = Course::begin(self.engine.registry(), key, &reader.base, point)?;
        let mut goes_on = true;
        while goes_on && let Some(records) = reader.next().await {
            let records = records?;
            // Evolving a page takes milliseconds, which no other call should wait for.
            let taken = tokio::task::spawn_blocking(move || {
                for record in &records {
                    if !course.take(record)? {
                        return Ok((course, false));
                    }
                }
                Ok((course, true))
            });
            (course, goes_on) = match taken.await {
                Ok(taken) => taken.map_err(HistoryFault::History)?,
                Err(_) => {
                    return Err(HistoryFault::Engine(Error::Unknown {
                        reason: "the node is stopping".to_owned(),
                    }));
                }
            };
        }
        let kind = course.kind().clone();
        let moment = course.end()?;
        let state = kind.state_json(&moment.state).map_err(|error| Error::Failed {
            entity: key.to_string(),
            reason: format!("its state cannot be shown: {error}"),
        })?;
        Ok(Moment {
            version: moment.version,
            seq: moment.seq,
            at_ms: moment.at_ms,
            state,
        })
    }

    /// What differs between an entity's states at two points.
    pub async fn diff(
        &self,
        key: &EntityKey,
        (before, after): (Point, Point),
        request: &Request,
    ) -> Result<(Moment<Value>, Moment<Value>, Vec<Change>), HistoryFault> {
        let before = self.state_at(key, before, request).await?;
        let after = self.state_at(key, after, request).await?;
        let changes = diff(&before.state, &after.state);
        Ok((before, after, changes))
    }

    /// Forgets an entity for good, for a reason of at most 500 bytes, which stays: its state, history, request ids, open effects, timers and quarantine are
    /// gone, and its id decides nothing any more. `None` if there is nothing of it. Idempotent: what was forgotten stays as it was.
    pub async fn forget(&self, key: &EntityKey, reason: &str, request: &Request) -> Result<Option<pb::Receipt>, Error> {
        if reason.len() > FORGET_REASON_LEN_MAX || reason.contains(char::is_control) {
            return Err(Error::Invalid {
                field: "reason".to_owned(),
                reason: format!("must be one line of at most {FORGET_REASON_LEN_MAX} bytes"),
            });
        }
        if self.shard_of(key) == self.engine.shards() {
            return Err(Error::Invalid {
                field: "key".to_owned(),
                reason: "is the cluster's own: it cannot do without".to_owned(),
            });
        }
        let tombstone = self.engine.forget(key, reason, request).await?;
        Ok(tombstone.as_ref().map(receipt))
    }

    /// Notes in the audit that somebody has looked at something; not durable at once, and only counted where it comes too fast.
    pub fn note_read(&self, entry: AuditEntry) {
        self.engine.note_read(entry);
    }

    /// Notes in the audit that somebody has changed something by hand, or tried to; resolves when that is durable, or after 2 s.
    pub async fn note_done(&self, entry: AuditEntry) {
        self.engine.note_done(entry).await;
    }

    /// What every node still has of an entity: the proof that it is forgotten.
    pub async fn remains(&self, key: &EntityKey) -> pb::ForgottenResponse {
        self.engine.all_remains(key).await
    }

    /// The shard that an entity lives in.
    pub fn shard_of(&self, key: &EntityKey) -> u32 {
        shard_of(key, self.engine.shards())
    }

    /// A stored event's name and its JSON.
    pub fn event_json(&self, key: &EntityKey, event: &[u8]) -> Result<(String, Value), Error> {
        let failed = |reason: String| Error::Failed {
            entity: key.to_string(),
            reason,
        };
        let kind = self.engine.registry().get(&key.kind);
        let kind = kind.ok_or_else(|| failed("this build does not know its kind".to_owned()))?;
        kind.event_json(event).map_err(|error| failed(error.to_string()))
    }
}
