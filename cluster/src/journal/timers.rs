//! Timers in the journal: what a record does to the timers of its entity, and all timers of a shard by name and by due
//! time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Decided;
use crate::{
    entity::{EntityKey, RequestId, decision::EffectRequest},
    trace::TraceContext,
};

/// The address of a timer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TimerKey {
    pub(crate) entity: EntityKey,
    pub(crate) name: Arc<str>,
}

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimerRow {
    /// The number of the record that set it, among those of its entity: tells it from an earlier one of its name.
    pub(crate) seq: u64,
    /// When it fires next, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// How long after that again; `None` for once.
    pub(crate) every_ms: Option<u64>,
    /// Comes back when it fires.
    pub(crate) token: Bytes,
    /// The trace that set it.
    pub(crate) trace: TraceContext,
}

/// The name of one firing. There is one record of it, whoever tries how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Firing {
    pub(crate) name: Arc<str>,
    pub(crate) seq: u64,
    pub(crate) due_ms: u64,
}

impl Firing {
    /// The request id of the command that it makes.
    pub(crate) fn request(&self) -> RequestId {
        RequestId::new(&format!("timer {}#{}@{}", self.name, self.seq, self.due_ms))
            .expect("names of timers are short and have no control characters")
    }
}

impl TimerRow {
    /// The firing that is to come.
    pub(crate) fn firing(&self, name: &Arc<str>) -> Firing {
        Firing {
            name: Arc::clone(name),
            seq: self.seq,
            due_ms: self.due_ms,
        }
    }

    /// Whether this is the firing that is to come: it was not cancelled, replaced or done meanwhile.
    pub(crate) fn awaits(&self, firing: &Firing) -> bool {
        self.seq == firing.seq && self.due_ms == firing.due_ms
    }

    /// How many more times it should have fired by then.
    pub(crate) fn missed(&self, at_ms: u64) -> u64 {
        match self.every_ms {
            Some(every_ms) => at_ms.saturating_sub(self.due_ms) / every_ms.max(1),
            None => 0,
        }
    }

    /// What is left of it after it has fired at that time: one that repeats is due next at the first of its times after it.
    pub(crate) fn after_firing(&self, at_ms: u64) -> Option<Self> {
        let every_ms = self.every_ms?;
        let steps = every_ms.max(1).saturating_mul(self.missed(at_ms).saturating_add(1));
        Some(Self {
            due_ms: self.due_ms.saturating_add(steps),
            ..self.clone()
        })
    }
}

/// A timer as it is after a record; `None` if it is gone.
pub(crate) type Change = (Arc<str>, Option<Arc<TimerRow>>);

/// What a record does to the timers of its entity, in order. `fired` is the timer whose firing it is.
pub(crate) fn changes(decided: &Decided, fired: Option<&TimerRow>) -> Vec<Change> {
    let mut changes = Vec::new();
    if let (Some(firing), Some(row)) = (&decided.fires, fired) {
        changes.push((Arc::clone(&firing.name), row.after_firing(decided.at_ms).map(Arc::new)));
    }
    let set_or_cancelled = decided.effects.iter().filter_map(|effect| {
        let (name, row) = change_of(&effect.request, effect.token.as_ref(), decided.seq, decided.trace)?;
        Some((name, row.map(Arc::new)))
    });
    changes.extend(set_or_cancelled);
    changes
}

/// What one effect does to a timer, if it is about one.
pub(crate) fn change_of(
    request: &EffectRequest,
    token: Option<&Bytes>,
    seq: u64,
    trace: TraceContext,
) -> Option<(Arc<str>, Option<TimerRow>)> {
    match request {
        EffectRequest::SetTimer { name, due_ms, every_ms } => {
            let row = TimerRow {
                seq,
                due_ms: *due_ms,
                every_ms: *every_ms,
                token: token.cloned().unwrap_or_default(),
                trace,
            };
            Some((Arc::clone(name), Some(row)))
        }
        EffectRequest::CancelTimer { name } => Some((Arc::clone(name), None)),
        EffectRequest::Command { .. } | EffectRequest::Call { .. } => None,
    }
}

