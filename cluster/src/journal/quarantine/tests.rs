//! What a shard takes of quarantine and what it refuses; and that it is all there after a checkpoint and in a snapshot.

use std::sync::Arc;

use super::*;
use crate::{
    entity::{Context, Decision, Entity, NoToken, Outcome, Registry},
    journal::{Decided, Record, Shard, checkpoint, keys, keys::Meta},
    replication::batch,
    shard::snapshot,
    store::{StateStore, memory::MemoryStore},
};

fn key(id: &str) -> EntityKey {
    EntityKey::new("stock", id).expect("a key")
}

fn request(id: &str) -> RequestId {
    RequestId::new(id).expect("a request id")
}

fn decided(id: &str, seq: u64, by: &str, lift: Option<Lift>) -> Record {
    Record::Decided(Decided {
        entity: key(id),
        seq,
        activation: 1,
        base: seq - 1,
        request: request(by),
        at_ms: seq,
        trace: TraceContext::default(),
        command: Bytes::new(),
        reply: Ok(Bytes::new()),
        events: Vec::new(),
        effects: Vec::new(),
        acknowledges: Vec::new(),
        fires: None,
        lift: lift.map(Box::new),
        fingerprint: 0,
        chain: None,
        origin: None,
        asked_by: None,
        keeps_effects: false,
    })
}

fn quarantined(id: &str, seq: u64, retry: Option<&str>) -> Quarantined {
    Quarantined {
        entity: key(id),
        seq,
        request: request("poison"),
        command: Bytes::from_static(b"take three"),
        acknowledges: None,
        stage: Stage::Decide,
        reason: "three is too many".to_owned(),
        place: "stock.rs:3:1".to_owned(),
        backtrace: "0: decide".to_owned(),
        count: 3,
        since_ms: 10,
        at_ms: 20,
        trace: TraceContext::default(),
        retry: retry.map(request),
        fires: None,
        fingerprint: 0,
        chain: None,
        origin: None,
        asked_by: None,
    }
}

fn lift(by: &str, at_ms: u64, skipped: bool) -> Lift {
    Lift {
        by: request(by),
        at_ms,
        skipped: skipped.then(|| "three is too many".to_owned()),
    }
}

fn taken(shard: &mut Shard, record: &Record) -> bool {
    let index = shard.meta().applied.0 + 1;
    let data = batch::pack([record.encode()].iter());
    shard.apply(index, 1, data, None).expect("applied").taken == [true]
}

fn put_aside(shard: &mut Shard, record: Quarantined) -> bool {
    taken(shard, &Record::Quarantined(Box::new(record)))
}

fn shard() -> (Arc<MemoryStore>, Shard) {
    let store = Arc::new(MemoryStore::default());
    let shard = Shard::open(Arc::clone(&store) as Arc<dyn StateStore>).expect("an empty shard");
    (store, shard)
}

/// Of the kind that the records are of: a checkpoint makes its snapshots.
struct Stock;

impl Entity for Stock {
    const KIND: &'static str = "stock";
    type State = u64;
    type Command = u64;
    type Event = u64;
    type Reply = u64;
    type Rejection = u64;
    type Token = NoToken;

    fn decide(state: &u64, _command: u64, _context: &Context) -> Result<Decision<Self>, u64> {
        Ok(Decision::reply(*state))
    }

    fn evolve(state: &mut u64, event: &u64) {
        *state += event;
    }

    fn resume(token: NoToken, _outcome: Outcome) -> u64 {
        match token {}
    }
}

fn checkpoint(store: &MemoryStore, shard: &mut Shard) -> Meta {
    let (tail, meta) = shard.freeze();
    let batch = checkpoint::batch(store, &Registry::new().with::<Stock>(), &tail, &meta, 1_000).expect("made");
    store.write(batch).expect("written");
    shard.thaw(&meta);
    meta
}

