//! Sagas under random outcomes, orders of arrival, repeats, deadlines and signals: whatever comes, a saga ends completed or
//! undone, undoes in reverse order, and undoes each thing that was done exactly once.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Everything, Other, Parts, Word};
use crate::{
    Outcome,
    entity::script::Script,
    saga::{Command, Event, Next, Phase, Saga as _, StateOf, Step, StepToken, Token, table::position},
};

/// Runs of one test.
const SEEDS: u64 = 3_000;
/// Messages of one run that are up to chance; then everything works.
const CHANCES: usize = 60;
/// More than any run takes to come to rest.
const STEPS_MAX: usize = 2_000;

/// What is on its way.
#[derive(Clone)]
enum Message {
    /// With the id under which a repeat of it is known.
    Effect(usize, StepToken),
    Outcome(StepToken, Outcome),
    Word(Word),
}

/// Those who are asked: what is done at them, and how often it was done and undone.
#[derive(Default)]
struct Others {
    is_done: BTreeSet<Step>,
    did: BTreeMap<Step, u32>,
    undid: BTreeMap<Step, u32>,
    /// As the engine does, whoever is asked again under the same id says again what was said.
    said: BTreeMap<usize, Outcome>,
}

impl Others {
    fn set(&mut self, step: &Step, done: bool) {
        let (changed, count) = if done {
            (self.is_done.insert(step.clone()), &mut self.did)
        } else {
            (self.is_done.remove(step), &mut self.undid)
        };
        *count.entry(step.clone()).or_default() += u32::from(changed);
    }
}

struct Run {
    script: Script<Everything>,
    others: Others,
    under_way: Vec<Message>,
    rng: StdRng,
    /// Messages that are still up to chance.
    chances: usize,
    /// The stages that were undone one after the other since the last event that may go back down.
    undone: Vec<usize>,
    is_late: bool,
    sent: usize,
    trace: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut run = Self {
            script: Script::new("e"),
            others: Others::default(),
            under_way: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            chances: CHANCES,
            undone: Vec::new(),
            is_late: false,
            sent: 0,
            trace: vec![format!("seed {seed}")],
        };
        run.others.set(&Step::new("given", ""), true);
        let parts = ["a", "b", "c"].map(ToOwned::to_owned);
        let count = run.rng.random_range(0..=parts.len());
        run.tell(Command::Start(Parts {
            parts: parts[..count].to_vec(),
            secret: String::new(),
        }));
        run
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.chances > 0 && self.rng.random_bool(probability)
    }

    fn tell(&mut self, command: Command<Parts, String, Word>) {
        self.trace.push(format!("{command:?}"));
        let answer = self.script.run(command);
        self.take(&answer);
    }

    /// Takes in what the saga has decided.
    fn take(&mut self, answer: &Outcome) {
        assert!(
            matches!(answer, Outcome::Replied(_)),
            "it refused: {}",
            self.trace.join("\n")
        );
        for event in self.script.events().to_vec() {
            self.trace.push(format!("    {event:?}"));
            self.check_order(&event);
        }
        for sent in self.script.effects() {
            if let Some(Token::Step(of)) = &sent.token {
                self.sent += 1;
                self.under_way.push(Message::Effect(self.sent, of.clone()));
            }
        }
    }

    /// Undo goes from the bottom to the top; only an answer that came late may take it down again.
    fn check_order(&mut self, event: &Event<Parts, String>) {
        self.is_late |= matches!(event, Event::Late { .. });
        let (Event::Done { next, .. }
        | Event::Refused { next, .. }
        | Event::TurnedBack { next, .. }
        | Event::Undone { next, .. }
        | Event::Late { next, .. }) = event
        else {
            return;
        };
        match next {
            Some(Next::Undo(stage, _)) => {
                let at = position::<Everything>(stage).expect("a stage of the table");
                let is_above = self.undone.last().is_none_or(|before| at < *before);
                assert!(
                    is_above || self.is_late,
                    "undone out of order: {}",
                    self.trace.join("\n")
                );
                self.undone.push(at);
            }
            Some(_) => self.undone.clear(),
            None => {}
        }
    }

    /// Carries one message out, or lets a timer fire. False when there is nothing left.
    fn step(&mut self) -> bool {
        if self.chance(0.03) {
            self.tell(Command::Signal(Word::Spoiled));
        }
        let timers: Vec<String> = self.script.timers().map(|(name, _)| name.to_owned()).collect();
        let fires = self.under_way.is_empty() || self.chance(0.05);
        if fires && !timers.is_empty() {
            let name = &timers[self.rng.random_range(0..timers.len())];
            self.trace.push(format!("fires {name}"));
            let answer = self.script.fire(name).expect("the timer is set");
            self.take(&answer);
            return true;
        }
        if self.under_way.is_empty() {
            return false;
        }
        let at = self.rng.random_range(0..self.under_way.len());
        let message = self.under_way.swap_remove(at);
        if self.chance(0.15) {
            self.under_way.push(message.clone());
        }
        self.chances = self.chances.saturating_sub(1);
        match message {
            Message::Effect(id, of) => {
                let outcome = match self.others.said.get(&id) {
                    Some(said) => said.clone(),
                    None => self.carry_out(&of),
                };
                self.others.said.insert(id, outcome.clone());
                self.under_way.push(Message::Outcome(of, outcome));
            }
            Message::Outcome(of, outcome) => {
                let command = <Everything as crate::Entity>::resume(Token::Step(of), outcome);
                self.tell(command);
            }
            Message::Word(word) => self.tell(Command::Signal(word)),
        }
        true
    }

    /// Whoever is asked does it or not, says so or not. What has taken effect is not refused afterwards.
    fn carry_out(&mut self, of: &StepToken) -> Outcome {
        let fails = self.chance(0.2);
        let refuses = self.chance(0.15);
        let already = self.others.is_done.contains(&of.step);
        if fails {
            if self.chance(0.5) {
                self.others.set(&of.step, !of.undo);
            }
            Outcome::Failed("no answer".to_owned())
        } else if refuses && (!already || of.undo) {
            let why = if self.chance(0.8) { "without me" } else { "No" };
            Outcome::rejected::<Other>(&why.to_owned())
        } else {
            self.others.set(&of.step, !of.undo);
            if of.step.stage() == "slow" && !of.undo {
                self.under_way.push(Message::Word(Word::Ready("r".to_owned())));
            }
            Outcome::replied::<Other>(&"done".to_owned())
        }
    }

    fn run_to_the_end(&mut self) -> &StateOf<Everything> {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return self.script.state();
            }
        }
        panic!("there is no end to it: {}", self.trace.join("\n"));
    }
}

