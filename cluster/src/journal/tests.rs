//! What a shard takes and what it refuses, and what becomes of timers in it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Decided, EffectId, Firing, Origin, Record, Shard, StoredEffect, TimerKey, checkpoint, keys::request_hash};
use crate::{
    entity::{EntityKey, Registry, RequestId, decision::EffectRequest},
    replication::batch,
    store::memory::MemoryStore,
    trace::TraceContext,
};

fn decided(activation: u64, base: u64, seq: u64) -> Bytes {
    batch::pack([Record::Decided(plain(activation, base, seq)).encode()].iter())
}

fn tea() -> EntityKey {
    EntityKey::new("stock", "tea").expect("a key")
}

fn plain(activation: u64, base: u64, seq: u64) -> Decided {
    Decided {
        entity: tea(),
        seq,
        activation,
        base,
        request: RequestId::new(&format!("{activation}-{seq}")).expect("a request id"),
        at_ms: 0,
        trace: TraceContext::default(),
        command: Bytes::new(),
        reply: Ok(Bytes::new()),
        events: vec![Bytes::from_static(b"event")],
        effects: Vec::new(),
        acknowledges: Vec::new(),
        fires: None,
        lift: None,
        fingerprint: 0,
        chain: None,
        origin: None,
        asked_by: None,
        keeps_effects: false,
    }
}

fn taken(shard: &mut Shard, record: Bytes) -> bool {
    let index = shard.meta().applied.0 + 1;
    shard.apply(index, 1, record, None).expect("applied").taken == [true]
}

/// An activation that was loaded while records of the one before it were still on their way decides on a state that
/// lacks them. Its first record has a number that is taken; its second has the right number and is just as wrong.
#[test]
fn what_rests_on_a_refused_record_is_refused_too() {
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    assert!(taken(&mut shard, decided(7, 0, 1)));
    assert!(taken(&mut shard, decided(7, 0, 2)), "the first activation goes on");
    assert!(
        !taken(&mut shard, decided(8, 1, 2)),
        "the second one was loaded before record 2"
    );
    assert!(
        !taken(&mut shard, decided(8, 1, 3)),
        "and has decided this on top of what was refused"
    );
    assert!(
        taken(&mut shard, decided(9, 2, 3)),
        "a third one, loaded after record 2, goes on"
    );
    assert!(!taken(&mut shard, decided(7, 0, 4)), "and the first one is out");
    assert_eq!(shard.history(&tea(), 1).expect("read").len(), 3);
}

/// The next record of the entity, deciding what is given about timers.
fn about_timers(shard: &mut Shard, effects: Vec<EffectRequest>, fires: Option<Firing>, at_ms: u64) -> bool {
    let seq = shard.head(&tea()).expect("read").seq + 1;
    let stored = |request: EffectRequest| StoredEffect {
        token: matches!(request, EffectRequest::SetTimer { .. }).then(|| Bytes::from_static(b"token")),
        request,
    };
    let record = Decided {
        effects: effects.into_iter().map(stored).collect(),
        fires,
        at_ms,
        ..plain(7, 0, seq)
    };
    taken(shard, batch::pack([Record::Decided(record).encode()].iter()))
}

fn set(name: &str, due_ms: u64, every_ms: Option<u64>) -> EffectRequest {
    EffectRequest::SetTimer {
        name: name.into(),
        due_ms,
        every_ms,
    }
}

fn cancel(name: &str) -> EffectRequest {
    EffectRequest::CancelTimer { name: name.into() }
}

fn firing(name: &str, seq: u64, due_ms: u64) -> Firing {
    let name = name.into();
    Firing { name, seq, due_ms }
}

fn due(shard: &Shard) -> Vec<(String, u64)> {
    let timers = shard.timers().by_due();
    timers.map(|(key, row)| (key.name.to_string(), row.due_ms)).collect()
}

fn names(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(name, due_ms)| ((*name).to_owned(), *due_ms))
        .collect()
}

fn checkpoint(shard: &mut Shard) -> usize {
    let (tail, meta) = shard.freeze();
    let store = Arc::clone(shard.store());
    let batch = checkpoint::batch(&*store, &Registry::new(), &tail, &meta, 1).expect("a batch");
    let rows = batch.rows.iter().filter(|(key, _)| key.starts_with(b"t")).count();
    store.write(batch).expect("written");
    shard.thaw(&meta);
    rows
}

