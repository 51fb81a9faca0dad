//! The table of a saga: its stages from top to bottom, what does each step and what undoes it; and whether a table can be.

use super::{
    Saga,
    work::{Action, Known, Step, Verdict, Work},
};
use crate::entity::Outcome;

/// Stages that one saga may have.
pub const STAGES_MAX: usize = 64;
/// The longest name of a stage, in bytes.
pub const STAGE_NAME_LEN_MAX: usize = 32;
/// Steps that one stage may have at a time.
pub const STEPS_PER_STAGE_MAX: usize = 4_096;

/// How often a step is tried whose effect failed, and how long it waits in between. The pause doubles with each try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries altogether; 1 is a step that is not tried again.
    pub attempts_max: u32,
    /// The first pause, in milliseconds.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub longest_ms: u64,
}

impl Retry {
    /// What has failed once has failed.
    pub const NEVER: Self = Self::times(1, 1_000, 60_000);

    /// So many tries, with these pauses in milliseconds.
    pub const fn times(attempts_max: u32, first_ms: u64, longest_ms: u64) -> Self {
        Self {
            attempts_max,
            first_ms,
            longest_ms,
        }
    }

    /// The pause after so many failures (1 or more), in milliseconds. `salt` spreads those that failed together: the pause is
    /// up to a fifth shorter or longer by it.
    pub(crate) fn pause_ms(&self, failures: u32, salt: u64) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << failures.saturating_sub(1).min(32));
        let pause = doubled.min(self.longest_ms);
        let fifth = pause / 5;
        pause - fifth + salt % (2 * fifth + 1)
    }
}

