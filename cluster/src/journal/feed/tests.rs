//! Readers of a feed beside everything that happens to a replica: each sees every record once, in the order of the journal,
//! whatever is read from the store and whatever from the tail.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    FeedRecord, Position,
    read::{FeedError, Page, PageMax, Reading},
    rows::FEED_ROW_LEN_MAX,
};
use crate::{
    entity::{EntityKey, Registry, RequestId},
    history::Base,
    journal::{Decided, Forgotten, Record, Shard, Trimmed, checkpoint, keys},
    replication::batch,
    store::{Batch, StateStore, memory::MemoryStore},
    trace::TraceContext,
};

fn entity(n: u8) -> EntityKey {
    EntityKey::new(if n.is_multiple_of(2) { "order" } else { "stock" }, &n.to_string()).expect("a key")
}

fn decided(n: u8, seq: u64, events: u8, at_ms: u64) -> Decided {
    Decided {
        entity: entity(n),
        seq,
        activation: u64::from(n) + 1,
        base: 0,
        request: RequestId::new(&format!("{n}-{seq}")).expect("a request id"),
        at_ms,
        trace: TraceContext::default(),
        command: Bytes::new(),
        reply: Ok(Bytes::new()),
        events: (0..events)
            .map(|event| Bytes::from(vec![n, seq as u8, event]))
            .collect(),
        effects: Vec::new(),
        acknowledges: Vec::new(),
        fires: None,
        lift: None,
        fingerprint: 0,
        chain: None,
        origin: None,
        asked_by: None,
        keeps_effects: true,
    }
}

/// A replica, and what its feed must be.
struct World {
    kept_bytes_max: usize,
    store: Arc<MemoryStore>,
    shard: Shard,
    journal: Vec<Bytes>,
    expected: Vec<FeedRecord>,
    seqs: [u64; 8],
    versions: [u64; 8],
}

impl World {
    /// One that reads everything of its checkpoints from the store.
    fn new() -> Self {
        Self::keeping(0)
    }

    /// One that keeps so many bytes of it in memory.
    fn keeping(kept_bytes_max: usize) -> Self {
        let store = Arc::new(MemoryStore::default());
        let mut shard = Shard::open(Arc::clone(&store) as Arc<dyn StateStore>).expect("an empty shard");
        shard.kept.set_bytes_max(kept_bytes_max);
        Self {
            kept_bytes_max,
            store,
            shard,
            journal: Vec::new(),
            expected: Vec::new(),
            seqs: [0; 8],
            versions: [0; 8],
        }
    }

    /// One entry of the journal: for each record whose it is, and how many events it has. One with a wrong number is among them.
    fn append(&mut self, records: &[(u8, u8)], at_ms: u64) {
        let index = self.journal.len() as u64 + 1;
        let mut encoded = Vec::new();
        for (n, events) in records {
            let at = usize::from(*n);
            // What is refused takes a place too, and is not seen.
            encoded.push(Record::Decided(decided(*n, self.seqs[at] + 2, 1, at_ms)).encode());
            self.seqs[at] += 1;
            let record = decided(*n, self.seqs[at], *events, at_ms);
            if *events > 0 {
                let place = encoded.len() as u32;
                let position = Position { index, place };
                self.expected
                    .push(FeedRecord::of(position, self.versions[at] + 1, &record));
            }
            self.versions[at] += u64::from(*events);
            encoded.push(Record::Decided(record).encode());
        }
        self.journal.push(batch::pack(encoded.iter()));
        self.apply();
    }

    fn apply(&mut self) {
        let from = self.shard.meta().applied.0 as usize;
        for (index, entry) in (1..).zip(&self.journal).skip(from) {
            self.shard.apply(index, 1, entry.clone(), None).expect("applied");
        }
    }

    /// A checkpoint up to some step: set aside, written, synced, let go.
    fn checkpoint(&mut self, steps: u8) {
        if !self.shard.is_dirty() || self.shard.tails().count() > 1 {
            return;
        }
        let (tail, meta) = self.shard.freeze();
        if steps == 0 {
            return self.restart();
        }
        let batch = checkpoint::batch(&*self.store, &Registry::new(), &tail, &meta, 1_000).expect("a batch");
        self.store.write(batch).expect("written");
        if steps == 1 {
            // Not synced: a crash takes it back.
            self.store.crash();
            return self.restart();
        }
        self.store.sync();
        if steps == 2 {
            return self.restart();
        }
        self.shard.thaw(&meta);
    }

