//! In one term at most one node serves a group.

use std::collections::BTreeMap;

use crate::config::NodeId;

#[derive(Debug, Default)]
pub(crate) struct Leaders {
    serving: BTreeMap<(u32, u64), NodeId>,
}

impl Leaders {
    pub(crate) fn serves(&mut self, group: u32, term: u64, node: NodeId) -> Result<(), String> {
        let first = *self.serving.entry((group, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!(
            "group {group}: nodes {first} and {node} both serve in term {term}"
        ))
    }
}