#[test]
fn a_firing_counts_once_and_only_while_its_timer_is_set() {
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    let timers = vec![
        set("once", 50, None),
        set("again", 20, Some(100)),
        set("gone", 30, None),
    ];
    assert!(about_timers(&mut shard, timers, None, 1));
    assert_eq!(due(&shard), names(&[("again", 20), ("gone", 30), ("once", 50)]));
    assert!(about_timers(
        &mut shard,
        vec![cancel("gone"), set("once", 60, None)],
        None,
        2
    ));
    let stale = [firing("gone", 1, 30), firing("once", 1, 50), firing("once", 2, 61)];
    for firing in stale {
        assert!(
            !about_timers(&mut shard, Vec::new(), Some(firing.clone()), 99),
            "{firing:?}"
        );
    }
    assert!(about_timers(&mut shard, Vec::new(), Some(firing("once", 2, 60)), 60));
    assert!(
        !about_timers(&mut shard, Vec::new(), Some(firing("once", 2, 60)), 60),
        "it has fired"
    );
    assert!(about_timers(&mut shard, Vec::new(), Some(firing("again", 1, 20)), 345));
    assert_eq!(
        due(&shard),
        names(&[("again", 420)]),
        "the next of its times after the firing"
    );
    // A timer that is set again by its own firing stays.
    assert!(about_timers(
        &mut shard,
        vec![set("again", 999, None)],
        Some(firing("again", 1, 420)),
        420
    ));
    assert_eq!(due(&shard), names(&[("again", 999)]));
}

#[test]
fn timers_come_back_from_the_store_and_those_of_one_tail_never_reach_it() {
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    let timers = vec![set("kept", 50, None), set("brief", 20, None)];
    assert!(about_timers(&mut shard, timers, None, 1));
    assert!(about_timers(&mut shard, vec![cancel("brief")], None, 2));
    assert_eq!(checkpoint(&mut shard), 1, "only the one that is still set");
    // Replaced, cancelled and set again over a checkpoint.
    assert!(about_timers(
        &mut shard,
        vec![set("kept", 70, Some(5)), set("new", 80, None)],
        None,
        3
    ));
    let held = |shard: &Shard| Shard::open(Arc::clone(shard.store())).expect("read back");
    assert_eq!(due(&held(&shard)), names(&[("kept", 50)]));
    assert_eq!(checkpoint(&mut shard), 2);
    assert_eq!(due(&held(&shard)), due(&shard));
    assert!(about_timers(
        &mut shard,
        vec![cancel("kept"), set("kept", 1, None), cancel("kept")],
        None,
        4
    ));
    assert!(about_timers(&mut shard, Vec::new(), Some(firing("new", 3, 80)), 80));
    assert_eq!(checkpoint(&mut shard), 2, "both go");
    assert_eq!((due(&held(&shard)), due(&shard)), (Vec::new(), Vec::new()));
}

