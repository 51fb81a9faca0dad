//! Where a saga stands, and how an event changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Event, Known, Next, Phase, Saga, StateOf, Step,
    message::{is_one, one},
    table,
};
use crate::JsonSchema;

/// Where a saga of input `I` and facts `F` stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(bound(deserialize = "I: Deserialize<'de>, F: Deserialize<'de>"))]
pub struct State<I, F> {
    /// What it was started with; none before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<I>,
    /// Where it stands.
    pub phase: Phase,
    /// The stage that is done or undone; the last one at the end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// How often it began at the top; from 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub round: u32,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it went where it is, in milliseconds since 1970.
    pub since_ms: u64,
    /// The steps, or the undos, whose outcome it waits for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<Step, Attempt>,
    /// The steps that are done, or may be, and are not undone; none once it is completed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<Step>,
    /// The steps that were not waited for, whose answer may still come.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overdue: BTreeSet<Step>,
    /// Of these the answer came while they were being undone: they are undone once more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub undo_again: BTreeSet<Step>,
    /// What the steps of this round taught.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<Step, F>,
    /// The steps without which it started over, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub except: BTreeMap<Step, String>,
    /// Whether it starts over once everything is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
    /// Why it turned back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What must not fail and did, after the point of no return.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<Step, String>,
    /// Whether its end was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// A step, or its undo, on its way or waiting to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Which try it is; from 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub number: u32,
    /// When it is tried again, in milliseconds since 1970; none while it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_ms: Option<u64>,
    /// Why the try before it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Attempt {
    const FIRST: Self = Self {
        number: 1,
        again_ms: None,
        failure: None,
    };
}

impl<I, F> Default for State<I, F> {
    fn default() -> Self {
        Self {
            input: None,
            phase: Phase::New,
            stage: String::new(),
            round: 1,
            started_ms: 0,
            since_ms: 0,
            waiting: BTreeMap::new(),
            done: BTreeSet::new(),
            overdue: BTreeSet::new(),
            undo_again: BTreeSet::new(),
            facts: BTreeMap::new(),
            except: BTreeMap::new(),
            over: false,
            reason: None,
            problems: BTreeMap::new(),
            told: false,
        }
    }
}

impl<I, F> State<I, F> {
    /// When the first of the steps that failed is tried again, in milliseconds since 1970.
    pub(super) fn first_retry_ms(&self) -> Option<u64> {
        self.waiting.values().filter_map(|attempt| attempt.again_ms).min()
    }

    /// Whether it has turned back, or is about to.
    pub(super) fn turns_back(&self) -> bool {
        self.reason.is_some() || self.over
    }

    /// What waits to be tried again is not: it may have been done.
    fn abandon_retries(&mut self) {
        let (abandoned, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, attempt)| attempt.again_ms.is_some());
        self.waiting = waiting;
        let abandoned: BTreeMap<_, _> = abandoned;
        self.done.extend(abandoned.into_keys());
    }
}

/// Takes an event in.
pub(super) fn evolve<S: Saga>(state: &mut StateOf<S>, event: &Event<S::Input, S::Fact>) {
    match event {
        Event::Started { input, at_ms, next } => {
            state.input = Some(input.clone());
            state.started_ms = *at_ms;
            begin_round::<S>(state);
            state.phase = Phase::Running;
            go_on::<S>(state, next.as_ref());
        }
        Event::Done { step, fact, next } => {
            state.waiting.remove(step);
            state.done.insert(step.clone());
            if let Some(fact) = fact {
                state.facts.insert(step.clone(), fact.clone());
            }
            go_on::<S>(state, next.as_ref());
        }
        Event::Partly { step, fact } => {
            state.done.insert(step.clone());
            state.facts.insert(step.clone(), fact.clone());
        }
        Event::Refused {
            step,
            reason,
            unclear,
            over,
            next,
        } => {
            state.waiting.remove(step);
            if *unclear {
                state.done.insert(step.clone());
            } else {
                state.done.remove(step);
            }
            if *over {
                state.over = true;
                state.except.insert(step.clone(), reason.clone());
            } else {
                // Of several refusals in one stage, the first that came in is the reason.
                state.reason.get_or_insert_with(|| reason.clone());
            }
            state.abandon_retries();
            go_on::<S>(state, next.as_ref());
        }
        Event::Failed { step, reason, again_ms } => {
            if let Some(attempt) = state.waiting.get_mut(step) {
                attempt.number += 1;
                attempt.again_ms = Some(state.started_ms + again_ms);
                attempt.failure = Some(reason.clone());
            }
        }
        Event::Retried { by_ms } => {
            let by_ms = state.started_ms + by_ms;
            for attempt in state.waiting.values_mut() {
                attempt.again_ms = attempt.again_ms.filter(|again_ms| *again_ms > by_ms);
            }
        }
        Event::Nudged => state.waiting.values_mut().for_each(|attempt| attempt.again_ms = None),
        Event::TurnedBack { reason, overdue, next } => {
            state.reason.get_or_insert_with(|| reason.clone());
            state.abandon_retries();
            if *overdue {
                let waiting: Vec<Step> = std::mem::take(&mut state.waiting).into_keys().collect();
                state.done.extend(waiting.iter().cloned());
                state.overdue.extend(waiting);
            }
            go_on::<S>(state, next.as_ref());
        }
        Event::Undone { step, next } => {
            state.waiting.remove(step);
            if !state.undo_again.remove(step) {
                state.done.remove(step);
            }
            go_on::<S>(state, next.as_ref());
        }
        Event::Late { step, next } => {
            state.overdue.remove(step);
            if state.waiting.contains_key(step) {
                state.undo_again.insert(step.clone());
            } else {
                state.done.insert(step.clone());
            }
            go_on::<S>(state, next.as_ref());
        }
        Event::Problem { step, reason, next } => {
            state.waiting.remove(step);
            state.problems.insert(step.clone(), reason.clone());
            go_on::<S>(state, next.as_ref());
        }
    }
}

fn go_on<S: Saga>(state: &mut StateOf<S>, next: Option<&Next>) {
    if let Some(next) = next {
        go::<S>(state, next);
    }
}

pub(super) fn go<S: Saga>(state: &mut StateOf<S>, next: &Next) {
    let (phase, stage, ms) = match next {
        Next::Run(stage, ms) => (Phase::Running, Some(stage), ms),
        Next::Undo(stage, ms) => (Phase::Undoing, Some(stage), ms),
        Next::Again(stage, ms) => {
            state.round += 1;
            state.over = false;
            state.facts.clear();
            begin_round::<S>(state);
            (Phase::Running, Some(stage), ms)
        }
        Next::Completed(ms) => {
            state.done.clear();
            (Phase::Completed, None, ms)
        }
        Next::Undone(ms) => (Phase::Undone, None, ms),
    };
    state.phase = phase;
    state.since_ms = state.started_ms + ms;
    let Some(stage) = stage else {
        state.told = true;
        if let Some(input) = &mut state.input {
            S::forget(input);
        }
        return;
    };
    state.stage.clone_from(stage);
    let steps = match phase {
        Phase::Undoing => (state.done.iter().filter(|step| step.stage() == *stage).cloned()).collect(),
        _ => table::stage::<S>(stage).steps(&Known { state }),
    };
    state.waiting = steps.into_iter().map(|step| (step, Attempt::FIRST)).collect();
}

/// What is given is done from the start.
fn begin_round<S: Saga>(state: &mut StateOf<S>) {
    state.done.clear();
    for stage in S::TABLE.iter().take_while(|stage| stage.run.is_none()) {
        let steps = stage.steps(&Known { state });
        state.done.extend(steps);
    }
}
