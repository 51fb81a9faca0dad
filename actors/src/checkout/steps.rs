//! The steps of a checkout: what is done, and what undoes it.

use std::fmt;

use cluster::{Effect, Entity, Outcome, entity::Answer};
use serde::{Deserialize, Serialize};

use super::{Checkout, State, StepResult, Token};
use crate::{
    customer::{self, Customer},
    ids::{OrderId, Sku},
    order::{self, Order},
    payment::{self, Payment},
    stock::{self, StockItem},
};

/// The checkout, from top to bottom; an undo goes from where it was refused back to the top.
#[rustfmt::skip]
const TABLE: [Row; 7] = [
    Row { stage: Stage::Place,     each: Each::Once,     run: None,            undo: Some(refuse)  },
    Row { stage: Stage::Reserve,   each: Each::Product,  run: Some(reserve),   undo: Some(release) },
    Row { stage: Stage::Authorise, each: Each::Once,     run: Some(authorise), undo: Some(void)    },
    Row { stage: Stage::Record,    each: Each::Customer, run: Some(record),    undo: Some(forget)  },
    Row { stage: Stage::Confirm,   each: Each::Once,     run: Some(confirm),   undo: None          },
    // Beyond this line there is no way back.
    Row { stage: Stage::Commit,    each: Each::Product,  run: Some(commit),    undo: None          },
    Row { stage: Stage::Capture,   each: Each::Once,     run: Some(capture),   undo: None          },
];

/// The last stage that can be refused.
const POINT_OF_NO_RETURN: Stage = Stage::Confirm;

/// One row of the table.
pub(super) struct Row {
    pub(super) stage: Stage,
    each: Each,
    /// What does a step. The first row has none: the order has been placed when the checkout starts.
    pub(super) run: Option<Action>,
    /// What undoes a step.
    pub(super) undo: Option<Action>,
}

type Action = fn(&Work<'_>, Token) -> Effect<Checkout>;

/// What one step of a stage is for.
enum Each {
    Once,
    Product,
    /// Guests have none.
    Customer,
}

/// A stage of the checkout; its steps are done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The order is placed, or else refused.
    Place,
    /// The stock of each product is promised, or released.
    Reserve,
    /// The total is set aside, or given up.
    Authorise,
    /// The customer knows the order, or forgets it.
    Record,
    /// The order is confirmed.
    Confirm,
    /// The stock of each product is sold.
    Commit,
    /// The total is taken.
    Capture,
}

impl Stage {
    /// Whether a refusal in this stage undoes the checkout.
    pub(super) fn can_turn_back(self) -> bool {
        self <= POINT_OF_NO_RETURN
    }

    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    pub(super) fn next(self) -> Option<Self> {
        TABLE.get(self as usize + 1).map(|row| row.stage)
    }

    pub(super) fn previous(self) -> Option<Self> {
        (self as usize).checked_sub(1).map(|at| TABLE[at].stage)
    }

    /// The steps of this stage for a checkout.
    pub(super) fn steps(self, state: &State) -> Vec<Step> {
        let once = Step { stage: self, sku: None };
        match self.row().each {
            Each::Once => vec![once],
            Each::Customer => state.customer.iter().map(|_| once.clone()).collect(),
            Each::Product => (state.lines.keys())
                .map(|sku| Step {
                    stage: self,
                    sku: Some(sku.clone()),
                })
                .collect(),
        }
    }
}

/// One step: a stage, and for some stages the product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Step {
    /// The stage it belongs to.
    pub stage: Stage,
    /// The product it is about.
    pub sku: Option<Sku>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sku {
            Some(sku) => write!(f, "{:?} {sku}", self.stage),
            None => write!(f, "{:?}", self.stage),
        }
    }
}

/// What the actions know.
pub(super) struct Work<'a> {
    pub(super) state: &'a State,
    /// The id that order, checkout and payment share.
    pub(super) order: &'a OrderId,
}

