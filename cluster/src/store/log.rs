//! The one log of a node, shared by all its groups, in raft-engine.
//!
//! One batch, one sync, for whatever number of groups has something to write. The log also names the generation under
//! which the state store keeps each group, so that installing a snapshot is a single write here.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::{
    StoreError,
    device::Device,
    mark::{self, Mark},
};
use crate::{
    faults::Faults,
    replication::{Entry, GroupWrite, HardState},
};

const HARD_STATE: &[u8] = b"hard-state";
const PLACE: &[u8] = b"place";
/// The number of the last write, and the region that holds it and nothing else.
const NUMBER: &[u8] = b"number";
const NUMBER_REGION: u64 = u64::MAX >> 1;
/// Entries that are copied in one batch.
const COPIED_ENTRIES_MAX: usize = 256;

/// How an entry is found in the log.
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// What the log holds of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredGroup {
    pub(crate) hard_state: HardState,
    /// Index and term of the last entry that is no longer there.
    pub(crate) cut: (u64, u64),
    pub(crate) generation: u64,
    pub(crate) entries: Vec<Entry>,
}

/// The log of a node.
pub(crate) struct Log {
    engine: Engine<Device>,
    /// How many writes have reached the device. Held during each, so that their numbers rise in the log too.
    mark: Mutex<Mark>,
}

impl Log {
    /// Opens what is there, or begins. A last write that did not come to its end is cut off; one that did and is not there any more is
    /// damage.
    pub(crate) fn open(path: &Path, faults: &Arc<Faults>) -> Result<Self, StoreError> {
        let synced = mark::read(path).map_err(|error| unusable(&error))?;
        let config = Config {
            dir: path.to_string_lossy().into_owned(),
            target_file_size: ReadableSize::mb(64),
            purge_threshold: ReadableSize::mb(256),
            ..Config::default()
        };
        let device = Arc::new(Device(Arc::clone(faults)));
        let engine = Engine::open_with_file_system(config, device).map_err(|error| failed(&error))?;
        let number = match engine.get(NUMBER_REGION, NUMBER) {
            Some(bytes) => number(&bytes)?,
            None => 0,
        };
        if number < synced {
            let reason = format!("it ends with write {number}, and {synced} had reached the device");
            return Err(StoreError::Damaged {
                key: "the log".to_owned(),
                reason,
            });
        }
        let mark = Mark::open(path, number).map_err(|error| unusable(&error))?;
        Ok(Self {
            engine,
            mark: Mutex::new(mark),
        })
    }

    /// What is stored of a group; `None` if it was never begun.
    pub(crate) fn group(&self, group: u32) -> Result<Option<StoredGroup>, StoreError> {
        let region = region(group);
        let Some(place) = self.engine.get(region, PLACE) else {
            return Ok(None);
        };
        let [cut_index, cut_term, generation] = numbers(PLACE, &place)?;
        let missing = |what: &str| StoreError::Damaged {
            key: format!("the log of shard {group}"),
            reason: what.to_owned(),
        };
        let [term, vote, commit] = match self.engine.get(region, HARD_STATE) {
            Some(bytes) => numbers(HARD_STATE, &bytes)?,
            None => [0; 3],
        };
        let mut entries = Vec::new();
        if let (Some(first), Some(last)) = (self.engine.first_index(region), self.engine.last_index(region)) {
            // Entries below the cut may remain when the node ended between the two steps of a cut.
            let from = first.max(cut_index + 1);
            if first > cut_index + 1 {
                let what = format!("it begins with entry {first}, and was cut after {cut_index}");
                return Err(missing(&what));
            }
            if from <= last {
                self.engine
                    .fetch_entries_to::<Entries>(region, from, last + 1, None, &mut entries)
                    .map_err(|error| failed(&error))?;
            }
        }
        let last = cut_index + entries.len() as u64;
        if last < commit {
            let what = format!("it ends with entry {last}, and {commit} was committed");
            return Err(missing(&what));
        }
        Ok(Some(StoredGroup {
            hard_state: HardState { term, vote, commit },
            cut: (cut_index, cut_term),
            generation,
            entries,
        }))
    }

