//! The state of all shards of a node in sled.
//!
//! sled's `flush` does not reach the device on Linux (it calls `sync_file_range`), and it never syncs the files it puts
//! large values into. [`StateDb::sync`] does both itself, and the log is trimmed only after it. Each value carries a
//! checksum, so that a flipped bit is found before it is served.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    Batch, StateStore, StoreError, Visit,
    mark::{self, Mark},
    seal::{seal, unseal},
};
use crate::{faults::Faults, shard::end_node};

/// How often, and in what interval, a store that is still in use is tried.
const OPEN_ATTEMPTS_MAX: u32 = 30;
const OPEN_INTERVAL: Duration = Duration::from_millis(100);

/// Memory that sled may use for pages, in bytes.
const CACHE_BYTES: u64 = 64 << 20;

/// The row, in a tree of its own, with the number of the last sync.
const NUMBER: &[u8] = b"synced";

/// Bytes that are copied in one batch.
const COPIED_BYTES_MAX: usize = 4 << 20;

/// All shards of a node.
pub(crate) struct StateDb {
    db: sled::Db,
    path: PathBuf,
    faults: Arc<Faults>,
    /// How many syncs have reached the device.
    mark: Mutex<Mark>,
    /// Files of large values that are known to be on the device, with their lengths: one may still be growing.
    synced_blobs: Mutex<BTreeMap<OsString, u64>>,
}

impl StateDb {
    /// Opens what is there, or begins. What came after the last sync may be gone; what came before it and is not there is damage.
    pub(crate) fn open(path: &Path, faults: &Arc<Faults>) -> Result<Self, StoreError> {
        let synced = mark::read(path).map_err(|error| failed(&error))?;
        let config = sled::Config::default()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            // Only checkpoints need to reach the device, and they say so.
            .flush_every_ms(None);
        let mut attempts = 1;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                // Whoever had the folder open may be about to let go of it.
                Err(error) if error.to_string().contains("lock") && attempts < OPEN_ATTEMPTS_MAX => {
                    attempts += 1;
                    thread::sleep(OPEN_INTERVAL);
                }
                Err(error) => return Err(broken(&error)),
            }
        };
        let number = match db.get(NUMBER).map_err(|error| broken(&error))? {
            Some(bytes) => number_of(&bytes)?,
            None => 0,
        };
        if number < synced {
            let reason = format!("it ends with sync {number}, and {synced} had reached the device");
            return Err(StoreError::Damaged {
                key: "the state store".to_owned(),
                reason,
            });
        }
        Ok(Self {
            db,
            mark: Mutex::new(Mark::open(path, number).map_err(|error| failed(&error))?),
            faults: Arc::clone(faults),
            path: path.to_owned(),
            synced_blobs: Mutex::default(),
        })
    }

    /// The state of a shard under a generation; a new generation is empty.
    pub(crate) fn shard(&self, shard: u32, generation: u64) -> Result<Arc<SledShard>, StoreError> {
        let tree = self
            .db
            .open_tree(tree_name(shard, generation))
            .map_err(|error| broken(&error))?;
        let faults = Arc::clone(&self.faults);
        Ok(Arc::new(SledShard { tree, faults }))
    }

    /// The read models of a shard. They follow from the shard's events, whatever the generation under which its state is kept.
    pub(crate) fn models(&self, shard: u32) -> Result<Arc<SledShard>, StoreError> {
        let tree = self.db.open_tree(models_name(shard)).map_err(|error| broken(&error))?;
        let faults = Arc::clone(&self.faults);
        Ok(Arc::new(SledShard { tree, faults }))
    }

    pub(crate) fn drop_shard(&self, shard: u32, generation: u64) -> Result<(), StoreError> {
        self.db
            .drop_tree(tree_name(shard, generation))
            .map(|_| ())
            .map_err(|error| broken(&error))
    }

    /// Drops every generation of a shard but one: what an interrupted fetch has left.
    pub(crate) fn keep_only(&self, shard: u32, generation: u64) -> Result<(), StoreError> {
        self.drop_but(shard, Some(generation))
    }

    /// Drops everything of a shard.
    pub(crate) fn drop_all(&self, shard: u32) -> Result<(), StoreError> {
        self.db.drop_tree(models_name(shard)).map_err(|error| broken(&error))?;
        self.drop_but(shard, None)
    }

    fn drop_but(&self, shard: u32, keep: Option<u64>) -> Result<(), StoreError> {
        let prefix = format!("shard-{shard}-");
        let keep = keep.map(|generation| tree_name(shard, generation));
        for name in self.db.tree_names() {
            if name.starts_with(prefix.as_bytes()) && keep.as_ref().is_none_or(|keep| name != keep.as_bytes()) {
                self.db.drop_tree(name).map_err(|error| broken(&error))?;
            }
        }
        Ok(())
    }

    /// Brings all that was written to the device.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let mut mark = self.mark.lock();
        let number = mark.next();
        self.faults.before_sync().map_err(|error| failed(&error))?;
        let written = self.db.insert(NUMBER, &number.to_be_bytes());
        written.and_then(|_| self.db.flush()).map_err(|error| broken(&error))?;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_data());
        sync(&self.path.join("db")).map_err(|error| failed(&error))?;
        let blobs = self.path.join("blobs");
        if blobs.is_dir() {
            let now: BTreeMap<OsString, u64> = fs::read_dir(&blobs)
                .map_err(|error| failed(&error))?
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    Some((entry.file_name(), entry.metadata().ok()?.len()))
                })
                .collect();
            let mut synced = self.synced_blobs.lock();
            let is_new = |(name, len): &(&OsString, &u64)| synced.get(*name) != Some(*len);
            let new: Vec<OsString> = now.iter().filter(is_new).map(|(name, _)| name.clone()).collect();
            for name in &new {
                match sync(&blobs.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
                    _ => {} // sled may have removed it meanwhile.
                }
            }
            if !new.is_empty() {
                sync(&blobs).map_err(|error| failed(&error))?;
            }
            *synced = now;
        }
        mark.set(number).map_err(|error| failed(&error))
    }
}

