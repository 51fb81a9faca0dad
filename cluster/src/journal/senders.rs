//! Which effects of other entities an entity has taken, and which of them can still come again.
//!
//! An effect can be repeated for as long as it is open in its sender's outbox, be that for days; so its id must be kept until then,
//! whatever time or number of requests has passed. Who knows that is the sender's shard: with each effect it says which of its
//! effects to the same entity are still open ([`Origin`]). Everything older is settled. The receiver forgets the ids of what is settled,
//! and refuses whatever settled effect should come late: it is either known or refused, and never taken twice.
//!
//! No clock is in it, nobody is asked, and it survives any change of leaders on either side: both ends follow from journals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Open effects that are named one by one, so that a few which stay open do not keep the others from being settled.
pub(crate) const HOLES_MAX: usize = 16;

/// Where an effect comes from, and what its sender's shard knew when it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The sender's shard.
    pub(crate) shard: u32,
    /// The position in that shard's journal at which the effect came about.
    pub(crate) born: u64,
    /// Effects of that shard to the same entity that are older than this are settled,
    pub(crate) floor: u64,
    /// but for those of these positions.
    pub(crate) holes: Vec<u64>,
}

/// An effect that was taken, in stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptEffect {
    pub(crate) shard: u32,
    pub(crate) born: u64,
    /// Of its id. On a hit the whole id is compared in the record.
    pub(crate) hash: u64,
    pub(crate) seq: u64,
}

/// What one sending shard has settled, in stored form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sender {
    pub(crate) shard: u32,
    pub(crate) floor: u64,
    pub(crate) holes: Vec<u64>,
}

/// What the effects to one entity say at the sender's end: of those that are open, in order, the first ones by name and where the
/// rest begins. `next` is the position that the shard's journal comes to next.
pub(crate) fn summary(open: impl Iterator<Item = u64>, next: u64) -> (u64, Vec<u64>) {
    let mut open = open;
    let holes: Vec<u64> = open.by_ref().take(HOLES_MAX).collect();
    (open.next().unwrap_or(next), holes)
}

/// The effects that an entity has taken and that may come again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TakenEffects {
    senders: BTreeMap<u32, (u64, Vec<u64>)>,
    /// By shard, position and hash: the record that answered it.
    kept: BTreeMap<(u32, u64, u64), u64>,
}

impl TakenEffects {
    /// As the store holds it.
    pub(crate) fn restore(senders: &[Sender], kept: &[KeptEffect]) -> Self {
        Self {
            senders: senders
                .iter()
                .map(|sender| (sender.shard, (sender.floor, sender.holes.clone())))
                .collect(),
            kept: kept
                .iter()
                .map(|effect| ((effect.shard, effect.born, effect.hash), effect.seq))
                .collect(),
        }
    }

    /// As the store is to hold it.
    pub(crate) fn stored(&self) -> (Vec<Sender>, Vec<KeptEffect>) {
        let senders = self.senders.iter().map(|(shard, (floor, holes))| Sender {
            shard: *shard,
            floor: *floor,
            holes: holes.clone(),
        });
        let kept = self.kept.iter().map(|((shard, born, hash), seq)| KeptEffect {
            shard: *shard,
            born: *born,
            hash: *hash,
            seq: *seq,
        });
        (senders.collect(), kept.collect())
    }

    /// Takes note of what the sender's shard says is settled, and forgets it.
    pub(crate) fn learn(&mut self, origin: &Origin) {
        let (floor, holes) = self.senders.entry(origin.shard).or_default();
        let forgotten_from = if origin.floor > *floor {
            // Whoever says more has seen more: what it does not name is settled.
            let first = holes.first().copied().unwrap_or(*floor);
            *floor = origin.floor;
            holes.clone_from(&origin.holes);
            holes.retain(|hole| *hole < origin.floor);
            first
        } else if origin.floor == *floor && holes.iter().any(|hole| !origin.holes.contains(hole)) {
            let first = holes.first().copied().unwrap_or(*floor);
            holes.retain(|hole| origin.holes.contains(hole));
            first
        } else {
            return;
        };
        let (floor, holes) = (*floor, holes.clone());
        let from = (origin.shard, forgotten_from, 0);
        let settled: Vec<(u32, u64, u64)> = self
            .kept
            .range(from..(origin.shard, floor, 0))
            .map(|(id, _)| *id)
            .filter(|(_, born, _)| !holes.contains(born))
            .collect();
        for id in settled {
            self.kept.remove(&id);
        }
    }