/// Makes the effect that does or undoes a step.
pub type Act<S> = fn(&Work<'_, S>) -> Action;
/// Names the parallel steps of a stage.
pub type Each<S> = fn(&Known<'_, S>) -> Vec<String>;
/// Says what an outcome means for its step.
pub type Judge<S> = fn(&Step, &Outcome) -> Verdict<<S as Saga>::Fact>;

/// One row of a table: a stage, whose steps are done at the same time. The next stage begins when all of them are done.
///
/// Built in a `const`: [`Stage::new`], and then what is different from the usual.
pub struct Stage<S: Saga> {
    pub(super) name: &'static str,
    pub(super) run: Option<Act<S>>,
    pub(super) undo: Option<Act<S>>,
    pub(super) nothing_to_undo: bool,
    pub(super) each: Option<Each<S>>,
    pub(super) judge: Option<Judge<S>>,
    pub(super) judge_undo: Option<Judge<S>>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) retry: Retry,
    pub(super) is_point_of_no_return: bool,
    pub(super) undo_at_once: bool,
    pub(super) or_go_on: bool,
}

impl<S: Saga> Stage<S> {
    /// A stage of one step, which this does. The name is stored: it can never change.
    pub const fn new(name: &'static str, run: Act<S>) -> Self {
        Self {
            run: Some(run),
            ..Self::given(name)
        }
    }

    /// A stage that is done before the saga starts, and that it undoes if it comes to nothing. It stands at the top.
    pub const fn given(name: &'static str) -> Self {
        Self {
            name,
            run: None,
            undo: None,
            nothing_to_undo: false,
            each: None,
            judge: None,
            judge_undo: None,
            deadline_ms: None,
            retry: Retry::NEVER,
            is_point_of_no_return: false,
            undo_at_once: false,
            or_go_on: false,
        }
    }

    /// What undoes a step. It must be harmless to repeat, and harmless where the step was never done. It is tried for ever.
    #[must_use]
    pub const fn undo(mut self, undo: Act<S>) -> Self {
        self.undo = Some(undo);
        self
    }

    /// There is nothing to undo: the steps change nothing that anyone would miss.
    #[must_use]
    pub const fn nothing_to_undo(mut self) -> Self {
        self.nothing_to_undo = true;
        self
    }

    /// One step for each of these keys, all at the same time; none where there are no keys.
    #[must_use]
    pub const fn each(mut self, keys: Each<S>) -> Self {
        self.each = Some(keys);
        self
    }

    /// What an outcome means. Without it a reply means done, a rejection refused, and what was given up failed.
    #[must_use]
    pub const fn judge(mut self, judge: Judge<S>) -> Self {
        self.judge = Some(judge);
        self
    }

    /// What the outcome of an undo means. Without it a reply means undone, everything else that it is tried again.
    #[must_use]
    pub const fn judge_undo(mut self, judge: Judge<S>) -> Self {
        self.judge_undo = Some(judge);
        self
    }

    /// The stage is refused when not all of its steps are done after so many milliseconds. What may have been done is
    /// undone, and an answer that still comes is undone once more.
    #[must_use]
    pub const fn deadline_ms(mut self, deadline_ms: u64) -> Self {
        self.deadline_ms = Some(deadline_ms);
        self
    }

    /// How often a step that failed is tried again; without it, never. Refusals are not tried again.
    #[must_use]
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Once this stage is done there is no way back; the stage itself can still be refused. What comes after it is tried
    /// until it is done.
    #[must_use]
    pub const fn point_of_no_return(mut self) -> Self {
        self.is_point_of_no_return = true;
        self
    }

    /// The undo may be sent while the step's own answer is not there yet: whoever is told both sees to their order. A saga
    /// that turns back does not wait for the steps of this stage.
    #[must_use]
    pub const fn undo_at_once(mut self) -> Self {
        self.undo_at_once = true;
        self
    }

    /// For stages after the point of no return: a step that is refused, or that failed as often as it is tried, is kept as a
    /// problem for everyone to see, and the saga goes on.
    #[must_use]
    pub const fn or_go_on(mut self) -> Self {
        self.or_go_on = true;
        self
    }

    /// The steps of this stage as things stand.
    pub(super) fn steps(&self, known: &Known<'_, S>) -> Vec<Step> {
        let steps: Vec<Step> = match self.each {
            None => vec![Step::new(self.name, "")],
            Some(each) => each(known).iter().map(|key| Step::new(self.name, key)).collect(),
        };
        assert!(
            steps.len() <= STEPS_PER_STAGE_MAX,
            "the stage {} of {} has {} steps; at most {STEPS_PER_STAGE_MAX} are allowed",
            self.name,
            S::NAME,
            steps.len()
        );
        steps
    }
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No stage, or too many.
    #[error("it has {0} stages; 1 to {STAGES_MAX} are allowed")]
    Length(usize),
    /// A name that cannot be stored and typed.
    #[error("{0:?} is no name of a stage: use 1 to {STAGE_NAME_LEN_MAX} of a-z, 0-9, - and _")]
    Name(&'static str),
    /// Two stages with one name.
    #[error("two stages are named {0:?}: an outcome could not say which of them it belongs to")]
    Twice(&'static str),
    /// A given stage below one that is done.
    #[error("the stage {0:?} is given, but stands below one that is done: given stages stand at the top")]
    GivenBelow(&'static str),
    /// Nothing to do in the whole table.
    #[error("every stage is given: there is nothing to do")]
    NothingToDo,
    /// Two points of no return.
    #[error("both {0:?} and {1:?} are the point of no return: there is one at most")]
    TwoPoints(&'static str, &'static str),
    /// Could not be undone.
    #[error(
        "the stage {0:?} can be turned back from and has no undo: give it one, or say nothing_to_undo(), or put the point of no return above it"
    )]
    NoUndo(&'static str),
    /// Would never be undone.
    #[error("the stage {0:?} comes after the point of no return: its undo would never be used; take it away")]
    UndoAfterPoint(&'static str),
    /// Both.
    #[error("the stage {0:?} has an undo and says nothing_to_undo(): take one of them away")]
    UndoOfNothing(&'static str),
    /// Some of its steps could be done and others refused, with no way to undo the first.
    #[error(
        "the stage {0:?} is the point of no return and has several steps without an undo: if one is refused the others could not be undone"
    )]
    PointOfMany(&'static str),
    /// A deadline that could do nothing.
    #[error("the stage {0:?} has a deadline, but there is no way back from it: take the deadline away")]
    DeadlineAfterPoint(&'static str),
    /// A problem where it could turn back.
    #[error(
        "the stage {0:?} says or_go_on(), but can be turned back from: only a stage after the point of no return can"
    )]
    GoesOnBeforePoint(&'static str),
    /// A time or a number of tries that cannot be.
    #[error("the stage {stage:?}: {reason}")]
    Value {
        /// The stage.
        stage: &'static str,
        /// What is wrong, and what would be right.
        reason: &'static str,
    },
}

/// Whether a saga's table can be. The engine asks this when the saga is registered.
pub fn check<S: Saga>() -> Result<(), TableError> {
    let table = S::TABLE;
    if table.is_empty() || table.len() > STAGES_MAX {
        return Err(TableError::Length(table.len()));
    }
    let mut point: Option<&'static str> = None;
    for (at, stage) in table.iter().enumerate() {
        let name = stage.name;
        check_name(name)?;
        let above = &table[..at];
        if above.iter().any(|other| other.name == name) {
            return Err(TableError::Twice(name));
        }
        if stage.run.is_none() && above.iter().any(|other| other.run.is_some()) {
            return Err(TableError::GivenBelow(name));
        }
        check_way_back(stage, point)?;
        check_values(stage)?;
        if stage.is_point_of_no_return {
            if let Some(first) = point {
                return Err(TableError::TwoPoints(first, name));
            }
            point = Some(name);
        }
    }
    if table.iter().all(|stage| stage.run.is_none()) {
        return Err(TableError::NothingToDo);
    }
    Ok(())
}

fn check_name(name: &'static str) -> Result<(), TableError> {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if name.is_empty() || name.len() > STAGE_NAME_LEN_MAX || !name.bytes().all(is_allowed) {
        return Err(TableError::Name(name));
    }
    Ok(())
}

/// `point` is the point of no return above the stage, if there is one.
fn check_way_back<S: Saga>(stage: &Stage<S>, point: Option<&'static str>) -> Result<(), TableError> {
    let (name, has_undo) = (stage.name, stage.undo.is_some());
    if has_undo && stage.nothing_to_undo {
        return Err(TableError::UndoOfNothing(name));
    }
    let is_after = point.is_some();
    if is_after && has_undo && !stage.is_point_of_no_return {
        return Err(TableError::UndoAfterPoint(name));
    }
    let can_turn_back = !is_after && (!stage.is_point_of_no_return || has_undo || stage.nothing_to_undo);
    if !is_after && !stage.is_point_of_no_return && !has_undo && !stage.nothing_to_undo {
        return Err(TableError::NoUndo(name));
    }
    if stage.is_point_of_no_return && !can_turn_back && stage.each.is_some() {
        return Err(TableError::PointOfMany(name));
    }
    if stage.deadline_ms.is_some() && !can_turn_back {
        return Err(TableError::DeadlineAfterPoint(name));
    }
    if stage.or_go_on && !is_after {
        return Err(TableError::GoesOnBeforePoint(name));
    }
    Ok(())
}

fn check_values<S: Saga>(stage: &Stage<S>) -> Result<(), TableError> {
    let Retry {
        attempts_max,
        first_ms,
        longest_ms,
    } = stage.retry;
    let wrong = if attempts_max == 0 {
        "retry tries 0 times; 1 is the least"
    } else if first_ms == 0 {
        "the first pause of retry is 0 ms; 1 ms is the least"
    } else if longest_ms < first_ms {
        "the longest pause of retry is shorter than its first one"
    } else if stage.deadline_ms == Some(0) {
        "the deadline is 0 ms; 1 ms is the least"
    } else if stage.run.is_none() && stage.deadline_ms.is_some() {
        "it is given, so a deadline could do nothing"
    } else {
        return Ok(());
    };
    Err(TableError::Value {
        stage: stage.name,
        reason: wrong,
    })
}

/// Where a stage of that name stands in the table.
pub(super) fn position<S: Saga>(name: &str) -> Option<usize> {
    S::TABLE.iter().position(|stage| stage.name == name)
}

/// The stage of that name.
///
/// # Panics
/// When the table has none: the names of stages are stored, so that one that was taken away leaves sagas stranded.
pub(super) fn stage<S: Saga>(name: &str) -> &'static Stage<S> {
    match S::TABLE.iter().find(|stage| stage.name == name) {
        Some(stage) => stage,
        None => panic!(
            "the table of {} has no stage {name:?}; put it back for the sagas that are in it",
            S::NAME
        ),
    }
}

/// Where the point of no return stands; behind the last stage where there is none.
pub(super) fn point<S: Saga>() -> usize {
    let point = S::TABLE.iter().position(|stage| stage.is_point_of_no_return);
    point.unwrap_or(S::TABLE.len())
}
