//! What a shard takes and what it refuses.

use std::sync::Arc;

use bytes::Bytes;

use super::{Decided, Record, Shard};
use crate::{
    entity::{EntityKey, RequestId},
    replication::batch,
    store::memory::MemoryStore,
    trace::TraceContext,
};

fn decided(activation: u64, base: u64, seq: u64) -> Bytes {
    let record = Record::Decided(Decided {
        entity: EntityKey::new("stock", "tea").expect("a key"),
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
    });
    batch::pack([record.encode()].iter())
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
    assert_eq!(
        shard
            .history(&EntityKey::new("stock", "tea").expect("a key"), 1)
            .expect("read")
            .len(),
        3
    );
}
