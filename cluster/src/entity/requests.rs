//! The requests that a live entity remembers: which record answered each of them.

use std::collections::{HashMap, VecDeque};

use crate::journal::{Origin, TakenEffects, keys::KeptRequest};

/// Requests of clients that one entity remembers, the latest ones; as many as the state store keeps for it.
pub(crate) const REQUESTS_KEPT_MAX: usize = 500_000;
/// Up to so many are looked through one by one: most entities have a few, and a map for them would be most of their memory.
const LISTED_MAX: usize = 32;

/// The remembered requests of one entity.
#[derive(Debug, Default)]
pub(crate) struct KeptRequests {
    /// In the order in which they came: hash and record.
    order: VecDeque<(u64, u64)>,
    /// The same by hash, where there are many.
    by_hash: Option<HashMap<u64, u64>>,
    /// Effects of other entities.
    taken: TakenEffects,
}

impl KeptRequests {
    /// As an entity is loaded with them.
    pub(crate) fn new(requests: &[KeptRequest], taken: TakenEffects) -> Self {
        let mut kept = Self {
            order: VecDeque::with_capacity(requests.len()),
            by_hash: None,
            taken,
        };
        for request in requests {
            kept.insert(None, request.hash, request.seq);
        }
        kept
    }

    /// Takes note of a request's record, and forgets a client's oldest past the limit.
    pub(crate) fn insert(&mut self, origin: Option<&Origin>, hash: u64, seq: u64) {
        if let Some(origin) = origin {
            return self.taken.insert(origin, hash, seq);
        }
        self.order.push_back((hash, seq));
        match &mut self.by_hash {
            Some(by_hash) => drop(by_hash.insert(hash, seq)),
            None if self.order.len() > LISTED_MAX => {
                self.by_hash = Some(self.order.iter().copied().collect());
            }
            None => {}
        }
        if self.order.len() > REQUESTS_KEPT_MAX
            && let Some((oldest, seq)) = self.order.pop_front()
            && let Some(by_hash) = &mut self.by_hash
            && by_hash.get(&oldest) == Some(&seq)
        {
            by_hash.remove(&oldest);
        }
    }

    /// The record that answered the request of this hash.
    pub(crate) fn get(&self, origin: Option<&Origin>, hash: u64) -> Option<u64> {
        if let Some(origin) = origin {
            return self.taken.get(origin, hash);
        }
        match &self.by_hash {
            Some(by_hash) => by_hash.get(&hash).copied(),
            None => self
                .order
                .iter()
                .rev()
                .find(|(known, _)| *known == hash)
                .map(|(_, seq)| *seq),
        }
    }

    /// The effects that were taken.
    pub(crate) fn taken(&mut self) -> &mut TakenEffects {
        &mut self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_past_the_limit() {
        let mut kept = KeptRequests::default();
        for n in 0..REQUESTS_KEPT_MAX as u64 + 2 {
            kept.insert(None, n, n + 1);
            if n == 5 {
                assert_eq!(
                    (kept.get(None, 0), kept.get(None, 5), kept.get(None, 9)),
                    (Some(1), Some(6), None)
                );
            }
        }
        assert_eq!(
            (kept.get(None, 0), kept.get(None, 1), kept.get(None, 2)),
            (None, None, Some(3))
        );
        assert_eq!(kept.by_hash.map(|by_hash| by_hash.len()), Some(REQUESTS_KEPT_MAX));
    }

    #[test]
    fn clients_requests_do_not_push_out_effects() {
        let mut kept = KeptRequests::default();
        let origin = Origin {
            shard: 1,
            born: 7,
            floor: 7,
            holes: Vec::new(),
        };
        kept.insert(Some(&origin), 1, 1);
        for n in 0..REQUESTS_KEPT_MAX as u64 * 2 {
            kept.insert(None, n + 2, n + 2);
        }
        assert_eq!(kept.get(Some(&origin), 1), Some(1));
    }
}
