//! A stock item: how many of a product there are, and for whom. Its id is the SKU.
//!
//! Everything that ever came in is in exactly one place: `received = on_hand + reserved + sold + written_off`. No level
//! is ever negative. What is promised to an order is held under the order's id until the order's checkout commits it
//! (it is sold) or releases it (it is on hand again).
//!
//! Reading order: [`message`] (what it can be told and what happens), this file (what it holds), [`decide`].

mod decide;
mod message;

use std::collections::BTreeMap;

use cluster::{Context, Decision, Entity, NoToken, Outcome};
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

pub use message::{Command, Event, Levels, Rejection, Reply};

/// Orders that may hold a reservation at the same time.
pub const RESERVATIONS_MAX: usize = 10_000;

/// The kind `stock`.
#[derive(Debug)]
pub struct StockItem;

/// The levels of a stock item, in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Can be reserved.
    pub on_hand: u64,
    /// Promised to orders whose checkout has not ended: the sum of the reservations.
    pub reserved: u64,
    /// Belongs to confirmed orders.
    pub sold: u64,
    /// Damaged or lost.
    pub written_off: u64,
    /// All that ever came in.
    pub received: u64,
    /// How much is promised to which order.
    pub reservations: BTreeMap<OrderId, u64>,
}

impl State {
    /// Whether everything that came in is in exactly one place.
    pub fn is_conserved(&self) -> bool {
        let places = [self.on_hand, self.reserved, self.sold, self.written_off];
        let promised: u128 = self.reservations.values().copied().map(u128::from).sum();
        places.into_iter().map(u128::from).sum::<u128>() == u128::from(self.received)
            && promised == u128::from(self.reserved)
    }

    fn levels(&self) -> Levels {
        Levels {
            on_hand: self.on_hand,
            reserved: self.reserved,
            sold: self.sold,
            written_off: self.written_off,
            received: self.received,
        }
    }
}

impl Entity for StockItem {
    const KIND: &'static str = "stock";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = NoToken;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, context.version)
    }

    fn evolve(state: &mut State, event: &Event) {
        let levels = state.levels().after(event);
        state.on_hand = levels.on_hand;
        state.reserved = levels.reserved;
        state.sold = levels.sold;
        state.written_off = levels.written_off;
        state.received = levels.received;
        match event {
            Event::Reserved { order, quantity } => {
                state.reservations.insert(order.clone(), *quantity);
            }
            Event::Released { order, .. } | Event::Committed { order, .. } => {
                state.reservations.remove(order);
            }
            Event::Received { .. } | Event::Restocked { .. } | Event::WrittenOff { .. } => {}
        }
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}

#[cfg(test)]
mod tests;