/// All timers of a shard.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_key: BTreeMap<TimerKey, Arc<TimerRow>>,
    by_due: BTreeSet<(u64, TimerKey)>,
}

impl Timers {
    /// Sets a timer or removes it; gives what was there.
    pub(crate) fn change(&mut self, key: &TimerKey, row: Option<Arc<TimerRow>>) -> Option<Arc<TimerRow>> {
        let due_ms = row.as_ref().map(|row| row.due_ms);
        let before = match row {
            Some(row) => self.by_key.insert(key.clone(), row),
            None => self.by_key.remove(key),
        };
        if let Some(before) = &before {
            self.by_due.remove(&(before.due_ms, key.clone()));
        }
        self.by_due.extend(due_ms.map(|due_ms| (due_ms, key.clone())));
        debug_assert_eq!(self.by_key.len(), self.by_due.len(), "both sides hold the same timers");
        before
    }

    pub(crate) fn get(&self, key: &TimerKey) -> Option<&Arc<TimerRow>> {
        self.by_key.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The timers of one entity, by name.
    pub(crate) fn of<'a>(&'a self, entity: &'a EntityKey) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<TimerRow>)> {
        let first = (!self.by_key.is_empty()).then(|| TimerKey {
            entity: entity.clone(),
            name: "".into(),
        });
        first
            .into_iter()
            .flat_map(|first| self.by_key.range(first..))
            .take_while(move |(key, _)| key.entity == *entity)
            .map(|(key, row)| (&key.name, row))
    }

    /// All of them, the most urgent first.
    #[cfg(test)]
    pub(crate) fn by_due(&self) -> impl Iterator<Item = (&TimerKey, &Arc<TimerRow>)> {
        self.by_due.iter().map(|(_, key)| (key, &self.by_key[key]))
    }

    /// The next of them after a place in that order, each with its firing.
    pub(crate) fn page(&self, after: Option<&(u64, TimerKey)>, limit: usize) -> Vec<(u64, TimerKey, Firing)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_due
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(due_ms, key)| (*due_ms, key.clone(), self.by_key[key].firing(&key.name)))
            .collect()
    }

    /// When the most urgent one is due.
    pub(crate) fn first_due_ms(&self) -> Option<u64> {
        self.by_due.first().map(|(due_ms, _)| *due_ms)
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn all(&self) -> &BTreeMap<TimerKey, Arc<TimerRow>> {
        &self.by_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(every_ms: Option<u64>) -> TimerRow {
        TimerRow {
            seq: 3,
            due_ms: 1_000,
            every_ms,
            token: Bytes::from_static(b"t"),
            trace: TraceContext::default(),
        }
    }

    #[test]
    fn a_timer_fires_once_and_a_repeating_one_at_its_next_time_after_the_firing() {
        assert_eq!(row(None).after_firing(1_000), None);
        let next = |at_ms: u64| row(Some(100)).after_firing(at_ms).map(|row| row.due_ms);
        assert_eq!((next(1_000), row(Some(100)).missed(1_000)), (Some(1_100), 0));
        assert_eq!((next(1_099), row(Some(100)).missed(1_099)), (Some(1_100), 0));
        assert_eq!((next(1_100), row(Some(100)).missed(1_100)), (Some(1_200), 1));
        assert_eq!((next(1_750), row(Some(100)).missed(1_750)), (Some(1_800), 7));
    }

    /// The clock of the node that fires may be behind that of the one that set the timer, or jump.
    #[test]
    fn a_clock_that_went_back_moves_a_timer_on_all_the_same() {
        let next = row(Some(100)).after_firing(7).expect("it repeats");
        assert_eq!(next.due_ms, 1_100);
        assert!(
            !next.awaits(&row(Some(100)).firing(&"poll".into())),
            "the firing is over"
        );
        assert_eq!(
            row(Some(u64::MAX)).after_firing(u64::MAX).map(|row| row.due_ms),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_firing_is_told_from_that_of_a_timer_of_the_same_name() {
        let firing = row(None).firing(&"expiry".into());
        assert!(row(None).awaits(&firing));
        assert!(!TimerRow { seq: 4, ..row(None) }.awaits(&firing));
        assert_eq!(firing.request().as_str(), "timer expiry#3@1000");
    }
}
