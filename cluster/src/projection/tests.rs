//! Seeded: a model that is fed, crashed at any batch, rebuilt and started over holds what a fold over the whole history holds.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    ProjectedEvent, Projection, Rows,
    carried::{All, add},
    keys,
    line::{Line, Stop, Which, remove_all, stored_lines},
    rows::Source as _,
    script::Folded,
};
use crate::{
    codec,
    entity::{Context, Decision, Entity, EntityKey, NoToken, Outcome, RequestId},
    journal::feed::{FeedRecord, Position},
    store::{StateStore, memory::MemoryStore},
    trace::TraceContext,
};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Moved {
    In(u64),
    Out(u64),
    /// Closed: its rows go.
    Closed,
}

struct Account;

impl Entity for Account {
    const KIND: &'static str = "account";
    type State = Nothing;
    type Command = Nothing;
    type Event = Moved;
    type Reply = Nothing;
    type Rejection = Nothing;
    type Token = NoToken;

    fn decide(_: &Nothing, _: Nothing, _: &Context) -> Result<Decision<Self>, Nothing> {
        Ok(Decision::reply(Nothing))
    }

    fn evolve(_: &mut Nothing, _: &Moved) {}

    fn resume(token: NoToken, _: Outcome) -> Nothing {
        match token {}
    }
}

struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;
    const KINDS: &'static [&'static str] = &[Account::KIND];
    type Query = ();
    type Partial = BTreeMap<String, i64>;
    type Answer = BTreeMap<String, i64>;

    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        let Some(moved) = event.of::<Account>() else { return };
        let amount = match moved {
            Moved::In(amount) => amount as i64,
            Moved::Out(amount) => -(amount as i64),
            Moved::Closed => return rows.remove(event.id()),
        };
        assert!(amount != 13, "thirteen");
        rows.update(event.id(), |balance: &mut i64| *balance += amount);
    }

    fn query(rows: &Rows<'_>, (): &()) -> Self::Partial {
        let mut all = BTreeMap::new();
        rows.scan("", None, |id, balance: i64| {
            all.insert(String::from_utf8_lossy(id).into_owned(), balance);
            true
        });
        all
    }

    fn merge(parts: Vec<Self::Partial>, (): &()) -> Self::Answer {
        parts.into_iter().flatten().collect()
    }
}

fn all() -> All {
    let mut all = All::new();
    add::<Balances>(&mut all);
    all
}

fn open(store: &Arc<MemoryStore>) -> Line {
    let carried = all().into_values().next().expect("it was added");
    Line::open(carried, Arc::clone(store) as Arc<dyn StateStore>).expect("opened")
}

fn record(index: u64, account: u64, events: &[Moved]) -> FeedRecord {
    FeedRecord {
        position: Position { index, place: 0 },
        entity: EntityKey::new("account", &format!("a-{account}")).expect("a key"),
        seq: index,
        first_version: index,
        at_ms: index,
        trace: TraceContext::default(),
        request_id: RequestId::new(&format!("r-{index}")).expect("an id"),
        events: events.iter().map(codec::encode).collect(),
    }
}

fn history(rng: &mut Rng, len: u64) -> Vec<FeedRecord> {
    (1..=len)
        .map(|index| {
            let moved = |rng: &mut Rng| match rng.below(8) {
                0 => Moved::Closed,
                1..=3 => Moved::Out(rng.below(12)),
                _ => Moved::In(rng.below(12)),
            };
            let events: Vec<Moved> = (0..=rng.below(3)).map(|_| moved(rng)).collect();
            record(index * 2, rng.below(12), &events)
        })
        .collect()
}

fn folded(history: &[FeedRecord]) -> Vec<(Vec<u8>, Bytes)> {
    let mut folded = Folded::<Balances>::new(1);
    for record in history {
        for event in &record.events {
            folded.given_raw(&record.entity, record.at_ms, event.clone());
        }
    }
    folded.rows(0)
}

fn rows(line: &Line, generation: u64) -> Vec<(Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    line.rows_of(generation)
        .scan(&[], &[], &mut |key, value| {
            rows.push((key.to_vec(), value));
            Ok(true)
        })
        .expect("readable");
    rows
}

