//! The payment of an order: sets the total aside on the customer's card, takes it, gives it back. Its id is the order's.
//!
//! The provider is asked by effects, so an answer takes its time. A command is answered at once with [`Reply::Underway`],
//! and what came of it follows as a [`Notice`]: of authorisation and capture to the checkout of the same id, of a refund
//! to whoever wanted it ([`Notify`]). Where the provider is not needed (the amount is zero) the reply is [`Reply::Done`]
//! and no notice follows.
//!
//! Nobody is charged twice: there is one effect for one intention, and the provider knows the effect by its key. A
//! provider that was given up on may still have set the amount aside; so giving up is followed by a void, and so is an
//! authorisation that comes in too late.
//!
//! It does not wait for ever either: an authorisation that is not answered within [`AUTHORISE_WITHIN_MS`] is given up like
//! one that the provider could not be asked for, and one that is not captured within [`CAPTURE_WITHIN_MS`] is voided; the
//! checkout is told. A capture that has been asked for is not given up.
//!
//! Reading order: [`message`], [`state`], [`decide`], and [`provider`] for what is said to the provider.

mod decide;
mod message;
pub mod provider;
mod state;

use cluster::{Context, Decision, Entity, Outcome, Schema};

pub use message::{Call, Command, Event, Notice, Notify, Rejection, Reply, Said};
pub use state::{Refund, RefundStatus, State, Status};

/// The longest text that names a card, in bytes.
pub const CARD_LEN_MAX: usize = 64;
/// Refunds that one payment may see.
pub const REFUNDS_MAX: usize = 2_000;

/// Within what time the provider must have answered an authorisation, in milliseconds. Shorter than the stock is held for.
/// The policy of the service that reaches the provider may give up earlier: it knows why there is no answer.
pub const AUTHORISE_WITHIN_MS: u64 = 10 * 60_000;
/// Within what time what is set aside must be asked for, in milliseconds.
pub const CAPTURE_WITHIN_MS: u64 = 60 * 60_000;
/// The payment's timer.
const DEADLINE: &str = "deadline";

/// The kind `payment`.
#[derive(Debug)]
pub struct Payment;

impl Entity for Payment {
    const KIND: &'static str = "payment";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = Call;

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, &context.key.id, context.now_ms)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.evolve(event);
    }

    fn resume(call: Call, outcome: Outcome) -> Command {
        if call == Call::Deadline {
            return Command::RanOut;
        }
        let said = Said::of(&call, outcome.json());
        Command::ProviderSaid { call, said }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/payment/golden");
        cluster::entity::script::golden::<super::Payment>(folder);
    }
}
