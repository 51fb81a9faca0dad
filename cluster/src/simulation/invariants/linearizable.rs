//! Each entity is linearizable: there is one order of all that was asked of it, in which every operation takes effect at one
//! moment between the question and its answer, and every answer is what a single counter would have said at that moment.
//!
//! The search is Wing and Gong's, with Lowe's memory: it places operations one after the other, goes back when an answer fits
//! nowhere, and never looks twice at the same set of placed operations with the same counter. An operation without an answer may
//! have happened at any time since, or never: for others that is as if it happened after all of them.
//!
//! This file knows nothing of the simulation but the histories that it is given; [`History`] collects one for each entity.

use std::collections::{BTreeMap, HashSet};

use crate::entity::EntityKey;

/// Steps of the search for one history; beyond it the history counts as one that does not hold, and says so.
const STEPS_MAX: u64 = 5_000_000;

/// What an operation does to the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Counts one more, and tells the new count. Under the same request id it does nothing again, and tells what it told.
    Add,
    /// Changes nothing and tells the count: a command that is refused, or that is about something else. Recorded like others,
    /// so under the same request id it tells what it told.
    Tell,
    /// Changes nothing and tells the count; not recorded.
    Read,
}

/// One operation, from the question to its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// What the caller calls it; the request id of commands.
    pub(crate) request: String,
    pub(crate) what: What,
    pub(crate) began: u64,
    /// When the first answer came, and the count that it told. None where the outcome is not known.
    pub(crate) ended: Option<(u64, u64)>,
}

/// The counter, as the search takes it along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Counter {
    count: u64,
    /// What requests were told that several operations share, by their place among those.
    told: Vec<Option<u64>>,
}

/// Whether a history is linearizable; if not, where it ends to be.
pub(crate) fn check(operations: &[Operation]) -> Result<(), String> {
    let shared = shared_requests(operations);
    let mut search = Search::new(operations, shared);
    match search.run() {
        Found::Order => Ok(()),
        Found::None => Err(search.complaint()),
        Found::TooLong => Err(format!(
            "no order of {} operations was found within {STEPS_MAX} steps",
            operations.len()
        )),
    }
}

/// For each operation, the place of its request among those that several commands share.
fn shared_requests(operations: &[Operation]) -> Vec<Option<usize>> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    let commands = |operation: &&Operation| operation.what != What::Read;
    for operation in operations.iter().filter(commands) {
        *times.entry(&operation.request).or_default() += 1;
    }
    let shared: Vec<&str> = times
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(request, _)| *request)
        .collect();
    let place = |operation: &Operation| shared.binary_search(&&*operation.request).ok();
    operations
        .iter()
        .map(|operation| place(operation).filter(|_| operation.what != What::Read))
        .collect()
}

enum Found {
    Order,
    None,
    TooLong,
}