    /// The process ends and comes back: all that is not in the store is applied once more.
    fn restart(&mut self) {
        self.store.crash();
        self.shard = Shard::open(Arc::clone(&self.store) as Arc<dyn StateStore>).expect("the shard");
        self.shard.kept.set_bytes_max(self.kept_bytes_max);
        self.apply();
    }

    /// Another replica takes this one's rows and goes on instead of it.
    fn snapshot(&mut self) {
        let other = Arc::new(MemoryStore::default());
        let mut batch = Batch::default();
        for (key, value) in self.store.rows().expect("sound") {
            batch.put(key, value.to_vec());
        }
        other.write(batch).expect("written");
        other.sync();
        self.store = other;
        self.restart();
    }

    fn page(&self, after: Position, max: PageMax, wanted: fn(&EntityKey) -> bool) -> Page {
        match self.shard.begin_feed(after, &wanted, max) {
            Reading::Tail(page) => page.finish(max),
            Reading::Stored(stored) => stored.finish(&wanted, max).expect("a page"),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, u8)>, u64),
    /// More records than one row takes.
    Flood(u8),
    Checkpoint(u8),
    Restart,
    Snapshot,
    Read(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec((0_u8..8, 0_u8..4), 0..6), 0_u64..50).prop_map(|(records, ms)| Step::Append(records, ms)),
        1 => (0_u8..8).prop_map(Step::Flood),
        3 => (0_u8..6).prop_map(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
        6 => (0_u8..3, 1_u8..40).prop_map(|(reader, records)| Step::Read(reader, records)),
    ]
}

