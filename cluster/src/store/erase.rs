//! Makes sure that what was forgotten is in no file of this node any more.
//!
//! Neither the log nor the state store overwrites what is removed from it: raft-engine lets a file go when nothing in it is of use, and
//! sled leaves old pages where they were until their segment is needed. So both are written anew, with what is of use and nothing else,
//! and the old files are overwritten and removed. That is done when the node starts, before anything is opened: it takes as long as
//! reading and writing the folder once, and nobody waits for it but this node's replicas.
//!
//! The checkpoint that takes a forgotten entity's rows away notes it here first, with its position; the note goes once the log has been
//! cut there and the files have been written anew after that.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{StoreError, log, state};

const FILE: &str = "erase.json";
/// Bytes that are overwritten at one time.
const BLOCK_BYTES: usize = 1 << 20;

/// What of this node's folder is to be written anew: for each shard the position up to which.
pub(crate) struct Erasure {
    path: PathBuf,
    pending: Mutex<BTreeMap<u32, u64>>,
}

impl Erasure {
    /// Reads what is to be done, and does it. To be called while neither log nor state is open.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let pending: BTreeMap<u32, u64> = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| StoreError::damaged(FILE.as_bytes(), &error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(&path, &error)),
        };
        let parts = [folder.join("log"), folder.join("state")];
        for part in &parts {
            settle(part)?;
        }
        let erasure = Self {
            path,
            pending: Mutex::new(pending),
        };
        if !erasure.pending.lock().is_empty() {
            let [log_path, state_path] = &parts;
            let cuts = log::copy(log_path, &next(log_path))?;
            state::copy(state_path, &next(state_path))?;
            for part in &parts {
                replace(part)?;
            }
            // A part of the log that is not cut yet has been written anew with the rest.
            let mut pending = erasure.pending.lock();
            pending.retain(|shard, position| cuts.get(shard).is_some_and(|cut| cut < position));
            let left = pending.clone();
            drop(pending);
            erasure.write(&left)?;
            tracing::info!(
                left = left.len(),
                "log and state were written anew, without what was forgotten"
            );
        }
        Ok(erasure)
    }

    /// Notes that an entity of a shard was forgotten at or before a position of its journal. On the device when it returns.
    pub(crate) fn note(&self, shard: u32, position: u64) -> Result<(), StoreError> {
        let all = {
            let mut pending = self.pending.lock();
            let known = pending.entry(shard).or_default();
            *known = position.max(*known);
            pending.clone()
        };
        self.write(&all)
    }

    /// Whether files of this node may still hold what was forgotten in a shard.
    pub(crate) fn is_pending(&self, shard: u32) -> bool {
        self.pending.lock().contains_key(&shard)
    }

    fn write(&self, pending: &BTreeMap<u32, u64>) -> Result<(), StoreError> {
        let next = self.path.with_extension("next");
        let bytes = serde_json::to_vec(pending).expect("numbers always have a JSON form");
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&next, &self.path)?;
            sync_parent(&self.path)
        };
        write().map_err(|error| failed(&self.path, &error))
    }
}

fn next(part: &Path) -> PathBuf {
    part.with_extension("next")
}

fn old(part: &Path) -> PathBuf {
    part.with_extension("old")
}

/// Takes up what a node that ended in the middle has left.
fn settle(part: &Path) -> Result<(), StoreError> {
    let (next, old) = (next(part), old(part));
    let settle = || -> io::Result<()> {
        if !part.exists() && next.exists() && old.exists() {
            // The new one was whole before the old one was moved away.
            fs::rename(&next, part)?;
            sync_parent(part)?;
        }
        if next.exists() {
            destroy(&next)?;
        }
        if old.exists() {
            destroy(&old)?;
        }
        Ok(())
    };
    settle().map_err(|error| failed(part, &error))
}

/// Puts the new folder, which is whole and on the device, in the place of the old one, and destroys that.
fn replace(part: &Path) -> Result<(), StoreError> {
    let (next, old) = (next(part), old(part));
    if !next.exists() {
        return Ok(());
    }
    let replace = || -> io::Result<()> {
        sync_folder(&next)?;
        fs::rename(part, &old)?;
        fs::rename(&next, part)?;
        sync_parent(part)?;
        destroy(&old)
    };
    replace().map_err(|error| failed(part, &error))
}

