//! What a checkout can be told, and what happens to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Stage, Step};
use crate::{
    ids::{CustomerId, Sku},
    money::Money,
    payment::Notice,
};

/// What a checkout can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// From the order: begins. Saying it again changes nothing.
    Start {
        /// Who ordered; nobody for a guest.
        customer: Option<CustomerId>,
        /// What is ordered, each product once.
        lines: BTreeMap<Sku, u64>,
        /// What it costs.
        total: Money,
        /// What it is paid with.
        card: String,
    },
    /// From a product's stock: it has been promised to this order for as long as promises are held. A checkout that can
    /// still turn back does, and releases it as it undoes everything; one that cannot keeps it.
    HeldForItsTime {
        /// The product's SKU.
        sku: String,
    },
    /// From the payment: what the provider said.
    Payment(Notice),
    /// What came of a step, or of its undo.
    StepAnswered {
        /// Which.
        token: Token,
        /// What came of it.
        result: StepResult,
    },
}

/// Which step an effect is for, and whether it does or undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The step.
    pub step: Step,
    /// Whether it is undone.
    pub undo: bool,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepResult {
    /// It is done.
    Done,
    /// It is on its way; a notice follows.
    Underway,
    /// It is not done, and will not be.
    Refused {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
    /// Whether it is done is not known; it is undone as if it were.
    Unclear {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
}

/// What happened to a checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// It began.
    Started {
        /// Who ordered; nobody for a guest.
        customer: Option<CustomerId>,
        /// What is ordered, each product once.
        lines: BTreeMap<Sku, u64>,
        /// What it costs.
        total: Money,
        /// What it is paid with.
        card: String,
    },
    /// The steps of a stage are on their way.
    StageBegan {
        /// The stage.
        stage: Stage,
    },
    /// A step is done.
    StepDone {
        /// The step.
        step: Step,
    },
    /// A step is not done.
    StepRefused {
        /// The step.
        step: Step,
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// Whether it may have been done all the same.
        unclear: bool,
    },
    /// What it rests on has run out of time; it turns back once the outcomes that it waits for are in.
    Lapsed {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
    /// What was done in a stage is being undone.
    UndoBegan {
        /// The stage.
        stage: Stage,
    },
    /// A step is undone.
    StepUndone {
        /// The step.
        step: Step,
    },
    /// Something that must not fail did. It stays visible in the state.
    ProblemFound {
        /// The step.
        step: Step,
        /// What failed.
        reason: String,
    },
    /// Everything is done.
    Completed,
    /// Everything that was done is undone.
    Undone,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is so.
    Noted,
    /// To the stock: nobody wants what is promised to this order; there is no such checkout, or it is undone.
    NotWanted,
}

/// Why a checkout says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// The checkout's id is no order id.
    #[error("the order id {reason}")]
    InvalidId {
        /// What is wrong with it.
        reason: String,
    },
}