#[test]
fn a_quarantined_entity_decides_nothing_but_what_lifts_it() {
    let (_, mut shard) = shard();
    assert!(taken(&mut shard, &decided("tea", 1, "a", None)));
    assert!(
        !put_aside(&mut shard, quarantined("tea", 1, None)),
        "its author did not know of record 1"
    );
    assert!(put_aside(&mut shard, quarantined("tea", 2, None)));
    assert!(!put_aside(&mut shard, quarantined("tea", 2, None)), "once is enough");
    assert!(!taken(&mut shard, &decided("tea", 2, "b", None)), "it is put aside");
    assert!(taken(&mut shard, &decided("cup", 1, "b", None)), "its neighbours go on");
    let poison = shard.load(&key("tea")).expect("loaded").poison.expect("quarantined");
    assert_eq!(poison.position, 3, "the journal's position");

    assert!(
        put_aside(&mut shard, quarantined("tea", 2, Some("retry-1"))),
        "a retry failed"
    );
    let row = shard.quarantined().row(&key("tea")).expect("a row");
    assert_eq!(row.poison.as_ref().expect("still").count, 4);
    assert_eq!(row.attempts[0].end, AttemptEnd::Failed("three is too many".to_owned()));

    assert!(taken(
        &mut shard,
        &decided("tea", 2, "poison", Some(lift("retry-2", 30, false)))
    ));
    assert!(
        !taken(
            &mut shard,
            &decided("tea", 3, "poison", Some(lift("retry-3", 31, false)))
        ),
        "there is nothing to lift any more"
    );
    assert!(taken(&mut shard, &decided("tea", 3, "c", None)));
    let row = shard.quarantined().row(&key("tea")).expect("its history");
    assert_eq!(
        (row.poison.is_none(), &row.attempts[1].end),
        (true, &AttemptEnd::Decided(2))
    );
    assert_eq!(shard.quarantined().open(), 0);
}

#[test]
fn it_is_there_after_a_checkpoint_and_in_a_snapshot() {
    let (store, mut shard) = shard();
    assert!(taken(&mut shard, &decided("tea", 1, "a", None)));
    assert!(put_aside(&mut shard, quarantined("tea", 2, None)));
    assert!(put_aside(&mut shard, quarantined("cup", 1, None)));
    assert!(taken(
        &mut shard,
        &decided("cup", 1, "poison", Some(lift("skip-1", 30, true)))
    ));
    let rows = |shard: &Shard| -> Vec<_> {
        let rows = shard.quarantined().rows();
        rows.map(|(key, row)| (key.clone(), (**row).clone())).collect()
    };
    let before = rows(&shard);
    assert_eq!(before.len(), 2);
    let meta = checkpoint(&store, &mut shard);
    assert_eq!(rows(&shard), before);

    let mut reopened = Shard::open(Arc::clone(&store) as Arc<dyn StateStore>).expect("opened");
    assert_eq!((rows(&reopened), reopened.quarantined().open()), (before.clone(), 1));
    assert!(!taken(&mut reopened, &decided("tea", 2, "b", None)));
    let skipped = reopened
        .record_of(&key("cup"), 1, &request("poison"))
        .expect("read")
        .expect("kept");
    assert_eq!(skipped.lift.as_ref().expect("it lifted").by, request("skip-1"));

    let folder = tempfile::tempdir().expect("a folder");
    snapshot::write(&*store, folder.path(), 7).expect("written");
    let fetched = Arc::new(MemoryStore::default());
    for chunk in snapshot::read(folder.path(), 7, meta.applied.0).expect("there") {
        snapshot::store_chunk(&*fetched, chunk.expect("whole")).expect("stored");
    }
    let other = Shard::open(fetched as Arc<dyn StateStore>).expect("opened");
    assert_eq!(rows(&other), before);

    // Lifted after the checkpoint, the row in the store follows with the next one.
    assert!(taken(
        &mut shard,
        &decided("tea", 2, "poison", Some(lift("retry-1", 40, false)))
    ));
    checkpoint(&store, &mut shard);
    let reopened = Shard::open(store as Arc<dyn StateStore>).expect("opened");
    assert_eq!(reopened.quarantined().open(), 0);
    assert_eq!(rows(&reopened), rows(&shard));
}

#[test]
fn what_is_kept_of_quarantine_has_a_limit() {
    let (_, mut shard) = shard();
    let large = |n: usize| Quarantined {
        command: vec![0; 1 << 20].into(),
        ..quarantined(&n.to_string(), 1, None)
    };
    let taken_in = (0..20).filter(|n| put_aside(&mut shard, large(*n))).count();
    assert_eq!(taken_in, QUARANTINE_BYTES_MAX / (1 << 20) - 1);
    assert!(
        taken(&mut shard, &decided("19", 1, "goes on", None)),
        "failing, but not put aside"
    );
    assert!(taken(
        &mut shard,
        &decided("0", 1, "poison", Some(lift("skip", 0, true)))
    ));
    assert!(put_aside(&mut shard, large(18)), "there is room again");
}