/// Writes what is in a store, and nothing else, into a new one, and brings that to the device.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    if !from.exists() {
        return Ok(());
    }
    let faults = Arc::default();
    let (old, new) = (StateDb::open(from, &faults)?, StateDb::open(to, &faults)?);
    for name in old.db.tree_names() {
        let source = old.db.open_tree(&name).map_err(|error| broken(&error))?;
        let target = new.db.open_tree(&name).map_err(|error| broken(&error))?;
        let (mut batch, mut bytes) = (sled::Batch::default(), 0);
        for row in &source {
            let (key, value) = row.map_err(|error| broken(&error))?;
            bytes += key.len() + value.len();
            batch.insert(key, value);
            if bytes >= COPIED_BYTES_MAX {
                target
                    .apply_batch(std::mem::take(&mut batch))
                    .map_err(|error| broken(&error))?;
                bytes = 0;
            }
        }
        target.apply_batch(batch).map_err(|error| broken(&error))?;
    }
    // The number was copied too.
    let number = new.db.get(NUMBER).map_err(|error| broken(&error))?;
    new.mark.lock().last = number.as_deref().map_or(Ok(0), number_of)?;
    new.sync()
}

fn models_name(shard: u32) -> String {
    format!("models-{shard}")
}

fn tree_name(shard: u32, generation: u64) -> String {
    format!("shard-{shard}-{generation}")
}

fn failed(error: &dyn std::error::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// What sled says: that its files are not what it has written, or that it cannot use them now.
fn broken(error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) => StoreError::Damaged {
            key: "the state store".to_owned(),
            reason: error.to_string(),
        },
        error => failed(error),
    }
}

