//! Who a data folder belongs to, and who its peers were: what tells a node that lost its folder from one that did not.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// This folder takes the place of one that was damaged: the node was here before, and must not begin anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
    /// The nonces that peers have introduced themselves with.
    peers: BTreeMap<NodeId, u64>,
    /// The cluster's map as this node last saw it, and its version.
    #[serde(default)]
    map: (u64, Map),
    /// The replicas in this folder.
    #[serde(default)]
    held: BTreeMap<u32, RaftId>,
}

/// The field of the file with the checksum of all others; absent in files of earlier builds.
const CHECKSUM: &str = "checksum";

/// Why a folder's identity cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    /// It is not what was written, or is gone although the rest is there.
    #[error("{0}")]
    Damaged(String),
    /// It is another's, or cannot be read or written now.
    #[error("{0}")]
    Unusable(String),
}

/// The identity in a data folder. Each change is on the device before it counts.
pub(crate) struct Identity {
    folder: PathBuf,
    stored: Mutex<Stored>,
}

impl Identity {
    /// Reads the folder's identity, or makes one. `is_lost` says that the node was here before with a folder that is set aside now.
    pub(crate) fn open(folder: &Path, node: NodeId, is_lost: bool) -> Result<Self, IdentityError> {
        let unusable =
            |path: &Path, error: &std::io::Error| IdentityError::Unusable(format!("{}: {error}", path.display()));
        fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        let path = folder.join(FILE);
        let damaged = |reason: &str| IdentityError::Damaged(format!("{} {reason}", path.display()));
        let stored = match fs::read(&path) {
            Ok(bytes) => read(&bytes).map_err(|reason| damaged(&reason))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // It is the first file that is made.
                if folder.join("log").exists() {
                    return Err(damaged("is gone, and the log is there"));
                }
                Stored {
                    format: FORMAT,
                    node,
                    nonce: rand::random(),
                    begun: false,
                    lost: is_lost,
                    peers: BTreeMap::new(),
                    map: (0, Map::default()),
                    held: BTreeMap::new(),
                }
            }
            Err(error) => return Err(unusable(&path, &error)),
        };
        if stored.format != FORMAT {
            return Err(IdentityError::Unusable(format!(
                "{} has layout {}, and this build reads layout {FORMAT}; start it with the build that made it",
                path.display(),
                stored.format
            )));
        }
        if stored.node != node {
            return Err(IdentityError::Unusable(format!(
                "{} belongs to node {}, not to node {node}",
                folder.display(),
                stored.node
            )));
        }
        let identity = Self {
            folder: folder.to_owned(),
            stored: Mutex::new(stored),
        };
        identity.change(|_| ()).map_err(IdentityError::Unusable)?;
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

    /// Whether the node was here before with another folder, and has not been let in again yet.
    pub(crate) fn is_lost(&self) -> bool {
        self.stored.lock().lost
    }

    /// Takes part from now on, with these replicas.
    pub(crate) fn begin(&self, map: (u64, Map), held: BTreeMap<u32, RaftId>) -> Result<(), String> {
        self.change(|stored| {
            stored.begun = true;
            stored.lost = false;
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

/// Reads what [`write_durably`] has written; or says what is wrong with it.
fn read(bytes: &[u8]) -> Result<Stored, String> {
    let damaged = |error: serde_json::Error| format!("is damaged ({error})");
    let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(bytes).map_err(damaged)?;
    if let Some(sum) = fields.remove(CHECKSUM)
        && sum != checksum(&fields)
    {
        return Err("is damaged (checksum)".to_owned());
    }
    serde_json::from_value(Value::Object(fields)).map_err(damaged)
}

/// Of the fields as they stand there: another build may have others.
fn checksum(fields: &serde_json::Map<String, Value>) -> u32 {
    crc32fast::hash(&serde_json::to_vec(fields).expect("JSON can be written"))
}

fn write_durably(folder: &Path, stored: &Stored) -> std::io::Result<()> {
    let Value::Object(mut fields) = serde_json::to_value(stored)? else {
        unreachable!("a struct is an object")
    };
    fields.insert(CHECKSUM.to_owned(), checksum(&fields).into());
    let next = folder.join("identity.json.next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec_pretty(&fields)?)?;
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
        let peer = Identity::open(a.path(), 1, false).expect("a folder");
        let node = Identity::open(b.path(), 2, false).expect("a folder");
        assert_eq!(peer.introduce(2, node.nonce(), false), Ok(false));
        assert_eq!(peer.introduce(2, node.nonce(), false), Ok(false));
        let lost = Identity::open(c.path(), 2, false).expect("an empty folder");
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(true));
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(true), "not let in yet");
        peer.introduce(2, lost.nonce(), true).expect("written");
        let peer = Identity::open(a.path(), 1, false).expect("the same folder");
        assert_eq!(peer.introduce(2, lost.nonce(), false), Ok(false));
    }

    #[test]
    fn what_a_folder_holds_is_there_after_opening_again() {
        let folder = tempdir();
        let identity = Identity::open(folder.path(), 1, false).expect("a folder");
        identity
            .begin((3, Map::default()), [(0, 1), (2, 1)].into())
            .expect("written");
        identity.hold(5, 65_537).expect("written");
        identity.release(0).expect("written");
        let again = Identity::open(folder.path(), 1, false).expect("the same folder");
        assert!(again.is_begun());
        assert_eq!(again.map().0, 3);
        assert_eq!(again.held(), [(2, 1), (5, 65_537)].into());
    }

    #[test]
    fn a_folder_of_another_node_or_layout_is_refused() {
        let folder = tempdir();
        Identity::open(folder.path(), 1, false).expect("a folder");
        assert!(Identity::open(folder.path(), 2, false).is_err());
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).expect("it is there");
        let mut stored = read(text.as_bytes()).expect("whole");
        stored.format = 1;
        write_durably(folder.path(), &stored).expect("written");
        let refused = Identity::open(folder.path(), 1, false).err().expect("another layout");
        assert!(
            matches!(&refused, IdentityError::Unusable(reason) if reason.contains("layout 1")),
            "{refused}"
        );
    }

    #[test]
    fn a_flipped_bit_is_damage_wherever_it_is() {
        let folder = tempdir();
        drop(Identity::open(folder.path(), 1, false).expect("a folder"));
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).expect("it is there");
        let name = whole
            .windows(CHECKSUM.len())
            .position(|window| window == CHECKSUM.as_bytes());
        let name = name.map(|from| from..from + CHECKSUM.len()).expect("it has one");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            match Identity::open(folder.path(), 1, false) {
                Err(IdentityError::Damaged(_)) => {}
                // As in a file of an earlier build: nothing else can have been flipped then.
                Ok(_) if name.contains(&at) => {}
                Ok(_) => panic!("byte {at} was taken"),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }

    #[test]
    fn a_folder_that_lost_its_identity_alone_is_damaged() {
        let folder = tempdir();
        fs::create_dir(folder.path().join("log")).expect("made");
        let refused = Identity::open(folder.path(), 1, false).err();
        assert!(matches!(refused, Some(IdentityError::Damaged(_))), "{refused:?}");
    }

    #[test]
    fn one_that_was_here_before_stays_so_until_it_is_let_in() {
        let folder = tempdir();
        drop(Identity::open(folder.path(), 1, true).expect("a folder"));
        let identity = Identity::open(folder.path(), 1, false).expect("the same folder");
        assert!(identity.is_lost());
        identity.begin((1, Map::default()), BTreeMap::new()).expect("written");
        assert!(!identity.is_lost());
    }

    fn tempdir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }
}
