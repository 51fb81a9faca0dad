//! What can be told of any saga, whatever it is about: where it stands, what it waits for, what comes next, what undo would do.

use std::any::Any;

use super::{
    Command, Known, Phase, STUCK_AFTER, Saga, StateOf, Step, TableError, check,
    decide::{action_of, is_tried_for_ever, overall_deadline, stage_deadline},
    state::Attempt,
    table::{Stage, point, position},
    work::Work,
};
use crate::entity::decision::EffectRequest;

/// How the engine asks a saga about itself. Made from its table when it is registered; a state is given as the kind's own type.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub(crate) check: fn() -> Result<(), TableError>,
    pub(crate) outline: fn(&str, &dyn Any) -> Option<Outline>,
    pub(crate) brief: fn(&dyn Any) -> Option<Brief>,
    pub(crate) nudge: fn() -> Box<dyn Any>,
}

impl About {
    pub(super) fn of<S: Saga>() -> Self {
        Self {
            check: check::<S>,
            outline: |id, state| state.downcast_ref().map(|state| Outline::of::<S>(id, state)),
            brief: |state| state.downcast_ref().map(|state| Brief::of::<S>(state)),
            nudge: || Box::new(Command::<S::Input, S::Fact, S::Signal>::Nudge),
        }
    }
}

/// A saga in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) phase: Phase,
    pub(crate) is_stuck: bool,
    pub(crate) stage: String,
    pub(crate) waiting: usize,
    pub(crate) reason: Option<String>,
    pub(crate) problems: usize,
    pub(crate) started_ms: u64,
    pub(crate) since_ms: u64,
}

impl Brief {
    fn of<S: Saga>(state: &StateOf<S>) -> Self {
        Self {
            phase: state.phase,
            is_stuck: is_stuck::<S>(state),
            stage: state.stage.clone(),
            waiting: state.waiting.len(),
            reason: state.reason.clone(),
            problems: state.problems.len(),
            started_ms: state.started_ms,
            since_ms: state.since_ms,
        }
    }
}

/// Where a saga stands, in general terms. All times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Where it stands.
    pub phase: Phase,
    /// Whether an undo, or a step after the point of no return, has failed [`STUCK_AFTER`] times or more.
    pub is_stuck: bool,
    /// The stage that is done or undone; the last one at the end.
    pub stage: String,
    /// How often it began at the top.
    pub round: u32,
    /// When it was started.
    pub started_ms: u64,
    /// When it went where it is.
    pub since_ms: u64,
    /// Why it turned back.
    pub reason: Option<String>,
    /// What it waits for.
    pub waiting: Vec<WaitingStep>,
    /// The stages that come after the present one, while it goes forward. What a later stage does may rest on what an earlier one
    /// teaches: its steps are named as far as they are known now.
    pub next: Vec<StageOutline>,
    /// What undo would do, or will do after what it does now: stage after stage, in that order.
    pub undo: Vec<StageOutline>,
    /// Whether it can still turn back.
    pub can_turn_back: bool,
    /// When the stage has had its time.
    pub stage_deadline_ms: Option<u64>,
    /// When the saga has had its time.
    pub overall_deadline_ms: Option<u64>,
    /// Steps that were not waited for, whose answer may still come.
    pub overdue: Vec<String>,
    /// What could not be done after the point of no return.
    pub problems: Vec<(String, String)>,
}

/// A step, or an undo, whose outcome a saga waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingStep {
    /// The step.
    pub step: String,
    /// Who is asked: an entity's key, or the name of a service.
    pub target: String,
    /// Whether the target is an entity.
    pub is_entity: bool,
    /// Which try it is; from 1.
    pub attempt: u32,
    /// How often it is tried at most; none for ever.
    pub attempts_max: Option<u32>,
    /// When it is tried again; none while it is on its way.
    pub again_ms: Option<u64>,
    /// Why the try before it failed.
    pub failure: Option<String>,
}

/// A stage, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutline {
    /// Its name.
    pub stage: String,
    /// Its steps, each with who is asked.
    pub steps: Vec<(String, String)>,
    /// Whether there is no way back from it.
    pub is_point_of_no_return: bool,
}