fn number_of(bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::damaged(NUMBER, &"length"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// One shard's rows.
pub(crate) struct SledShard {
    tree: sled::Tree,
    faults: Arc<Faults>,
}

impl StateStore for SledShard {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.tree.get(key).map_err(|error| broken(&error))? {
            Some(value) => unseal(key, &value).map(Some),
            None => Ok(None),
        }
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        for row in self.tree.range(from.max(prefix)..) {
            let (key, value) = row.map_err(|error| broken(&error))?;
            if !key.starts_with(prefix) {
                break;
            }
            let value = unseal(&key, &value)?;
            if !visit(&key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn last_at(&self, prefix: &[u8], at: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        match self.tree.range(prefix..=at).next_back() {
            Some(row) => {
                let (key, value) = row.map_err(|error| broken(&error))?;
                let value = unseal(&key, &value)?;
                Ok(Some((key.to_vec(), value)))
            }
            None => Ok(None),
        }
    }

    fn first_keys(&self, prefix: &[u8], max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let keys = self.tree.scan_prefix(prefix).keys().take(max);
        keys.map(|key| key.map(|key| key.to_vec()).map_err(|error| broken(&error)))
            .collect()
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = sled::Batch::default();
        for (key, value) in batch.rows {
            match value {
                Some(value) => rows.insert(sled::IVec::from(&key[..]), seal(&key, &value)),
                None => rows.remove(key),
            }
        }
        self.faults.before_write().map_err(|error| failed(&error))?;
        self.tree.apply_batch(rows).map_err(|error| match error {
            // Whoever wrote this might go on, but sled counts it among its writers for ever: each later flush waits for it, and so
            // nothing is ever checkpointed again.
            sled::Error::Io(_) => end_node(&format!(
                "the state store cannot be written: {error}; free the disk or replace it, then start the node"
            )),
            error => broken(&error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    fn batch(rows: &[(&str, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in rows {
            batch.put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
        batch
    }

    #[test]
    fn what_was_synced_is_there_after_opening_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let large = "x".repeat(1 << 20);
        {
            let db = StateDb::open(folder.path(), &Arc::default()).expect("a new store");
            let shard = db.shard(3, 1).expect("a shard");
            shard
                .write(batch(&[("ea", "1"), ("eb", "2"), ("ec", &large)]))
                .expect("written");
            db.sync().expect("synced");
        }
        let db = StateDb::open(folder.path(), &Arc::default()).expect("the same store");
        let shard = db.shard(3, 1).expect("the same shard");
        assert_eq!(shard.get(b"eb").expect("read"), Some(Bytes::from_static(b"2")));
        assert_eq!(shard.get(b"ec").expect("read").map(|value| value.len()), Some(1 << 20));
        let last = shard.last_at(b"e", b"ebz").expect("read").map(|(key, _)| key);
        assert_eq!(last.as_deref(), Some(&b"eb"[..]));
        db.keep_only(3, 2).expect("dropped");
        assert_eq!(db.shard(3, 1).expect("a shard").get(b"eb").expect("read"), None);
    }

    /// Runs itself once more, in a process in which no file may grow beyond 2 MiB.
    #[test]
    fn a_write_for_which_there_is_no_room_ends_the_node() {
        if env::var_os("PLAYHOUSE_TEST_NO_ROOM").is_some() {
            let folder = tempfile::tempdir().expect("a folder");
            let db = StateDb::open(folder.path(), &Arc::default()).expect("a new store");
            let models = db.models(0).expect("models");
            // What repeats itself would be compressed.
            let large: String = (0..4 << 20)
                .map(|_| char::from(rand::random_range(b' '..=b'~')))
                .collect();
            let _ = models.write(batch(&[("ma", &large)]));
            return;
        }
        let ended = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 4096; exec \"$0\" --exact \"$1\" --nocapture",
            ])
            .arg(env::current_exe().expect("this program"))
            .arg("store::state::tests::a_write_for_which_there_is_no_room_ends_the_node")
            .env("PLAYHOUSE_TEST_NO_ROOM", "1")
            .output()
            .expect("it runs");
        assert_eq!(ended.status.code(), Some(70), "{ended:?}");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(told.contains("free the disk"), "{told}");
    }

    #[test]
    fn a_flipped_bit_is_not_served() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = StateDb::open(folder.path(), &Arc::default()).expect("a new store");
        let shard = db.shard(0, 0).expect("a shard");
        shard.write(batch(&[("ea", "value")])).expect("written");
        let mut sealed = shard.tree.get(b"ea").expect("read").expect("there").to_vec();
        sealed[6] ^= 1;
        shard.tree.insert(b"ea", sealed).expect("written");
        assert!(matches!(shard.get(b"ea"), Err(StoreError::Damaged { .. })));
    }
}
