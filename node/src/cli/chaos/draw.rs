//! What is done when: drawn from a seed, so that the same seed draws the same faults in the same order for the same nodes.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::kind::{Act, Kind};

/// How long a fault lasts, in milliseconds.
const LASTS_MS: std::ops::RangeInclusive<u64> = 1_500..=4_500;
/// How long nothing is wrong between two faults.
const CALM_MS: std::ops::RangeInclusive<u64> = 500..=1_500;
/// One round in so many has two faults at once, where there is one that goes with the other.
const TWO_ONE_IN: u32 = 5;

/// One round: faults at the same time, and what comes after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    /// One, or two of which the second is mild.
    pub(super) acts: Vec<(Kind, Act)>,
    pub(super) lasts: Duration,
    pub(super) calm: Duration,
}

/// Draws rounds. Every kind comes before any comes again.
pub(super) struct Draw {
    rng: StdRng,
    kinds: Vec<Kind>,
    nodes: Vec<u32>,
    deck: Vec<Kind>,
}

impl Draw {
    /// `kinds` and `nodes` are not empty.
    pub(super) fn new(seed: u64, mut kinds: Vec<Kind>, mut nodes: Vec<u32>) -> Self {
        kinds.sort_unstable();
        kinds.dedup();
        nodes.sort_unstable();
        assert!(!kinds.is_empty() && nodes.len() > 1, "there is something to draw from");
        Self {
            rng: StdRng::seed_from_u64(seed),
            kinds,
            nodes,
            deck: Vec::new(),
        }
    }

    /// The next round.
    pub(super) fn round(&mut self) -> Round {
        let first = self.next_kind();
        let mut acts = vec![(first, self.act(first, None))];
        if self.rng.random_range(0..TWO_ONE_IN) == 0 {
            let mild: Vec<Kind> = (self.kinds.iter().copied())
                .filter(|kind| kind.is_mild() && *kind != first)
                .collect();
            if !mild.is_empty() {
                let second = mild[self.rng.random_range(0..mild.len())];
                let hurt = node_of(&acts[0].1);
                acts.push((second, self.act(second, hurt)));
            }
        }
        Round {
            acts,
            lasts: Duration::from_millis(self.rng.random_range(LASTS_MS)),
            calm: Duration::from_millis(self.rng.random_range(CALM_MS)),
        }
    }

    fn next_kind(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
        }
        let at = self.rng.random_range(0..self.deck.len());
        self.deck.swap_remove(at)
    }

    /// A node, not the one that is hurt already.
    fn node(&mut self, but: Option<u32>) -> u32 {
        let nodes: Vec<u32> = (self.nodes.iter().copied()).filter(|node| Some(*node) != but).collect();
        nodes[self.rng.random_range(0..nodes.len())]
    }

    fn act(&mut self, kind: Kind, but: Option<u32>) -> Act {
        let node = self.node(but);
        match kind {
            Kind::Kill => Act::Kill { node },
            Kind::Pause => Act::Pause { node },
            Kind::Partition => match self.rng.random_range(0..4) {
                0 => Act::Isolate { node },
                1 => Act::Mute { node },
                2 => Act::Deafen { node },
                _ => Act::Bridge {
                    one: node,
                    other: self.node(Some(node)),
                },
            },
            Kind::SlowLink => Act::SlowLink {
                node,
                delay_ms: self.rng.random_range(10..=120),
                loss_percent: self.rng.random_range(0..=5),
            },
            Kind::SlowDisk => Act::SlowDisk {
                node,
                delay_ms: self.rng.random_range(20..=400),
            },
            Kind::FullDisk => Act::FullDisk { node },
            Kind::Fsync => Act::Fsync { node },
            Kind::Wipe => Act::Wipe { node },
            Kind::Clock => {
                let offset_ms = self.rng.random_range(1_000..=120_000);
                Act::Clock {
                    node,
                    offset_ms: if self.rng.random() { offset_ms } else { -offset_ms },
                }
            }
            Kind::Provider if self.rng.random() => Act::ProviderDown,
            Kind::Provider => Act::ProviderFails { percent: 50 },
        }
    }
}

/// The node that an act hurts.
fn node_of(act: &Act) -> Option<u32> {
    match act {
        Act::Kill { node }
        | Act::Pause { node }
        | Act::Isolate { node }
        | Act::Mute { node }
        | Act::Deafen { node }
        | Act::SlowLink { node, .. }
        | Act::SlowDisk { node, .. }
        | Act::FullDisk { node }
        | Act::Fsync { node }
        | Act::Wipe { node }
        | Act::Clock { node, .. } => Some(*node),
        Act::Bridge { one, .. } => Some(*one),
        Act::ProviderDown | Act::ProviderFails { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    fn rounds(seed: u64, kinds: &[Kind], count: usize) -> Vec<Round> {
        let mut draw = Draw::new(seed, kinds.to_vec(), vec![1, 2, 3]);
        (0..count).map(|_| draw.round()).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_one_other_faults() {
        let all = Kind::value_variants();
        assert_eq!(rounds(7, all, 40), rounds(7, all, 40));
        assert_ne!(rounds(7, all, 40), rounds(8, all, 40));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let all = Kind::value_variants();
        for seed in 0..50 {
            let kinds: BTreeSet<Kind> = rounds(seed, all, all.len())
                .iter()
                .map(|round| round.acts[0].0)
                .collect();
            assert_eq!(kinds.len(), all.len());
        }
    }

    #[test]
    fn only_what_was_asked_for_is_drawn_and_two_at_once_only_where_one_is_mild() {
        let all = Kind::value_variants();
        let mut twos = 0;
        for seed in 0..50 {
            for round in rounds(seed, &[Kind::Kill, Kind::Wipe], 20) {
                assert!(matches!(round.acts[..], [(Kind::Kill | Kind::Wipe, _)]));
            }
            for round in rounds(seed, all, 20) {
                assert!(LASTS_MS.contains(&(round.lasts.as_millis() as u64)));
                let [(first, one), (second, other)] = &round.acts[..] else {
                    continue;
                };
                twos += 1;
                assert!(second.is_mild() && first != second);
                assert!(
                    node_of(other).is_none_or(|node| node_of(one) != Some(node)),
                    "{round:?}"
                );
            }
        }
        assert!(twos > 50, "{twos}");
    }
}
