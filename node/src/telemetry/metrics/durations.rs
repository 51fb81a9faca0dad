//! Durations in buckets that are narrow enough for percentiles (about 6 %), for any number of writers without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Each power of two of microseconds is divided into so many buckets.
const PARTS: usize = 16;
const PARTS_BITS: u32 = PARTS.trailing_zeros();
/// Powers of two from 16 µs up to about an hour; what takes longer counts as that.
const POWERS: usize = 28;
const LEN: usize = PARTS * (POWERS + 1);

/// Counts since the process began.
#[derive(Debug)]
pub(super) struct Durations([AtomicU64; LEN]);

impl Default for Durations {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// The counts at one moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts(Box<[u64]>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; LEN].into_boxed_slice())
    }
}

/// Below 16 µs a bucket is a microsecond wide; above it the highest bits of the number say which one it is.
fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if us < PARTS as u64 {
        return us as usize;
    }
    let power = us.ilog2() - PARTS_BITS;
    let part = (us >> power) as usize - PARTS;
    ((power as usize + 1) * PARTS + part).min(LEN - 1)
}

/// The middle of a bucket, in milliseconds.
fn middle_ms(bucket: usize) -> f64 {
    let us = if bucket < PARTS {
        bucket as f64 + 0.5
    } else {
        let (power, part) = (bucket / PARTS - 1, bucket % PARTS);
        ((PARTS + part) as f64 + 0.5) * (1_u64 << power) as f64
    };
    us / 1000.0
}

impl Durations {
    /// Takes one in.
    pub(super) fn record(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// All that were taken in.
    pub(super) fn counts(&self) -> Counts {
        Counts(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Counts {
    /// What has come since.
    pub(super) fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(pairs.map(|(now, before)| now.saturating_sub(*before)).collect())
    }

    /// How many there are.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that so large a part of them did not exceed, in milliseconds; NaN where there are none.
    pub(super) fn percentile_ms(&self, part: f64) -> f64 {
        let total = self.total();
        let wanted = ((total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                return middle_ms(bucket);
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_what_came_in_between() {
        let durations = Durations::default();
        durations.record(Duration::from_secs(9));
        let before = durations.counts();
        assert!(before.since(&before).percentile_ms(0.5).is_nan());
        for ms in 1..=100 {
            durations.record(Duration::from_millis(ms));
        }
        let since = durations.counts().since(&before);
        assert_eq!(since.total(), 100);
        for (part, ms) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0)] {
            let found = since.percentile_ms(part);
            assert!((found - ms).abs() < ms * 0.07, "{part}: {found}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_close_to_what_is_in_it(us in 1_u64..3_000_000_000) {
            let took = Duration::from_micros(us);
            let found = middle_ms(bucket(took)) * 1000.0;
            prop_assert!((found - us as f64).abs() <= (us as f64 / 16.0).max(0.5), "{} {}", us, found);
        }
    }

    #[test]
    fn there_is_a_bucket_for_everything() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), LEN - 1);
    }
}