impl Work<'_> {
    fn ask_stock(&self, command: &stock::Command, token: Token) -> Effect<Checkout> {
        let sku = token
            .step
            .sku
            .clone()
            .expect("the table makes steps about stock for each product");
        Effect::ask::<StockItem>(&sku, command, token)
    }

    fn ask_payment(&self, command: &payment::Command, token: Token) -> Effect<Checkout> {
        Effect::ask::<Payment>(self.order, command, token)
    }

    fn ask_customer(&self, command: &customer::Command, token: Token) -> Effect<Checkout> {
        let customer =
            (self.state.customer.as_ref()).expect("the table makes steps about the customer if there is one");
        Effect::ask::<Customer>(customer, command, token)
    }
}

fn refuse(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let reason = work.state.reason.clone().unwrap_or_default();
    Effect::ask::<Order>(work.order, &order::Command::Refuse { reason }, token)
}

fn reserve(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let quantity = (token.step.sku.as_ref()).map_or(0, |sku| work.state.lines.get(sku).copied().unwrap_or(0));
    let order = work.order.clone();
    work.ask_stock(&stock::Command::Reserve { order, quantity }, token)
}

fn release(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let order = work.order.clone();
    work.ask_stock(&stock::Command::Release { order }, token)
}

fn authorise(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let authorise = payment::Command::Authorise {
        amount: work.state.total,
        card: work.state.card.clone(),
    };
    work.ask_payment(&authorise, token)
}

fn void(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    work.ask_payment(&payment::Command::Void, token)
}

fn record(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let record = customer::Command::RecordOrder {
        order: work.order.clone(),
        lines: work.state.lines.clone(),
        currency: work.state.total.currency,
    };
    work.ask_customer(&record, token)
}

fn forget(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let order = work.order.clone();
    work.ask_customer(&customer::Command::ForgetOrder { order }, token)
}

fn confirm(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    Effect::ask::<Order>(work.order, &order::Command::Confirm, token)
}

fn commit(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    let order = work.order.clone();
    work.ask_stock(&stock::Command::Commit { order }, token)
}

fn capture(work: &Work<'_>, token: Token) -> Effect<Checkout> {
    work.ask_payment(&payment::Command::Capture, token)
}

/// What an outcome means for the step that it belongs to: a word that machines know, a colon, and the detail.
pub(super) fn result_of(token: &Token, outcome: &Outcome) -> StepResult {
    let sku = token.step.sku.as_deref().unwrap_or_default();
    match token.step.stage {
        Stage::Reserve | Stage::Commit => read::<StockItem>(
            outcome,
            "stock_unavailable",
            |_| StepResult::Done,
            |rejection| match rejection {
                stock::Rejection::OutOfStock { .. } => format!("out_of_stock: {sku}"),
                stock::Rejection::TooManyReservations { .. } => format!("stock_busy: {sku}"),
                other => format!("stock_refused: {sku}: {other}"),
            },
        ),
        Stage::Authorise | Stage::Capture => read::<Payment>(
            outcome,
            "payment_unavailable",
            |reply| match reply {
                payment::Reply::Underway => StepResult::Underway,
                payment::Reply::Done => StepResult::Done,
            },
            |rejection| format!("payment_refused: {rejection}"),
        ),
        Stage::Record => read::<Customer>(
            outcome,
            "customer_unavailable",
            |_| StepResult::Done,
            |rejection| format!("customer_refused: {rejection}"),
        ),
        Stage::Place | Stage::Confirm => read::<Order>(
            outcome,
            "order_unavailable",
            |_| StepResult::Done,
            |rejection| match rejection {
                order::Rejection::WrongStatus {
                    status: order::Status::Cancelled,
                } => "cancelled".to_owned(),
                other => format!("order_refused: {other}"),
            },
        ),
    }
}

fn read<T: Entity>(
    outcome: &Outcome,
    unavailable: &str,
    replied: impl FnOnce(T::Reply) -> StepResult,
    rejected: impl FnOnce(T::Rejection) -> String,
) -> StepResult {
    match outcome.answer::<T>() {
        Answer::Replied(reply) => replied(reply),
        Answer::Rejected(rejection) => StepResult::Refused {
            reason: rejected(rejection),
        },
        Answer::Failed(reason) => StepResult::Unclear {
            reason: format!("{unavailable}: {reason}"),
        },
    }
}
