//! What stands between nodes: delay, loss, duplicates, reordering, and cut links.

use std::collections::{BTreeMap, BTreeSet};

use super::rng::Rng;
use crate::config::NodeId;

/// The links of all nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Network {
    pub(super) loss_permille: u64,
    pub(super) duplicates_permille: u64,
    pub(super) delay_max: u64,
    /// Whether what was sent first comes first.
    pub(super) in_order: bool,
    /// Directions in which every other so many moments nothing passes, and until when.
    pub(super) flaps: BTreeMap<(NodeId, NodeId), (u64, u64)>,
    /// Directions in which everything waits until then.
    pub(super) clogs: BTreeMap<(NodeId, NodeId), u64>,
    /// Directions in which nothing passes.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) latest: BTreeMap<(NodeId, NodeId), u64>,
}

impl Network {
    /// When a message sent now arrives: never, once, or several times.
    pub(super) fn arrivals(&mut self, rng: &mut Rng, now: u64, from: NodeId, to: NodeId) -> Vec<u64> {
        if !self.passes(now, from, to) || rng.chance(self.loss_permille) {
            return Vec::new();
        }
        let copies = if rng.chance(self.duplicates_permille) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let sent = self.clogs.get(&(from, to)).map_or(now, |until| now.max(*until));
                let mut at = sent + rng.between(1, self.delay_max);
                if self.in_order {
                    let latest = self.latest.entry((from, to)).or_default();
                    at = at.max(*latest);
                    *latest = at;
                }
                at
            })
            .collect()
    }

    /// Whether two nodes can talk, in both directions.
    pub(super) fn connects(&self, now: u64, one: NodeId, other: NodeId) -> bool {
        self.passes(now, one, other) && self.passes(now, other, one)
    }

    fn passes(&self, now: u64, from: NodeId, to: NodeId) -> bool {
        let is_dark = |(until, period): &(u64, u64)| now < *until && !(now / period).is_multiple_of(2);
        !self.cut.contains(&(from, to)) && !self.flaps.get(&(from, to)).is_some_and(is_dark)
    }

    /// Cuts a node off: in both directions, or in one.
    pub(super) fn isolate(&mut self, node: NodeId, nodes: &[NodeId], outward: bool, inward: bool) {
        for other in nodes.iter().copied().filter(|other| *other != node) {
            if outward {
                self.cut.insert((node, other));
            }
            if inward {
                self.cut.insert((other, node));
            }
        }
    }

    pub(super) fn calm(&mut self) {
        self.cut.clear();
        self.flaps.clear();
        self.clogs.clear();
        self.loss_permille = 0;
        self.duplicates_permille = 0;
        self.delay_max = 4;
    }
}