/// Overwrites every file of a folder, and removes it. What the device or its file system keeps of earlier versions is out of reach.
fn destroy(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            destroy(&path)?;
            continue;
        }
        let mut left = fs::metadata(&path)?.len();
        let mut file = OpenOptions::new().write(true).open(&path)?;
        let zeros = vec![0; BLOCK_BYTES];
        while left > 0 {
            let len = left.min(BLOCK_BYTES as u64);
            file.write_all(&zeros[..len as usize])?;
            left -= len;
        }
        file.sync_data()?;
        fs::remove_file(&path)?;
    }
    fs::remove_dir(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_folder(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use std::sync::Arc;

    use super::*;
    use crate::{
        replication::{Entry, GroupWrite},
        store::{
            Batch, StateStore as _,
            log::{Log, StoredGroup},
            state::StateDb,
        },
    };

    const SECRET: &[u8] = b"ann lives in the third house";

    /// Whether a file below a folder holds the secret.
    fn holds(folder: &Path) -> bool {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).any(|path| {
            if path.is_dir() {
                return holds(&path);
            }
            let bytes = fs::read(&path).expect("readable");
            bytes.windows(SECRET.len()).any(|window| window == SECRET)
        })
    }

    fn entry(index: u64, data: &'static [u8]) -> Entry {
        Entry {
            index,
            term: 1,
            data: Bytes::from_static(data),
            ..Entry::default()
        }
    }

    /// A folder whose log and state held the secret once, and do no longer.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open(&folder.path().join("log"), &Arc::default()).expect("a log");
        log.begin(3, &StoredGroup::default()).expect("begun");
        let entries = vec![entry(1, b"begin"), entry(2, SECRET), entry(3, b"after")];
        let write = GroupWrite {
            entries,
            ..GroupWrite::default()
        };
        log.append(&[(3, write, 0)]).expect("written");
        let db = StateDb::open(&folder.path().join("state"), &Arc::default()).expect("a store");
        let shard = db.shard(3, 0).expect("a shard");
        let mut batch = Batch::default();
        batch.put(b"ea".to_vec(), SECRET.to_vec());
        batch.put(b"eb".to_vec(), b"stays".to_vec());
        shard.write(batch).expect("written");
        db.sync().expect("synced");
        let mut batch = Batch::default();
        batch.remove(b"ea".to_vec());
        shard.write(batch).expect("written");
        db.sync().expect("synced");
        folder
    }

    fn cut(folder: &Path) {
        let log = Log::open(&folder.join("log"), &Arc::default()).expect("the log");
        let cut = GroupWrite {
            cut: Some((2, 1)),
            ..GroupWrite::default()
        };
        log.append(&[(3, cut, 0)]).expect("cut");
        log.purge().expect("purged");
    }

    #[test]
    fn what_was_forgotten_is_in_no_file_after_the_next_start_and_the_rest_is_there() {
        let folder = folder();
        cut(folder.path());
        assert!(holds(folder.path()), "removing is not erasing");
        let erasure = Erasure::open(folder.path()).expect("nothing to do yet");
        erasure.note(3, 2).expect("noted");
        drop(erasure);
        assert!(holds(folder.path()));
        let erasure = Erasure::open(folder.path()).expect("written anew");
        assert!(!erasure.is_pending(3));
        assert!(!holds(folder.path()));
        let log = Log::open(&folder.path().join("log"), &Arc::default()).expect("the log");
        let group = log.group(3).expect("read").expect("begun");
        assert_eq!(group.cut, (2, 1));
        assert_eq!(group.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [3]);
        let db = StateDb::open(&folder.path().join("state"), &Arc::default()).expect("the store");
        let shard = db.shard(3, 0).expect("the shard");
        assert_eq!(shard.get(b"eb").expect("read"), Some(Bytes::from_static(b"stays")));
    }

    #[test]
    fn what_the_log_still_needs_stays_and_is_noted_for_the_next_start() {
        let folder = folder();
        Erasure::open(folder.path()).expect("opened").note(3, 2).expect("noted");
        let erasure = Erasure::open(folder.path()).expect("written anew");
        assert!(erasure.is_pending(3), "the log is not cut there yet");
        drop(erasure);
        cut(folder.path());
        assert!(holds(folder.path()));
        assert!(!Erasure::open(folder.path()).expect("written anew").is_pending(3));
        assert!(!holds(folder.path()));
    }

    /// The node ended between the two steps in which the new folder takes the old one's place.
    #[test]
    fn an_interrupted_replacement_is_taken_up() {
        let folder = folder();
        let log_path = folder.path().join("log");
        log::copy(&log_path, &next(&log_path)).expect("copied");
        fs::rename(&log_path, old(&log_path)).expect("moved");
        drop(Erasure::open(folder.path()).expect("taken up"));
        let log = Log::open(&log_path, &Arc::default()).expect("the log");
        assert_eq!(log.group(3).expect("read").expect("begun").entries.len(), 3);
        assert!(!old(&log_path).exists() && !next(&log_path).exists());
    }
}
