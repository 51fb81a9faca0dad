//! What this node knows of the builds that the other members run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Part, card::Card, restrain::Restraint, view::held_back};
use crate::{
    config::NodeId,
    entity::{
        Registry,
        kind::{Kind, RawDecision},
    },
};

/// What this node knows of the builds that the other members run. It follows the cluster's map.
#[derive(Debug)]
pub(crate) struct Fleet {
    own: Arc<Card>,
    fingerprint: u64,
    /// Members run different builds.
    is_mixed: AtomicBool,
    restraint: RwLock<Restraint>,
    /// Members that have another build, or have not said which.
    others: RwLock<Vec<NodeId>>,
    /// For each shard that this node leads, who could lead it that reads more.
    heirs: RwLock<BTreeMap<u32, NodeId>>,
}

impl Fleet {
    /// Before anything is known of others.
    pub(crate) fn new(registry: &Registry) -> Self {
        let own = registry.card();
        Self {
            fingerprint: own.fingerprint(),
            own: Arc::new(own),
            is_mixed: AtomicBool::new(false),
            restraint: RwLock::default(),
            others: RwLock::default(),
            heirs: RwLock::default(),
        }
    }

    /// What this build reads.
    pub(crate) fn own(&self) -> &Arc<Card> {
        &self.own
    }

    /// Tells this build from others.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Takes note of what the members said.
    pub(crate) fn learn(&self, floor: Option<&Card>, builds: impl Iterator<Item = (NodeId, Option<u64>)>) {
        let others: Vec<_> = builds
            .filter(|(_, build)| *build != Some(self.fingerprint))
            .map(|(node, _)| node)
            .collect();
        *self.restraint.write() = match floor {
            None => Restraint::FirstVersions,
            Some(floor) if others.is_empty() || held_back(&self.own, floor).is_empty() => Restraint::None,
            Some(floor) => Restraint::Floor(Arc::new(floor.clone())),
        };
        self.is_mixed.store(!others.is_empty(), Ordering::Release);
        *self.others.write() = others;
    }

    /// Takes note of who could lead what instead of this node.
    pub(crate) fn set_heirs(&self, heirs: BTreeMap<u32, NodeId>) {
        *self.heirs.write() = heirs;
    }

    /// Who could lead a shard that reads more than this build.
    pub(crate) fn heir(&self, shard: u32) -> Option<NodeId> {
        self.heirs.read().get(&shard).copied()
    }

    /// Whether what comes may have been written by another build.
    pub(crate) fn is_mixed(&self) -> bool {
        self.is_mixed.load(Ordering::Acquire)
    }

    /// A decision in a form that every member can read; or why it has to wait.
    pub(crate) fn restrain(
        &self,
        registry: &Registry,
        kind: &str,
        decision: RawDecision,
    ) -> Result<RawDecision, String> {
        let restraint = self.restraint.read().clone();
        // The engine's own kinds are no part of a card: what they write is as old as the cluster.
        if restraint.is_none() || !self.own.kinds.contains_key(kind) {
            return Ok(decision);
        }
        restraint
            .apply(registry, kind, decision)
            .map_err(|what| self.wait_for(&what))
    }

    /// A command in a form that every member can read, if it has one.
    pub(crate) fn fit_command(&self, kind: &dyn Kind, name: &str, command: Bytes) -> Bytes {
        let restraint = self.restraint.read().clone();
        restraint.fit(kind, name, Part::Command, &command).unwrap_or(command)
    }

    fn wait_for(&self, what: &str) -> String {
        let others: Vec<_> = self.others.read().iter().map(|node| format!("node {node}")).collect();
        format!(
            "{what} is not written before every member of the cluster can read it; still to be upgraded: {}",
            if others.is_empty() {
                "none, it is about to be known".to_owned()
            } else {
                others.join(", ")
            }
        )
    }
}
