//! The files of the store: segments that are only appended to, the oldest deleted whole.
//!
//! ```text
//! DIR/00000001.spans    frame*
//! frame                 length u32 | checksum of the rest u32 | trace id u128 | a `Trace` of the contract, in protobuf
//! ```
//!
//! All numbers are little-endian. Nothing is synced: what a power failure takes is a little of the past. A frame whose
//! checksum is wrong ends the reading of its file.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;

/// A segment is full at this size.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// What stands before the content of a frame.
const HEAD_BYTES: usize = 24;
/// Nothing longer is written; a length above it is damage.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// Where a frame's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    offset: u64,
    length: u32,
}

/// The segments of a folder.
#[derive(Debug)]
pub(crate) struct Spill {
    folder: PathBuf,
    bytes_max: u64,
    /// Their sizes.
    segments: BTreeMap<u64, u64>,
    /// The one that is written.
    open: Option<(u64, File)>,
}

/// A frame that was read.
pub(crate) struct Frame {
    pub(crate) trace_id: u128,
    pub(crate) place: Place,
    pub(crate) content: Bytes,
}

impl Spill {
    /// Opens the folder and hands every frame that can be read to `take`, in the order in which they were written.
    pub(crate) fn open(folder: &Path, bytes_max: u64, mut take: impl FnMut(Frame)) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let Some(number) = number_of(&path) {
                segments.insert(number, 0);
            }
        }
        for (number, size) in &mut segments {
            let path = path_of(folder, *number);
            match read_segment(&path, *number, &mut take) {
                Ok((good, all)) => {
                    *size = all;
                    if good < all {
                        tracing::warn!(file = %path.display(), at = good, "a file of traces is damaged; the rest of it is not read");
                    }
                }
                Err(error) => tracing::warn!(file = %path.display(), %error, "a file of traces cannot be read"),
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            bytes_max,
            segments,
            // What another run has written is never appended to: its end may be damaged.
            open: None,
        })
    }

    /// Appends frames; gives where each lies. Full segments are followed by new ones.
    pub(crate) fn append(&mut self, frames: &[(u128, Bytes)]) -> io::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(frames.len());
        let mut buffer = Vec::new();
        for (trace_id, content) in frames {
            let (segment, offset) = self.room(&mut buffer)?;
            let mut body = Vec::with_capacity(16 + content.len());
            body.extend_from_slice(&trace_id.to_le_bytes());
            body.extend_from_slice(content);
            let length = u32::try_from(content.len()).map_err(io::Error::other)?;
            buffer.extend_from_slice(&length.to_le_bytes());
            buffer.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
            buffer.extend_from_slice(&body);
            places.push(Place {
                segment,
                offset: offset + HEAD_BYTES as u64,
                length,
            });
        }
        self.write(&mut buffer)?;
        Ok(places)
    }

    /// The segment that is written and where its next frame begins.
    fn room(&mut self, buffer: &mut Vec<u8>) -> io::Result<(u64, u64)> {
        let at = |spill: &Self, segment: &u64| spill.segments.get(segment).copied().unwrap_or_default();
        if let Some((segment, _)) = &self.open {
            let end = at(self, segment) + buffer.len() as u64;
            if end < SEGMENT_BYTES_MAX {
                return Ok((*segment, end));
            }
            self.write(buffer)?;
        }
        let segment = self.segments.last_key_value().map_or(1, |(last, _)| last + 1);
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path_of(&self.folder, segment))?;
        self.segments.insert(segment, 0);
        self.open = Some((segment, file));
        Ok((segment, 0))
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let Some((segment, file)) = &mut self.open else {
            return Ok(());
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let written = file.write_all(buffer);
        if written.is_err() {
            let end = self.segments.get(segment).copied().unwrap_or_default();
            // Without its torn end it can be written on, once there is room.
            if file.set_len(end).is_err() {
                let size = file.metadata().map_or(SEGMENT_BYTES_MAX, |metadata| metadata.len());
                self.segments.insert(*segment, size);
                self.open = None;
            }
        } else {
            *self.segments.entry(*segment).or_default() += buffer.len() as u64;
        }
        buffer.clear();
        written
    }

    /// Reads a frame's content again.
    pub(crate) fn read(&self, place: Place) -> io::Result<Bytes> {
        let mut file = File::open(path_of(&self.folder, place.segment))?;
        file.seek(SeekFrom::Start(place.offset))?;
        let mut content = vec![0; place.length as usize];
        file.read_exact(&mut content)?;
        Ok(content.into())
    }

    /// All of them, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// Deletes the oldest segment if there is more than there may be; gives its number.
    pub(crate) fn drop_oldest(&mut self) -> Option<u64> {
        if self.bytes() <= self.bytes_max || self.segments.len() < 2 {
            return None;
        }
        let (segment, _) = self.segments.pop_first()?;
        self.delete(segment);
        Some(segment)
    }

    fn delete(&self, segment: u64) {
        let path = path_of(&self.folder, segment);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), %error, "a file of traces cannot be deleted");
        }
    }

    /// Writes these segments anew without the frames of some traces; gives where the others lie now.
    pub(crate) fn purge(
        &mut self,
        segments: &HashSet<u64>,
        traces: &HashSet<u128>,
    ) -> io::Result<Vec<(u128, Place, Place)>> {
        // What is open is closed: a later frame goes into a new segment.
        self.open = None;
        let mut moved = Vec::new();
        for segment in segments {
            let mut kept = Vec::new();
            let path = path_of(&self.folder, *segment);
            read_segment(&path, *segment, &mut |frame| {
                if !traces.contains(&frame.trace_id) {
                    kept.push(frame);
                }
            })?;
            let frames: Vec<_> = kept
                .iter()
                .map(|frame| (frame.trace_id, frame.content.clone()))
                .collect();
            let places = self.append(&frames)?;
            moved.extend(
                kept.iter()
                    .zip(places)
                    .map(|(frame, place)| (frame.trace_id, frame.place, place)),
            );
            // Not before: its number must not be given to the one that replaces it.
            self.segments.remove(segment);
            self.delete(*segment);
        }
        Ok(moved)
    }
}