/// Feeds one batch as the projector does.
fn feed(line: &mut Line, history: &[FeedRecord], which: Which, len: usize) {
    let Some(generation) = line.standing.generation(which) else {
        return;
    };
    let bound = line
        .standing
        .serving
        .filter(|_| which == Which::Building)
        .map(|serving| serving.place.read);
    let from = history.partition_point(|record| record.position <= generation.place.read);
    let mut batch: Vec<FeedRecord> = history[from..].iter().take(len).cloned().collect();
    let is_end = from + batch.len() == history.len();
    let end = Position::end_of(history.last().map_or(0, |record| record.position.index) + 1);
    let mut next = if is_end {
        end
    } else {
        batch.last().expect("not at the end").position
    };
    if let Some(bound) = bound {
        batch.retain(|record| record.position <= bound);
        next = next.min(bound);
    }
    let step = line
        .take(which, &batch, next, 7)
        .unwrap_or_else(|stop| panic!("{stop:?}"));
    line.write(step).expect("written");
    if which == Which::Building && line.may_take_over(is_end) {
        let step = line.take_over();
        line.write(step).expect("written");
        assert_ne!(line.standing.head.compared, Some(false), "the rebuilt one differs");
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let history = {
        let len = 40 + rng.below(160);
        history(&mut rng, len)
    };
    let store = Arc::new(MemoryStore::default());
    let mut line = open(&store);
    let mut known = 0;
    for _ in 0..400 {
        known = (known + rng.below(4) as usize).min(history.len());
        match rng.below(20) {
            0 => {
                let step = line.rebuild();
                line.write(step).expect("written");
            }
            1 => {
                store.crash();
                line = open(&store);
            }
            2 => {
                let step = line.start_over();
                if rng.below(10) == 0 {
                    line.write(step).expect("written");
                }
            }
            3..=5 => store.sync(),
            6..=8 => {
                if let Some(step) = line.remove_some().expect("readable") {
                    line.write(step).expect("written");
                }
            }
            number => {
                let which = if number % 2 == 0 {
                    Which::Serving
                } else {
                    Which::Building
                };
                feed(&mut line, &history[..known], which, 1 + rng.below(9) as usize);
            }
        }
        if rng.below(10) == 0
            && let Some(serving) = line.standing.serving
        {
            let until = history.partition_point(|record| record.position <= serving.place.read);
            assert_eq!(rows(&line, serving.number), folded(&history[..until]), "seed {seed}");
        }
    }
    let is_whole = |line: &Line| {
        let end = history.last().map_or(0, |record| record.position.index);
        line.standing.building.is_none()
            && line.standing.head.removing.is_empty()
            && line
                .standing
                .serving
                .is_some_and(|serving| serving.place.reached() >= end)
    };
    while !is_whole(&line) {
        feed(&mut line, &history, Which::Serving, 16);
        feed(&mut line, &history, Which::Building, 16);
        if let Some(step) = line.remove_some().expect("readable") {
            line.write(step).expect("written");
        }
    }
    let serving = line.standing.serving.expect("it answers");
    let expected = folded(&history);
    assert_eq!(rows(&line, serving.number), expected, "seed {seed}");
    let events = history.iter().map(|record| record.events.len() as u64).sum::<u64>();
    let bytes = expected
        .iter()
        .map(|(key, value)| (key.len() + value.len()) as u64)
        .sum::<u64>();
    assert_eq!(
        (serving.place.events, serving.place.bytes),
        (events, bytes),
        "seed {seed}"
    );
    assert_eq!(serving.place.rows, expected.len() as u64, "seed {seed}");
    // Nothing of what was replaced is left: a head, a place, the rows.
    assert_eq!(store.rows().expect("sound").len(), expected.len() + 2, "seed {seed}");
}

#[test]
fn a_model_holds_what_a_fold_over_the_history_holds_whatever_happened() {
    for seed in 0..80 {
        run(seed);
    }
}

#[test]
fn an_event_that_cannot_be_taken_in_stops_the_model_right_before_it() {
    let store = Arc::new(MemoryStore::default());
    let mut line = open(&store);
    let bad = [
        record(1, 1, &[Moved::In(5)]),
        record(2, 1, &[Moved::In(1), Moved::In(13)]),
    ];
    let next = Position::end_of(2);
    let Err(Stop::Event { before, reason }) = line.take(Which::Building, &bad, next, 7) else {
        panic!("it was taken in");
    };
    assert!(
        reason.contains("account/a-1 at 2.0") && reason.contains("thirteen"),
        "{reason}"
    );
    line.write(*before.expect("the first one is good")).expect("written");
    let place = line.standing.building.expect("it is being built").place;
    assert_eq!((place.last, place.events), (Position { index: 1, place: 0 }, 1));
    assert_eq!(rows(&line, 1), folded(&bad[..1]));
    // One that this build cannot read stops it as well.
    let mut unreadable = record(3, 1, &[Moved::In(1)]);
    unreadable.events = vec![codec::encode(&"nonsense")];
    let Err(Stop::Event { before: None, reason }) = line.take(Which::Building, &[unreadable], next, 7) else {
        panic!("it was taken in");
    };
    assert!(reason.contains("at 3.0"), "{reason}");
}

#[test]
fn a_damaged_place_is_built_anew_and_what_nobody_carries_is_removed() {
    let store = Arc::new(MemoryStore::default());
    let mut rng = Rng::new(1);
    let history = history(&mut rng, 30);
    let mut line = open(&store);
    feed(&mut line, &history, Which::Building, 100);
    assert!(line.standing.serving.is_some());
    let mut batch = crate::store::Batch::default();
    batch.put(keys::place("balances", 1, 1), vec![0xc1]);
    store.write(batch).expect("written");
    let mut line = open(&store);
    assert!(line.standing.serving.is_none());
    feed(&mut line, &history, Which::Building, 100);
    let serving = line.standing.serving.expect("it answers again");
    assert_eq!(rows(&line, serving.number), folded(&history));
    assert_eq!(stored_lines(&*store).expect("readable"), [("balances".to_owned(), 1)]);
    while !remove_all(&*store, "balances", 1).expect("removed") {}
    assert_eq!(store.rows(), Ok(Vec::new()));
}
