//! What a stock item decides.

use cluster::{Context, Decision, Effect};

use super::{
    Command, EXPIRIES_AT_ONCE_MAX, EXPIRY, Event, RESERVATION_KEPT_MS, RESERVATIONS_MAX, Rejection, Reply, State,
    StockItem, Token,
};
use crate::{
    QUANTITY_MAX, REASON_LEN_MAX,
    checkout::{self, Checkout},
    ids::OrderId,
};

/// All commands. The reply carries the levels as they are after the event.
pub(super) fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<StockItem>, Rejection> {
    let now_ms = context.now_ms;
    if let Command::Expire = command {
        return Ok(expire(state, context));
    }
    let event = match command {
        Command::Receive { quantity } => Some(receive(state, quantity)?),
        Command::Reserve { order, quantity } => reserve(state, order, quantity, now_ms)?,
        Command::Release { order } | Command::CheckoutSaid { order, is_over: true } => release(state, order),
        Command::Commit { order } => Some(commit(state, order)?),
        Command::Restock { reference, quantity } => Some(restock(state, reference, quantity)?),
        Command::WriteOff { quantity, reason } => Some(write_off(state, quantity, reason)?),
        Command::CheckoutSaid { is_over: false, .. } | Command::Expire => None,
    };
    let timer = event.as_ref().and_then(|event| timer_after(state, event));
    Ok(answer(state, event, context).effects(timer))
}

fn answer(state: &State, event: Option<Event>, context: &Context) -> Decision<StockItem> {
    let levels = match &event {
        Some(event) => state.levels().after(event),
        None => state.levels(),
    };
    Decision {
        reply: Reply {
            levels,
            version: context.version + u64::from(event.is_some()),
        },
        events: event.into_iter().collect(),
        effects: Vec::new(),
    }
}

/// The timer runs while there are reservations, and is not moved with each of them: it looks what is due when it fires.
fn timer_after(state: &State, event: &Event) -> Option<Effect<StockItem>> {
    match event {
        Event::Reserved {
            expires_ms: Some(expires_ms),
            ..
        } if state.expiries.is_empty() => Some(Effect::set_timer(EXPIRY, *expires_ms, Token::Expiry)),
        Event::Released { order, .. } | Event::Committed { order, .. }
            if state.expiries.len() == 1 && state.expiries.contains_key(order) =>
        {
            Some(Effect::cancel_timer(EXPIRY))
        }
        _ => None,
    }
}

/// Asks the checkouts of the orders whose reservations have been held for their time.
fn expire(state: &State, context: &Context) -> Decision<StockItem> {
    let now_ms = context.now_ms;
    let is_due = |expires_ms: &u64| *expires_ms <= now_ms;
    let due = state.expiries.iter().filter(|(_, expires_ms)| is_due(expires_ms));
    let orders: Vec<OrderId> = (due.map(|(order, _)| order.clone()).take(EXPIRIES_AT_ONCE_MAX)).collect();
    let again_ms = now_ms.saturating_add(RESERVATION_KEPT_MS);
    let first_left = (state.expiries.iter())
        .filter(|(order, _)| !orders.contains(order))
        .map(|(_, expires_ms)| *expires_ms)
        .chain((!orders.is_empty()).then_some(again_ms))
        .min();
    let asks = orders.iter().map(|order| {
        let sku = context.key.id.to_string();
        let token = Token::Asked { order: order.clone() };
        Effect::ask::<Checkout>(
            order,
            &checkout::Command::Signal(checkout::Signal::HeldForItsTime { sku }),
            token,
        )
    });
    let effects: Vec<_> = asks
        .chain(first_left.map(|due_ms| Effect::set_timer(EXPIRY, due_ms, Token::Expiry)))
        .collect();
    let event = (!orders.is_empty()).then_some(Event::HeldForItsTime { orders, again_ms });
    answer(state, event, context).effects(effects)
}

fn receive(state: &State, quantity: u64) -> Result<Event, Rejection> {
    at_least_one(quantity)?;
    let max = QUANTITY_MAX.min(u64::MAX - state.received);
    if quantity > max {
        return Err(Rejection::QuantityTooLarge { quantity, max });
    }
    Ok(Event::Received { quantity })
}

fn reserve(state: &State, order: OrderId, quantity: u64, now_ms: u64) -> Result<Option<Event>, Rejection> {
    at_least_one(quantity)?;
    match state.reservations.get(&order) {
        Some(held) if *held == quantity => return Ok(None),
        Some(held) => return Err(Rejection::AlreadyReserved { held: *held }),
        None => {}
    }
    on_hand(state, quantity)?;
    if state.reservations.len() >= RESERVATIONS_MAX {
        return Err(Rejection::TooManyReservations { max: RESERVATIONS_MAX });
    }
    Ok(Some(Event::Reserved {
        order,
        quantity,
        expires_ms: Some(now_ms.saturating_add(RESERVATION_KEPT_MS)),
    }))
}

fn release(state: &State, order: OrderId) -> Option<Event> {
    let quantity = *state.reservations.get(&order)?;
    Some(Event::Released { order, quantity })
}

fn commit(state: &State, order: OrderId) -> Result<Event, Rejection> {
    let quantity = *state.reservations.get(&order).ok_or(Rejection::UnknownReservation)?;
    Ok(Event::Committed { order, quantity })
}

fn restock(state: &State, reference: String, quantity: u64) -> Result<Event, Rejection> {
    at_least_one(quantity)?;
    if quantity > state.sold {
        return Err(Rejection::NotSold {
            sold: state.sold,
            wanted: quantity,
        });
    }
    Ok(Event::Restocked { reference, quantity })
}

fn write_off(state: &State, quantity: u64, reason: String) -> Result<Event, Rejection> {
    at_least_one(quantity)?;
    on_hand(state, quantity)?;
    if reason.len() > REASON_LEN_MAX {
        return Err(Rejection::ReasonTooLong {
            len: reason.len(),
            max: REASON_LEN_MAX,
        });
    }
    Ok(Event::WrittenOff { quantity, reason })
}

fn at_least_one(quantity: u64) -> Result<(), Rejection> {
    if quantity == 0 {
        return Err(Rejection::ZeroQuantity);
    }
    Ok(())
}

fn on_hand(state: &State, wanted: u64) -> Result<(), Rejection> {
    if wanted > state.on_hand {
        return Err(Rejection::OutOfStock {
            on_hand: state.on_hand,
            wanted,
        });
    }
    Ok(())
}
