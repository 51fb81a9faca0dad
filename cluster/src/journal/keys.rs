//! Every key and value of the state store, with its layout.
//!
//! | row | key | value |
//! | --- | --- | --- |
//! | meta | `m` | [`Meta`] |
//! | entity | `e` kind 0 id | [`EntityRow`] |
//! | history | `h` kind 0 id 0 seq (8 bytes, big endian) | up to [`HISTORY_ROW_LEN_MAX`] [`Decided`](super::Decided) records from seq on |
//! | requests | `q` kind 0 id 0 block (8 bytes, big endian) | [`REQUEST_BLOCK_LEN`] [`KeptRequest`]s |
//! | outbox | `o` effect id | [`OutboxRow`](super::OutboxRow) |
//! | timer | `t` kind 0 id 0 name | [`TimerKey`] and [`TimerRow`](super::TimerRow) |
//! | feed | `f` index (8 bytes, big endian) place (4 bytes, big endian) | a [`FeedRow`](super::feed::rows::FeedRow) that begins there |
//! | base | `b` kind 0 id | the [`Base`](crate::history::Base) of an entity whose first records are gone |
//! | quarantine | `x` kind 0 id | the [`EntityKey`] and its [`QuarantineRow`](super::quarantine::QuarantineRow) |
//!
//! Ids contain no control characters, so a zero byte always ends one. Values are MessagePack; the store adds a checksum.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    EffectId, TimerKey, Tombstone,
    feed::Position,
    senders::{KeptEffect, Sender},
};
use crate::{
    entity::{EntityKey, RequestId},
    replication::Members,
    store::StoreError,
};

/// Records in one history row.
pub(crate) const HISTORY_ROW_LEN_MAX: usize = 128;
/// Requests in one block. Up to twice as many are in the entity's row, and are written anew at each checkpoint that it is in. Blocks
/// that an earlier build has written are longer.
pub(crate) const REQUEST_BLOCK_LEN: usize = 32;

pub(crate) const META: &[u8] = b"m";
pub(crate) const ENTITIES: &[u8] = b"e";
pub(crate) const OUTBOX: &[u8] = b"o";
pub(crate) const TIMERS: &[u8] = b"t";
pub(crate) const QUARANTINE: &[u8] = b"x";
pub(crate) const FEED: &[u8] = b"f";

/// What is true of the whole shard at a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Index and term of the last applied entry.
    pub(crate) applied: (u64, u64),
    pub(crate) members: Members,
    /// Of everything that was applied up to here.
    pub(crate) digest: u64,
    /// The number of entities.
    pub(crate) entities: u64,
    /// Tells this journal from that of another cluster with the same positions; 0 until the first leader has drawn it.
    #[serde(default)]
    pub(crate) mark: u64,
    /// The last position at which an entity was forgotten; 0 where none was.
    #[serde(default)]
    pub(crate) forgotten_at: u64,
}

/// An entity at a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntityRow {
    pub(crate) head: Head,
    /// The state, and the version it stands for; normally that of the head.
    pub(crate) snapshot: Option<Bytes>,
    pub(crate) snapshot_version: u64,
    /// The first record after the snapshot, for the rare case that the state could not be made.
    pub(crate) snapshot_seq: u64,
    /// The sealed blocks of requests: the first one kept, and the next one to write.
    pub(crate) first_block: u64,
    pub(crate) next_block: u64,
    /// The latest requests of clients, not yet in a block.
    pub(crate) requests: Vec<KeptRequest>,
    /// What the shards that send it effects have settled,
    #[serde(default)]
    pub(crate) senders: Vec<Sender>,
    /// and the effects it has taken that are not.
    #[serde(default)]
    pub(crate) effects: Vec<KeptEffect>,
    /// It is forgotten: nothing else of this row is left but the head.
    #[serde(default)]
    pub(crate) forgotten: Option<Box<Tombstone>>,
}

/// How far an entity has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The number of its records.
    pub(crate) seq: u64,
    /// The number of its events.
    pub(crate) version: u64,
    /// The activation that decided the last record.
    pub(crate) activation: u64,
}

impl Head {
    /// In the place of an activation, where the entity is forgotten.
    const FORGOTTEN: u64 = u64::MAX;

    /// The same, of one that is forgotten from now on.
    pub(super) fn forgotten(self) -> Self {
        Self {
            activation: Self::FORGOTTEN,
            ..self
        }
    }

    /// Whether it is that of a forgotten entity.
    pub(super) fn is_of_forgotten(self) -> bool {
        self.activation == Self::FORGOTTEN
    }
}

/// A request that was answered: where to find its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRequest {
    /// Of the request id. On a hit the whole id is compared in the record.
    pub(crate) hash: u64,
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
}

/// The hash under which a request is kept (FNV-1a; stored, so it must never change).
pub(crate) fn request_hash(request: &RequestId) -> u64 {
    fnv(request.as_str().as_bytes())
}

/// FNV-1a over 64 bits.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn entity(key: &EntityKey) -> Vec<u8> {
    row(b'e', key)
}

/// The entity of an entity row's key.
pub(crate) fn entity_of(row_key: &[u8]) -> Option<EntityKey> {
    let rest = row_key.strip_prefix(ENTITIES)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let kind = std::str::from_utf8(&rest[..end]).ok()?;
    let id = std::str::from_utf8(&rest[end + 1..]).ok()?;
    EntityKey::new(kind, id).ok()
}

