//! How a cancelled order gives back what was taken: money to the customer, pieces to the stock.
//!
//! It begins once the order is settled, so there is something to give back, and it is carried on by the outcomes of its
//! parts until none is left. A part that fails against all promises stays in the state as a problem.

use cluster::{Decision, Effect, Outcome, entity::Answer};

use super::{Event, Order, Part, PartResult, Reply, State, Status, decide::Decided};
use crate::{
    customer::{self, Customer},
    ids::{OrderId, Sku},
    money::Money,
    payment::{self, Notice, Notify, Payment},
    plan::Plan,
    stock::{self, StockItem},
};
use std::collections::BTreeMap;

/// The refund's reference when the order itself is called off.
const CANCEL_REFERENCE: &str = "cancel";

/// Gives back everything that has not come back by returns.
pub(super) fn everything(plan: &mut Plan<Order>, order: &OrderId) {
    let (pieces, money) = (plan.state().not_returned())
        .expect("returns are refunded out of the total and in its currency, so the rest can be counted");
    if let Some(customer) = &plan.state().customer {
        let forget = customer::Command::ForgetOrder { order: order.clone() };
        plan.send(Effect::tell::<Customer>(&customer.clone(), &forget));
    }
    give_back(plan, order, CANCEL_REFERENCE, pieces, money);
}

/// Gives back those pieces and that money, under a reference that is used once.
pub(super) fn give_back(
    plan: &mut Plan<Order>,
    order: &OrderId,
    reference: &str,
    pieces: BTreeMap<Sku, u64>,
    money: Money,
) {
    let mut parts = Vec::new();
    if !money.is_zero() && !plan.state().unpaid {
        parts.push(Part::Refund {
            reference: reference.to_owned(),
            amount: money,
        });
    }
    parts.extend(pieces.into_iter().map(|(sku, quantity)| Part::Restock {
        reference: format!("{order}:{reference}"),
        sku,
        quantity,
    }));
    for part in &parts {
        plan.send(effect_of(part, order));
    }
    plan.record(Event::GivingBack { parts });
    end_when_all_is_in(plan);
}

fn effect_of(part: &Part, order: &OrderId) -> Effect<Order> {
    match part.clone() {
        Part::Refund { reference, amount } => {
            let refund = payment::Command::Refund {
                reference,
                amount,
                notify: Notify::Order,
            };
            Effect::ask::<Payment>(order, &refund, part.clone())
        }
        Part::Restock {
            reference,
            sku,
            quantity,
        } => {
            let restock = stock::Command::Restock { reference, quantity };
            Effect::ask::<StockItem>(&sku, &restock, part.clone())
        }
    }
}

/// Reads what came of a part from the outcome of its effect.
pub(super) fn result_of(part: &Part, outcome: &Outcome) -> PartResult {
    let failed = |reason: String| PartResult::Failed { reason };
    match part {
        Part::Refund { .. } => match outcome.answer::<Payment>() {
            Answer::Replied(payment::Reply::Done) => PartResult::Done,
            Answer::Replied(payment::Reply::Underway) => PartResult::Underway,
            Answer::Rejected(rejection) => failed(rejection.to_string()),
            Answer::Failed(reason) => failed(reason),
        },
        Part::Restock { .. } => match outcome.answer::<StockItem>() {
            Answer::Replied(_) => PartResult::Done,
            Answer::Rejected(rejection) => failed(rejection.to_string()),
            Answer::Failed(reason) => failed(reason),
        },
    }
}

/// The payment says what came of a refund.
pub(super) fn payment_said(state: &State, notice: Notice) -> Decided {
    let (refunded, result) = match notice {
        Notice::Refunded { reference } => (reference, PartResult::Done),
        Notice::RefundFailed { reference, reason } => (reference, PartResult::Failed { reason }),
        _ => return Ok(Decision::reply(Reply::Status(state.status))),
    };
    let is_meant = |part: &&Part| matches!(part, Part::Refund { reference, .. } if *reference == refunded);
    match state.giving_back.iter().find(is_meant) {
        Some(part) => part_answered(state, part.clone(), result),
        None => Ok(Decision::reply(Reply::Status(state.status))),
    }
}

/// What came of a part is in. A part that nobody waits for any more changes nothing.
pub(super) fn part_answered(state: &State, part: Part, result: PartResult) -> Decided {
    let mut plan = Plan::<Order>::new(state);
    if state.giving_back.contains(&part) {
        match result {
            PartResult::Done => plan.record(Event::GivenBack { part }),
            PartResult::Failed { reason } => plan.record(Event::GiveBackFailed { part, reason }),
            PartResult::Underway => {}
        }
        end_when_all_is_in(&mut plan);
    }
    let status = plan.state().status;
    Ok(plan.reply(Reply::Status(status)))
}

fn end_when_all_is_in(plan: &mut Plan<Order>) {
    if plan.state().status == Status::Cancelling && plan.state().giving_back.is_empty() {
        plan.record(Event::Cancelled);
    }
}
