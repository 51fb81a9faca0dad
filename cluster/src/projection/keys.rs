//! What a replica stores of its models, and where. Each shard has a tree of its own for them in the state store, beside that of
//! the shard: a snapshot that replaces the shard's rows leaves the models as they are.
//!
//! | row | key | value |
//! | --- | --- | --- |
//! | head | `h` name 0 version (4 bytes, big endian) | [`Head`] |
//! | place | `p` name 0 version generation (8 bytes, big endian) | [`Place`] |
//! | model | `r` name 0 version generation key | the author's value, MessagePack with field names |
//!
//! Names contain no control characters. The store adds a checksum to each value.

use serde::{Deserialize, Serialize};

use crate::journal::feed::Position;

/// Which generations of a model there are. A generation is one building of the model from the beginning of the feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The one that answers,
    pub(crate) serving: Option<u64>,
    /// the one that is being built beside it,
    pub(crate) building: Option<u64>,
    /// and those whose rows are still to be removed.
    pub(crate) removing: Vec<u64>,
    /// The number of the next one.
    pub(crate) next: u64,
    /// Whether the last one that took over held the same rows as the one it replaced; `None` where there was none to compare, or
    /// where entities were forgotten since.
    pub(crate) compared: Option<bool>,
}

/// How far a generation has come, and what it holds there. Written in one batch with the rows that it speaks of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Everything up to here was looked at.
    pub(crate) read: Position,
    /// The last record that was taken in. Two replicas with the same one hold the same rows.
    pub(crate) last: Position,
    /// Of the journal that it was built from; 0 until it is known.
    pub(crate) mark: u64,
    /// Events that were taken in.
    pub(crate) events: u64,
    pub(crate) rows: u64,
    /// Of all keys and values.
    pub(crate) bytes: u64,
    /// The sum of the hashes of all rows.
    pub(crate) digest: u64,
}

impl Place {
    /// All entries of the journal up to this one are in the model.
    pub(crate) fn reached(&self) -> u64 {
        match self.read.place {
            u32::MAX => self.read.index,
            _ => self.read.index.saturating_sub(1),
        }
    }
}

/// What all heads begin with.
pub(crate) const HEADS: &[u8] = b"h";

/// The head of a model.
pub(crate) fn head(name: &str, version: u32) -> Vec<u8> {
    tagged(b'h', name, version)
}

/// Name and version of a head's key.
pub(crate) fn head_of(key: &[u8]) -> Option<(String, u32)> {
    let rest = key.strip_prefix(HEADS)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let version = u32::from_be_bytes(rest[end + 1..].try_into().ok()?);
    Some((name.to_owned(), version))
}

/// The place of a generation.
pub(crate) fn place(name: &str, version: u32, generation: u64) -> Vec<u8> {
    numbered(b'p', name, version, generation)
}

/// What the places of all generations begin with.
pub(crate) fn places(name: &str, version: u32) -> Vec<u8> {
    tagged(b'p', name, version)
}

/// What the rows of a generation begin with.
pub(crate) fn rows(name: &str, version: u32, generation: u64) -> Vec<u8> {
    numbered(b'r', name, version, generation)
}

/// What the rows of all generations begin with.
pub(crate) fn all_rows(name: &str, version: u32) -> Vec<u8> {
    tagged(b'r', name, version)
}

fn tagged(tag: u8, name: &str, version: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 14);
    key.push(tag);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

fn numbered(tag: u8, name: &str, version: u32, generation: u64) -> Vec<u8> {
    let mut key = tagged(tag, name, version);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::keys;

    #[test]
    fn golden_keys() {
        assert_eq!(head("sales", 2), b"hsales\0\0\0\0\x02");
        assert_eq!(head_of(&head("sales", 2)), Some(("sales".to_owned(), 2)));
        assert_eq!(place("sales", 2, 258), b"psales\0\0\0\0\x02\0\0\0\0\0\0\x01\x02");
        assert_eq!(rows("sales", 2, 1), b"rsales\0\0\0\0\x02\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn golden_values() {
        let head = Head {
            serving: Some(1),
            building: None,
            removing: vec![3],
            next: 4,
            compared: Some(true),
        };
        assert_eq!(keys::encode(&head), [0x95, 1, 0xc0, 0x91, 3, 4, 0xc3]);
        let place = Place {
            read: Position { index: 7, place: 1 },
            ..Place::default()
        };
        assert_eq!(keys::encode(&place), [0x97, 0x92, 7, 1, 0x92, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(place.reached(), 6);
    }
}