/// What all entity rows of a kind begin with.
pub(crate) fn entities_of_kind(kind: &str) -> Vec<u8> {
    let mut prefix = ENTITIES.to_vec();
    prefix.extend_from_slice(kind.as_bytes());
    prefix.push(0);
    prefix
}

pub(crate) fn history(key: &EntityKey, seq: u64) -> Vec<u8> {
    numbered(b'h', key, seq)
}

/// What all history rows of an entity begin with.
pub(crate) fn history_of(key: &EntityKey) -> Vec<u8> {
    let mut prefix = row(b'h', key);
    prefix.push(0);
    prefix
}

pub(crate) fn requests(key: &EntityKey, block: u64) -> Vec<u8> {
    numbered(b'q', key, block)
}

pub(crate) fn outbox(id: &EffectId) -> Vec<u8> {
    let mut key = OUTBOX.to_vec();
    key.extend_from_slice(id.to_string().as_bytes());
    key
}

pub(crate) fn timer(timer: &TimerKey) -> Vec<u8> {
    let mut key = row(b't', &timer.entity);
    key.push(0);
    key.extend_from_slice(timer.name.as_bytes());
    key
}

/// What all timers of an entity begin with.
pub(crate) fn timers_of(key: &EntityKey) -> Vec<u8> {
    let mut prefix = row(b't', key);
    prefix.push(0);
    prefix
}

/// What all open effects of an entity begin with.
pub(crate) fn outbox_of(key: &EntityKey) -> Vec<u8> {
    format!("o{key}#").into_bytes()
}

/// Where an entity's kept history begins.
pub(crate) fn base(key: &EntityKey) -> Vec<u8> {
    row(b'b', key)
}

/// What all blocks of requests of an entity begin with.
pub(crate) fn requests_of(key: &EntityKey) -> Vec<u8> {
    let mut prefix = row(b'q', key);
    prefix.push(0);
    prefix
}

pub(crate) fn quarantine(key: &EntityKey) -> Vec<u8> {
    row(b'x', key)
}

pub(crate) fn feed(first: Position) -> Vec<u8> {
    let mut key = FEED.to_vec();
    key.extend_from_slice(&first.index.to_be_bytes());
    key.extend_from_slice(&first.place.to_be_bytes());
    key
}

/// Where the feed row of a key begins.
pub(crate) fn feed_position(row_key: &[u8]) -> Option<Position> {
    let (index, place) = row_key.strip_prefix(FEED)?.split_at_checked(8)?;
    Some(Position {
        index: u64::from_be_bytes(index.try_into().ok()?),
        place: u32::from_be_bytes(place.try_into().ok()?),
    })
}

fn row(tag: u8, key: &EntityKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.kind.len() + key.id.len() + 11);
    out.push(tag);
    out.extend_from_slice(key.kind.as_bytes());
    out.push(0);
    out.extend_from_slice(key.id.as_bytes());
    out
}

fn numbered(tag: u8, key: &EntityKey, number: u64) -> Vec<u8> {
    let mut out = row(tag, key);
    out.push(0);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// Encodes a stored value.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("stored values are plain data, which always has a MessagePack form")
}

/// How far an entity has come, from its row, of which nothing else is read.
pub(crate) fn decode_head(key: &[u8], row: &[u8]) -> Result<Head, StoreError> {
    let mut rest = row;
    rmp::decode::read_array_len(&mut rest).map_err(|error| StoreError::damaged(key, &error))?;
    Head::deserialize(&mut rmp_serde::Deserializer::new(rest)).map_err(|error| StoreError::damaged(key, &error))
}

/// Reads a stored value back.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoreError::damaged(key, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_keys() {
        let key = EntityKey::new("order", "a/b").expect("a key");
        assert_eq!(entity(&key), b"eorder\0a/b");
        assert_eq!(history(&key, 258), b"horder\0a/b\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(requests(&key, 1), b"qorder\0a/b\0\0\0\0\0\0\0\0\x01");
        let effect = EffectId {
            entity: key.clone(),
            seq: 3,
            place: 1,
        };
        assert_eq!(outbox(&effect), b"oorder/a/b#3.1");
        let timer_key = TimerKey {
            entity: key.clone(),
            name: "expiry".into(),
        };
        assert_eq!(timer(&timer_key), b"torder\0a/b\0expiry");
        assert_eq!(quarantine(&key), b"xorder\0a/b");
        let position = Position { index: 258, place: 3 };
        assert_eq!(feed(position), b"f\0\0\0\0\0\0\x01\x02\0\0\0\x03");
        assert_eq!(feed_position(&feed(position)), Some(position));
        assert_eq!(base(&key), b"border\0a/b");
        assert!(timer(&timer_key).starts_with(&timers_of(&key)) && outbox(&effect).starts_with(&outbox_of(&key)));
        assert!(requests(&key, 1).starts_with(&requests_of(&key)));
        assert_eq!(entity_of(&entity(&key)), Some(key));
    }

    /// A row written before journals had marks.
    #[test]
    fn a_meta_row_without_a_mark_reads_back() {
        let old = ((7_u64, 3_u64), Members::of_voters(vec![1]), 9_u64, 2_u64);
        let meta: Meta = decode(META, &encode(&old)).expect("readable");
        assert_eq!((meta.applied, meta.entities, meta.mark), ((7, 3), 2, 0));
    }

    #[test]
    fn the_request_hash_never_changes() {
        assert_eq!(
            request_hash(&RequestId::new("r-1").expect("an id")),
            0x8add_fb19_61c3_e23b
        );
    }
}
