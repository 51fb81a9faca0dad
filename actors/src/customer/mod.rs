//! A customer: remembers the latest orders, and how much of each can still be returned.
//!
//! A return names products, not orders. The customer finds the orders that hold them, the latest first, and sets the
//! quantities aside for that return: all of them, or none.
//!
//! The customer hears of an order just before it is confirmed, so that a return that follows a confirmation at once
//! finds the order. Whether the order itself gives the goods back is the order's own decision ([`crate::returns`]).

mod decide;
mod message;
mod state;

use cluster::{Context, Decision, Entity, NoToken, Outcome, Schema};

pub use message::{Allocation, Command, Event, Rejection, Reply};
pub use state::{Recorded, SetAside, State};

/// Orders that are remembered; the oldest is forgotten first.
pub const ORDERS_KEPT_MAX: usize = 500;
/// Returns whose allocation is remembered; the oldest is forgotten first, and can then not be undone any more.
pub const RETURNS_KEPT_MAX: usize = 500;

/// The kind `customer`.
#[derive(Debug)]
pub struct Customer;

impl Entity for Customer {
    const KIND: &'static str = "customer";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = NoToken;

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn decide(state: &State, command: Command, _context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.evolve(event);
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/customer/golden");
        cluster::entity::script::golden::<super::Customer>(folder);
    }
}
