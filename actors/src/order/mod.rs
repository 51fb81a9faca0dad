//! An order: who wants what at which price, and what became of it. Its id is shared by its checkout and its payment.
//!
//! ```text
//!            Place            Confirm            Settled
//!    New ------------> Pending ------> Confirmed ------> Confirmed, settled
//!                       |   |              |                  |
//!                Refuse |   | Cancel       | Cancel           | Cancel
//!                       v   v              v      Settled     v     all given back
//!                 Refused  Cancelled   Cancelling ------> Cancelling ------------> Cancelled
//! ```
//!
//! The checkout saga that `Place` starts confirms or refuses the order. A confirmed order is *settled* once all of its
//! stock is committed and its money is taken. Only then is there something that can be given back, so what is
//! cancelled or returned earlier is remembered and carried out on settlement ([`give_back`]).
//!
//! What customers bring back is taken by [`take_back`]: the order decides which of its lines, and what they cost; the
//! return saga sees to money and stock. What is left is given back by a cancellation, so nothing is refunded twice.
//!
//! Reading order: [`command`], [`event`], [`state`], [`decide`], [`give_back`], [`take_back`].

mod command;
mod decide;
mod event;
mod give_back;
mod state;
mod take_back;

use cluster::{Context, Decision, Entity, Outcome, Schema};

pub use command::{Command, Line, PartResult, Rejection, Reply};
pub use event::{Event, Part, Taken};
pub use state::{OrderedLine, State, Status, TakenBack};

/// Lines that one order may have.
pub const ORDER_LINES_MAX: usize = 2_500;
/// Returns that one order may have.
pub const ORDER_RETURNS_MAX: usize = 1_000;

/// The kind `order`.
#[derive(Debug)]
pub struct Order;

impl Entity for Order {
    const KIND: &'static str = "order";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = Part;

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, &context.key.id)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.evolve(event);
    }

    fn resume(part: Part, outcome: Outcome) -> Command {
        let result = give_back::result_of(&part, &outcome);
        Command::PartAnswered { part, result }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/order/golden");
        cluster::entity::script::golden::<super::Order>(folder);
    }
}
