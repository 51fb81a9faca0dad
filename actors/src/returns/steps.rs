//! The steps of a return: what is done, and what undoes it.

use std::fmt;

use cluster::{Effect, Entity, Outcome, entity::Answer};
use serde::{Deserialize, Serialize};

use super::{Return, State, StepResult, Token};
use crate::{
    customer::{self, Customer},
    ids::{OrderId, ReturnId, Sku},
    money::Money,
    order::{self, Order},
    payment::{self, Notify, Payment},
    stock::{self, StockItem},
};

/// The return, from top to bottom. An order that refuses in the second row undoes that row and the first, and the next
/// round begins at the top without it.
#[rustfmt::skip]
const TABLE: [Row; 3] = [
    Row { stage: Stage::Allocate, run: allocate,  undo: Some(release)  },
    Row { stage: Stage::TakeBack, run: take_back, undo: Some(hand_out) },
    // Beyond this line there is no way back.
    Row { stage: Stage::GiveBack, run: give_back, undo: None           },
];

/// One row of the table.
pub(super) struct Row {
    pub(super) stage: Stage,
    /// What does a step.
    pub(super) run: Action,
    /// What undoes a step.
    pub(super) undo: Option<Action>,
}

type Action = fn(&Work<'_>, Token) -> Effect<Return>;

/// A stage of the return; its steps are done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The customer finds the orders.
    Allocate,
    /// Each order takes its pieces back.
    TakeBack,
    /// Each payment gives money back, and each product's pieces are on hand again.
    GiveBack,
}

impl Stage {
    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    pub(super) fn next(self) -> Option<Self> {
        TABLE.get(self as usize + 1).map(|row| row.stage)
    }

    pub(super) fn previous(self) -> Option<Self> {
        (self as usize).checked_sub(1).map(|at| TABLE[at].stage)
    }

    /// The steps of this stage for a return.
    pub(super) fn steps(self, state: &State) -> Vec<Step> {
        let orders = state.orders.iter();
        match self {
            Self::Allocate => vec![Step::Allocate],
            Self::TakeBack => orders
                .map(|(order, _)| Step::TakeBack { order: order.clone() })
                .collect(),
            Self::GiveBack => orders
                .filter(|(_, against)| against.refund.is_some_and(|refund| !refund.is_zero()))
                .map(|(order, _)| Step::Refund { order: order.clone() })
                .chain(state.lines.keys().map(|sku| Step::Restock { sku: sku.clone() }))
                .collect(),
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// The customer finds the orders.
    Allocate,
    /// An order takes its pieces back.
    TakeBack {
        /// The order.
        order: OrderId,
    },
    /// An order's payment gives money back.
    Refund {
        /// The order.
        order: OrderId,
    },
    /// A product's pieces are on hand again.
    Restock {
        /// The product.
        sku: Sku,
    },
}

impl Step {
    /// The stage it belongs to.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Allocate => Stage::Allocate,
            Self::TakeBack { .. } => Stage::TakeBack,
            Self::Refund { .. } | Self::Restock { .. } => Stage::GiveBack,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allocate => f.write_str("Allocate"),
            Self::TakeBack { order } => write!(f, "TakeBack {order}"),
            Self::Refund { order } => write!(f, "Refund {order}"),
            Self::Restock { sku } => write!(f, "Restock {sku}"),
        }
    }
}

/// What the actions know.
pub(super) struct Work<'a> {
    pub(super) state: &'a State,
    pub(super) return_id: &'a ReturnId,
}

impl Work<'_> {
    fn ask_customer(&self, command: &customer::Command, token: Token) -> Effect<Return> {
        let customer = (self.state.customer.as_ref()).expect("a return has a customer from its start on");
        Effect::ask::<Customer>(customer, command, token)
    }
}

fn allocate(work: &Work<'_>, token: Token) -> Effect<Return> {
    let allocate = customer::Command::AllocateReturn {
        return_id: work.return_id.clone(),
        lines: work.state.lines.clone(),
        except: work.state.except.keys().cloned().collect(),
    };
    work.ask_customer(&allocate, token)
}

fn release(work: &Work<'_>, token: Token) -> Effect<Return> {
    let return_id = work.return_id.clone();
    work.ask_customer(&customer::Command::ReleaseReturn { return_id }, token)
}

fn take_back(work: &Work<'_>, token: Token) -> Effect<Return> {
    let order = order_of(&token.step).clone();
    let take = order::Command::ReturnLines {
        return_id: work.return_id.clone(),
        lines: work
            .state
            .orders
            .get(&order)
            .map(|against| against.lines.clone())
            .unwrap_or_default(),
    };
    Effect::ask::<Order>(&order, &take, token)
}

fn hand_out(work: &Work<'_>, token: Token) -> Effect<Return> {
    let order = order_of(&token.step).clone();
    let return_id = work.return_id.clone();
    Effect::ask::<Order>(&order, &order::Command::UndoReturn { return_id }, token)
}

fn give_back(work: &Work<'_>, token: Token) -> Effect<Return> {
    let return_id = work.return_id.clone();
    let reference = format!("return:{return_id}");
    if let Step::Restock { sku } = &token.step {
        let sku = sku.clone();
        let quantity = work.state.lines.get(&sku).copied().unwrap_or_default();
        return Effect::ask::<StockItem>(&sku, &stock::Command::Restock { reference, quantity }, token);
    }
    let order = order_of(&token.step).clone();
    let refund = payment::Command::Refund {
        reference,
        amount: work.refund_of(&order),
        notify: Notify::Return {
            return_id,
            order: order.clone(),
        },
    };
    Effect::ask::<Payment>(&order, &refund, token)
}

impl Work<'_> {
    fn refund_of(&self, order: &OrderId) -> Money {
        (self.state.orders.get(order))
            .and_then(|against| against.refund)
            .unwrap_or_default()
    }
}

fn order_of(step: &Step) -> &OrderId {
    match step {
        Step::TakeBack { order } | Step::Refund { order } => order,
        Step::Allocate | Step::Restock { .. } => unreachable!("the table runs this action for steps of an order only"),
    }
}

/// What an outcome means for the step that it belongs to: a word that machines know, a colon, and the detail.
pub(super) fn result_of(token: &Token, outcome: &Outcome) -> StepResult {
    match &token.step {
        Step::Allocate => read::<Customer>(
            outcome,
            "customer_unavailable",
            |reply| match reply {
                customer::Reply::Allocated { allocation } => StepResult::Allocated { allocation },
                customer::Reply::Noted => StepResult::Done,
            },
            |rejection| match rejection {
                customer::Rejection::NothingToReturn { sku, .. } => format!("nothing_to_return: {sku}"),
            },
        ),
        Step::TakeBack { .. } => read::<Order>(
            outcome,
            "order_unavailable",
            |reply| match reply {
                order::Reply::Returned { refund, settled } => StepResult::Taken { refund, settled },
                order::Reply::Status(_) => StepResult::Done,
            },
            |rejection| format!("order_refused: {rejection}"),
        ),
        Step::Refund { .. } => read::<Payment>(
            outcome,
            "payment_unavailable",
            |reply| match reply {
                payment::Reply::Underway => StepResult::Underway,
                payment::Reply::Done => StepResult::Done,
            },
            |rejection| format!("payment_refused: {rejection}"),
        ),
        Step::Restock { .. } => read::<StockItem>(
            outcome,
            "stock_unavailable",
            |_| StepResult::Done,
            |rejection| format!("stock_refused: {rejection}"),
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