#[test]
fn an_entity_is_loaded_with_its_own_timers() {
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    assert!(about_timers(
        &mut shard,
        vec![set("b", 2, None), set("a", 1, None)],
        None,
        1
    ));
    let loaded = shard.load(&tea()).expect("loaded");
    assert_eq!(loaded.timers.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    let other = EntityKey::new("stock", "te").expect("a key");
    assert!(shard.load(&other).expect("loaded").timers.is_empty());
    let key = TimerKey {
        entity: tea(),
        name: "a".into(),
    };
    assert_eq!(shard.timers().get(&key).map(|row| (row.seq, row.due_ms)), Some((1, 1)));
}

/// A record of `entity` without events.
fn answered(entity: &EntityKey, seq: u64, request: &str, at_ms: u64) -> Decided {
    Decided {
        entity: entity.clone(),
        request: RequestId::new(request).expect("a request id"),
        at_ms,
        events: Vec::new(),
        ..plain(1, 0, seq)
    }
}

fn apply(shard: &mut Shard, record: &Record) {
    assert!(taken(shard, batch::pack([record.encode()].iter())));
}

fn make_checkpoint(shard: &mut Shard, requests_kept_ms: u64) {
    let (tail, meta) = shard.freeze();
    let rows = checkpoint::batch(&**shard.store(), &Registry::new(), &tail, &meta, requests_kept_ms);
    shard
        .store()
        .write(rows.expect("readable"))
        .expect("memory takes everything");
    shard.thaw(&meta);
}

/// A busy entity is in every checkpoint: what one writes must not grow with all that the entity has answered before.
#[test]
fn a_checkpoint_writes_no_more_for_an_entity_that_has_answered_thousands() {
    const EACH: u64 = 10;
    const WRITTEN_BYTES_MAX: usize = 5_000;
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    let requests: Vec<String> = (1..=3_000).map(|number| format!("request-{number}")).collect();
    for (request, seq) in requests.iter().zip(1..) {
        apply(&mut shard, &Record::Decided(answered(&tea(), seq, request, seq)));
        if seq % EACH == 0 {
            let (tail, meta) = shard.freeze();
            let batch =
                checkpoint::batch(&**shard.store(), &Registry::new(), &tail, &meta, 1_000_000).expect("a batch");
            let rows = batch.rows.iter();
            let bytes: usize = rows
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
                .sum();
            assert!(bytes <= WRITTEN_BYTES_MAX, "{bytes} bytes after {seq} requests");
            shard.store().write(batch).expect("memory takes everything");
            shard.thaw(&meta);
        }
    }
    let loaded = shard.load(&tea()).expect("loaded");
    let known: Vec<u64> = loaded.requests.iter().map(|request| request.hash).collect();
    let hashes = requests
        .iter()
        .map(|id| request_hash(&RequestId::new(id).expect("a request id")));
    assert_eq!(known, hashes.collect::<Vec<_>>(), "each once, in order");
}

/// Goods that come back are counted by an effect of the return. Its outcome may be long in coming, and then the effect comes again:
/// after more time and more commands of clients than request ids are kept for, it must still be known.
#[test]
fn an_effect_that_comes_again_after_the_horizon_of_requests_is_still_known() {
    const KEPT_MS: u64 = 1_000;
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    let stock = EntityKey::new("stock", "tea").expect("a key");
    let restock = Origin {
        shard: 5,
        born: 40,
        floor: 41,
        holes: vec![40],
    };
    let hash = |request: &str| request_hash(&RequestId::new(request).expect("a request id"));
    apply(&mut shard, &Record::Decided(answered(&stock, 1, "c-1", 0)));
    let effect = Decided {
        origin: Some(restock.clone()),
        ..answered(&stock, 2, "return/7#3.0", 1)
    };
    apply(&mut shard, &Record::Decided(effect));
    for seq in 3..4_000 {
        apply(
            &mut shard,
            &Record::Decided(answered(&stock, seq, &format!("c-{seq}"), seq * 10)),
        );
        if seq % 700 == 0 {
            make_checkpoint(&mut shard, KEPT_MS);
        }
    }
    make_checkpoint(&mut shard, KEPT_MS);
    let loaded = shard.load(&stock).expect("loaded");
    assert!(
        !loaded.requests.iter().any(|kept| kept.hash == hash("c-1")),
        "a client's is past its time"
    );
    assert!(loaded.requests.len() < 2_000, "{}", loaded.requests.len());
    assert_eq!(
        loaded.taken.get(&restock, hash("return/7#3.0")),
        Some(2),
        "the effect is open and known"
    );

    // Its sender is done with it: so says the next effect of that shard. Now it is forgotten, and an echo of it is none to take.
    let next = Origin {
        shard: 5,
        born: 90,
        floor: 91,
        holes: vec![90],
    };
    let later = Decided {
        origin: Some(next),
        ..answered(&stock, 4_000, "return/8#3.0", 50_000)
    };
    apply(&mut shard, &Record::Decided(later));
    for _ in 0..2 {
        let loaded = shard.load(&stock).expect("loaded");
        assert_eq!(loaded.taken.get(&restock, hash("return/7#3.0")), None);
        assert!(loaded.taken.is_settled(&restock));
        assert_eq!(loaded.taken.len(), 1);
        if shard.is_dirty() {
            make_checkpoint(&mut shard, KEPT_MS);
        }
    }
}

/// The sender's side: what is said to be settled is exactly what is no longer in the outbox.
#[test]
fn a_shard_says_of_its_effects_to_an_entity_which_are_open() {
    let mut shard = Shard::open(Arc::new(MemoryStore::default())).expect("an empty shard");
    let (order, stock) = (
        EntityKey::new("order", "1").expect("a key"),
        EntityKey::new("stock", "tea").expect("a key"),
    );
    for seq in 1..=3 {
        let effect = StoredEffect {
            request: EffectRequest::Command {
                to: stock.clone(),
                command: Bytes::new(),
            },
            token: None,
        };
        let decided = Decided {
            effects: vec![effect],
            ..answered(&order, seq, &format!("c-{seq}"), seq)
        };
        apply(&mut shard, &Record::Decided(decided));
    }
    let id = |seq: u64| EffectId {
        entity: order.clone(),
        seq,
        place: 0,
    };
    let origin = |shard: &Shard, seq: u64| {
        let row = shard.outbox()[&id(seq)].clone();
        shard.origin_of(9, &row).expect("it goes to an entity")
    };
    let said = origin(&shard, 2);
    assert_eq!(
        (said.shard, said.born, said.floor, said.holes),
        (9, 2, 4, vec![1, 2, 3])
    );
    apply(&mut shard, &Record::Acknowledged(vec![id(1)]));
    let said = origin(&shard, 3);
    assert_eq!((said.born, said.floor, said.holes), (3, 5, vec![2, 3]));
    // The same after a restart from the checkpoint.
    make_checkpoint(&mut shard, 1_000);
    let shard = Shard::open(Arc::clone(shard.store())).expect("the same shard");
    assert_eq!(origin(&shard, 3).holes, [2, 3]);
}
