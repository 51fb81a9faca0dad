//! The checkout of an order: a saga that promises, charges and hands over, or undoes all of it. Its id is the order's.
//!
//! What it does, and what undoes it, is the table in [`steps`]: stage after stage from top to bottom, the steps of one
//! stage at once. When a step is refused, the rest of its stage is waited for, and then what was done is undone from
//! there to the top. The order's confirmation is the point of no return: what is refused after it is kept as a problem
//! for everyone to see, and the checkout goes on. Money that cannot be taken is told to the order, which then calls
//! itself off.
//!
//! Each step is one effect with one outcome. An outcome that is not waited for changes nothing, so late and repeated
//! ones do no harm.
//!
//! Reading order: [`steps`] (the table), [`message`], [`state`], [`decide`].

mod decide;
mod message;
mod state;
mod steps;

use cluster::{Context, Decision, Entity, Outcome};

pub use message::{Command, Event, Rejection, Reply, StepResult, Token};
pub use state::{End, State};
pub use steps::{Stage, Step};

/// The kind `checkout`.
#[derive(Debug)]
pub struct Checkout;

impl Entity for Checkout {
    const KIND: &'static str = "checkout";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = Token;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, &context.key.id)
    }

    fn evolve(state: &mut State, event: &Event) {
        state.evolve(event);
    }

    fn resume(token: Token, outcome: Outcome) -> Command {
        let result = steps::result_of(&token, &outcome);
        Command::StepAnswered { token, result }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/checkout/golden");
        cluster::entity::script::golden::<super::Checkout>(folder);
    }
}