#[test]
fn whatever_comes_a_saga_ends_completed_or_undone_and_leaves_nothing_half_done() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        let state = run.run_to_the_end().clone();
        let told = || format!("{state:#?}\n{}", run.trace.join("\n"));
        let is_done = |step: &Step| run.others.is_done.contains(step);
        match state.phase {
            Phase::Completed => {
                let input = state.input.as_ref().expect("it was started");
                let parts = input.parts.iter().map(|part| Step::new("parts", part));
                let parts = parts.filter(|part| !state.except.contains_key(part));
                let musts = parts.clone().map(|part| Step::new("must", part.key()));
                let once = ["slow", "point"].map(|stage| Step::new(stage, ""));
                for step in parts.chain(musts).chain(once) {
                    assert!(is_done(&step), "{step} is not done: {}", told());
                }
                let may = Step::new("may", "");
                assert!(is_done(&may) || state.problems.contains_key(&may), "{}", told());
                assert!(state.reason.is_none(), "{}", told());
            }
            Phase::Undone => assert!(state.reason.is_some(), "{}", told()),
            _ => panic!("it has not ended: {}", told()),
        }
        for (step, did) in &run.others.did {
            let row = &Everything::TABLE[position::<Everything>(step.stage()).expect("a stage")];
            let undid = run.others.undid.get(step).copied().unwrap_or_default();
            if row.undo.is_some() {
                let stays = is_done(step);
                assert_eq!(*did, undid + u32::from(stays), "{step}: {}", told());
                let left_out = state.except.contains_key(step);
                let should_stay = state.phase == Phase::Completed && !left_out;
                assert_eq!(stays, should_stay, "{step}: {}", told());
            }
        }
        *ends.entry(state.phase.as_str()).or_default() += 1;
        *ends.entry("late").or_default() += u32::from(run.is_late);
        *ends.entry("rounds").or_default() += u32::from(state.round > 1);
    }
    // Chance is worth its name only if all of this happens.
    assert!(ends.len() == 4 && ends.values().all(|count| *count > 100), "{ends:?}");
}
