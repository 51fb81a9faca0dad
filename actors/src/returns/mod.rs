//! A return: a saga that takes goods back from a customer, all of them or none. Its id is the return's own.
//!
//! The customer says which orders the goods go against, each order takes its pieces back and says what they cost, and
//! then money and stock go back. An order that says no (it was cancelled meanwhile, or is not confirmed yet) makes the
//! return undo what the others did and ask the customer again without that order; so it ends either completed, or
//! refused with nothing taken.
//!
//! An order that is not settled yet takes its pieces back at once, but its money and stock can only go back later: the
//! return waits until the order says so.
//!
//! Reading order: [`steps`] (the table), [`message`], [`state`], [`decide`].

mod decide;
mod message;
mod state;
mod steps;

use cluster::{Context, Decision, Entity, Outcome};

pub use message::{Command, Event, Line, Rejection, Reply, StepResult, Token};
pub use state::{Against, End, State};
pub use steps::{Stage, Step};

/// Lines that one return may have.
pub const RETURN_LINES_MAX: usize = 2_500;

/// The kind `return`.
#[derive(Debug)]
pub struct Return;

impl Entity for Return {
    const KIND: &'static str = "return";
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
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/returns/golden");
        cluster::entity::script::golden::<super::Return>(folder);
    }
}
