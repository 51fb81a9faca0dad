//! How much is recorded: so many spans a second of this node, and so many of one trace.

use std::{collections::HashMap, time::Instant};

use parking_lot::Mutex;

/// Spans of one trace that one node makes. What comes after them is dropped and counted.
pub(crate) const SPANS_PER_TRACE_MAX: u32 = 1_000;
/// Traces whose spans are counted; at twice as many the older half is forgotten.
const TRACES_COUNTED_MAX: usize = 4_096;
/// What may be saved up, in seconds of the rate.
const SAVED_S: f64 = 2.0;

/// A rate that may be saved up and overdrawn.
#[derive(Debug)]
pub(crate) struct Budget {
    per_s: f64,
    state: Mutex<(f64, Instant)>,
}

impl Budget {
    /// So much a second.
    pub(crate) fn per_second(per_s: u32) -> Self {
        let per_s = f64::from(per_s);
        Self {
            per_s,
            state: Mutex::new((per_s * SAVED_S, Instant::now())),
        }
    }

    /// Takes one, whether or not there is any; says whether there was.
    pub(crate) fn take(&self) -> bool {
        self.take_at(1.0, Instant::now())
    }

    /// Whether there is any.
    pub(crate) fn has_any(&self) -> bool {
        self.take_at(0.0, Instant::now())
    }

    fn take_at(&self, amount: f64, now: Instant) -> bool {
        let mut state = self.state.lock();
        let (left, since) = *state;
        let grown = now.saturating_duration_since(since).as_secs_f64() * self.per_s;
        let most = self.per_s * SAVED_S;
        let left = (left + grown).min(most);
        let has_any = left > 0.0;
        *state = ((left - amount).max(-most), now);
        has_any
    }
}

/// Spans of each trace, as far as they are remembered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    current: HashMap<u128, u32>,
    before: HashMap<u128, u32>,
}

impl Counts {
    /// Counts one span in; says whether the trace has room for it.
    pub(crate) fn enter(&mut self, trace_id: u128) -> bool {
        if self.current.len() >= TRACES_COUNTED_MAX {
            self.before = std::mem::take(&mut self.current);
        }
        let known = self.before.get(&trace_id).copied().unwrap_or_default();
        let count = self.current.entry(trace_id).or_insert(known);
        *count += 1;
        *count <= SPANS_PER_TRACE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_is_saved_up_spent_and_overdrawn() {
        let budget = Budget::per_second(10);
        let begun = Instant::now();
        let taken = (0..30).filter(|_| budget.take_at(1.0, begun)).count();
        assert_eq!(taken, 20);
        assert!(!budget.take_at(0.0, begun + Duration::from_millis(900)), "it owes ten");
        assert!(budget.take_at(0.0, begun + Duration::from_millis(1_200)));
        assert!(budget.take_at(0.0, begun + Duration::from_hours(1)));
        let saved = (0..30)
            .filter(|_| budget.take_at(1.0, begun + Duration::from_hours(1)))
            .count();
        assert_eq!(saved, 20, "no more than that is saved");
    }

    #[test]
    fn a_trace_has_room_for_so_many_spans_however_many_others_there_are() {
        let mut counts = Counts::default();
        assert!((0..SPANS_PER_TRACE_MAX).all(|_| counts.enter(1)));
        for other in 2..5_000 {
            counts.enter(other);
        }
        assert!(!counts.enter(1));
    }
}
