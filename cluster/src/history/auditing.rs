//! What the audit tells: the entries of all nodes, and of one entity the records that say who asked.

use proto::history::v1 as pb;

use super::{Cause, Recorded, audit};
use crate::{
    cluster::{Cluster, Request},
    codec,
    entity::{Entity, EntityKey},
    error::Error,
};

/// Entries of one answer, and those of one that asks for no number.
const ENTRIES_LEN_MAX: usize = 10_000;
const ENTRIES_LEN_DEFAULT: usize = 1_000;

impl Cluster {
    /// Who has looked at what and who has changed what by hand; with a key also who sent the entity which command.
    pub async fn audit(
        &self,
        key: Option<&EntityKey>,
        wanted: &pb::AuditRequest,
        request: &Request,
    ) -> Result<pb::AuditResponse, Error> {
        let limit = match wanted.limit as usize {
            0 => ENTRIES_LEN_DEFAULT,
            limit => limit.min(ENTRIES_LEN_MAX),
        };
        let subject = key.map(ToString::to_string);
        let mut latest = Latest::new(limit, wanted);
        let mut answer = pb::AuditResponse::default();
        for shard in 0..self.engine.shards() {
            match self.states(shard).await {
                Ok(states) => {
                    for state in states {
                        answer.missed += state.missed;
                        let entries = state.entries.into_iter();
                        let of_key = entries.filter(|entry| subject.as_ref().is_none_or(|key| *key == entry.subject));
                        of_key.for_each(|entry| latest.take(noted(entry)));
                    }
                }
                Err(_) => answer.unavailable_shards.push(shard),
            }
        }
        if let Some(key) = key {
            match self.history(key, 0, request).await {
                Ok(mut records) => {
                    while let Some(page) = records.next().await {
                        page?.into_iter().for_each(|record| latest.take(recorded(key, record)));
                    }
                }
                // Who forgot it is among what was done by hand.
                Err(Error::Forgotten { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        answer.entries = latest.end();
        Ok(answer)
    }

    /// What the nodes have noted whose entity lives in a shard.
    async fn states(&self, shard: u32) -> Result<Vec<audit::State>, Error> {
        let mut pages = self.engine.scan(shard, audit::Audit::KIND, "").await?;
        let mut states = Vec::new();
        while let Some(page) = pages.recv().await {
            for row in page?.rows {
                let state = codec::decode(&row.state).map_err(|error| Error::Failed {
                    entity: format!("{}/{}", row.kind, row.id),
                    reason: error.to_string(),
                })?;
                states.push(state);
            }
        }
        Ok(states)
    }
}

/// The latest of the entries that are wanted.
struct Latest<'a> {
    limit: usize,
    wanted: &'a pb::AuditRequest,
    entries: Vec<pb::AuditEntry>,
}

impl<'a> Latest<'a> {
    fn new(limit: usize, wanted: &'a pb::AuditRequest) -> Self {
        Self {
            limit,
            wanted,
            entries: Vec::new(),
        }
    }

    fn take(&mut self, entry: pb::AuditEntry) {
        let who = &self.wanted.asked_by;
        let is_theirs = who.is_empty()
            || entry.asked_by == *who
            || (entry.asked_by.split_once('/')).is_some_and(|(tenant, caller)| tenant == who || caller == who);
        if !is_theirs || entry.at_unix_ms < self.wanted.since_unix_ms {
            return;
        }
        self.entries.push(entry);
        // A long history is never held whole.
        if self.entries.len() >= self.limit.saturating_mul(4) {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        self.entries.sort_by_key(|entry| (entry.at_unix_ms, entry.record));
        let over = self.entries.len().saturating_sub(self.limit);
        self.entries.drain(..over);
    }

    fn end(mut self) -> Vec<pb::AuditEntry> {
        self.shorten();
        self.entries
    }
}

fn noted(entry: audit::AuditEntry) -> pb::AuditEntry {
    pb::AuditEntry {
        at_unix_ms: entry.at_ms,
        asked_by: entry.asked_by,
        action: entry.action,
        subject: entry.subject,
        request_id: entry.request_id,
        trace_id: entry.trace_id,
        failure: entry.failure,
        record: 0,
    }
}

fn recorded(key: &EntityKey, record: Recorded) -> pb::AuditEntry {
    let failure = match (&record.skipped, &record.reply) {
        (Some(reason), _) => format!("skipped: {reason}"),
        (None, Err(_)) => "rejected".to_owned(),
        (None, Ok(_)) => String::new(),
    };
    pb::AuditEntry {
        at_unix_ms: record.at_ms,
        asked_by: record.asked_by,
        action: match record.cause {
            Cause::Call => "command".to_owned(),
            Cause::Effect => "effect".to_owned(),
            Cause::Outcome(effect) => format!("outcome of {effect}"),
            Cause::Timer { name, .. } => format!("timer {name}"),
        },
        subject: key.to_string(),
        request_id: record.request_id,
        trace_id: if record.trace.is_some() {
            record.trace.trace_hex()
        } else {
            String::new()
        },
        failure,
        record: record.seq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_those_who_are_asked_for_are_kept() {
        let wanted = pb::AuditRequest {
            asked_by: "shop".to_owned(),
            since_unix_ms: 10,
            ..pb::AuditRequest::default()
        };
        let mut latest = Latest::new(3, &wanted);
        for (at, who) in (0..100).flat_map(|n| [(n, "shop/ann"), (n, "other/bob"), (n, "shop")]) {
            latest.take(pb::AuditEntry {
                at_unix_ms: at,
                asked_by: who.to_owned(),
                ..pb::AuditEntry::default()
            });
        }
        let kept: Vec<_> = latest
            .end()
            .into_iter()
            .map(|entry| (entry.at_unix_ms, entry.asked_by))
            .collect();
        let kept: Vec<_> = kept.iter().map(|(at, who)| (*at, who.as_str())).collect();
        assert_eq!(kept, [(98, "shop"), (99, "shop/ann"), (99, "shop")]);
    }
}