    /// Begins a group.
    pub(crate) fn begin(&self, group: u32, stored: &StoredGroup) -> Result<(), StoreError> {
        let mut batch = LogBatch::default();
        put_place(&mut batch, group, stored.cut, stored.generation)?;
        put_hard_state(&mut batch, group, &stored.hard_state)?;
        self.write(batch)
    }

    /// Forgets a group of which a node that ended too early has left something.
    pub(crate) fn remove(&self, group: u32) -> Result<(), StoreError> {
        let mut batch = LogBatch::default();
        batch.add_command(region(group), Command::Clean);
        self.write(batch)
    }

    /// Writes several groups' parts in one batch and brings it to the device.
    pub(crate) fn append(&self, parts: &[(u32, GroupWrite, u64)]) -> Result<(), StoreError> {
        let mut batch = LogBatch::default();
        for (group, part, generation) in parts {
            let region = region(*group);
            if part.remove {
                batch.add_command(region, Command::Clean);
                continue;
            }
            if let Some((index, term, generation)) = part.install {
                batch.add_command(region, Command::Clean);
                put_place(&mut batch, *group, (index, term), generation)?;
            }
            if let Some(cut) = part.cut {
                put_place(&mut batch, *group, cut, *generation)?;
            }
            if let Some(hard_state) = &part.hard_state {
                put_hard_state(&mut batch, *group, hard_state)?;
            }
            batch
                .add_entries::<Entries>(region, &part.entries)
                .map_err(|error| failed(&error))?;
        }
        self.write(batch)?;
        for (group, part, _) in parts {
            if let Some((index, _)) = part.cut {
                self.engine.compact_to(region(*group), index + 1);
            }
        }
        Ok(())
    }

    /// Frees the files that hold nothing of use any more.
    pub(crate) fn purge(&self) -> Result<(), StoreError> {
        self.engine
            .purge_expired_files()
            .map(|_| ())
            .map_err(|error| failed(&error))
    }

    fn write(&self, mut batch: LogBatch) -> Result<(), StoreError> {
        let mut mark = self.mark.lock();
        let number = mark.next();
        batch
            .put(NUMBER_REGION, NUMBER.to_vec(), number.to_be_bytes().to_vec())
            .map_err(|error| failed(&error))?;
        self.engine.write(&mut batch, true).map_err(|error| failed(&error))?;
        mark.set(number).map_err(|error| unusable(&error))
    }
}

/// Writes what is of use in a log, and nothing else, into a new one. Says of each group before which index it was cut.
pub(super) fn copy(from: &Path, to: &Path) -> Result<BTreeMap<u32, u64>, StoreError> {
    let mut cuts = BTreeMap::new();
    if !from.exists() {
        return Ok(cuts);
    }
    let faults = Arc::default();
    let (old, new) = (Log::open(from, &faults)?, Log::open(to, &faults)?);
    for region in old.engine.raft_groups() {
        if region == NUMBER_REGION {
            continue;
        }
        let group = u32::try_from(region - 1).map_err(|_| StoreError::damaged(PLACE, &"region"))?;
        let Some(stored) = old.group(group)? else { continue };
        cuts.insert(group, stored.cut.0);
        new.begin(group, &stored)?;
        for entries in stored.entries.chunks(COPIED_ENTRIES_MAX) {
            let mut batch = LogBatch::default();
            batch
                .add_entries::<Entries>(region, entries)
                .map_err(|error| failed(&error))?;
            new.write(batch)?;
        }
    }
    Ok(cuts)
}

/// raft-engine's own number of a group; it has none for 0.
fn region(group: u32) -> u64 {
    u64::from(group) + 1
}

