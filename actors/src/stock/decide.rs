//! What a stock item decides.

use cluster::Decision;

use super::{Command, Event, RESERVATIONS_MAX, Rejection, Reply, State, StockItem};
use crate::{QUANTITY_MAX, REASON_LEN_MAX, ids::OrderId};

/// All commands. The reply carries the levels as they are after the event.
pub(super) fn decide(state: &State, command: Command, version: u64) -> Result<Decision<StockItem>, Rejection> {
    let event = match command {
        Command::Receive { quantity } => Some(receive(state, quantity)?),
        Command::Reserve { order, quantity } => reserve(state, order, quantity)?,
        Command::Release { order } => release(state, order),
        Command::Commit { order } => Some(commit(state, order)?),
        Command::Restock { reference, quantity } => Some(restock(state, reference, quantity)?),
        Command::WriteOff { quantity, reason } => Some(write_off(state, quantity, reason)?),
    };
    let levels = match &event {
        Some(event) => state.levels().after(event),
        None => state.levels(),
    };
    Ok(Decision {
        reply: Reply {
            levels,
            version: version + u64::from(event.is_some()),
        },
        events: event.into_iter().collect(),
        effects: Vec::new(),
    })
}

fn receive(state: &State, quantity: u64) -> Result<Event, Rejection> {
    at_least_one(quantity)?;
    let max = QUANTITY_MAX.min(u64::MAX - state.received);
    if quantity > max {
        return Err(Rejection::QuantityTooLarge { quantity, max });
    }
    Ok(Event::Received { quantity })
}

fn reserve(state: &State, order: OrderId, quantity: u64) -> Result<Option<Event>, Rejection> {
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
    Ok(Some(Event::Reserved { order, quantity }))
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
