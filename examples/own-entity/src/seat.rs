//! A seat: it is held for a booking for two minutes, and then bought, or free again.

use cluster::{Context, Decision, Effect, Entity, Outcome};
use serde::{Deserialize, Serialize};

/// How long a seat is held for a booking that does not buy it, in milliseconds.
pub const HOLD_MS: u64 = 120_000;

/// A seat. Its id is its place: `row-1-7`.
pub struct Seat;

/// Whose a seat is: the id of a booking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    #[default]
    Free,
    HeldBy(String),
    SoldTo(String),
}

/// What a booking tells a seat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    Hold { booking: String },
    Buy { booking: String },
    Release { booking: String },
}

/// What happened to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    Held { booking: String },
    Sold { booking: String },
    Freed,
}

/// Why it is not had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    Taken,
    NotHeld,
}

impl Entity for Seat {
    const KIND: &'static str = "seat";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = Rejection;
    /// The booking for which it is held.
    type Token = String;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        let done = Decision::reply(());
        match (command, state) {
            (Command::Hold { booking }, State::Free) => Ok(done
                .effect(Effect::set_timer("hold", context.now_ms + HOLD_MS, booking.clone()))
                .event(Event::Held { booking })),
            (Command::Hold { booking }, State::HeldBy(by)) if *by == booking => Ok(done),
            (Command::Hold { .. }, _) => Err(Rejection::Taken),
            (Command::Buy { booking }, State::HeldBy(by)) if *by == booking => {
                Ok(done.event(Event::Sold { booking }).effect(Effect::cancel_timer("hold")))
            }
            (Command::Buy { booking }, State::SoldTo(to)) if *to == booking => Ok(done),
            (Command::Buy { .. }, _) => Err(Rejection::NotHeld),
            (Command::Release { booking }, State::HeldBy(by) | State::SoldTo(by)) if *by == booking => {
                Ok(done.event(Event::Freed).effect(Effect::cancel_timer("hold")))
            }
            // It is somebody else's, or nobody's: there is nothing to give back.
            (Command::Release { .. }, _) => Ok(done),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        *state = match event {
            Event::Held { booking } => State::HeldBy(booking.clone()),
            Event::Sold { booking } => State::SoldTo(booking.clone()),
            Event::Freed => State::Free,
        };
    }

    /// Only the timer comes back: the two minutes are over.
    fn resume(booking: String, _: Outcome) -> Command {
        Command::Release { booking }
    }
}
