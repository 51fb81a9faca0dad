//! Which shards this node holds a replica of. Replicas come and go while the node runs.

use std::sync::Arc;

use parking_lot::RwLock;

use super::replica::Replica;

/// A place for each shard of the cluster.
pub(crate) struct Slots(Vec<RwLock<Option<Arc<Replica>>>>);

impl Slots {
    /// So many empty places.
    pub(crate) fn new(shards: u32) -> Self {
        Self((0..shards).map(|_| RwLock::default()).collect())
    }

    /// This node's replica of a shard, if it holds one.
    pub(crate) fn get(&self, shard: u32) -> Option<Arc<Replica>> {
        self.0.get(shard as usize)?.read().clone()
    }

    /// All replicas of this node, in the order of their shards.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<Replica>> + '_ {
        self.0.iter().filter_map(|slot| slot.read().clone())
    }

    /// Puts a replica into its place.
    pub(crate) fn put(&self, replica: Arc<Replica>) {
        let before = self.0[replica.shard() as usize].write().replace(replica);
        assert!(before.is_none(), "a node holds one replica of a shard");
    }

    /// Takes the replica of a shard out.
    pub(crate) fn take(&self, shard: u32) -> Option<Arc<Replica>> {
        self.0.get(shard as usize)?.write().take()
    }
}
