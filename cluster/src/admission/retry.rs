//! When a refused caller is to come again. Each gets a place in a line: they come back one after another, at a small part of the
//! rate at which the node lets calls in, however many they are. So saying no does not become the work itself, and nobody has to
//! find out by trial how long the line is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The shortest delay.
pub(crate) const RETRY_MIN_MS: u64 = 50;
/// The longest delay. Who is told this long comes before its place in the line.
pub(crate) const RETRY_MAX_MS: u64 = 30_000;
/// One caller comes again for so many that are let in: refusing it once more costs a percent or two of the node.
const ADMITTED_PER_RETRY: u64 = 8;
/// A node that lets nobody in is tried so often all the same, in microseconds.
const INTERVAL_MAX_US: u64 = 20_000;

/// The line of those who were refused.
#[derive(Debug)]
pub(crate) struct RetryLine {
    /// When the last in line comes, in microseconds of the node's own clock.
    last_us: AtomicU64,
    /// The time between two of them, in microseconds.
    interval_us: AtomicU64,
}

impl Default for RetryLine {
    fn default() -> Self {
        Self {
            last_us: AtomicU64::new(0),
            interval_us: AtomicU64::new(INTERVAL_MAX_US),
        }
    }
}

impl RetryLine {
    /// Given how many calls were let in during the last look of that length.
    pub(crate) fn look(&self, admitted: u64, length: Duration) {
        let length_us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let interval = length_us.saturating_mul(ADMITTED_PER_RETRY) / admitted.max(1);
        self.interval_us
            .store(interval.clamp(1, INTERVAL_MAX_US), Ordering::Relaxed);
    }

    /// When the next in line is to come. `now_us` is the time of a clock that never goes back.
    pub(crate) fn next(&self, now_us: u64) -> Duration {
        let interval = self.interval_us.load(Ordering::Relaxed);
        let (first, end) = (now_us + RETRY_MIN_MS * 1_000, now_us + RETRY_MAX_MS * 1_000);
        let place = |last: u64| (last + interval).clamp(first, end);
        let last = self
            .last_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(place(last)))
            .expect("there is always a next place");
        Duration::from_micros(place(last) - now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers in a closed loop, of whom a node can serve few: whoever is refused comes when it is told to. Gives the refusals
    /// and what was let in during the second half of a minute.
    fn minute(callers: usize, places: usize, per_look: usize) -> (u64, u64) {
        let line = RetryLine::default();
        let mut back: std::collections::BinaryHeap<std::cmp::Reverse<u64>> =
            (0..callers).map(|_| std::cmp::Reverse(0)).collect();
        let mut under_way = 0;
        let (mut refused, mut let_in) = (0, 0);
        for look in 0..600_u64 {
            let now = look * 100_000;
            // Those who are done ask again at once.
            let done = under_way.min(per_look);
            under_way -= done;
            (0..done).for_each(|_| back.push(std::cmp::Reverse(now)));
            let mut admitted = 0;
            while let Some(std::cmp::Reverse(at)) = back.peek().copied() {
                if at > now {
                    break;
                }
                back.pop();
                if under_way < places {
                    under_way += 1;
                    admitted += 1;
                } else {
                    back.push(std::cmp::Reverse(now + line.next(now).as_micros() as u64));
                    refused += u64::from(look > 300);
                }
            }
            let_in += if look > 300 { admitted } else { 0 };
            line.look(admitted, Duration::from_millis(100));
        }
        (refused, let_in)
    }

    #[test]
    fn however_many_wait_few_are_refused_again() {
        for callers in [2_000, 10_000, 50_000] {
            let (refused, let_in) = minute(callers, 1_000, 500);
            assert!(let_in >= 299 * 500, "the node is never idle: {let_in}");
            assert!(
                refused <= let_in / 6,
                "{callers} callers: {refused} refusals for {let_in} calls"
            );
        }
    }

    #[test]
    fn one_who_is_refused_alone_comes_soon() {
        let line = RetryLine::default();
        assert_eq!(line.next(1_000_000), Duration::from_millis(RETRY_MIN_MS));
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_delay() {
        let line = RetryLine::default();
        let longest = (0..100_000).map(|_| line.next(7)).max();
        assert_eq!(longest, Some(Duration::from_millis(RETRY_MAX_MS)));
    }
}
