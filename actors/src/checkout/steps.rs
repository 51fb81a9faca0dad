//! What the rows of a checkout's table do, and what the answers mean: a word that machines know, a colon, and the detail.

use cluster::{
    Answer, Outcome,
    saga::{Action, Step, Verdict, Work},
};

use super::Checkout;
use crate::{
    customer::{self, Customer},
    ids::{OrderId, Sku},
    judge::judge,
    order::{self, Order},
    payment::{self, Payment},
    stock::{self, StockItem},
};

type Checking<'a> = Work<'a, Checkout>;

/// The id that order, checkout and payment share.
fn id_of(work: &Checking<'_>) -> OrderId {
    OrderId::new(work.id()).expect("the id was checked when the checkout was started")
}

pub(super) fn refuse(work: &Checking<'_>) -> Action {
    let reason = work.reason().unwrap_or_default().to_owned();
    Action::ask::<Order>(work.id(), &order::Command::Refuse { reason })
}

pub(super) fn reserve(work: &Checking<'_>) -> Action {
    let sku = Sku::new(work.key()).expect("the keys of these steps are the products of the lines");
    let quantity = work.input().lines.get(&sku).copied().unwrap_or_default();
    let order = id_of(work);
    Action::ask::<StockItem>(work.key(), &stock::Command::Reserve { order, quantity })
}

pub(super) fn release(work: &Checking<'_>) -> Action {
    Action::ask::<StockItem>(work.key(), &stock::Command::Release { order: id_of(work) })
}

pub(super) fn authorise(work: &Checking<'_>) -> Action {
    let authorise = payment::Command::Authorise {
        amount: work.input().total,
        card: work.input().card.clone(),
    };
    Action::ask::<Payment>(work.id(), &authorise)
}

pub(super) fn void(work: &Checking<'_>) -> Action {
    Action::ask::<Payment>(work.id(), &payment::Command::Void)
}

pub(super) fn record(work: &Checking<'_>) -> Action {
    let record = customer::Command::RecordOrder {
        order: id_of(work),
        lines: work.input().lines.clone(),
        currency: work.input().total.currency,
    };
    Action::ask::<Customer>(work.key(), &record)
}

pub(super) fn forget(work: &Checking<'_>) -> Action {
    Action::ask::<Customer>(work.key(), &customer::Command::ForgetOrder { order: id_of(work) })
}

pub(super) fn confirm(work: &Checking<'_>) -> Action {
    Action::ask::<Order>(work.id(), &order::Command::Confirm)
}

pub(super) fn commit(work: &Checking<'_>) -> Action {
    Action::ask::<StockItem>(work.key(), &stock::Command::Commit { order: id_of(work) })
}

pub(super) fn capture(work: &Checking<'_>) -> Action {
    Action::ask::<Payment>(work.id(), &payment::Command::Capture)
}

pub(super) fn stock(step: &Step, outcome: &Outcome) -> Verdict<()> {
    let sku = step.key();
    judge::<StockItem, _>(
        outcome,
        "stock_unavailable",
        |_| Verdict::Done,
        |rejection| match rejection {
            stock::Rejection::OutOfStock { .. } => format!("out_of_stock: {sku}"),
            stock::Rejection::TooManyReservations { .. } => format!("stock_busy: {sku}"),
            other => format!("stock_refused: {sku}: {other}"),
        },
    )
}

/// The payment says that it is under way, and sends a notice when the provider has answered.
pub(super) fn payment(_: &Step, outcome: &Outcome) -> Verdict<()> {
    judge::<Payment, _>(
        outcome,
        "payment_unavailable",
        |reply| match reply {
            payment::Reply::Underway => Verdict::Underway,
            payment::Reply::Done => Verdict::Done,
        },
        |rejection| format!("payment_refused: {rejection}"),
    )
}

pub(super) fn customer(_: &Step, outcome: &Outcome) -> Verdict<()> {
    judge::<Customer, _>(
        outcome,
        "customer_unavailable",
        |_| Verdict::Done,
        |rejection| format!("customer_refused: {rejection}"),
    )
}

/// An order that waits to be cancelled has been confirmed: its answer was not heard, and it was called off before it was asked
/// again. It waits for the checkout's end.
pub(super) fn order(_: &Step, outcome: &Outcome) -> Verdict<()> {
    let cancelling = order::Rejection::WrongStatus {
        status: order::Status::Cancelling,
    };
    if matches!(outcome.answer::<Order>(), Answer::Rejected(rejection) if rejection == cancelling) {
        return Verdict::Done;
    }
    judge::<Order, _>(
        outcome,
        "order_unavailable",
        |_| Verdict::Done,
        |rejection| match rejection {
            order::Rejection::WrongStatus {
                status: order::Status::Cancelled,
            } => "cancelled".to_owned(),
            other => format!("order_refused: {other}"),
        },
    )
}