/// What happened, in order of time: questions and answers, as a list from which placed operations are taken out.
struct Search<'a> {
    operations: &'a [Operation],
    shared: Vec<Option<usize>>,
    /// The operation of each event, and whether the event is its answer. The first is the list's head and nobody's.
    events: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where the question and the answer of each operation stand.
    places: Vec<(usize, usize)>,
    placed: Vec<u64>,
    counter: Counter,
    /// The placed operations in order, each with the counter before it, and whether another could have come in its place.
    order: Vec<(usize, Counter, bool)>,
    seen: HashSet<(Vec<u64>, Counter)>,
    /// The most that could be placed, what the counter was then, and whose answer fitted nowhere.
    best: (usize, u64, usize),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], shared: Vec<Option<usize>>) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (n, operation) in operations.iter().enumerate() {
            moments.push((operation.began, false, n));
            // At the same moment questions come first: who asks when another is answered may not know the answer yet.
            moments.push((operation.ended.map_or(u64::MAX, |(at, _)| at), true, n));
        }
        moments.sort_unstable();
        let mut events = vec![(usize::MAX, false)];
        let mut places = vec![(0, 0); operations.len()];
        for (_, is_answer, n) in moments {
            let place = events.len();
            if is_answer {
                places[n].1 = place;
            } else {
                places[n].0 = place;
            }
            events.push((n, is_answer));
        }
        let count = events.len();
        let groups = shared.iter().flatten().max().map_or(0, |most| most + 1);
        Self {
            operations,
            shared,
            events,
            next: (1..=count).collect(),
            previous: (0..count).map(|place| place.saturating_sub(1)).collect(),
            places,
            placed: vec![0; operations.len().div_ceil(64)],
            counter: Counter {
                count: 0,
                told: vec![None; groups],
            },
            order: Vec::new(),
            seen: HashSet::new(),
            best: (0, 0, usize::MAX),
        }
    }

    fn run(&mut self) -> Found {
        let end = self.events.len();
        let mut place = self.next[0];
        for _ in 0..STEPS_MAX {
            self.place_what_changes_nothing(&mut place);
            if self.next[0] == end {
                return Found::Order;
            }
            let (n, is_answer) = self.events[place];
            if !is_answer {
                place = if self.choose(n) { self.next[0] } else { self.next[place] };
                continue;
            }
            // This one was answered before anything else that is left could be: go back.
            if self.best.2 == usize::MAX || self.order.len() > self.best.0 {
                self.best = (self.order.len(), self.counter.count, n);
            }
            match self.take_back() {
                Some(question) => place = self.next[question],
                None => return Found::None,
            }
        }
        Found::TooLong
    }

    /// Whatever can come next and leaves the counter as it is comes next: later it could only fit less. So a crowd of readers is no
    /// choice, and none of them is taken back by itself.
    fn place_what_changes_nothing(&mut self, place: &mut usize) {
        // In the middle of a list there is a choice to be made, with the same counter as at its beginning.
        if *place != self.next[0] {
            return;
        }
        let mut at = self.next[0];
        while let Some((n, false)) = self.events.get(at).copied() {
            let fits = self.after(n).is_some_and(|after| after == self.counter);
            if fits {
                self.put(n, self.counter.clone(), false);
            }
            at = self.next[at];
            // Its answer has gone with the question.
            if fits && at == self.places[n].1 {
                at = self.next[at];
            }
        }
        *place = self.next[0];
    }

    /// Places an operation next, if its answer fits and this was not tried before.
    fn choose(&mut self, n: usize) -> bool {
        let Some(after) = self.after(n) else { return false };
        let mut placed = self.placed.clone();
        placed[n / 64] |= 1 << (n % 64);
        if !self.seen.insert((placed, after.clone())) {
            return false;
        }
        self.put(n, after, true);
        true
    }

    fn put(&mut self, n: usize, after: Counter, is_choice: bool) {
        self.placed[n / 64] |= 1 << (n % 64);
        let before = std::mem::replace(&mut self.counter, after);
        self.order.push((n, before, is_choice));
        let (question, answer) = self.places[n];
        for place in [question, answer] {
            let (before, behind) = (self.previous[place], self.next[place]);
            self.next[before] = behind;
            if behind < self.events.len() {
                self.previous[behind] = before;
            }
        }
    }

    /// Takes the last choice back, and all that followed from it; gives the place of its question.
    fn take_back(&mut self) -> Option<usize> {
        loop {
            let (n, counter, is_choice) = self.order.pop()?;
            self.counter = counter;
            self.placed[n / 64] &= !(1 << (n % 64));
            let (question, answer) = self.places[n];
            for place in [answer, question] {
                let (before, behind) = (self.previous[place], self.next[place]);
                self.next[before] = place;
                if behind < self.events.len() {
                    self.previous[behind] = place;
                }
            }
            if is_choice {
                return Some(question);
            }
        }
    }

    /// The counter after an operation that comes next; none if it was answered something else.
    fn after(&self, n: usize) -> Option<Counter> {
        let operation = &self.operations[n];
        let told = self.shared[n].and_then(|place| self.counter.told[place]);
        let (answer, count) = match (told, operation.what) {
            (Some(told), _) => (told, self.counter.count),
            (None, What::Add) => (self.counter.count + 1, self.counter.count + 1),
            (None, What::Tell | What::Read) => (self.counter.count, self.counter.count),
        };
        if operation.ended.is_some_and(|(_, was_told)| was_told != answer) {
            return None;
        }
        let mut after = Counter {
            count,
            told: self.counter.told.clone(),
        };
        if let Some(place) = self.shared[n] {
            after.told[place] = Some(answer);
        }
        Some(after)
    }

    fn complaint(&self) -> String {
        let (placed, count, n) = self.best;
        let operation = &self.operations[n];
        format!(
            "after {placed} operations, at a count of {count}, there is no place for {:?} {} from {} to {:?} in any order",
            operation.what, operation.request, operation.began, operation.ended
        )
    }
}

