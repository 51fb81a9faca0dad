//! What a saga can be told, what happens to it, and what it answers. The names and the shapes are short where they are stored
//! often: each step's outcome is one event.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{End, Step, Verdict};
use crate::JsonSchema;

/// What a saga of input `I`, facts `F` and signals `G` can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command<I, F, G> {
    /// Begins. Saying the same again changes nothing, and is answered with where the saga stands.
    Start(I),
    /// From somebody the saga knows: an answer that took its time, or that something has run out.
    Signal(G),
    /// From a person: what waits to be tried again is tried now.
    Nudge,
    /// What came of a step, or of its undo.
    Answered(StepToken, Verdict<F>),
    /// A timer of the saga has fired.
    Due(Alarm),
}

/// The timers of a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Alarm {
    /// The pause of a step that failed is over.
    Retry,
    /// The stage has had its time.
    Stage(String),
    /// The saga has had its time.
    Overall,
}

/// What an effect of a saga was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Token {
    /// A step, or its undo.
    Step(StepToken),
    /// A timer.
    Alarm(Alarm),
}

/// Which step an effect was for: in which round, at which try, and whether it does or undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepToken {
    /// The step.
    pub step: Step,
    /// Whether it is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo: bool,
    /// The round.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub round: u32,
    /// The try.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub attempt: u32,
}

pub(super) fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(super) fn is_one(number: &u32) -> bool {
    *number == 1
}

/// What happened to a saga of input `I` and facts `F`. Most events end with where the saga went because of them, if it went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(bound(deserialize = "I: Deserialize<'de>, F: Deserialize<'de>"))]
pub enum Event<I, F> {
    /// It began.
    Started {
        /// What it was given.
        input: I,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// Where it went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// A step is done.
    Done {
        /// The step.
        step: Step,
        /// What it taught.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fact: Option<F>,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// A step is on its way, may have been done in part, and taught something.
    Partly {
        /// The step.
        step: Step,
        /// What it taught.
        fact: F,
    },
    /// A step is not done, and the saga turns back.
    Refused {
        /// The step.
        step: Step,
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// Whether it may have been done all the same.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unclear: bool,
        /// Whether it begins again from the top without this step.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        over: bool,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// A step, or its undo, failed; it is tried again.
    Failed {
        /// The step.
        step: Step,
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// When it is tried again, in milliseconds after the start.
        again_ms: u64,
    },
    /// What was due to be tried again by then is tried again.
    Retried {
        /// By when, in milliseconds after the start.
        by_ms: u64,
    },
    /// A person had everything tried again that waited for it.
    Nudged,
    /// It turns back for another reason than a step: a deadline, or something that it rests on is gone.
    TurnedBack {
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// Whether the steps that are on their way are not waited for any more: they are undone as if they were done, and
        /// once more if their answer still comes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        overdue: bool,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// A step is undone.
    Undone {
        /// The step.
        step: Step,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// The answer of an overdue step has come: it was done, or may have been, and is undone once more.
    Late {
        /// The step.
        step: Step,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
    /// Something after the point of no return could not be done. It stays visible, and the saga goes on.
    Problem {
        /// The step.
        step: Step,
        /// What failed.
        reason: String,
        /// Where the saga went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Next>,
    },
}

impl<I, F> Event<I, F> {
    /// Where the saga went because of it, if it went on.
    pub fn next(&self) -> Option<&Next> {
        match self {
            Self::Started { next, .. }
            | Self::Done { next, .. }
            | Self::Refused { next, .. }
            | Self::TurnedBack { next, .. }
            | Self::Undone { next, .. }
            | Self::Late { next, .. }
            | Self::Problem { next, .. } => next.as_ref(),
            Self::Partly { .. } | Self::Failed { .. } | Self::Retried { .. } | Self::Nudged => None,
        }
    }

    /// The same event, which takes the saga there.
    pub(super) fn leading_to(mut self, there: Option<Next>) -> Self {
        match &mut self {
            Self::Started { next, .. }
            | Self::Done { next, .. }
            | Self::Refused { next, .. }
            | Self::TurnedBack { next, .. }
            | Self::Undone { next, .. }
            | Self::Late { next, .. }
            | Self::Problem { next, .. } => *next = there,
            Self::Partly { .. } | Self::Failed { .. } | Self::Retried { .. } | Self::Nudged => {
                assert!(there.is_none(), "these events leave a saga where it is");
            }
        }
        self
    }
}

/// Where a saga goes, and when: in milliseconds after its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Next {
    /// The steps of this stage are on their way.
    Run(String, u64),
    /// What was done in this stage is being undone.
    Undo(String, u64),
    /// Everything is undone, and a new round begins with this stage.
    Again(String, u64),
    /// Everything is done.
    Completed(u64),
    /// Everything that was done is undone.
    Undone(u64),
}

/// Where a saga stands; also what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It was never started.
    #[default]
    New,
    /// It is on its way through the table.
    Running,
    /// It is on its way back.
    Undoing,
    /// All stages are done.
    Completed,
    /// Everything that was done is undone.
    Undone,
}

impl Phase {
    /// How it ended, if it has.
    pub fn end(self) -> Option<End> {
        match self {
            Self::Completed => Some(End::Completed),
            Self::Undone => Some(End::Undone),
            Self::New | Self::Running | Self::Undoing => None,
        }
    }

    /// The word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Completed => "completed",
            Self::Undone => "undone",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a saga says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// Its author's check says that it cannot be started like this.
    #[error("{0}")]
    Invalid(String),
    /// The id is taken.
    #[error("a saga with other input has this id; choose another id")]
    AlreadyStarted,
    /// There is no such saga.
    #[error("no saga with this id was started")]
    NotStarted,
    /// Nothing waits to be tried again.
    #[error("nothing waits to be tried again: it is {phase}, and {waiting} steps are on their way")]
    NothingToRetry {
        /// Where it stands.
        phase: Phase,
        /// Steps whose answers it waits for.
        waiting: usize,
    },
}
