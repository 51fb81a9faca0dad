//! A stock item: how many of a product there are, and for whom. Its id is the SKU.
//!
//! Everything that ever came in is in exactly one place: `received = on_hand + reserved + sold + written_off`. No level
//! is ever negative. What is promised to an order is held under the order's id until the order's checkout commits it
//! (it is sold) or releases it (it is on hand again).
//!
//! A promise is for a time. When that is over the item asks the order's checkout, which decides alone: one that can still
//! turn back does so and releases what it holds; one that cannot is left its promise, and is asked again later. So no
//! promise is taken from an order that was confirmed, and none outlives its checkout. One timer stands for all promises.
//!
//! Reading order: [`message`] (what it can be told and what happens), this file (what it holds), [`decide`].

mod decide;
mod message;

use std::collections::BTreeMap;

use cluster::{Answer, Context, Decision, Entity, JsonSchema, Outcome, Schema};
use serde::{Deserialize, Serialize};

use crate::{
    checkout::{self, Checkout},
    ids::OrderId,
};

pub use message::{Command, Event, Levels, Rejection, Reply, Token};

/// Orders that may hold a reservation at the same time.
pub const RESERVATIONS_MAX: usize = 10_000;

/// How long a reservation is held before its order's checkout is asked, and until it is asked again, in milliseconds.
pub const RESERVATION_KEPT_MS: u64 = 15 * 60_000;
/// Checkouts that are asked about their reservations at once.
pub const EXPIRIES_AT_ONCE_MAX: usize = 100;
/// The item's timer: the first reservation has been held for its time.
const EXPIRY: &str = "expiry";

/// The kind `stock`.
#[derive(Debug)]
pub struct StockItem;

/// The levels of a stock item, in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Until when each reservation is held, in milliseconds since 1970.
    #[serde(default)]
    pub expiries: BTreeMap<OrderId, u64>,
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
    type Token = Token;

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, context)
    }

    fn evolve(state: &mut State, event: &Event) {
        let levels = state.levels().after(event);
        state.on_hand = levels.on_hand;
        state.reserved = levels.reserved;
        state.sold = levels.sold;
        state.written_off = levels.written_off;
        state.received = levels.received;
        match event {
            Event::Reserved {
                order,
                quantity,
                expires_ms,
            } => {
                state.reservations.insert(order.clone(), *quantity);
                if let Some(expires_ms) = expires_ms {
                    state.expiries.insert(order.clone(), *expires_ms);
                }
            }
            Event::Released { order, .. } | Event::Committed { order, .. } => {
                state.reservations.remove(order);
                state.expiries.remove(order);
            }
            Event::HeldForItsTime { orders, again_ms } => {
                for order in orders {
                    state.expiries.insert(order.clone(), *again_ms);
                }
            }
            Event::Received { .. } | Event::Restocked { .. } | Event::WrittenOff { .. } => {}
        }
    }

    fn resume(token: Token, outcome: Outcome) -> Command {
        match token {
            Token::Expiry => Command::Expire,
            Token::Asked { order } => Command::CheckoutSaid {
                order,
                // There is no such checkout, or it is undone: nobody wants what is promised. One that could not be asked is
                // asked again later.
                is_over: matches!(
                    outcome.answer::<Checkout>(),
                    Answer::Replied(checkout::Phase::New | checkout::Phase::Undone)
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests;
