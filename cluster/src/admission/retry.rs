//! How long a refused caller is to wait: longer and longer while many are refused, so that saying no does not become the work
//! itself.

/// The shortest delay.
pub(crate) const RETRY_MIN_MS: u64 = 50;
/// The longest delay.
pub(crate) const RETRY_MAX_MS: u64 = 30_000;
/// So many refusals for each call that is let in are no burden.
const REFUSED_PART: u64 = 4;

/// The delay, as it follows what is refused.
#[derive(Debug)]
pub(crate) struct RetryDelay {
    ms: u64,
}

impl Default for RetryDelay {
    fn default() -> Self {
        Self { ms: RETRY_MIN_MS }
    }
}

impl RetryDelay {
    /// Given how many calls were let in and refused since the last look; gives the delay until the next.
    pub(crate) fn look(&mut self, admitted: u64, refused: u64) -> u64 {
        // One refusal for every four that are let in costs a few percent of the node.
        let too_many = refused > admitted / REFUSED_PART;
        self.ms = if too_many && refused > 0 {
            self.ms + self.ms / 4
        } else {
            self.ms - self.ms / 10
        };
        self.ms = self.ms.clamp(RETRY_MIN_MS, RETRY_MAX_MS);
        self.ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers in a closed loop: whoever is refused waits as it is told.
    #[test]
    fn the_delay_grows_with_how_far_over_the_node_is() {
        let mut settled = Vec::new();
        for waiting in [0.0, 1_000.0, 10_000.0, 50_000.0] {
            let mut retry = RetryDelay::default();
            let mut refused = 0.0;
            for _ in 0..300 {
                let ms = retry.look(1_000, refused as u64);
                refused = waiting / (ms as f64 / 100.0);
            }
            settled.push(retry.ms);
            assert!(refused < 400.0, "{waiting} wait, {refused} refusals for 1000 calls");
        }
        assert!(settled.is_sorted() && settled[0] == RETRY_MIN_MS, "{settled:?}");
        assert!(settled[3] > 10 * settled[1], "{settled:?}");
    }

    #[test]
    fn it_goes_back_when_there_is_room_again() {
        let mut retry = RetryDelay::default();
        for _ in 0..50 {
            retry.look(100, 1_000);
        }
        assert_eq!(retry.ms, RETRY_MAX_MS);
        for _ in 0..100 {
            retry.look(1_000, 0);
        }
        assert_eq!(retry.ms, RETRY_MIN_MS);
    }
}
