//! What a return can be told, what happens to it, and why it says no.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Stage, Step};
use crate::{
    customer::Allocation,
    ids::{CustomerId, OrderId, Sku},
    money::Money,
    payment::Notice,
};

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product.
    pub sku: Sku,
    /// Pieces.
    pub quantity: u64,
}

/// What a return can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begins. Saying the same again changes nothing.
    Start {
        /// Who brings goods back.
        customer: CustomerId,
        /// What comes back; a product may stand in several lines.
        lines: Vec<Line>,
    },
    /// From an order that took pieces back before it was settled: now it is.
    OrderSettled {
        /// The order.
        order: OrderId,
    },
    /// From an order that took pieces back before it was settled: it was called off instead, and the pieces with it.
    OrderWithdrew {
        /// The order.
        order: OrderId,
        /// Why.
        reason: String,
    },
    /// From an order's payment: what came of a refund.
    Payment {
        /// The order.
        order: OrderId,
        /// What came of it.
        notice: Notice,
    },
    /// What came of a step, or of its undo.
    StepAnswered {
        /// Which.
        token: Token,
        /// What came of it.
        result: StepResult,
    },
}

/// Which step an effect is for, in which round, and whether it does or undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The step.
    pub step: Step,
    /// The round.
    pub round: u32,
    /// Whether it is undone.
    pub undo: bool,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepResult {
    /// It is done.
    Done,
    /// The customer has found the orders.
    Allocated {
        /// Which pieces go against which order.
        allocation: Allocation,
    },
    /// The order has taken its pieces back.
    Taken {
        /// What they cost.
        refund: Money,
        /// Whether money and stock can go back at once.
        settled: bool,
    },
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

/// What happened to a return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// It began.
    Started {
        /// Who brings goods back.
        customer: CustomerId,
        /// What comes back, each product once.
        lines: BTreeMap<Sku, u64>,
    },
    /// The steps of a stage are on their way. The first stage begins a round.
    StageBegan {
        /// The stage.
        stage: Stage,
    },
    /// The customer has found the orders.
    Allocated {
        /// Which pieces go against which order.
        allocation: Allocation,
    },
    /// The customer holds too little, or could not be asked.
    AllocationRefused {
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// Whether pieces may be set aside all the same.
        unclear: bool,
    },
    /// An order has taken its pieces back.
    OrderTook {
        /// The order.
        order: OrderId,
        /// What they cost.
        refund: Money,
        /// Whether money and stock can go back at once.
        settled: bool,
    },
    /// An order that took its pieces back is settled.
    OrderSettled {
        /// The order.
        order: OrderId,
    },
    /// An order takes nothing back: the return does without it.
    OrderRefused {
        /// The order.
        order: OrderId,
        /// A word that machines know, a colon, and the detail.
        reason: String,
        /// Whether it may have taken pieces back all the same.
        unclear: bool,
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
    /// Money or pieces have gone back.
    StepDone {
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
    /// Everything has gone back.
    Completed,
    /// Nothing was taken.
    Refused {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is so. Whether the return is completed or refused shows in its state once it has ended.
    Noted,
}

/// Why a return says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// The id is no return id.
    #[error("the return id {reason}")]
    InvalidId {
        /// What is wrong with it.
        reason: String,
    },
    /// The id is taken.
    #[error("a return of other goods has this id; choose another id")]
    AlreadyStarted,
    /// Nothing comes back.
    #[error("the return has no lines; return at least one product")]
    EmptyReturn,
    /// More than [`super::RETURN_LINES_MAX`].
    #[error("the return has {lines} lines; at most {max} are allowed")]
    TooManyLines {
        /// How many it has.
        lines: usize,
        /// The limit.
        max: usize,
    },
    /// A line of nothing.
    #[error("the quantity of {sku} is zero; it must be at least 1")]
    ZeroQuantity {
        /// The product.
        sku: Sku,
    },
    /// More than [`crate::QUANTITY_MAX`].
    #[error("the quantity of {sku} is {quantity}; at most {max} are allowed")]
    QuantityTooLarge {
        /// The product.
        sku: Sku,
        /// What was wanted.
        quantity: u64,
        /// The limit.
        max: u64,
    },
}
