//! How an order takes pieces back from the customer: which lines they come from, and what they cost.
//!
//! Money and stock are the return saga's business. It may also find that the return comes to nothing; then the pieces
//! are the customer's again, or, if the order was called off meanwhile, are given back with the rest of it.

use std::collections::BTreeMap;

use cluster::Decision;

use super::{
    Event, ORDER_RETURNS_MAX, Order, Rejection, Reply, State, Status, Taken, TakenBack, decide::Decided, give_back,
};
use crate::{
    ids::{OrderId, ReturnId, Sku},
    money::Money,
    plan::Plan,
};

/// Takes pieces of confirmed lines; of a product in several lines, from the first of them first.
pub(super) fn return_lines(state: &State, return_id: ReturnId, lines: &BTreeMap<Sku, u64>) -> Decided {
    if let Some(TakenBack { taken, refund }) = state.returns.get(&return_id) {
        if state.taken_by(taken) != *lines {
            return Err(Rejection::ReturnReused);
        }
        return Ok(Decision::reply(Reply::Returned {
            refund: *refund,
            settled: state.settled,
        }));
    }
    if state.status != Status::Confirmed {
        return Err(Rejection::WrongStatus { status: state.status });
    }
    if state.returns.len() >= ORDER_RETURNS_MAX {
        return Err(Rejection::TooManyReturns { max: ORDER_RETURNS_MAX });
    }
    let mut taken = Vec::new();
    let mut refund = Money::zero(state.total.currency);
    for (sku, wanted) in lines {
        let mut left = *wanted;
        for (line, ordered) in state.lines.iter().enumerate().filter(|(_, line)| line.sku == *sku) {
            let quantity = left.min(ordered.quantity - ordered.returned);
            if quantity == 0 {
                continue;
            }
            left -= quantity;
            let price = ordered.unit_price.times(quantity);
            refund = (price.and_then(|price| refund.plus(price)))
                .expect("it is a part of the order's total, which was counted when it was placed");
            taken.push(Taken { line, quantity });
        }
        if left > 0 {
            return Err(Rejection::NotHeld {
                sku: sku.clone(),
                held: wanted - left,
                wanted: *wanted,
            });
        }
    }
    let reply = Reply::Returned {
        refund,
        settled: state.settled,
    };
    Ok(Decision::reply(reply).event(Event::LinesReturned {
        return_id,
        taken,
        refund,
    }))
}

/// Makes a return undone; one that the order does not know is undone already.
pub(super) fn undo_return(state: &State, return_id: ReturnId, order: &OrderId) -> Decided {
    let mut plan = Plan::<Order>::new(state);
    if let Some(TakenBack { taken, refund }) = state.returns.get(&return_id) {
        let reference = format!("cancel:{return_id}");
        plan.record(Event::ReturnUndone { return_id });
        // A cancellation that has begun to give back left these pieces to the return.
        if state.settled && matches!(state.status, Status::Cancelling | Status::Cancelled) {
            give_back::give_back(&mut plan, order, &reference, state.taken_by(taken), *refund);
        }
    }
    let status = plan.state().status;
    Ok(plan.reply(Reply::Status(status)))
}
