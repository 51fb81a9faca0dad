//! What is left of a forgotten entity and of a trimmed history, whenever a replica makes its checkpoints.

use bytes::Bytes;

use super::*;
use crate::{
    entity::{Registry, decision::EffectRequest},
    journal::{Record, StoredEffect, checkpoint},
    replication::batch,
    store::memory::MemoryStore,
};

fn key(id: &str) -> EntityKey {
    EntityKey::new("stock", id).expect("a key")
}

/// The `seq`th record of an entity; each leaves an open effect and a timer.
fn decided(id: &str, seq: u64) -> Record {
    let tell = EffectRequest::Command {
        to: key("other"),
        command: Bytes::from_static(b"told"),
    };
    let timer = EffectRequest::SetTimer {
        name: "expiry".into(),
        due_ms: 1_000 + seq,
        every_ms: None,
    };
    let effect = |request, token| StoredEffect { request, token };
    Record::Decided(Decided {
        entity: key(id),
        seq,
        activation: 7,
        base: 0,
        request: RequestId::new(&format!("{id}-{seq}")).expect("a request id"),
        at_ms: seq,
        trace: TraceContext::default(),
        command: Bytes::from_static(b"command"),
        reply: Ok(Bytes::new()),
        events: vec![Bytes::from(seq.to_string())],
        effects: vec![effect(tell, None), effect(timer, Some(Bytes::from_static(b"token")))],
        acknowledges: Vec::new(),
        fires: None,
        lift: None,
        fingerprint: 0,
        chain: None,
        origin: None,
        asked_by: None,
        keeps_effects: false,
    })
}

fn forgotten(id: &str) -> Record {
    Record::Forgotten(Box::new(Forgotten {
        entity: key(id),
        request: RequestId::new("f").expect("a request id"),
        at_ms: 50,
        asked_by: Some("clerk".into()),
        reason: "asked".to_owned(),
        trace: TraceContext::default(),
    }))
}

fn trimmed(id: &str, seq: u64) -> Record {
    Record::Trimmed(Box::new(Trimmed {
        entity: key(id),
        base: Base {
            seq,
            version: seq,
            at_ms: seq,
            state: Some(Bytes::from_static(b"state")),
        },
    }))
}

fn open() -> Shard {
    Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard")
}

fn take(shard: &mut Shard, record: &Record) -> bool {
    let index = shard.meta().applied.0 + 1;
    let data = batch::pack([record.encode()].iter());
    shard.apply(index, 1, data, None).expect("applied").taken == [true]
}

/// A checkpoint, while `meanwhile` is applied.
fn checkpoint_while(shard: &mut Shard, meanwhile: &[Record]) {
    let (tail, meta) = shard.freeze();
    for record in meanwhile {
        take(shard, record);
    }
    let store = Arc::clone(shard.store());
    let batch = checkpoint::batch(&*store, &Registry::new(), &tail, &meta, u64::MAX).expect("a batch");
    store.write(batch).expect("written");
    shard.thaw(&meta);
}

/// The same records on three replicas: one that makes a checkpoint after each, one that makes one at the end, and one whose
/// checkpoint is under way while the last of them come.
fn replicas(records: &[Record], under_way: usize) -> [Shard; 3] {
    let mut each = open();
    for record in records {
        take(&mut each, record);
        checkpoint_while(&mut each, &[]);
    }
    let mut once = open();
    for record in records {
        take(&mut once, record);
    }
    checkpoint_while(&mut once, &[]);
    let mut meanwhile = open();
    let (before, after) = records.split_at(records.len() - under_way);
    for record in before {
        take(&mut meanwhile, record);
    }
    checkpoint_while(&mut meanwhile, after);
    checkpoint_while(&mut meanwhile, &[]);
    [each, once, meanwhile]
}

#[test]
fn nothing_is_left_of_a_forgotten_entity_whenever_it_was_written() {
    let tea = key("tea");
    let mut records: Vec<Record> = (1..=5)
        .flat_map(|seq| [decided("tea", seq), decided("cup", seq)])
        .collect();
    records.push(forgotten("tea"));
    let refused = [decided("tea", 6), trimmed("tea", 3), forgotten("tea")];
    records.extend(refused.clone());
    records.push(decided("cup", 6));
    let shards = replicas(&records, 6);
    for mut shard in shards {
        assert_eq!(rows_of(&**shard.store(), &tea), Ok(0));
        assert_eq!((shard.outbox_of(&tea).count(), shard.timers_of(&tea).len()), (0, 0));
        assert_eq!(
            (shard.outbox_of(&key("cup")).count(), shard.timers_of(&key("cup")).len()),
            (6, 1)
        );
        assert_eq!((shard.page_parts(&tea, 0).in_memory(), shard.meta().entities), (0, 1));
        let tombstone = shard.tombstone(&tea).expect("read").expect("it is forgotten");
        assert_eq!((tombstone.position, &*tombstone.reason), (11, "asked"));
        let loaded = shard.begin_load(&tea).finish().expect("read");
        assert!(loaded.forgotten.is_some() && loaded.snapshot.is_none() && loaded.events.is_empty());
        // As a replica that starts again finds it.
        let mut again = Shard::open(Arc::clone(shard.store())).expect("the same shard");
        for shard in [&mut shard, &mut again] {
            for record in &refused {
                assert!(!take(shard, record), "{record:?}");
            }
        }
        assert_eq!((again.outbox_of(&tea).count(), again.timers_of(&tea).len()), (0, 0));
    }
}

#[test]
fn replicas_agree_on_what_was_forgotten_and_trimmed() {
    let mut records: Vec<Record> = (1..=5)
        .flat_map(|seq| [decided("tea", seq), decided("cup", seq)])
        .collect();
    records.extend([
        forgotten("tea"),
        trimmed("cup", 3),
        decided("cup", 6),
        trimmed("cup", 99),
    ]);
    for under_way in 0..=records.len() {
        let digests = replicas(&records, under_way).map(|shard| shard.meta().digest);
        assert_eq!(digests[0], digests[1], "{under_way}");
        assert_eq!(digests[0], digests[2], "{under_way}");
    }
}

#[test]
fn a_trimmed_history_begins_where_it_was_cut_wherever_its_records_are() {
    let cup = key("cup");
    let mut records: Vec<Record> = (1..=10).map(|seq| decided("cup", seq)).collect();
    records.push(trimmed("cup", 4));
    records.push(decided("cup", 11));
    for under_way in [0, 1, 2, 5, 9] {
        for shard in replicas(&records, under_way) {
            let loading = shard.begin_load(&cup);
            let extent = loading.extent().expect("read");
            assert_eq!((extent.base.seq, extent.base.version, extent.head.seq), (4, 4, 11));
            let mut after = extent.base.seq;
            let mut found = Vec::new();
            while after < extent.head.seq {
                let page = shard.page_parts(&cup, after).read(extent.head.seq).expect("read");
                after = page.last().expect("there is more").seq;
                found.extend(page.iter().map(|record| record.seq));
            }
            assert_eq!(found, (5..=11).collect::<Vec<_>>());
            // No kind is known here, so that the state is made of the events after the one that is kept.
            let seen = shard.begin_load(&cup).look().expect("read");
            assert_eq!(seen.snapshot.as_deref(), Some(&b"state"[..]));
            assert_eq!((seen.events.len(), seen.head.version), (7, 11));
            let stored = shard.history(&cup, 1).expect("read");
            assert_eq!(stored.first().map(|record| record.seq), Some(5), "{under_way}");
        }
    }
}
