//! A retry budget: repetitions may be a fraction of first calls and a few a second, so that a struggling dependency is
//! not buried under them.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A first call pays for a fifth of a repetition.
const FIRST_CALLS_PER_RETRY: u32 = 5;
/// Credit that can be saved up, in repetitions.
const SAVED_RETRIES_MAX: u32 = 100;

/// What is left for repetitions.
pub(crate) struct RetryBudget {
    /// In parts of a repetition.
    credit: AtomicU32,
    floor: DefaultDirectRateLimiter,
}

impl RetryBudget {
    /// A budget that always allows `retries_per_s_min` repetitions a second.
    pub(crate) fn new(retries_per_s_min: NonZeroU32) -> Self {
        Self {
            credit: AtomicU32::new(0),
            floor: RateLimiter::direct(Quota::per_second(retries_per_s_min)),
        }
    }

    /// A first call was made.
    pub(crate) fn first_call(&self) {
        let max = SAVED_RETRIES_MAX * FIRST_CALLS_PER_RETRY;
        self.change(|credit| (credit < max).then_some(credit + 1));
    }

    /// Takes one repetition from the budget, if there is one.
    pub(crate) fn take_retry(&self) -> bool {
        self.change(|credit| credit.checked_sub(FIRST_CALLS_PER_RETRY)) || self.floor.check().is_ok()
    }

    fn change(&self, next: impl Fn(u32) -> Option<u32>) -> bool {
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_a_fifth_of_first_calls_above_the_floor() {
        let budget = RetryBudget::new(NonZeroU32::MIN);
        assert!(budget.take_retry(), "the floor");
        assert!(!budget.take_retry());
        for _ in 0..10 {
            budget.first_call();
        }
        assert!(budget.take_retry());
        assert!(budget.take_retry());
        assert!(!budget.take_retry());
    }

    #[test]
    fn saved_credit_has_a_limit() {
        let budget = RetryBudget::new(NonZeroU32::MIN);
        for _ in 0..100_000 {
            budget.first_call();
        }
        let allowed = (0..10_000).filter(|_| budget.take_retry()).count();
        assert!(allowed <= SAVED_RETRIES_MAX as usize + 2, "{allowed}");
    }
}
