//! How much a node can carry just now, seen from how long its commands take.
//!
//! In the way of CoDel (Nichols and Jacobson, 2012) it looks at how long things take and not at how many there are. It takes the
//! median of a while: a burst or one busy entity does not lengthen that one, a queue that stands in front of all of them does. Then
//! the number that is let in shrinks to what would be done in the time that is allowed; otherwise it grows again, as far as it is
//! made use of: what nobody has tried says nothing of what the node can carry, and ten times as much may come at once.

use std::time::Duration;

/// The number that is let in is never less than this: so few do no harm.
pub(crate) const IN_FLIGHT_MIN: usize = 512;
/// A node begins with this, and grows from there.
const IN_FLIGHT_FIRST: usize = 2_048;
/// One look takes away at most this part of what is under way.
const SHRINK_MIN: f64 = 0.5;
/// One look adds this part.
const GROWTH: usize = 8;

/// How much is let in.
#[derive(Debug)]
pub(crate) struct QueueDelay {
    max: usize,
    allowed: Duration,
    limit: usize,
}

impl QueueDelay {
    pub(crate) fn new(max: usize, allowed: Duration) -> Self {
        Self {
            max,
            allowed,
            limit: IN_FLIGHT_FIRST.min(max),
        }
    }

    /// Given the median time of what ended since the last look, and how many are under way.
    pub(crate) fn look(&mut self, median: Option<Duration>, under_way: usize) -> usize {
        match median {
            Some(median) if median > self.allowed => {
                let part = (self.allowed.as_secs_f64() / median.as_secs_f64()).max(SHRINK_MIN);
                let fewer = (under_way.min(self.limit) as f64 * part) as usize;
                self.limit = fewer.max(IN_FLIGHT_MIN.min(self.max));
            }
            Some(_) if under_way >= self.limit / 2 => self.limit = (self.limit + self.limit / GROWTH).min(self.max),
            // Without one that ended there is nothing to learn.
            Some(_) | None => {}
        }
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_millis(200);

    /// A node that does so many commands a second, with as many callers as it lets in.
    fn settle(per_second: f64, callers: usize) -> (usize, Duration) {
        let mut queue = QueueDelay::new(32_768, ALLOWED);
        let mut under_way = callers.min(32_768);
        for _ in 0..100 {
            let takes = Duration::from_secs_f64(under_way as f64 / per_second);
            under_way = callers.min(queue.look(Some(takes), under_way));
        }
        (under_way, Duration::from_secs_f64(under_way as f64 / per_second))
    }

    #[test]
    fn the_queue_settles_near_what_is_allowed_whatever_comes() {
        for callers in [20_000, 200_000] {
            let (under_way, delay) = settle(15_000.0, callers);
            assert!(
                delay < ALLOWED.mul_f64(1.3),
                "{callers} callers, {under_way} under way: {delay:?}"
            );
            assert!(
                delay > ALLOWED.mul_f64(0.7),
                "{callers} callers, {under_way} under way: {delay:?}"
            );
        }
    }

    #[test]
    fn a_node_that_keeps_up_refuses_nobody() {
        assert_eq!(settle(50_000.0, 5_000).0, 5_000);
        let mut queue = QueueDelay::new(32_768, ALLOWED);
        let before = queue.look(Some(ALLOWED / 2), 2_000);
        assert_eq!(
            queue.look(None, 2_000),
            before,
            "a pause of all commands is no overload"
        );
    }

    #[test]
    fn what_nobody_has_tried_is_not_promised() {
        let mut queue = QueueDelay::new(32_768, ALLOWED);
        let limit = (0..100).map(|_| queue.look(Some(ALLOWED / 10), 100)).last();
        assert_eq!(limit, Some(IN_FLIGHT_FIRST));
    }

    #[test]
    fn it_never_shuts_out_everybody() {
        assert_eq!(settle(10.0, 10_000).0, IN_FLIGHT_MIN);
    }
}