fn put_place(batch: &mut LogBatch, group: u32, cut: (u64, u64), generation: u64) -> Result<(), StoreError> {
    let value = bytes_of([cut.0, cut.1, generation]);
    batch
        .put(region(group), PLACE.to_vec(), value)
        .map_err(|error| failed(&error))
}

fn put_hard_state(batch: &mut LogBatch, group: u32, state: &HardState) -> Result<(), StoreError> {
    let value = bytes_of([state.term, state.vote, state.commit]);
    batch
        .put(region(group), HARD_STATE.to_vec(), value)
        .map_err(|error| failed(&error))
}

fn bytes_of(numbers: [u64; 3]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn numbers(key: &[u8], bytes: &[u8]) -> Result<[u64; 3], StoreError> {
    if bytes.len() != 24 {
        return Err(StoreError::damaged(key, &"length"));
    }
    let mut numbers = [0; 3];
    for (number, part) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_be_bytes(part.try_into().expect("chunks of eight"));
    }
    Ok(numbers)
}

fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::damaged(NUMBER, &"length"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn failed(error: &raft_engine::Error) -> StoreError {
    match error {
        raft_engine::Error::Corruption(reason) => StoreError::Damaged {
            key: "the log".to_owned(),
            reason: reason.clone(),
        },
        error => StoreError::Failed(format!("log: {error}")),
    }
}

fn unusable(error: &std::io::Error) -> StoreError {
    StoreError::Failed(format!("log: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: format!("entry {index}").into(),
            ..Entry::default()
        }
    }

    fn entries(from: u64, to: u64, term: u64) -> GroupWrite {
        GroupWrite {
            entries: (from..=to).map(|index| entry(index, term)).collect(),
            ..GroupWrite::default()
        }
    }

    #[test]
    fn a_group_reads_back_with_its_suffix_replaced_and_its_beginning_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let log = Log::open(folder.path(), &Arc::default()).expect("a new log");
            assert!(log.group(0).expect("read").is_none());
            log.begin(0, &StoredGroup::default()).expect("begun");
            log.append(&[(0, entries(1, 10, 1), 0)]).expect("written");
            let hard_state = HardState {
                term: 2,
                vote: 3,
                commit: 8,
            };
            let replaced = GroupWrite {
                hard_state: Some(hard_state),
                cut: Some((4, 1)),
                ..entries(9, 9, 2)
            };
            log.append(&[(0, replaced, 0)]).expect("written");
        }
        let log = Log::open(folder.path(), &Arc::default()).expect("the same log");
        let group = log.group(0).expect("read").expect("begun");
        assert_eq!(
            (group.hard_state.term, group.hard_state.commit, group.cut),
            (2, 8, (4, 1))
        );
        let read: Vec<_> = group.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(read, [(5, 1), (6, 1), (7, 1), (8, 1), (9, 2)]);
    }

    #[test]
    fn a_removed_group_is_gone_and_can_begin_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let log = Log::open(folder.path(), &Arc::default()).expect("a new log");
            log.begin(3, &StoredGroup::default()).expect("begun");
            log.append(&[(3, entries(1, 3, 1), 0)]).expect("written");
            let remove = GroupWrite {
                remove: true,
                ..GroupWrite::default()
            };
            log.append(&[(3, remove, 0)]).expect("written");
            assert!(log.group(3).expect("read").is_none());
        }
        let log = Log::open(folder.path(), &Arc::default()).expect("the same log");
        assert!(log.group(3).expect("read").is_none());
        log.begin(3, &StoredGroup::default()).expect("begun");
        log.append(&[(3, entries(1, 1, 9), 0)]).expect("written");
        let group = log.group(3).expect("read").expect("begun");
        assert_eq!(group.entries.iter().map(|entry| entry.term).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn an_installed_snapshot_replaces_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let log = Log::open(folder.path(), &Arc::default()).expect("a new log");
            log.begin(2, &StoredGroup::default()).expect("begun");
            log.append(&[(2, entries(1, 3, 1), 0)]).expect("written");
            let install = GroupWrite {
                install: Some((50, 4, 7)),
                ..entries(51, 52, 4)
            };
            log.append(&[(2, install, 7)]).expect("written");
        }
        let group = Log::open(folder.path(), &Arc::default())
            .expect("the same log")
            .group(2)
            .expect("read")
            .expect("begun");
        assert_eq!((group.cut, group.generation), ((50, 4), 7));
        assert_eq!(
            group.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
            [51, 52]
        );
    }

    /// A log of 40 writes of 200 bytes, as a crash leaves it, in a file.
    fn written(folder: &Path) -> PathBuf {
        let log = Log::open(folder, &Arc::default()).expect("a new log");
        log.begin(0, &StoredGroup::default()).expect("begun");
        for index in 1..=40 {
            let mut part = entries(index, index, 1);
            part.entries[0].data = vec![index as u8; 200].into();
            log.append(&[(0, part, 0)]).expect("written");
        }
        // A crash: nothing is closed.
        let copy = folder.join("copy");
        fs::create_dir(&copy).expect("a folder");
        for entry in fs::read_dir(folder).expect("it is there").flatten() {
            if entry.path().is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
            }
        }
        copy
    }

    fn flip(folder: &Path, within: &[u8]) {
        let path = fs::read_dir(folder).expect("there").flatten().map(|entry| entry.path());
        let path = path
            .into_iter()
            .find(|path| path.extension().is_some_and(|e| e == "raftlog"));
        let path = path.expect("a file of the log");
        let mut bytes = fs::read(&path).expect("read");
        let at = bytes.windows(within.len()).position(|window| window == within);
        bytes[at.expect("it is in there")] ^= 4;
        fs::write(&path, bytes).expect("written");
    }

    fn open(folder: &Path) -> Result<u64, StoreError> {
        let log = Log::open(folder, &Arc::default())?;
        Ok(log.group(0)?.expect("begun").entries.len() as u64)
    }

    #[test]
    fn a_flipped_bit_is_damage_wherever_it_is() {
        // In the middle, and in the last write: neither can be told from a torn one by itself.
        for index in [1, 20, 39, 40_u8] {
            let folder = tempfile::tempdir().expect("a folder");
            let crashed = written(folder.path());
            flip(&crashed, &[index; 50]);
            let error = open(&crashed).expect_err("damaged");
            assert!(error.is_damage(), "entry {index}: {error}");
        }
    }

    #[test]
    fn a_write_that_did_not_come_to_its_end_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(open(&written(folder.path())).expect("whole"), 40);
        let folder = tempfile::tempdir().expect("a folder");
        let crashed = written(folder.path());
        // The number of the last write was never taken note of: it was not durable yet.
        Mark::open(&crashed, 0).and_then(|mut mark| mark.set(40)).expect("set");
        flip(&crashed, &[40; 50]);
        assert_eq!(open(&crashed).expect("the rest is whole"), 39);
        // And the one that takes its place is numbered on from there.
        let log = Log::open(&crashed, &Arc::default()).expect("the rest");
        log.append(&[(0, entries(40, 40, 2), 0)]).expect("written");
        drop(log);
        assert_eq!(open(&crashed).expect("whole"), 40);
    }

    #[test]
    fn a_full_device_is_said_and_what_was_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let faults = Arc::new(Faults::default());
        {
            let log = Log::open(folder.path(), &faults).expect("a new log");
            log.begin(0, &StoredGroup::default()).expect("begun");
            log.append(&[(0, entries(1, 3, 1), 0)]).expect("written");
            let long = std::time::Duration::from_mins(1);
            faults.set(crate::faults::Fault::FullDisk, long).expect("set");
            let error = log.append(&[(0, entries(4, 4, 1), 0)]).expect_err("full");
            assert!(
                !error.is_damage() && error.to_string().contains("No space left"),
                "{error}"
            );
            faults.clear();
        }
        assert_eq!(open(folder.path()).expect("whole"), 3);
    }
}
