//! A budget for second attempts, so that asking two nodes shortens the wait for a few calls and never doubles the
//! load of a cluster that is slow because it is busy.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hedges that may be spent at once.
const HEDGES_MAX: u64 = 128;
/// Calls that must end well to earn one more.
const CALLS_PER_HEDGE: u64 = 8;

/// Counts in parts of a hedge: one call earns one part.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    parts: AtomicU64,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self {
            parts: AtomicU64::new(HEDGES_MAX * CALLS_PER_HEDGE),
        }
    }
}

impl HedgeBudget {
    /// Takes one, if there is one.
    pub(super) fn take(&self) -> bool {
        self.parts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| {
                parts.checked_sub(CALLS_PER_HEDGE)
            })
            .is_ok()
    }

    /// A call ended well.
    pub(super) fn call_ended(&self) {
        let _ = self.parts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |parts| {
            (parts < HEDGES_MAX * CALLS_PER_HEDGE).then_some(parts + 1)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_earned_back_by_calls_that_end_well() {
        let budget = HedgeBudget::default();
        assert_eq!((0..1_000).filter(|_| budget.take()).count() as u64, HEDGES_MAX);
        for _ in 0..CALLS_PER_HEDGE {
            assert!(!budget.take());
            budget.call_ended();
        }
        assert!(budget.take());
        assert!(!budget.take());
    }
}
