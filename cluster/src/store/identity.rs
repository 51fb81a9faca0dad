//! Who a data folder belongs to, and who its peers were: what tells a node that lost its folder from one that did not.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{config::NodeId, membership::Map, replication::RaftId};

const FILE: &str = "identity.json";

/// The layout of the file. A folder of another one is refused.
const FORMAT: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    format: u32,
    node: NodeId,
    /// Drawn once, when the folder is made.
    nonce: u64,
    /// The groups of this node have been begun.
    begun: bool,
    /// The nonces that peers have introduced themselves with.
    peers: BTreeMap<NodeId, u64>,
    /// The cluster's map as this node last saw it, and its version.
    #[serde(default)]
    map: (u64, Map),
    /// The replicas in this folder.
    #[serde(default)]
    held: BTreeMap<u32, RaftId>,
}

/// The identity in a data folder. Each change is on the device before it counts.
pub(crate) struct Identity {
    folder: PathBuf,
    stored: Mutex<Stored>,
}

impl Identity {
    /// Reads the folder's identity, or makes one.
    pub(crate) fn open(folder: &Path, node: NodeId) -> Result<Self, String> {
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
                format: FORMAT,
                node,
                nonce: rand::random(),
                begun: false,
                peers: BTreeMap::new(),
                map: (0, Map::default()),
                held: BTreeMap::new(),
            },
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        if stored.format != FORMAT {
            return Err(format!(
                "{} has layout {}, and this build reads layout {FORMAT}; start it with the build that made it",
                path.display(),
                stored.format
            ));
        }
        if stored.node != node {
            return Err(format!(
                "{} belongs to node {}, not to node {node}",
                folder.display(),
                stored.node
            ));
        }
        let identity = Self {
            folder: folder.to_owned(),
            stored: Mutex::new(stored),
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

    pub(crate) fn is_begun(&self) -> bool {
        self.stored.lock().begun
    }

    /// Takes part from now on, with these replicas.
    pub(crate) fn begin(&self, map: (u64, Map), held: BTreeMap<u32, RaftId>) -> Result<(), String> {
        self.change(|stored| {
            stored.begun = true;
            stored.map = map;
            stored.held = held;
        })
    }

    /// The cluster's map as this node last saw it, and its version.
    pub(crate) fn map(&self) -> (u64, Map) {
        self.stored.lock().map.clone()
    }

    pub(crate) fn set_map(&self, version: u64, map: &Map) -> Result<(), String> {
        self.change(|stored| stored.map = (version, map.clone()))
    }

    /// The replicas in this folder.
    pub(crate) fn held(&self) -> BTreeMap<u32, RaftId> {
        self.stored.lock().held.clone()
    }

    /// From now on this folder holds a replica of a shard.
    pub(crate) fn hold(&self, shard: u32, replica: RaftId) -> Result<(), String> {
        self.change(|stored| {
            stored.held.insert(shard, replica);
        })
    }

    /// From now on what this folder has of a shard is of no use.
    pub(crate) fn release(&self, shard: u32) -> Result<(), String> {
        self.change(|stored| {
            stored.held.remove(&shard);
        })
    }

    /// Takes note of a peer that introduces itself. Answers whether it was known under another nonce; then only one that
    /// has been let in as it is now is taken note of.
    pub(crate) fn introduce(&self, node: NodeId, nonce: u64, has_begun: bool) -> Result<bool, String> {
        let known = self.stored.lock().peers.get(&node).copied();
        let is_other = known.is_some_and(|known| known != nonce);
        if is_other && !has_begun {
            return Ok(true);
        }
        if known != Some(nonce) {
            self.change(|stored| {
                stored.peers.insert(node, nonce);
            })?;
        }
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
        let peer = Identity::open(a.path(), 1).expect("a folder");
        let node = Identity::open(b.path(), 2).expect("a folder");
        assert_eq!(peer.introduce(2, node.nonce(), false), Ok(false));
        assert_eq!(peer.introduce(2, node.nonce(), false), Ok(false));
        let lost = Identity::open(c.path(), 2).expect("an empty folder");
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(true));
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(true), "not let in yet");
        peer.introduce(2, lost.nonce(), true).expect("written");
        let peer = Identity::open(a.path(), 1).expect("the same folder");
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(false));
    }

    #[test]
    fn what_a_folder_holds_is_there_after_opening_again() {
        let folder = tempdir();
        let identity = Identity::open(folder.path(), 1).expect("a folder");
        identity
            .begin((3, Map::default()), [(0, 1), (2, 1)].into())
            .expect("written");
        identity.hold(5, 65_537).expect("written");
        identity.release(0).expect("written");
        let again = Identity::open(folder.path(), 1).expect("the same folder");
        assert!(again.is_begun());
        assert_eq!(again.map().0, 3);
        assert_eq!(again.held(), [(2, 1), (5, 65_537)].into());
    }

    #[test]
    fn a_folder_of_another_node_or_layout_is_refused() {
        let folder = tempdir();
        Identity::open(folder.path(), 1).expect("a folder");
        assert!(Identity::open(folder.path(), 2).is_err());
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, text.replace("\"format\": 2", "\"format\": 1")).expect("written");
        let refused = Identity::open(folder.path(), 1).err().expect("another layout");
        assert!(refused.contains("layout 1"), "{refused}");
    }

    fn tempdir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }
}
