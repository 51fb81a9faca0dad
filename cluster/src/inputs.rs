//! Every place at which bytes or text from outside, or from the disk, are read: nothing that stands there ends the process. Each
//! is given real samples with damage, and plain noise; what is read in spite of it must be written and read back as the same.
//!
//! What peers say to a group is looked at in `replication::strangers`; files are in `tests/integration`.

use std::fmt::Debug;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message;
use proto::cluster::v1 as pb;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec,
    entity::{EntityKey, RequestId, decision::EffectRequest},
    feed::{Cursor, FeedFilter, Position, follow},
    journal::{
        Decided, EffectId, OutboxRow, Record, StoredEffect,
        keys::{self, EntityRow, Meta},
    },
    projection::question,
    replication::batch,
    shard::snapshot,
    store::memory::MemoryStore,
    token::VersionToken,
    trace::TraceContext,
};

/// One thing that is done to a sample.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 1_u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match damage {
        Damage::Flip(at, bits) => bytes[at.index(len)] ^= bits,
        Damage::Cut(at) => bytes.truncate(at.index(len)),
        Damage::Insert(at, inserted) => drop(bytes.splice(at.index(len)..at.index(len), inserted)),
        Damage::Repeat(from, to) => {
            let (from, to) = (from.index(len), to.index(len));
            bytes.extend_from_within(from.min(to)..from.max(to));
        }
    }
}

/// Samples with some damage, or noise.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (prop::sample::select(samples()), vec(damage(), 1..4)).prop_map(|(mut sample, all)| {
        for one in all {
            apply(&mut sample, one);
        }
        sample
    });
    prop_oneof![6 => damaged, 1 => vec(any::<u8>(), 0..200)]
}

fn key() -> EntityKey {
    EntityKey::new("order", "42").expect("a key")
}

fn decided() -> Decided {
    let encoded = codec::encode(&serde_json::json!({"Place": {"lines": [1, 2, 3]}}));
    Decided {
        entity: key(),
        seq: 3,
        activation: 9,
        base: 2,
        request: RequestId::new("r-1").expect("a request id"),
        at_ms: 1_000,
        trace: TraceContext::random(true),
        command: encoded.clone(),
        reply: Ok(encoded.clone()),
        events: vec![encoded.clone()],
        effects: vec![StoredEffect {
            request: EffectRequest::Command {
                to: key(),
                command: encoded,
            },
            token: Some(Bytes::from_static(b"t")),
        }],
        acknowledges: vec![effect()],
        fires: None,
        lift: None,
        fingerprint: 7,
        chain: None,
        origin: None,
        asked_by: Some("ann".into()),
        keeps_effects: true,
    }
}

fn effect() -> EffectId {
    EffectId {
        entity: key(),
        seq: 1,
        place: 0,
    }
}

fn feed_question() -> follow::Question {
    follow::Question::Page {
        after: Position { index: 7, place: 1 },
        filter: FeedFilter::of_kinds(["order"]),
        records: 10,
        bytes: 1_000,
        wait_ms: 5,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let record = Record::Decided(decided()).encode();
    let message = pb::GroupMessage {
        group: 1,
        message: Some(pb::RaftMessage {
            kind: 3,
            from: 2,
            to: 1,
            term: 5,
            entries: vec![pb::RaftEntry {
                term: 5,
                index: 9,
                data: batch::pack([record.clone()].iter()),
                ..pb::RaftEntry::default()
            }],
            ..pb::RaftMessage::default()
        }),
    };
    let chunk = pb::SnapshotChunk {
        pairs: vec![pb::SnapshotPair {
            key: keys::META.to_vec().into(),
            value: keys::encode(&Meta::default()).into(),
        }],
        ..pb::SnapshotChunk::default()
    };
    vec![
        record.to_vec(),
        batch::pack([record.clone(), record].iter()).to_vec(),
        keys::encode(&vec![decided(), decided()]),
        keys::encode(&Meta::default()),
        codec::encode(&feed_question()).to_vec(),
        message.encode_to_vec(),
        chunk.encode_to_vec(),
    ]
}

/// So many of each; more for a longer run: `INPUT_CASES=1000000 cargo test -p cluster --lib -- inputs strangers`.
pub(crate) fn cases() -> u32 {
    let wanted = std::env::var("INPUT_CASES").ok().and_then(|number| number.parse().ok());
    wanted.unwrap_or(3_000)
}

/// What is read is what is written again.
fn again<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let written = keys::encode(value);
    let read: T = keys::decode(keys::META, &written).expect("what was written can be read");
    assert_eq!(format!("{value:?}"), format!("{read:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_is_stored_or_sent_by_peers_is_read_or_refused(bytes in bytes()) {
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        for record in batch::unpack(Bytes::from(bytes.clone())).flatten() {
            let _ = Record::decode(&record);
        }
        if let Ok(rows) = keys::decode::<Vec<Decided>>(keys::META, &bytes) {
            again(&rows);
        }
        if let Ok(meta) = keys::decode::<Meta>(keys::META, &bytes) {
            again(&meta);
        }
        if let Ok(row) = keys::decode::<EntityRow>(keys::META, &bytes) {
            again(&row);
        }
        if let Ok(row) = keys::decode::<(EffectId, OutboxRow)>(keys::META, &bytes) {
            again(&row);
        }
        let _ = keys::decode_head(keys::META, &bytes);
        let _ = keys::entity_of(&bytes);
        let _ = keys::feed_position(&bytes);
        let _ = codec::decode::<follow::Question>(&bytes);
        let _ = codec::decode::<follow::Told>(&bytes);
        let _ = codec::decode::<question::Question>(&bytes);
        let _ = codec::json_of(&bytes);
        let _ = pb::GroupMessage::decode(&bytes[..]);
        if let Ok(chunk) = pb::SnapshotChunk::decode(&bytes[..]) {
            let store = MemoryStore::default();
            if snapshot::store_chunk(&store, chunk).is_ok() {
                let _ = snapshot::is_complete(&store, 1);
            }
        }
    }

    #[test]
    fn text_from_outside_is_read_or_refused(text in "\\PC{0,120}|[v0-9a-f_-]{0,60}|[A-Za-z0-9_/-]{0,80}", noise in vec(any::<u8>(), 0..60)) {
        let lossy = String::from_utf8_lossy(&noise).into_owned();
        for text in [&text, &lossy] {
            if let Ok(token) = text.parse::<VersionToken>() {
                prop_assert_eq!(token.to_string().parse(), Ok(token));
            }
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
            if let Ok(key) = EntityKey::parse(text) {
                prop_assert_eq!(EntityKey::parse(&key.to_string()), Ok(key));
            }
            let _ = TraceContext::parse(text);
            let _ = RequestId::new(text);
        }
    }
}

/// Values within values, deeper than any stack.
#[test]
fn what_is_nested_too_deep_is_refused() {
    let deep = vec![0x91; 1 << 20];
    assert!(codec::decode::<serde_json::Value>(&deep).is_err());
    assert!(keys::decode::<Vec<Decided>>(keys::META, &deep).is_err());
    let _ = codec::json_of(&deep);
}

/// A length says more than there is: memory is taken for what is there.
#[test]
fn a_length_that_lies_takes_no_memory() {
    let lies = [0xdd, 0xff, 0xff, 0xff, 0xff, 0x91];
    assert!(keys::decode::<Vec<Decided>>(keys::META, &lies).is_err());
    assert!(codec::decode::<Vec<u64>>(&lies).is_err());
    assert_eq!(
        batch::unpack(Bytes::copy_from_slice(&lies[1..])).collect::<Vec<_>>(),
        [None]
    );
}
