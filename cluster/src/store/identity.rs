//! Who a data folder belongs to, and who its peers were: what tells a node that lost its folder from one that did not.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    config::NodeId,
    replication::{RaftId, raft_id},
};

const FILE: &str = "identity.json";

/// A peer as it last introduced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownPeer {
    pub(crate) nonce: u64,
    pub(crate) raft_id: RaftId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    node: NodeId,
    /// Drawn once, when the folder is made.
    nonce: u64,
    raft_id: RaftId,
    shards: u32,
    /// The groups of this node have been begun.
    begun: bool,
    peers: BTreeMap<NodeId, KnownPeer>,
}

/// The identity in a data folder. Each change is on the device before it counts.
pub(crate) struct Identity {
    folder: PathBuf,
    stored: Mutex<Stored>,
    /// Peers that have introduced themselves to this process. What is stored may be older than what the others know.
    heard: Mutex<BTreeMap<NodeId, RaftId>>,
}

impl Identity {
    /// Reads the folder's identity, or makes one.
    pub(crate) fn open(folder: &Path, node: NodeId, shards: u32) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!(
                    "{} is damaged ({error}); delete the folder, and it is rebuilt from the peers",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Stored {
                node,
                nonce: rand::random(),
                raft_id: raft_id(node, 0),
                shards,
                begun: false,
                peers: BTreeMap::new(),
            },
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        if stored.node != node {
            return Err(format!(
                "{} belongs to node {}, not to node {node}",
                folder.display(),
                stored.node
            ));
        }
        if stored.begun && stored.shards != shards {
            return Err(format!(
                "{} was begun with {} shards, and the configuration says {shards}; the number cannot change",
                folder.display(),
                stored.shards
            ));
        }
        let identity = Self {
            folder: folder.to_owned(),
            stored: Mutex::new(stored),
            heard: Mutex::default(),
        };
        identity.change(|_| ())?;
        Ok(identity)
    }

    pub(crate) fn node(&self) -> NodeId {
        self.stored.lock().node
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.stored.lock().nonce
    }

    pub(crate) fn raft_id(&self) -> RaftId {
        self.stored.lock().raft_id
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.stored.lock().begun
    }

    /// The folder was lost: this node comes back as a new replica.
    pub(crate) fn renew(&self) -> Result<(), String> {
        // 46 bits beside the node's 16 keep the number below what any language's integers hold.
        let incarnation = (rand::random::<u64>() >> 18).max(1);
        self.change(|stored| stored.raft_id = raft_id(stored.node, incarnation))
    }

    pub(crate) fn set_begun(&self) -> Result<(), String> {
        self.change(|stored| stored.begun = true)
    }

    /// The replica that each node holds that has introduced itself to this process, and this one's own.
    pub(crate) fn replicas(&self) -> BTreeMap<NodeId, RaftId> {
        let mut replicas = self.heard.lock().clone();
        let stored = self.stored.lock();
        replicas.insert(stored.node, stored.raft_id);
        replicas
    }

    fn peer(&self, node: NodeId) -> Option<KnownPeer> {
        self.stored.lock().peers.get(&node).copied()
    }

    /// Takes note of a peer that introduces itself. Answers whether it was known under another nonce; then only a
    /// renewed one is taken note of.
    pub(crate) fn introduce(&self, node: NodeId, peer: KnownPeer) -> Result<bool, String> {
        let known = self.peer(node);
        let is_other = known.is_some_and(|known| known.nonce != peer.nonce);
        let is_renewed = peer.raft_id != raft_id(node, 0);
        if is_other && !is_renewed {
            return Ok(true);
        }
        if known != Some(peer) {
            self.change(|stored| {
                stored.peers.insert(node, peer);
            })?;
        }
        self.heard.lock().insert(node, peer.raft_id);
        Ok(is_other)
    }

    fn change(&self, change: impl FnOnce(&mut Stored)) -> Result<(), String> {
        let mut stored = self.stored.lock();
        let mut next = stored.clone();
        change(&mut next);
        write_durably(&self.folder, &next).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        *stored = next;
        Ok(())
    }
}

fn write_durably(folder: &Path, stored: &Stored) -> std::io::Result<()> {
    let next = folder.join("identity.json.next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec_pretty(stored)?)?;
    file.sync_all()?;
    fs::rename(&next, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_folder_is_noticed_by_its_peers() {
        let (a, b, c) = (tempdir(), tempdir(), tempdir());
        let peer = Identity::open(a.path(), 1, 16).expect("a folder");
        let node = Identity::open(b.path(), 2, 16).expect("a folder");
        let me = |identity: &Identity| KnownPeer {
            nonce: identity.nonce(),
            raft_id: identity.raft_id(),
        };
        assert_eq!(peer.introduce(2, me(&node)), Ok(false));
        assert_eq!(peer.introduce(2, me(&node)), Ok(false));
        let lost = Identity::open(c.path(), 2, 16).expect("an empty folder");
        assert_eq!(peer.introduce(2, me(&lost)), Ok(true));
        assert_eq!(peer.peer(2), Some(me(&node)), "not yet renewed");
        lost.renew().expect("renewed");
        peer.introduce(2, me(&lost)).expect("written");
        let peer = Identity::open(a.path(), 1, 16).expect("the same folder");
        assert_eq!(peer.peer(2), Some(me(&lost)));
    }

    #[test]
    fn a_folder_of_another_node_or_shard_count_is_refused() {
        let folder = tempdir();
        Identity::open(folder.path(), 1, 16)
            .expect("a folder")
            .set_begun()
            .expect("written");
        assert!(Identity::open(folder.path(), 2, 16).is_err());
        assert!(Identity::open(folder.path(), 1, 8).is_err());
    }

    fn tempdir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }
}
