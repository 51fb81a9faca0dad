//! How far a store has come, told by a file of its own.
//!
//! Log and state store both take what is broken at their end for a write that was torn by a crash, and cut it off. That is right for a
//! write that was never synced, and wrong for one that was: a flipped bit in the middle would take everything behind it along, and
//! the node would go on as if it had never acknowledged that. So each numbers its writes, and after each sync the number goes into a file beside it. A store that comes
//! back with a smaller number has lost what was durable.
//!
//! The file itself is not synced: it costs next to nothing then, and may only be too old, which means that less is noticed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// Its name, in the folder of the store.
const FILE: &str = "synced";
/// The number and its checksum.
const BYTES: usize = 12;

/// The file. Callers take turns.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    /// The number of the last write.
    pub(super) last: u64,
}

/// The number in a folder's mark: 0 where there is none, or none that can be read.
pub(super) fn read(folder: &Path) -> io::Result<u64> {
    let mut bytes = Vec::new();
    match File::open(folder.join(FILE)) {
        Ok(file) => file.take(BYTES as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    Ok(decode(&bytes).unwrap_or(0))
}

impl Mark {
    /// The mark of a folder that is there.
    pub(super) fn open(folder: &Path, last: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(folder.join(FILE))?;
        Ok(Self { file, last })
    }

    /// The number of the next write.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// The write of this number has reached the device.
    pub(super) fn set(&mut self, number: u64) -> io::Result<()> {
        self.last = number;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&encode(number))
    }
}

fn encode(number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let sum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (number, sum) = bytes.split_first_chunk::<8>()?;
    let sum: [u8; 4] = sum.try_into().ok()?;
    (crc32fast::hash(number) == u32::from_be_bytes(sum)).then(|| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_read_and_nonsense_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(read(folder.path()).expect("read"), 0);
        let mut mark = Mark::open(folder.path(), 0).expect("made");
        for number in [1, 300, 70_000] {
            mark.set(number).expect("set");
            assert_eq!(read(folder.path()).expect("read"), number);
        }
        assert_eq!(mark.next(), 70_001);
        std::fs::write(folder.path().join(FILE), b"nonsense").expect("written");
        assert_eq!(read(folder.path()).expect("read"), 0);
    }
}
