//! What the rows of a return's table do, and what the answers mean: a word that machines know, a colon, and the detail.

use cluster::{
    Outcome,
    saga::{Action, Known, Step, Verdict, Work},
};

use super::{Fact, Return, refunds_of};
use crate::{
    customer::{self, Allocation, Customer},
    ids::{OrderId, ReturnId, Sku},
    judge::judge,
    money::Money,
    order::{self, Order},
    payment::{self, Notify, Payment},
    stock::{self, StockItem},
};

type Returning<'a> = Work<'a, Return>;

/// Which pieces go against which order, once the customer has said it.
pub(super) fn allocation<'a>(known: &Known<'a, Return>) -> Option<&'a Allocation> {
    match known.fact("allocate", "") {
        Some(Fact::Allocated(allocation)) => Some(allocation),
        _ => None,
    }
}

fn id_of(work: &Returning<'_>) -> ReturnId {
    ReturnId::new(work.id()).expect("the id was checked when the return was started")
}

fn order_id(key: &str) -> OrderId {
    OrderId::new(key).expect("the keys of these steps are order ids")
}

pub(super) fn allocate(work: &Returning<'_>) -> Action {
    let allocate = customer::Command::AllocateReturn {
        return_id: id_of(work),
        lines: work.input().lines.clone(),
        except: work.except("take-back").map(order_id).collect(),
    };
    Action::ask::<Customer>(&work.input().customer, &allocate)
}

pub(super) fn release(work: &Returning<'_>) -> Action {
    let return_id = id_of(work);
    Action::ask::<Customer>(&work.input().customer, &customer::Command::ReleaseReturn { return_id })
}

pub(super) fn take_back(work: &Returning<'_>) -> Action {
    let lines = allocation(work).and_then(|allocation| allocation.get(&order_id(work.key())));
    let take = order::Command::ReturnLines {
        return_id: id_of(work),
        lines: lines.cloned().unwrap_or_default(),
    };
    Action::ask::<Order>(work.key(), &take)
}

pub(super) fn hand_out(work: &Returning<'_>) -> Action {
    let return_id = id_of(work);
    Action::ask::<Order>(work.key(), &order::Command::UndoReturn { return_id })
}

/// Names the intention at the other side: done once under it.
fn reference(work: &Returning<'_>) -> String {
    format!("return:{}", work.id())
}

pub(super) fn restock(work: &Returning<'_>) -> Action {
    let sku = Sku::new(work.key()).expect("the keys of these steps are the products of the lines");
    let quantity = work.input().lines.get(&sku).copied().unwrap_or_default();
    let reference = reference(work);
    Action::ask::<StockItem>(work.key(), &stock::Command::Restock { reference, quantity })
}

pub(super) fn refund(work: &Returning<'_>) -> Action {
    let mut refunds = refunds_of(work.facts("take-back"));
    let amount = refunds
        .find(|(order, _)| *order == work.key())
        .map_or(Money::default(), |(_, refund)| refund);
    let refund = payment::Command::Refund {
        reference: reference(work),
        amount,
        notify: Notify::Return {
            return_id: id_of(work),
            order: order_id(work.key()),
        },
    };
    Action::ask::<Payment>(work.key(), &refund)
}

pub(super) fn customer(_: &Step, outcome: &Outcome) -> Verdict<Fact> {
    judge::<Customer, _>(
        outcome,
        "customer_unavailable",
        |reply| match reply {
            customer::Reply::Allocated { allocation } => Verdict::Learned(Fact::Allocated(allocation)),
            customer::Reply::Noted => Verdict::Failed("customer_unavailable: it did not say which orders".to_owned()),
        },
        |rejection| match rejection {
            customer::Rejection::NothingToReturn { sku, .. } => format!("nothing_to_return: {sku}"),
        },
    )
}

/// An order that says no, or of which nobody knows what it has done, is left out of the next round.
pub(super) fn order(_: &Step, outcome: &Outcome) -> Verdict<Fact> {
    let verdict = judge::<Order, _>(
        outcome,
        "order_unavailable",
        |reply| match reply {
            order::Reply::Returned { refund, settled } => Verdict::Partly(Fact::Took {
                refund: Some(refund),
                settled,
            }),
            order::Reply::Status(status) => Verdict::Failed(format!("order_unavailable: it said that it is {status}")),
        },
        |rejection| format!("order_refused: {rejection}"),
    );
    match verdict {
        Verdict::Refused(reason) => Verdict::StartOver(reason),
        Verdict::Failed(reason) => Verdict::LeaveOut(reason),
        verdict => verdict,
    }
}

pub(super) fn stock(_: &Step, outcome: &Outcome) -> Verdict<Fact> {
    judge::<StockItem, _>(
        outcome,
        "stock_unavailable",
        |_| Verdict::Done,
        |rejection| format!("stock_refused: {rejection}"),
    )
}

/// The payment says that it is under way, and sends a notice when the provider has answered.
pub(super) fn payment(_: &Step, outcome: &Outcome) -> Verdict<Fact> {
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