/// Readers: of everything, of one kind, of one entity.
const READERS: [fn(&EntityKey) -> bool; 3] = [|_| true, |key| *key.kind == *"order", |key| *key.id == *"3"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_each_record_once_in_order(
        kept_bytes_max in prop_oneof![Just(0_usize), 300_usize..20_000, Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::keeping(kept_bytes_max);
        let mut read: [(Position, Vec<FeedRecord>); 3] = Default::default();
        for step in steps {
            match step {
                Step::Append(records, ms) => world.append(&records, ms),
                Step::Flood(n) => {
                    let records = vec![(n, 1); FEED_ROW_LEN_MAX / 2 + 7];
                    world.append(&records, 60);
                    world.append(&records, 61);
                }
                Step::Checkpoint(steps) => world.checkpoint(steps),
                Step::Restart => world.restart(),
                Step::Snapshot => world.snapshot(),
                Step::Read(reader, records) => {
                    let (after, seen) = &mut read[usize::from(reader)];
                    let max = PageMax { records: usize::from(records), bytes: 5_000 };
                    let page = world.page(*after, max, READERS[usize::from(reader)]);
                    prop_assert!(page.next >= *after && page.records.len() <= usize::from(records));
                    *after = page.next;
                    seen.extend(page.records);
                }
            }
        }
        for ((mut after, mut seen), wanted) in read.into_iter().zip(READERS) {
            let max = PageMax { records: 100, bytes: 1 << 20 };
            loop {
                let page = world.page(after, max, wanted);
                after = page.next;
                seen.extend(page.records);
                if page.is_end {
                    break;
                }
            }
            let expected: Vec<_> = world.expected.iter().filter(|record| wanted(&record.entity)).cloned().collect();
            prop_assert_eq!(seen, expected);
        }
        for at_ms in [0, 1, 25, 49, 60, 61, 62] {
            let found = world.shard.begin_seek(at_ms).finish().expect("a position");
            let first = world.expected.iter().find(|record| record.at_ms >= at_ms);
            let next = world.expected.iter().find(|record| record.position > found);
            prop_assert_eq!(first.map(|record| record.position), next.map(|record| record.position), "{}", at_ms);
        }
    }
}

fn all(shard: &Shard, after: Position) -> Result<Vec<u64>, FeedError> {
    let max = PageMax {
        records: 1_000,
        bytes: 1 << 20,
    };
    let (mut after, mut seen) = (after, Vec::new());
    loop {
        let page = match shard.begin_feed(after, &|_| true, max) {
            Reading::Tail(page) => page.finish(max),
            Reading::Stored(stored) => stored.finish(&|_| true, max)?,
        };
        seen.extend(page.records.iter().map(|record| record.seq));
        after = page.next;
        if page.is_end {
            return Ok(seen);
        }
    }
}

/// The state store keeps what it wants of a checkpoint that was not synced, rows of a longer tail among it.
#[test]
fn rows_that_come_again_are_not_read_twice() {
    let mut world = World::new();
    world.append(&[(1, 1); 600], 1);
    world.checkpoint(3);
    world.append(&[(1, 1); 600], 2);
    world.append(&[(1, 1); 600], 3);
    let (tail, meta) = world.shard.freeze();
    let batch = checkpoint::batch(&*world.store, &Registry::new(), &tail, &meta, 1_000).expect("a batch");
    let mut feed_rows = Batch::default();
    for (key, value) in batch.rows.into_iter().filter(|(key, _)| key.starts_with(keys::FEED)) {
        feed_rows.put(key, value.expect("a row"));
    }
    assert!(feed_rows.rows.len() > 2);
    world.store.write(feed_rows).expect("written");
    world.store.sync();
    world.journal.truncate(2);
    world.restart();
    assert_eq!(
        all(&world.shard, Position::BEGINNING),
        Ok((1..=1200).collect()),
        "before the next checkpoint"
    );
    world.checkpoint(3);
    world.seqs[1] = 1200;
    world.append(&[(1, 1); 600], 4);
    world.checkpoint(3);
    assert_eq!(
        all(&world.shard, Position::BEGINNING),
        Ok((1..=1800).collect()),
        "and after it"
    );
}

/// A journal that a build without feeds has written: what came before is not there, and nobody is told that it is.
#[test]
fn what_an_older_build_has_written_is_not_skipped_in_silence() {
    let mut world = World::new();
    world.append(&[(1, 1), (2, 1)], 1);
    world.append(&[(1, 1)], 2);
    world.checkpoint(3);
    let mut without = Batch::default();
    world
        .store
        .rows()
        .expect("sound")
        .into_iter()
        .filter(|(key, _)| key.starts_with(keys::FEED))
        .for_each(|(key, _)| without.remove(key));
    world.store.write(without).expect("written");
    world.append(&[(1, 1)], 3);
    let middle = Position { index: 1, place: 5 };
    let begins = FeedError::BeginsLater(Position::end_of(2));
    assert_eq!(all(&world.shard, middle), Err(begins.clone()));
    world.checkpoint(3);
    assert_eq!(all(&world.shard, middle), Err(begins));
    assert_eq!(all(&world.shard, Position::BEGINNING), Ok(vec![3]));
    assert_eq!(all(&world.shard, Position::end_of(2)), Ok(vec![3]));
}

/// From the position at which an entity is forgotten on, nobody reads its events: neither from the tail, nor from a checkpoint
/// that is being written, nor from the store. The others are read as before.
#[test]
fn what_is_forgotten_is_passed_over() {
    for (checkpoints, kept_bytes_max) in (0..3).flat_map(|n| [(n, 0), (n, 1 << 20)]) {
        let mut world = World::keeping(kept_bytes_max);
        world.append(&[(1, 1), (2, 1)], 1);
        world.append(&[(1, 2), (2, 1)], 2);
        if checkpoints > 0 {
            world.checkpoint(3);
        }
        world.append(&[(1, 1), (2, 1)], 3);
        let being_written = (checkpoints == 2).then(|| world.shard.freeze());
        let forgotten = Record::Forgotten(Box::new(Forgotten {
            entity: entity(1),
            request: RequestId::new("forget").expect("a request id"),
            at_ms: 4,
            asked_by: None,
            reason: "asked to".to_owned(),
            trace: TraceContext::default(),
        }));
        world.journal.push(batch::pack([forgotten.encode()].iter()));
        world.apply();
        let whole = |world: &World| -> Vec<EntityKey> {
            let (mut after, mut seen) = (Position::BEGINNING, Vec::new());
            loop {
                let max = PageMax {
                    records: 2,
                    bytes: 1 << 20,
                };
                let page = world.page(after, max, |_| true);
                seen.extend(page.records.into_iter().map(|record| record.entity));
                after = page.next;
                if page.is_end {
                    return seen;
                }
            }
        };
        assert_eq!(whole(&world), vec![entity(2); 3], "before the next checkpoint");
        if let Some((tail, meta)) = being_written {
            let batch = checkpoint::batch(&*world.store, &Registry::new(), &tail, &meta, 1_000).expect("a batch");
            world.store.write(batch).expect("written");
            world.store.sync();
            world.shard.thaw(&meta);
            assert_eq!(whole(&world), vec![entity(2); 3], "after the one that was under way");
        }
        world.checkpoint(3);
        world.append(&[(2, 1)], 5);
        assert_eq!(whole(&world), vec![entity(2); 4], "after it is gone");
    }
}

/// What a retention let go is read from no checkpoint any more, be it the one that moved it or a later one.
#[test]
fn what_is_let_go_is_passed_over() {
    for (is_moved_before, kept_bytes_max) in [false, true]
        .into_iter()
        .flat_map(|before| [(before, 0), (before, 1 << 20)])
    {
        let mut world = World::keeping(kept_bytes_max);
        for n in 1..=6 {
            world.append(&[(1, 1)], n);
        }
        if is_moved_before {
            world.checkpoint(3);
        }
        let trimmed = Record::Trimmed(Box::new(Trimmed {
            entity: entity(1),
            base: Base {
                seq: 4,
                version: 4,
                at_ms: 4,
                state: None,
            },
        }));
        world.journal.push(batch::pack([trimmed.encode()].iter()));
        world.apply();
        world.checkpoint(3);
        assert_eq!(all(&world.shard, Position::BEGINNING), Ok(vec![5, 6]));
    }
}

/// Who is behind by no more than what is kept does not go to the store; of what is kept there is a bound.
#[test]
fn the_newest_of_what_a_checkpoint_has_moved_is_in_memory() {
    let is_in_memory = |world: &World, seq: u64| {
        let behind = Position { index: seq, place: 1 };
        let max = PageMax {
            records: 100,
            bytes: 1 << 20,
        };
        matches!(world.shard.begin_feed(behind, &|_| true, max), Reading::Tail(_))
    };
    let mut world = World::keeping(3_000);
    assert!(is_in_memory(&world, 0), "nothing is in the store yet");
    for n in 1..=5 {
        world.append(&[(1, 1)], n);
    }
    world.checkpoint(3);
    assert!(is_in_memory(&world, 0));
    for n in 6..=40 {
        world.append(&[(1, 1)], n);
        if n % 2 == 0 {
            world.checkpoint(3);
        }
    }
    let first = (0..=40).find(|seq| is_in_memory(&world, *seq)).expect("the end is");
    assert!((28..=35).contains(&first), "{first}");
    assert_eq!(
        all(&world.shard, Position { index: first, place: 1 }),
        Ok((first + 1..=40).collect())
    );
    assert_eq!(
        all(
            &world.shard,
            Position {
                index: first - 1,
                place: 1
            }
        ),
        Ok((first..=40).collect())
    );
    for n in 41..=80 {
        world.append(&[(1, 1)], n);
    }
    // A tail that is larger than what may be kept.
    world.checkpoint(3);
    assert!(is_in_memory(&world, 75) && !is_in_memory(&world, 60));
    assert_eq!(all(&world.shard, Position::BEGINNING), Ok((1..=80).collect()));
    world.restart();
    assert!(!is_in_memory(&world, 80) && is_in_memory(&world, 81));
}

/// Stored: must stay readable. And what it costs: some bytes beside the entity's id.
#[test]
fn golden_rows() {
    let mut world = World::new();
    world.append(&[(2, 1), (3, 2)], 7);
    world.append(&[(2, 1)], 8);
    world.checkpoint(3);
    let rows: Vec<(String, String)> = world
        .store
        .rows()
        .expect("sound")
        .into_iter()
        .filter(|(key, _)| key.starts_with(keys::FEED))
        .map(|(key, value)| (hex(&key), hex(&value)))
        .collect();
    let expected = [
        ("66000000000000000000000000", "950000909090"),
        (
            "66000000000000000100000001",
            "95000892a56f72646572a573746f636b929200a1329201a13393950001000101950003010101950101000202",
        ),
    ];
    assert_eq!(rows, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