/// What clients asked and were answered, entity by entity.
#[derive(Debug, Default)]
pub(crate) struct History {
    operations: BTreeMap<EntityKey, Vec<Operation>>,
    /// By the operation's number: where it stands.
    places: BTreeMap<u64, (EntityKey, usize)>,
}

impl History {
    /// A client begins an operation, or, where it only reads, another attempt of one: what it hears then was read since.
    pub(crate) fn begins(&mut self, op: u64, key: &EntityKey, what: What, request: &str, now: u64) {
        if let Some((key, place)) = self.places.get(&op) {
            let operations = self.operations.get_mut(key).expect("its place is known");
            if what == What::Read {
                operations[*place].began = now;
            }
            return;
        }
        let operations = self.operations.entry(key.clone()).or_default();
        self.places.insert(op, (key.clone(), operations.len()));
        operations.push(Operation {
            request: request.to_owned(),
            what,
            began: now,
            ended: None,
        });
    }

    /// An operation has its first answer.
    pub(crate) fn ends(&mut self, op: u64, told: u64, now: u64) {
        if let Some((key, place)) = self.places.get(&op) {
            let operations = self.operations.get_mut(key).expect("its place is known");
            operations[*place].ended.get_or_insert((now, told));
        }
    }

    /// Whether each entity's history is linearizable. Says how many operations there were.
    pub(crate) fn check(&self) -> Result<usize, String> {
        for (key, operations) in &self.operations {
            check(operations).map_err(|what| format!("{key}: {what}"))?;
        }
        Ok(self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name what began..ended=told`, with `?` for an answer that never came.
    fn history(lines: &[&str]) -> Vec<Operation> {
        let operation = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (began, rest) = words[2].split_once("..").expect("a span");
            Operation {
                request: words[0].to_owned(),
                what: match words[1] {
                    "add" => What::Add,
                    "tell" => What::Tell,
                    "read" => What::Read,
                    other => panic!("no such operation: {other}"),
                },
                began: began.parse().expect("a time"),
                ended: (rest != "?").then(|| {
                    let (ended, told) = rest.split_once('=').expect("an answer");
                    (ended.parse().expect("a time"), told.parse().expect("a count"))
                }),
            }
        };
        lines.iter().map(operation).collect()
    }

    fn holds(lines: &[&str]) -> bool {
        check(&history(lines)).is_ok()
    }

    #[test]
    fn one_after_the_other() {
        assert!(holds(&[
            "a add 0..1=1",
            "b add 2..3=2",
            "c read 4..5=2",
            "d tell 6..7=2"
        ]));
        assert!(holds(&[]));
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        assert!(holds(&["a add 0..9=2", "b add 1..8=1", "c read 2..7=1"]));
        assert!(holds(&["a add 0..9=2", "b add 1..8=1", "c read 2..7=0"]));
        assert!(holds(&["a add 0..9=1", "b read 0..9=0", "c read 0..9=1"]));
    }

    #[test]
    fn an_answer_at_the_moment_of_a_question_is_not_before_it() {
        assert!(holds(&["a add 0..5=1", "b read 5..6=0"]));
        assert!(!holds(&["a add 0..5=1", "b read 6..7=0"]));
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(!holds(&["a add 0..1=1", "b add 2..3=2", "c read 4..5=1"]));
    }

    #[test]
    fn two_reads_that_go_back_are_found_though_each_could_be() {
        let lines = ["a add 0..99=1", "b read 1..2=1", "c read 3..4=0"];
        assert!(!holds(&lines));
        assert!(holds(&["a add 0..99=1", "b read 1..4=1", "c read 2..3=0"]));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(!holds(&["a add 0..1=1", "b add 2..3=1"]));
        assert!(!holds(&["a add 0..1=1", "b add 2..3=3"]));
    }

    #[test]
    fn an_unknown_outcome_may_have_happened_at_any_time_or_never() {
        assert!(holds(&["a add 0..?", "b read 5..6=0", "c read 7..8=1"]));
        assert!(holds(&["a add 0..?", "b read 5..6=0", "c read 7..8=0"]));
        assert!(holds(&["a add 0..?", "b add 5..6=2"]));
        assert!(!holds(&["a add 0..?", "b read 5..6=1", "c read 7..8=0"]));
        assert!(!holds(&["a add 5..?", "b read 1..2=1"]), "not before it was asked");
        assert!(!holds(&["a add 0..?", "b read 5..6=2"]), "and only once");
    }

    #[test]
    fn the_same_request_counts_once_and_is_told_the_same() {
        assert!(holds(&[
            "a add 0..1=1",
            "b add 2..3=2",
            "a add 4..5=1",
            "c read 6..7=2"
        ]));
        assert!(!holds(&["a add 0..1=1", "a add 2..3=2"]));
        assert!(!holds(&[
            "a add 0..1=1",
            "b add 2..3=2",
            "a add 4..5=1",
            "c read 6..7=3"
        ]));
        // The first of two may be the one whose answer never came.
        assert!(holds(&["a add 0..?", "b add 2..3=2", "a add 4..5=1"]));
        assert!(!holds(&["a add 0..?", "b add 2..3=2", "a add 4..5=3"]));
    }

    #[test]
    fn a_refusal_is_recorded_and_said_again() {
        assert!(holds(&["a tell 0..1=0", "b add 2..3=1", "a tell 4..5=0"]));
        assert!(!holds(&["a tell 0..1=0", "b add 2..3=1", "a tell 4..5=1"]));
        assert!(!holds(&["b add 2..3=1", "a tell 4..5=0"]));
    }

    #[test]
    fn the_search_goes_back_when_an_early_choice_was_wrong() {
        // The reads fit only if both adds that nobody heard of again come between them.
        let lines = [
            "a add 0..?",
            "b add 0..?",
            "c read 1..2=0",
            "d add 3..4=3",
            "e read 5..6=3",
        ];
        assert!(holds(&lines));
        assert!(!holds(&["a add 0..?", "b add 0..?", "c read 1..2=0", "d add 3..4=4"]));
    }

    /// A crowd that asks at once is no harder than one after the other, whether the history holds or not.
    #[test]
    fn a_crowd_is_placed_without_trying_all_of_its_orders() {
        let operation = |n: u64, what, told| Operation {
            request: format!("r{n}"),
            what,
            began: n % 7,
            ended: Some((1_000 + n, told)),
        };
        let adds = (0..40).map(|n| operation(n, What::Add, 40 - n));
        let reads = (40..120).map(|n| operation(n, What::Read, n % 41));
        let mut crowd: Vec<Operation> = adds.chain(reads).collect();
        assert_eq!(check(&crowd), Ok(()));
        crowd.push(operation(120, What::Read, 41));
        let complaint = check(&crowd).expect_err("nobody counted so far");
        assert!(complaint.contains("no place for Read r120"), "{complaint}");
    }

    /// Every history that a counter with clients of its own has made is found to hold, and one answer that is off is found.
    #[test]
    fn histories_of_a_real_counter_hold_until_an_answer_is_changed() {
        let mut rng = crate::simulation::Rng::new(7);
        for round in 0..300 {
            let (mut count, mut operations) = (0, Vec::new());
            for n in 0..rng.between(20, 120) {
                // Taking effect in this order, each at its own moment, with questions and answers far around it.
                let at = 10 * n + 500;
                let what = rng.pick(&[What::Add, What::Add, What::Tell, What::Read]);
                count += u64::from(what == What::Add);
                let is_heard = rng.chance(900);
                operations.push(Operation {
                    request: format!("r{n}"),
                    what,
                    began: at - rng.below(60),
                    ended: is_heard.then(|| (at + rng.below(60), count)),
                });
            }
            assert_eq!(check(&operations), Ok(()), "round {round}");
            // No two adds can be told the same.
            let is_heard_add = |operation: &&mut Operation| operation.what == What::Add && operation.ended.is_some();
            let mut adds = operations.iter_mut().filter(is_heard_add);
            if let (Some(one), Some(other)) = (adds.next(), adds.next()) {
                let (told, at) = (one.ended.map(|(_, told)| told), other.ended.map(|(at, _)| at));
                other.ended = at.zip(told);
                assert!(check(&operations).is_err(), "round {round}");
            }
        }
    }
}
