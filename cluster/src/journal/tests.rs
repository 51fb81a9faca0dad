//! What a shard takes and what it refuses, and what becomes of timers in it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Decided, Firing, Record, Shard, StoredEffect, TimerKey, checkpoint};
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
