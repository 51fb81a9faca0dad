//! A seat with a bug: it does not ask for whom it is given back.

use cluster::{Context, Decision, Effect, Entity, Outcome};
use own_entity::seat::{Command, Event, Rejection, Seat, State};

/// Takes the place of the seat: it has its kind, and understands and stores the same.
pub(crate) struct CarelessSeat;

impl Entity for CarelessSeat {
    const KIND: &'static str = Seat::KIND;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = ();
    type Rejection = Rejection;
    type Token = String;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        if let Command::Release { .. } = command {
            return Ok(Decision::reply(())
                .event(Event::Freed)
                .effect(Effect::cancel_timer("hold")));
        }
        let Decision { events, reply, effects } = Seat::decide(state, command, context)?;
        Ok(Decision {
            events,
            reply,
            effects: effects.into_iter().map(own).collect(),
        })
    }

    fn evolve(state: &mut State, event: &Event) {
        Seat::evolve(state, event);
    }

    fn resume(booking: String, outcome: Outcome) -> Command {
        Seat::resume(booking, outcome)
    }
}

/// The seat's effects are this one's.
fn own(Effect { request, token }: Effect<Seat>) -> Effect<CarelessSeat> {
    Effect { request, token }
}
