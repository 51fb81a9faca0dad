//! Cursors: how far somebody has read, in each shard. A consumer that stores one with its work goes on exactly behind it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Position;

/// The first byte of an encoded cursor. A new layout gets a new number, and the old one stays readable.
const CURSOR_V1: u8 = 1;
/// The longest text that is looked at, in bytes.
const CURSOR_LEN_MAX: usize = 256 << 10;
/// Shards that a cluster can have, the cluster's own included.
const SHARDS_MAX: u64 = 4097;

/// How far somebody has read, in each shard that is read. Its text is opaque, and changes with every event.
///
/// ```
/// use cluster::feed::{Cursor, CursorError};
///
/// // What is no cursor says so.
/// assert_eq!("tea".parse::<Cursor>(), Err(CursorError::Form));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// How many shards its cluster has.
    pub(crate) shards: u32,
    pub(crate) places: BTreeMap<u32, Place>,
}

/// How far one shard was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// The journal's mark: tells it from that of another cluster. 0 where it was not known yet.
    pub(crate) mark: u64,
}

/// Why a text is no cursor, or none for this cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is none, or a part of it is missing or changed.
    #[error("is no cursor: pass the text on as it came with the events")]
    Form,
    /// It was made by a newer build.
    #[error("is a cursor of a newer version ({0}) than this build knows (1): upgrade this node")]
    Version(u8),
    /// It is one of another cluster.
    #[error("is a cursor of another cluster: {0}")]
    Foreign(String),
    /// It was made for another choice of shards.
    #[error("says nothing of shard {0}: it was made by a subscription to other shards or to one entity")]
    Missing(u32),
}

impl Cursor {
    /// How far a shard was read, if the cursor says so.
    pub fn position(&self, shard: u32) -> Option<Position> {
        self.places.get(&shard).map(|place| place.position)
    }

    /// Whether it can be one of a cluster with so many shards, read for these; why not otherwise.
    pub(crate) fn check(&self, shards: u32, read: &[u32]) -> Result<(), CursorError> {
        if self.shards != shards {
            return Err(CursorError::Foreign(format!(
                "that one has {} shards, this one {shards}",
                self.shards
            )));
        }
        match read.iter().find(|shard| !self.places.contains_key(shard)) {
            Some(shard) => Err(CursorError::Missing(*shard)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![CURSOR_V1];
        put(&mut bytes, u64::from(self.shards));
        put(&mut bytes, self.places.len() as u64);
        for (shard, Place { position, mark }) in &self.places {
            put(&mut bytes, u64::from(*shard));
            put(&mut bytes, position.index);
            // The end of an entry is what a cursor mostly names: it takes one byte.
            put(&mut bytes, u64::from(position.place.wrapping_add(1)));
            bytes.extend_from_slice(&mark.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > CURSOR_LEN_MAX {
            return Err(CursorError::Form);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Form)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(CursorError::Form)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(CursorError::Form);
        }
        match body.split_first() {
            Some((&CURSOR_V1, rest)) => read(rest).ok_or(CursorError::Form),
            Some((version, _)) => Err(CursorError::Version(*version)),
            None => Err(CursorError::Form),
        }
    }
}

fn read(mut bytes: &[u8]) -> Option<Cursor> {
    let shards = u32::try_from(take(&mut bytes)?).ok()?;
    let len = take(&mut bytes)?;
    if len > SHARDS_MAX {
        return None;
    }
    let mut places = BTreeMap::new();
    for _ in 0..len {
        let shard = u32::try_from(take(&mut bytes)?).ok()?;
        let index = take(&mut bytes)?;
        let place = u32::try_from(take(&mut bytes)?).ok()?.wrapping_sub(1);
        let (mark, rest) = bytes.split_first_chunk::<8>()?;
        bytes = rest;
        let place = Place {
            position: Position { index, place },
            mark: u64::from_le_bytes(*mark),
        };
        if shard > shards || places.insert(shard, place).is_some() {
            return None;
        }
    }
    bytes.is_empty().then_some(Cursor { shards, places })
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Cursor {
        let place = |index, place, mark| Place {
            position: Position { index, place },
            mark,
        };
        let places = BTreeMap::from([(0, place(5, u32::MAX, 0xfeed)), (3, place(500, 2, 7))]);
        Cursor { shards: 16, places }
    }

    /// Consumers keep cursors: what they kept must stay readable.
    #[test]
    fn golden_text() {
        let text = "ARACAAUA7f4AAAAAAAAD9AMDBwAAAAAAAACplamQ";
        assert_eq!(text.parse(), Ok(sample()));
        assert_eq!(sample().to_string(), text);
    }

    #[test]
    fn a_changed_text_is_no_cursor() {
        let text = sample().to_string();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'B' { b'C' } else { b'B' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(changed.parse::<Cursor>(), Err(CursorError::Form), "{changed}");
            assert_eq!(text[..at].parse::<Cursor>(), Err(CursorError::Form), "{at}");
        }
        for text in ["", "beginning", "v1-3-1f4-feed-2c136b57", "é"] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError::Form), "{text}");
        }
    }

    #[test]
    fn a_newer_layout_says_so() {
        let mut bytes = vec![9];
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let text = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(text.parse::<Cursor>(), Err(CursorError::Version(9)));
    }

    #[test]
    fn a_cursor_of_another_cluster_or_other_shards_is_told() {
        assert_eq!(sample().check(16, &[0, 3]), Ok(()));
        assert_eq!(sample().check(16, &[0, 1]), Err(CursorError::Missing(1)));
        assert!(matches!(sample().check(8, &[0]), Err(CursorError::Foreign(_))));
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(shards in 1_u32..4096, rows in prop::collection::btree_map(any::<u32>(), any::<(u64, u32, u64)>(), 0..40)) {
            let places = rows.into_iter().map(|(shard, (index, place, mark))| {
                (shard % (shards + 1), Place { position: Position { index, place }, mark })
            });
            let cursor = Cursor { shards, places: places.collect() };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut sealed = vec![CURSOR_V1];
            sealed.extend(&bytes);
            sealed.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
            let _ = URL_SAFE_NO_PAD.encode(sealed).parse::<Cursor>();
            let _ = String::from_utf8_lossy(&bytes).parse::<Cursor>();
        }
    }
}
