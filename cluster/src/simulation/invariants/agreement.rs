//! At each index all replicas commit the same entry, whatever was lost or replaced meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::config::NodeId;

#[derive(Debug, Default)]
pub(crate) struct Agreement {
    committed: BTreeMap<(u32, u64), (u64, u32, NodeId)>,
}

impl Agreement {
    /// A replica applies an entry. Says whether it is the first to.
    pub(crate) fn committed(
        &mut self,
        group: u32,
        index: u64,
        term: u64,
        data: &Bytes,
        node: NodeId,
    ) -> Result<bool, String> {
        let sum = crc32fast::hash(data);
        let mut is_first = false;
        let known = self.committed.entry((group, index)).or_insert_with(|| {
            is_first = true;
            (term, sum, node)
        });
        if (known.0, known.1) == (term, sum) {
            return Ok(is_first);
        }
        Err(format!(
            "group {group}: at {index} node {} has committed an entry of term {}, and node {node} another of term {term}",
            known.2, known.0
        ))
    }

    /// The first replica could not apply the entry after all: another one will be the first to.
    pub(crate) fn withdraw(&mut self, group: u32, index: u64) {
        self.committed.remove(&(group, index));
    }
}
