//! The requests that a live entity remembers: which record answered each of them.

use std::collections::{HashMap, VecDeque};

use crate::journal::keys::KeptRequest;

/// Requests that one entity remembers, the latest ones; as many as the state store keeps for it. An effect is repeated after
/// at most some ten seconds while its shard has a leader, so this covers it at tens of thousands of commands a second.
pub(crate) const REQUESTS_KEPT_MAX: usize = 500_000;

/// The remembered requests of one entity.
#[derive(Debug, Default)]
pub(crate) struct KeptRequests {
    by_hash: HashMap<u64, u64>,
    /// In the order in which they came.
    order: VecDeque<(u64, u64)>,
}

impl KeptRequests {
    /// Takes note of a request's record, and forgets the oldest past the limit.
    pub(crate) fn insert(&mut self, hash: u64, seq: u64) {
        self.by_hash.insert(hash, seq);
        self.order.push_back((hash, seq));
        if self.order.len() > REQUESTS_KEPT_MAX
            && let Some((oldest, seq)) = self.order.pop_front()
            && self.by_hash.get(&oldest) == Some(&seq)
        {
            self.by_hash.remove(&oldest);
        }
    }

    /// The record that answered the request of this hash.
    pub(crate) fn get(&self, hash: u64) -> Option<u64> {
        self.by_hash.get(&hash).copied()
    }
}

impl FromIterator<KeptRequest> for KeptRequests {
    fn from_iter<I: IntoIterator<Item = KeptRequest>>(requests: I) -> Self {
        let mut kept = Self::default();
        for request in requests {
            kept.insert(request.hash, request.seq);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_past_the_limit() {
        let mut kept = KeptRequests::default();
        for n in 0..REQUESTS_KEPT_MAX as u64 + 2 {
            kept.insert(n, n + 1);
        }
        assert_eq!((kept.get(0), kept.get(1), kept.get(2)), (None, None, Some(3)));
        assert_eq!(kept.by_hash.len(), REQUESTS_KEPT_MAX);
    }
}