#[test]
fn of_what_was_lifted_the_latest_is_remembered() {
    let (store, mut shard) = shard();
    for n in 0..LIFTED_ROWS_MAX + 3 {
        let id = n.to_string();
        assert!(put_aside(&mut shard, quarantined(&id, 1, None)));
        assert!(taken(
            &mut shard,
            &decided(&id, 1, "poison", Some(lift("skip", n as u64, true)))
        ));
    }
    assert_eq!(shard.quarantined().rows().count(), LIFTED_ROWS_MAX);
    assert!(shard.quarantined().row(&key("2")).is_none() && shard.quarantined().row(&key("3")).is_some());
    checkpoint(&store, &mut shard);
    let mut stored = 0;
    let count = &mut |_: &[u8], _: Bytes| {
        stored += 1;
        Ok(true)
    };
    store.scan(keys::QUARANTINE, keys::QUARANTINE, count).expect("read");
    assert_eq!(stored, LIFTED_ROWS_MAX);
}

/// Whatever comes in whatever order: a replica that makes checkpoints and is opened anew at any time holds the same as one
/// that never does, and nothing but what lifts a quarantine is decided behind it.
#[test]
fn replicas_agree_whenever_they_were_opened() {
    for seed in 1..=300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        let (_, mut steady) = shard();
        let (store, mut other) = shard();
        for step in 0..150_u64 {
            let id = below(3).to_string();
            let was_quarantined = steady.quarantined().poison(&key(&id)).is_some();
            // One in five does not know all that has happened.
            let seq = steady.head(&key(&id)).expect("read").seq + u64::from(below(5) > 0);
            let by = format!("r{step}");
            let lifts = was_quarantined == (below(4) > 0);
            let record = match below(3) {
                0 => decided(&id, seq.max(1), &by, lifts.then(|| lift(&by, step, below(2) == 0))),
                1 => decided(&id, seq.max(1), &by, None),
                _ => Record::Quarantined(Box::new(quarantined(&id, seq, (below(2) == 0).then_some(&by)))),
            };
            let is_taken = taken(&mut steady, &record);
            assert_eq!(taken(&mut other, &record), is_taken, "seed {seed}, step {step}");
            if let Record::Decided(decided) = &record {
                let lets_in = was_quarantined == decided.lift.is_some();
                assert!(lets_in || !is_taken, "seed {seed}, step {step}");
            }
            if below(10) == 0 {
                checkpoint(&store, &mut other);
                other = Shard::open(Arc::clone(&store) as Arc<dyn StateStore>).expect("opened");
            }
        }
        assert_eq!(other.meta().digest, steady.meta().digest, "seed {seed}");
        let rows = |shard: &Shard| -> Vec<_> {
            let rows = shard.quarantined().rows();
            rows.map(|(key, row)| (key.clone(), (**row).clone())).collect()
        };
        assert_eq!(rows(&other), rows(&steady), "seed {seed}");
    }
}

/// What is stored must stay readable.
#[test]
fn golden_bytes() {
    let record = Record::Quarantined(Box::new(quarantined("a", 2, Some("r"))));
    assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
    let hex: Vec<String> = record.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex.concat(),
        "0181ab51756172616e74696e6564dc001392a573746f636ba16102a6706f69736f6ec40a74616b65207468726565c0a6446563696465b1\
         746872656520697320746f6f206d616e79ac73746f636b2e72733a333a31a9303a20646563696465030a1494000000c2a172c000c0c0c0"
    );
    let row = QuarantineRow {
        poison: None,
        position: 9,
        attempts: vec![LiftAttempt {
            by: request("r"),
            at_ms: 1,
            request: request("p"),
            end: AttemptEnd::Decided(2),
        }],
    };
    let bytes = keys::encode(&(key("a"), &row));
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex.concat(),
        "9292a573746f636ba16193c0099194a17201a17081a74465636964656402"
    );
    let (_, back): (EntityKey, QuarantineRow) = keys::decode(b"x", &bytes).expect("readable");
    assert_eq!(back, row);
}