/// Reads a segment up to its end or its first damage; gives how far it is good, and its size.
fn read_segment(path: &Path, segment: u64, take: &mut impl FnMut(Frame)) -> io::Result<(u64, u64)> {
    let bytes = Bytes::from(fs::read(path)?);
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four bytes"));
        let (length, checksum) = (number(0), number(4));
        let (begin, end) = (at + HEAD_BYTES, at + HEAD_BYTES + length as usize);
        if length as usize > FRAME_BYTES_MAX || end > bytes.len() || crc32fast::hash(&bytes[at + 8..end]) != checksum {
            break;
        }
        take(Frame {
            trace_id: u128::from_le_bytes(head[8..24].try_into().expect("sixteen bytes")),
            place: Place {
                segment,
                offset: begin as u64,
                length,
            },
            content: bytes.slice(begin..end),
        });
        at = end;
    }
    Ok((at as u64, bytes.len() as u64))
}

fn path_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}.spans"))
}

fn number_of(path: &Path) -> Option<u64> {
    let is_ours = path.extension()? == "spans";
    path.file_stem()?.to_str()?.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    fn open(folder: &Path, bytes_max: u64) -> (Spill, Vec<(u128, Bytes)>) {
        let mut frames = Vec::new();
        let spill = Spill::open(folder, bytes_max, |frame| frames.push((frame.trace_id, frame.content)));
        (spill.expect("opens"), frames)
    }

    #[test]
    fn frames_are_read_back_where_they_lie_and_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let frames: Vec<(u128, Bytes)> = (1..=3).map(|id| (id, Bytes::from(vec![id as u8; 10]))).collect();
        let (mut spill, none) = open(folder.path(), u64::MAX);
        assert!(none.is_empty());
        let places = spill.append(&frames).expect("written");
        for (place, (_, content)) in places.iter().zip(&frames) {
            assert_eq!(spill.read(*place).expect("read"), *content);
        }
        let (mut again, read) = open(folder.path(), u64::MAX);
        assert_eq!(read, frames);
        let place = again.append(&frames[..1]).expect("written")[0];
        assert_eq!(place.segment, 2, "what another run wrote is left alone");
    }

    /// Runs itself once more, in a process in which no file may grow beyond 4 KiB.
    #[test]
    fn what_found_no_room_leaves_no_files_behind() {
        if env::var_os("PLAYHOUSE_TEST_NO_ROOM").is_some() {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut spill, _) = open(folder.path(), u64::MAX);
            let frame = |id: u128, bytes: usize| [(id, Bytes::from(vec![id as u8; bytes]))];
            spill.append(&frame(1, 1_000)).expect("there is room");
            for _ in 0..3 {
                spill.append(&frame(2, 10_000)).expect_err("there is none");
            }
            let place = spill.append(&frame(3, 1_000)).expect("there is room again")[0];
            assert_eq!(spill.read(place).expect("read"), frame(3, 1_000)[0].1);
            let (_, read) = open(folder.path(), u64::MAX);
            assert_eq!(read.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
            assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
            return;
        }
        let name = "telemetry::traces::spill::tests::what_found_no_room_leaves_no_files_behind";
        let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\" --nocapture";
        let ended = Command::new("sh")
            .args(["-c", script])
            .arg(env::current_exe().expect("this program"))
            .arg(name)
            .env("PLAYHOUSE_TEST_NO_ROOM", "1")
            .output()
            .expect("it runs");
        assert!(ended.status.success(), "{ended:?}");
    }

    #[test]
    fn damage_ends_one_file_and_not_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let frame = |id: u128| (id, Bytes::from(vec![id as u8; 100]));
        for run in 0..3 {
            let (mut spill, _) = open(folder.path(), u64::MAX);
            spill
                .append(&[frame(run * 2 + 1), frame(run * 2 + 2)])
                .expect("written");
        }
        let path = path_of(folder.path(), 2);
        let mut bytes = fs::read(&path).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("written");
        fs::write(
            path_of(folder.path(), 3),
            &fs::read(path_of(folder.path(), 3)).expect("read")[..50],
        )
        .expect("cut");
        fs::write(folder.path().join("nonsense.spans"), b"x").expect("written");
        fs::write(folder.path().join("00000009.spans"), [0xff; 64]).expect("written");
        let (spill, read) = open(folder.path(), u64::MAX);
        let ids: Vec<u128> = read.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let gone = Place {
            segment: 77,
            offset: 0,
            length: 1,
        };
        assert!(spill.read(gone).is_err());
    }

    #[test]
    fn the_oldest_segments_go_once_there_is_too_much() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spill, _) = open(folder.path(), 2 * SEGMENT_BYTES_MAX);
        let large = Bytes::from(vec![7; 1 << 20]);
        for id in 0..20 {
            spill.append(&[(id, large.clone())]).expect("written");
        }
        assert_eq!(spill.drop_oldest(), Some(1));
        while spill.drop_oldest().is_some() {}
        assert!(spill.bytes() <= 2 * SEGMENT_BYTES_MAX);
        let on_disk: u64 = fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("an entry").metadata().expect("metadata").len())
            .sum();
        assert_eq!(on_disk, spill.bytes());
    }

    #[test]
    fn what_is_purged_is_in_no_file_and_the_rest_is_found_where_it_moved() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spill, _) = open(folder.path(), u64::MAX);
        let places = spill
            .append(&[(1, Bytes::from_static(b"secret")), (2, Bytes::from_static(b"plain"))])
            .expect("written");
        let moved = spill.purge(&[1].into(), &[1].into()).expect("purged");
        let [(2, from, to)] = moved[..] else {
            panic!("{moved:?}")
        };
        assert_eq!(from, places[1]);
        assert_eq!(spill.read(to).expect("read"), "plain");
        for entry in fs::read_dir(folder.path()).expect("read") {
            let bytes = fs::read(entry.expect("an entry").path()).expect("read");
            assert!(!bytes.windows(6).any(|window| window == b"secret"));
        }
    }
}
