//! Quarantine, as the journal holds it: which entities are put aside, for which command, and who has tried to mend it.
//!
//! A row is part of the shard's replicated state. It is a function of the records alone: a
//! [`Record::Quarantined`](super::Record::Quarantined) makes it, a decided record with a [`Lift`] takes the quarantine
//! away and leaves the row for its history.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Chain, EffectId, Firing, Origin};
use crate::{
    entity::{EntityKey, RequestId},
    trace::TraceContext,
};

/// Bytes of all quarantined commands of a shard, with what is told of them. Past it no further entity is quarantined: it
/// goes on failing behind its backoff and its breaker.
pub(crate) const QUARANTINE_BYTES_MAX: usize = 16 << 20;
/// Attempts to lift a quarantine that are remembered for one entity.
pub(crate) const ATTEMPTS_KEPT_MAX: usize = 16;
/// Entities of a shard whose lifted quarantine is remembered; past it the one lifted longest ago is forgotten.
pub(crate) const LIFTED_ROWS_MAX: usize = 1_024;
/// What a row takes beside its texts and its command, about.
const ROW_BYTES: usize = 256;

/// Where an entity failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// It could not be brought back from its events; the command is the one that asked for it.
    Revive,
    /// It could not decide the command, or not take its events.
    Decide,
    /// It could not turn the outcome of its own effect into a command; the command is the encoded outcome.
    Resume,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Revive => "revive",
            Self::Decide => "decide",
            Self::Resume => "resume",
        }
    }
}

/// An entity failed again and again at one command and is put aside, or a retry of that command has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quarantined {
    pub(crate) entity: EntityKey,
    /// The number that the command's record would have had.
    pub(crate) seq: u64,
    pub(crate) request: RequestId,
    pub(crate) command: Bytes,
    /// The effect whose outcome the command was.
    pub(crate) acknowledges: Option<EffectId>,
    pub(crate) stage: Stage,
    pub(crate) reason: String,
    /// File, line and column of a panic.
    pub(crate) place: String,
    pub(crate) backtrace: String,
    /// Like failures, and when the first of them was.
    pub(crate) count: u32,
    pub(crate) since_ms: u64,
    /// When this was recorded.
    pub(crate) at_ms: u64,
    pub(crate) trace: TraceContext,
    /// The request that retried the command, where this is a failed retry.
    pub(crate) retry: Option<RequestId>,
    /// The firing of a timer that the command was.
    #[serde(default)]
    pub(crate) fires: Option<Firing>,
    /// What travelled with the command, so that whoever repeats it is known.
    #[serde(default)]
    pub(crate) fingerprint: u64,
    #[serde(default)]
    pub(crate) chain: Option<Chain>,
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
    /// Who asked for the command.
    #[serde(default)]
    pub(crate) asked_by: Option<Arc<str>>,
}

/// What a decided record says that lifts its entity's quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lift {
    /// The request that asked for it.
    pub(crate) by: RequestId,
    pub(crate) at_ms: u64,
    /// The command was skipped, for this reason; without one, it was decided after all.
    pub(crate) skipped: Option<String>,
}

/// One attempt to lift a quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiftAttempt {
    pub(crate) by: RequestId,
    pub(crate) at_ms: u64,
    pub(crate) request: RequestId,
    pub(crate) end: AttemptEnd,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AttemptEnd {
    /// Decided by the record of this number.
    Decided(u64),
    Skipped,
    Failed(String),
}

/// What a shard knows of an entity that is or was quarantined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuarantineRow {
    /// `None` once it is lifted.
    pub(crate) poison: Option<Quarantined>,
    /// The journal's position at which it was quarantined.
    pub(crate) position: u64,
    pub(crate) attempts: Vec<LiftAttempt>,
}

impl QuarantineRow {
    fn bytes(&self) -> usize {
        let poison = self.poison.as_ref().map_or(0, |poison| {
            poison.command.len() + poison.reason.len() + poison.place.len() + poison.backtrace.len()
        });
        let failed = self.attempts.iter().map(|attempt| match &attempt.end {
            AttemptEnd::Failed(reason) => reason.len(),
            AttemptEnd::Decided(_) | AttemptEnd::Skipped => 0,
        });
        ROW_BYTES + poison + failed.sum::<usize>()
    }

    fn note(&mut self, attempt: LiftAttempt) {
        if self.attempts.len() == ATTEMPTS_KEPT_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }

    /// When it was lifted last.
    fn lifted_at_ms(&self) -> u64 {
        self.attempts.last().map_or(0, |attempt| attempt.at_ms)
    }
}

/// The rows of a shard.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    rows: BTreeMap<EntityKey, Arc<QuarantineRow>>,
    /// Entities that are quarantined now.
    open: usize,
    bytes: usize,
}

/// A row that has changed; without one, it is gone.
pub(super) type RowChange = (EntityKey, Option<Arc<QuarantineRow>>);

impl Quarantine {
    /// Takes a row as the store holds it.
    pub(super) fn insert(&mut self, key: EntityKey, row: QuarantineRow) -> Arc<QuarantineRow> {
        self.bytes += row.bytes();
        self.open += usize::from(row.poison.is_some());
        let row = Arc::new(row);
        if let Some(before) = self.rows.insert(key, Arc::clone(&row)) {
            self.bytes -= before.bytes();
            self.open -= usize::from(before.poison.is_some());
        }
        row
    }

    /// Forgets all of an entity; says which row changed.
    pub(super) fn forget(&mut self, key: &EntityKey) -> Option<RowChange> {
        self.rows.contains_key(key).then(|| {
            self.remove(key);
            (key.clone(), None)
        })
    }

    fn remove(&mut self, key: &EntityKey) {
        if let Some(row) = self.rows.remove(key) {
            self.bytes -= row.bytes();
            self.open -= usize::from(row.poison.is_some());
        }
    }

    /// The number of entities that are quarantined now.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&EntityKey, &Arc<QuarantineRow>)> {
        self.rows.iter()
    }

    pub(crate) fn row(&self, key: &EntityKey) -> Option<&Arc<QuarantineRow>> {
        self.rows.get(key)
    }

    /// The command for which an entity is quarantined.
    pub(crate) fn poison(&self, key: &EntityKey) -> Option<&Quarantined> {
        if self.open == 0 {
            return None;
        }
        self.rows.get(key)?.poison.as_ref()
    }

    /// Applies a quarantine that was recorded at a position, if its author knew all that had happened to the entity.
    pub(super) fn apply(&mut self, record: Quarantined, position: u64, head_seq: u64) -> Option<RowChange> {
        // What an entity makes of an outcome is no next record of it yet.
        if record.seq != head_seq + 1 && record.stage != Stage::Resume {
            return None;
        }
        let key = record.entity.clone();
        let mut row = match self.rows.get(&key) {
            Some(row) => (**row).clone(),
            None => QuarantineRow {
                poison: None,
                position,
                attempts: Vec::new(),
            },
        };
        match (&mut row.poison, &record.retry) {
            (Some(poison), Some(by)) if poison.request == record.request => {
                poison.count = poison.count.saturating_add(1);
                poison.reason.clone_from(&record.reason);
                let attempt = LiftAttempt {
                    by: by.clone(),
                    at_ms: record.at_ms,
                    request: record.request,
                    end: AttemptEnd::Failed(record.reason),
                };
                row.note(attempt);
            }
            (None, None) => {
                row.position = position;
                row.poison = Some(record);
                if self.bytes + row.bytes() > QUARANTINE_BYTES_MAX {
                    return None;
                }
            }
            _ => return None,
        }
        let row = self.insert(key.clone(), row);
        Some((key, Some(row)))
    }

    /// Lifts an entity's quarantine by the record of this number. Says which rows changed.
    pub(super) fn lift(&mut self, key: &EntityKey, lift: &Lift, request: &RequestId, seq: u64) -> Vec<RowChange> {
        let Some(row) = self.rows.get(key) else {
            return Vec::new();
        };
        let mut row = (**row).clone();
        row.poison = None;
        row.note(LiftAttempt {
            by: lift.by.clone(),
            at_ms: lift.at_ms,
            request: request.clone(),
            end: if lift.skipped.is_some() {
                AttemptEnd::Skipped
            } else {
                AttemptEnd::Decided(seq)
            },
        });
        let row = self.insert(key.clone(), row);
        let mut changed = vec![(key.clone(), Some(row))];
        if self.rows.len() - self.open > LIFTED_ROWS_MAX {
            let lifted = self.rows.iter().filter(|(_, row)| row.poison.is_none());
            let oldest = lifted
                .min_by_key(|(_, row)| row.lifted_at_ms())
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.remove(&oldest);
                changed.push((oldest, None));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
