//! What an order decides from its placing to its settlement.

use cluster::{Decision, Effect};

use super::{Command, Event, Line, ORDER_LINES_MAX, Order, Rejection, Reply, State, Status, give_back, take_back};
use crate::{
    QUANTITY_MAX, REASON_LEN_MAX,
    checkout::{self, Checkout},
    ids::{CustomerId, OrderId},
    money::{Currency, Money},
    payment::CARD_LEN_MAX,
    plan::Plan,
    returns::{self, Return},
};

pub(super) type Decided = Result<Decision<Order>, Rejection>;

/// All commands; `id` is the order's own id.
pub(super) fn decide(state: &State, command: Command, id: &str) -> Decided {
    let order = OrderId::new(id).map_err(|error| Rejection::InvalidId {
        reason: error.to_string(),
    })?;
    if state.status == Status::New && !matches!(command, Command::Place { .. }) {
        return Err(Rejection::NotPlaced);
    }
    match command {
        Command::Place {
            customer,
            lines,
            currency,
            card,
        } => place(state, &order, customer, lines, currency, card),
        Command::Confirm => confirm(state),
        Command::Refuse { reason } => refuse(state, reason),
        Command::Settle { unpaid } => Ok(settle(state, unpaid, &order)),
        Command::Cancel { reason } => cancel(state, reason, &order),
        Command::ReturnLines { return_id, lines } => take_back::return_lines(state, return_id, &lines),
        Command::UndoReturn { return_id } => Ok(take_back::undo_return(state, return_id, &order)),
        Command::Payment(notice) => Ok(give_back::payment_said(state, notice)),
        Command::PartAnswered { part, result } => Ok(give_back::part_answered(state, part, result)),
    }
}

fn place(
    state: &State,
    order: &OrderId,
    customer: Option<CustomerId>,
    lines: Vec<Line>,
    currency: Currency,
    card: String,
) -> Decided {
    if state.exists() {
        return Err(Rejection::AlreadyPlaced);
    }
    if card.len() > CARD_LEN_MAX {
        return Err(Rejection::CardTooLong {
            len: card.len(),
            max: CARD_LEN_MAX,
        });
    }
    let total = total_of(&lines, currency)?;
    let mut plan = Plan::<Order>::new(state);
    plan.record(Event::Placed { customer, lines, total });
    let start = checkout::Command::Start(checkout::Input {
        customer: plan.state().customer.clone(),
        lines: plan.state().merged(),
        total,
        card,
    });
    plan.send(Effect::tell::<Checkout>(order, &start));
    Ok(plan.reply(Reply::Status(Status::Pending)))
}

/// What the lines cost, when each of them is in order.
fn total_of(lines: &[Line], currency: Currency) -> Result<Money, Rejection> {
    if lines.is_empty() {
        return Err(Rejection::EmptyOrder);
    }
    if lines.len() > ORDER_LINES_MAX {
        return Err(Rejection::TooManyLines {
            lines: lines.len(),
            max: ORDER_LINES_MAX,
        });
    }
    let mut total = Money::zero(currency);
    for line in lines {
        check(line, currency)?;
        let price = line.unit_price.times(line.quantity);
        total = (price.and_then(|price| total.plus(price))).map_err(|_| Rejection::TotalTooLarge)?;
    }
    Ok(total)
}

fn check(line: &Line, currency: Currency) -> Result<(), Rejection> {
    let sku = || line.sku.clone();
    if line.quantity == 0 {
        return Err(Rejection::ZeroQuantity { sku: sku() });
    }
    if line.quantity > QUANTITY_MAX {
        return Err(Rejection::QuantityTooLarge {
            sku: sku(),
            quantity: line.quantity,
            max: QUANTITY_MAX,
        });
    }
    if line.unit_price.minor < 0 {
        return Err(Rejection::NegativePrice {
            sku: sku(),
            price: line.unit_price,
        });
    }
    if line.unit_price.currency != currency {
        return Err(Rejection::CurrencyMismatch {
            sku: sku(),
            line: line.unit_price.currency,
            order: currency,
        });
    }
    Ok(())
}

fn confirm(state: &State) -> Decided {
    let confirmed = Decision::reply(Reply::Status(Status::Confirmed));
    match state.status {
        Status::Pending => Ok(confirmed.event(Event::Confirmed)),
        Status::Confirmed => Ok(confirmed),
        status => Err(Rejection::WrongStatus { status }),
    }
}

fn refuse(state: &State, reason: String) -> Decided {
    match state.status {
        Status::Pending => Ok(Decision::reply(Reply::Status(Status::Refused)).event(Event::Refused { reason })),
        // It was called off while its checkout was under way: that reason stands.
        status @ (Status::Refused | Status::Cancelled) => Ok(Decision::reply(Reply::Status(status))),
        status => Err(Rejection::WrongStatus { status }),
    }
}

/// Stock is committed and the question of money is settled: what was waiting for this goes on.
fn settle(state: &State, unpaid: Option<String>, order: &OrderId) -> Decision<Order> {
    if state.settled || !matches!(state.status, Status::Confirmed | Status::Cancelling) {
        return Decision::reply(Reply::Status(state.status));
    }
    let mut plan = Plan::<Order>::new(state);
    let waiting = state.returns.keys().cloned();
    if let Some(reason) = unpaid {
        let why = format!("payment_not_captured: {reason}");
        plan.record(Event::SettledUnpaid { reason });
        for return_id in waiting {
            let withdrew = returns::Command::Signal(returns::Signal::OrderWithdrew {
                order: order.clone(),
                reason: why.clone(),
            });
            plan.send(Effect::tell::<Return>(&return_id, &withdrew));
            plan.record(Event::ReturnUndone { return_id });
        }
        if state.status == Status::Confirmed {
            plan.record(Event::CancelRequested { reason: why });
        }
    } else {
        plan.record(Event::Settled);
        for return_id in waiting {
            let settled = returns::Command::Signal(returns::Signal::OrderSettled { order: order.clone() });
            plan.send(Effect::tell::<Return>(&return_id, &settled));
        }
    }
    if plan.state().status == Status::Cancelling {
        give_back::everything(&mut plan, order);
    }
    let status = plan.state().status;
    plan.reply(Reply::Status(status))
}

fn cancel(state: &State, reason: String, order: &OrderId) -> Decided {
    if reason.len() > REASON_LEN_MAX {
        return Err(Rejection::ReasonTooLong {
            len: reason.len(),
            max: REASON_LEN_MAX,
        });
    }
    let mut plan = Plan::<Order>::new(state);
    match state.status {
        Status::Pending => {
            // Nothing is promised yet: the checkout finds it called off and undoes what it has done.
            plan.record(Event::CancelRequested { reason });
            plan.record(Event::Cancelled);
        }
        Status::Confirmed => {
            plan.record(Event::CancelRequested { reason });
            if state.settled {
                give_back::everything(&mut plan, order);
            }
        }
        Status::Cancelling | Status::Cancelled => {}
        status @ (Status::New | Status::Refused) => return Err(Rejection::WrongStatus { status }),
    }
    let status = plan.state().status;
    Ok(plan.reply(Reply::Status(status)))
}