    /// Whether the effect's sender is known to be done with it: should it come again, it is an echo.
    pub(crate) fn is_settled(&self, origin: &Origin) -> bool {
        self.senders
            .get(&origin.shard)
            .is_some_and(|(floor, holes)| origin.born < *floor && !holes.contains(&origin.born))
    }

    /// Takes note of the record that answered an effect.
    pub(crate) fn insert(&mut self, origin: &Origin, hash: u64, seq: u64) {
        self.kept.insert((origin.shard, origin.born, hash), seq);
    }

    /// The record that answered an effect.
    pub(crate) fn get(&self, origin: &Origin, hash: u64) -> Option<u64> {
        self.kept.get(&(origin.shard, origin.born, hash)).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(born: u64, open: &[u64], next: u64) -> Origin {
        let (floor, holes) = summary(open.iter().copied(), next);
        Origin {
            shard: 3,
            born,
            floor,
            holes,
        }
    }

    fn take(taken: &mut TakenEffects, origin: &Origin) {
        taken.learn(origin);
        taken.insert(origin, origin.born * 7, origin.born + 1_000);
    }

    #[test]
    fn what_is_settled_is_forgotten_and_an_echo_of_it_is_known_as_one() {
        let mut taken = TakenEffects::default();
        let first = origin(1, &[1, 2], 3);
        take(&mut taken, &first);
        take(&mut taken, &origin(2, &[1, 2], 3));
        assert_eq!(taken.get(&first, 7), Some(1_001));
        assert_eq!(taken.len(), 2);
        take(&mut taken, &origin(5, &[2, 5], 6));
        assert_eq!(taken.len(), 2, "the first one is settled");
        assert!(taken.get(&first, 7).is_none() && taken.is_settled(&first));
        assert!(!taken.is_settled(&origin(2, &[], 0)) && !taken.is_settled(&origin(9, &[], 0)));
        let (senders, kept) = taken.stored();
        assert_eq!(TakenEffects::restore(&senders, &kept), taken);
    }

    #[test]
    fn a_few_that_stay_open_do_not_keep_the_others() {
        let mut taken = TakenEffects::default();
        let stuck: Vec<u64> = (1..HOLES_MAX as u64).collect();
        for born in 1..=10_000 {
            let mut open: Vec<u64> = stuck.iter().copied().filter(|hole| *hole <= born).collect();
            if born > stuck.len() as u64 {
                open.push(born);
            }
            take(&mut taken, &origin(born, &open, born + 1));
        }
        assert!(taken.len() <= HOLES_MAX, "{}", taken.len());
        for born in stuck {
            assert!(!taken.is_settled(&origin(born, &[], 0)));
            assert_eq!(taken.get(&origin(born, &[], 0), born * 7), Some(born + 1_000));
        }
    }

    #[test]
    fn news_that_comes_late_changes_nothing() {
        let mut taken = TakenEffects::default();
        let late = origin(4, &[2, 3, 4], 5);
        take(&mut taken, &origin(4, &[4], 6));
        let before = taken.clone();
        taken.learn(&late);
        assert_eq!(taken, before);
        assert!(taken.is_settled(&origin(2, &[], 0)));
    }

    /// Effects come in any order and again and again, from leaders that know more or less: each is taken once.
    #[test]
    fn nothing_is_taken_twice_whatever_comes_again() {
        let mut x = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % below
        };
        for _ in 0..200 {
            let (mut taken, mut done) = (TakenEffects::default(), BTreeMap::<u64, u32>::new());
            let (mut open, mut sent): (Vec<u64>, Vec<Origin>) = (Vec::new(), Vec::new());
            for next in 1..150 {
                open.push(next);
                for born in open.clone() {
                    sent.push(origin(born, &open, next + 1));
                }
                for _ in 0..random(6) {
                    let echo = sent[random(sent.len() as u64) as usize].clone();
                    taken.learn(&echo);
                    if taken.get(&echo, echo.born * 7).is_none() && !taken.is_settled(&echo) {
                        *done.entry(echo.born).or_default() += 1;
                        taken.insert(&echo, echo.born * 7, 1);
                    }
                    // Only what was taken can be acknowledged.
                    if random(2) == 0 && done.contains_key(&echo.born) {
                        open.retain(|born| *born != echo.born);
                    }
                }
            }
            assert!(done.values().all(|times| *times == 1), "{done:?}");
            assert!(
                open.iter().all(|born| !taken.is_settled(&origin(*born, &[], 0))),
                "an open one is not settled"
            );
        }
    }
}