/// Whether something that is tried for ever has failed too often.
fn is_stuck<S: Saga>(state: &StateOf<S>) -> bool {
    let Some(at) = position::<S>(&state.stage) else {
        return false;
    };
    let for_ever = match state.phase {
        Phase::Undoing => true,
        Phase::Running => is_tried_for_ever(&S::TABLE[at], at),
        Phase::New | Phase::Completed | Phase::Undone => false,
    };
    for_ever && state.waiting.values().any(|attempt| attempt.number > STUCK_AFTER)
}

impl Outline {
    fn of<S: Saga>(id: &str, state: &StateOf<S>) -> Self {
        let at = position::<S>(&state.stage);
        let is_running = state.phase == Phase::Running;
        let can_turn_back = is_running && at.is_some_and(|at| at < point::<S>());
        let texts = |steps: &mut dyn Iterator<Item = &Step>| steps.map(ToString::to_string).collect();
        Self {
            phase: state.phase,
            is_stuck: is_stuck::<S>(state),
            stage: state.stage.clone(),
            round: state.round,
            started_ms: state.started_ms,
            since_ms: state.since_ms,
            reason: state.reason.clone(),
            waiting: (state.waiting.iter())
                .map(|(step, attempt)| waiting::<S>(state, id, step, attempt))
                .collect(),
            next: match at {
                Some(at) if is_running && !state.turns_back() => following::<S>(state, id, at),
                _ => Vec::new(),
            },
            undo: match state.phase {
                Phase::Running if can_turn_back || state.turns_back() => undoing::<S>(state, id, S::TABLE.len()),
                Phase::Undoing => undoing::<S>(state, id, at.unwrap_or_default()),
                _ => Vec::new(),
            },
            can_turn_back,
            stage_deadline_ms: stage_deadline::<S>(state),
            overall_deadline_ms: overall_deadline::<S>(state),
            overdue: texts(&mut state.overdue.iter()),
            problems: (state.problems.iter())
                .map(|(step, reason)| (step.to_string(), reason.clone()))
                .collect(),
        }
    }
}

fn waiting<S: Saga>(state: &StateOf<S>, id: &str, step: &Step, attempt: &Attempt) -> WaitingStep {
    let action = action_of::<S>(state, id, step);
    let at = position::<S>(step.stage()).unwrap_or_default();
    let row = &S::TABLE[at];
    let for_ever = state.phase == Phase::Undoing || is_tried_for_ever(row, at);
    WaitingStep {
        step: step.to_string(),
        target: action.target(),
        is_entity: matches!(action.0, EffectRequest::Command { .. }),
        attempt: attempt.number,
        attempts_max: (!for_ever).then_some(row.retry.attempts_max),
        again_ms: attempt.again_ms,
        failure: attempt.failure.clone(),
    }
}

fn following<S: Saga>(state: &StateOf<S>, id: &str, at: usize) -> Vec<StageOutline> {
    let stages = S::TABLE[at + 1..].iter().filter_map(|stage| {
        let run = stage.run?;
        let steps = stage.steps(&Known { state });
        Some((stage, run, steps))
    });
    stages
        .map(|(stage, run, steps)| outline(stage, run, state, id, &steps))
        .collect()
}

/// The stages above `before` of which something is to be undone, from the last to the first.
fn undoing<S: Saga>(state: &StateOf<S>, id: &str, before: usize) -> Vec<StageOutline> {
    let above = S::TABLE[..before].iter().rev().filter_map(|stage| {
        let undo = stage.undo?;
        // A step that is on its way may be done by then.
        let may_be_done = state.done.iter().chain(state.waiting.keys());
        let mut steps: Vec<Step> = may_be_done.filter(|step| step.stage() == stage.name).cloned().collect();
        steps.sort();
        steps.dedup();
        (!steps.is_empty()).then_some((stage, undo, steps))
    });
    above
        .map(|(stage, undo, steps)| outline(stage, undo, state, id, &steps))
        .collect()
}

fn outline<S: Saga>(
    stage: &Stage<S>,
    act: super::Act<S>,
    state: &StateOf<S>,
    id: &str,
    steps: &[Step],
) -> StageOutline {
    let target = |step: &Step| act(&Work::new(state, id, step.key())).target();
    StageOutline {
        stage: stage.name.to_owned(),
        steps: steps.iter().map(|step| (step.to_string(), target(step))).collect(),
        is_point_of_no_return: stage.is_point_of_no_return,
    }
}
