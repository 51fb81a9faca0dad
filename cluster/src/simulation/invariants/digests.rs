//! Replicas that have applied the same entries are in the same state.

use std::collections::BTreeMap;

use crate::config::NodeId;

#[derive(Debug, Default)]
pub(crate) struct Digests {
    known: BTreeMap<(u32, u64), (u64, NodeId)>,
}

impl Digests {
    pub(crate) fn at(&mut self, group: u32, index: u64, digest: u64, node: NodeId) -> Result<(), String> {
        let (known, first) = *self.known.entry((group, index)).or_insert((digest, node));
        if known == digest {
            return Ok(());
        }
        Err(format!(
            "group {group}: at {index} the states of nodes {first} and {node} differ"
        ))
    }
}
