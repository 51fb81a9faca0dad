//! How long calls took since the last look, in steps of a fifth: counted without a lock, read once in a while.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Steps between a time and its double, as a power of two.
const STEPS_BITS: u32 = 2;
/// Up to 2^32 microseconds, which is more than an hour.
const BUCKETS: usize = 32 << STEPS_BITS;

/// Counts calls by how long they took.
pub(crate) struct Durations {
    counts: [AtomicU32; BUCKETS],
}

/// What calls took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) shortest: Duration,
    pub(crate) median: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

impl Durations {
    pub(crate) fn note(&self, took: Duration) {
        self.counts[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was noted since this was asked last; `None` if nothing was.
    pub(crate) fn take(&self) -> Option<Took> {
        let counts: Vec<u32> = (self.counts.iter())
            .map(|count| count.swap(0, Ordering::Relaxed))
            .collect();
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let shortest = counts.iter().position(|count| *count > 0)?;
        let mut seen = 0;
        let median = counts.iter().position(|count| {
            seen += u64::from(*count);
            seen * 2 >= all
        })?;
        Some(Took {
            shortest: least_of(shortest),
            median: least_of(median),
        })
    }
}

fn bucket_of(took: Duration) -> usize {
    // Times below the first doubling are as good as nothing.
    let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1 << STEPS_BITS);
    let doubling = us.ilog2();
    let step = (us >> (doubling - STEPS_BITS)) & ((1 << STEPS_BITS) - 1);
    ((doubling << STEPS_BITS) | step) as usize
}

/// The least time that counts in a bucket.
fn least_of(bucket: usize) -> Duration {
    let doubling = bucket >> STEPS_BITS;
    let step = bucket & ((1 << STEPS_BITS) - 1);
    let us = ((1_u64 << STEPS_BITS) + step as u64) << doubling >> STEPS_BITS;
    Duration::from_micros(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_fifth_off() {
        for us in [4_u64, 5, 99, 1_000, 131_071, 131_072, 200_000, 4_000_000_000] {
            let least = least_of(bucket_of(Duration::from_micros(us))).as_micros() as u64;
            assert!(least <= us && us - least <= us / 5, "{us} counts as {least}");
        }
        assert!(bucket_of(Duration::MAX) < BUCKETS);
        assert_eq!(bucket_of(Duration::ZERO), bucket_of(Duration::from_micros(4)));
    }

    #[test]
    fn one_quick_call_does_not_hide_that_the_others_are_slow() {
        let durations = Durations::default();
        assert_eq!(durations.take(), None);
        durations.note(Duration::from_micros(512));
        (0..9).for_each(|_| durations.note(Duration::from_micros(1 << 18)));
        let took = Took {
            shortest: Duration::from_micros(512),
            median: Duration::from_micros(1 << 18),
        };
        assert_eq!(durations.take(), Some(took));
        assert_eq!(durations.take(), None);
    }
}
