//! Sagas: entities that drive others through a table of steps, and undo what was done when it comes to nothing.
//!
//! An author declares a [`Saga`]: what it is started with, and a table of [`Stage`]s. Everything else follows from the table.
//! A saga is an ordinary [`Entity`] with the commands, events and state of this module; there is no second mechanism.
//!
//! ```
//! use cluster::saga::{Action, End, NoSignal, Retry, Saga, Stage, Work};
//! # use cluster::{Context, Decision, Entity, NoToken, Outcome, saga::{Command, Phase}, entity::script::Script};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Clone, Default, Serialize, Deserialize)] struct Nothing;
//! # macro_rules! entity { ($name:ident, $kind:literal, $command:ident { $($variant:ident),* }) => {
//! #     struct $name;
//! #     #[derive(Debug, Clone, Serialize, Deserialize)] enum $command { $($variant { trip: String }),* }
//! #     impl Entity for $name {
//! #         const KIND: &'static str = $kind;
//! #         type State = Nothing; type Command = $command; type Event = Nothing;
//! #         type Reply = Nothing; type Rejection = Nothing; type Token = NoToken;
//! #         fn decide(_: &Nothing, _: $command, _: &Context) -> Result<Decision<Self>, Nothing> { Ok(Decision::reply(Nothing)) }
//! #         fn evolve(_: &mut Nothing, _: &Nothing) {}
//! #         fn resume(token: NoToken, _: Outcome) -> $command { match token {} }
//! #     }
//! # } }
//! # entity!(Hotel, "hotel", HotelCommand { Book, Cancel });
//! # entity!(Flight, "flight", FlightCommand { Hold, Buy, Drop });
//! /// Books rooms in several hotels and a flight: all of it or nothing. Its id is the trip's.
//! struct Trip;
//!
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! struct Wanted { hotels: Vec<String>, flight: String }
//!
//! impl Saga for Trip {
//!     const NAME: &'static str = "trip";
//!     type Input = Wanted;
//!     type Fact = ();
//!     type Signal = NoSignal;
//!
//!     const TABLE: &'static [Stage<Self>] = &[
//!         Stage::new("hold", hold).undo(drop_hold).deadline_ms(30_000).retry(Retry::times(5, 200, 5_000)),
//!         // One step for each hotel, all at the same time.
//!         Stage::new("book", book).each(|trip| trip.input().hotels.clone()).undo(cancel),
//!         Stage::new("buy", buy).point_of_no_return(),
//!     ];
//! }
//!
//! fn hold(work: &Work<Trip>) -> Action {
//!     Action::ask::<Flight>(&work.input().flight, &FlightCommand::Hold { trip: work.id().into() })
//! }
//! fn drop_hold(work: &Work<Trip>) -> Action {
//!     Action::ask::<Flight>(&work.input().flight, &FlightCommand::Drop { trip: work.id().into() })
//! }
//! fn book(work: &Work<Trip>) -> Action {
//!     Action::ask::<Hotel>(work.key(), &HotelCommand::Book { trip: work.id().into() })
//! }
//! fn cancel(work: &Work<Trip>) -> Action {
//!     Action::ask::<Hotel>(work.key(), &HotelCommand::Cancel { trip: work.id().into() })
//! }
//! fn buy(work: &Work<Trip>) -> Action {
//!     Action::ask::<Flight>(&work.input().flight, &FlightCommand::Buy { trip: work.id().into() })
//! }
//!
//! // Registered, started and tested as every entity is.
//! let kinds = cluster::Registry::new().with::<Trip>().with::<Hotel>().with::<Flight>();
//! let wanted = Wanted { hotels: vec!["ritz".into(), "savoy".into()], flight: "BA1".into() };
//! let script = Script::<Trip>::new("t-1").when(Command::Start(wanted)).then_reply(Phase::Running);
//! assert_eq!(script.effects().len(), 1);
//! ```
//!
//! Rules that the machine keeps, whatever comes:
//!
//! - A stage begins when the one above it is done; its steps go out at the same time.
//! - **Refused** up to the point of no return: the rest of the stage is waited for, then what was done, or may have been, is
//!   undone from there to the top. An undo is tried for ever; after [`STUCK_AFTER`] failures the saga counts as *stuck*, which
//!   people see, and can [`Command::Nudge`].
//! - **Failed** means that nobody knows: tried again as the stage says, then undone as if it were done.
//! - After the **point of no return** everything is tried until it is done, or kept as a problem ([`Stage::or_go_on`]).
//! - An answer that comes **after the deadline** is undone once more, because the undo may have overtaken the step.
//! - An outcome that is not waited for changes nothing.
//!
//! Reading order: [`table`] (what an author declares), [`work`] (what an author's functions see and say), [`message`],
//! [`state`], [`decide`] (the machine), [`outline`] (what can be told of any saga), [`mod@test`] (how an author tests one). What the engine tells people is in
//! [`crate::engine`]'s `sagas`.

mod decide;
mod message;
pub(crate) mod outline;
mod people;
mod state;
mod table;
pub mod test;
mod work;

use serde::{Deserialize, Serialize};

pub use message::{Alarm, Command, Event, Next, Phase, Rejection, StepToken, Token};
pub use outline::{About, Outline, StageOutline, WaitingStep};
pub use state::{Attempt, State};
pub use table::{
    Act, Each, Judge, Retry, STAGE_NAME_LEN_MAX, STAGES_MAX, STEPS_PER_STAGE_MAX, Stage, TableError, check,
};
pub use work::{Action, End, Heard, Known, Step, Verdict, Work};

use crate::{
    JsonSchema, Schema,
    entity::{Context, Decision, Entity, Outcome, Value},
    schema::Upcast,
};

/// An undo, or a step after the point of no return, that failed so often needs help: its saga counts as stuck. It is tried on.
pub const STUCK_AFTER: u32 = 5;

/// The state of a saga.
pub type StateOf<S> = State<<S as Saga>::Input, <S as Saga>::Fact>;

/// The signal of a saga that nobody sends any to; there is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoSignal {}

/// A saga, declared. All of its functions are pure, as those of an [`Entity`] are; implementing this makes it one.
pub trait Saga: Sized + Send + Sync + 'static {
    /// The kind's name in addresses (`trip/7`): lower case, fixed for ever.
    const NAME: &'static str;
    /// The stages from top to bottom. The engine refuses a table that cannot be ([`check`]) when the saga is registered.
    const TABLE: &'static [Stage<Self>];
    /// It turns back when it has not reached the point of no return after so many milliseconds.
    const DEADLINE_MS: Option<u64> = None;

    /// What it is started with.
    type Input: Value;
    /// What a step can teach ([`Verdict::Learned`]); `()` where nothing is learned.
    type Fact: Value;
    /// What others tell it on its way; [`NoSignal`] where nobody does.
    type Signal: Value;

    /// How stored values of earlier builds become values of this one: see [`Entity::UPCASTS`].
    const UPCASTS: &'static [Upcast] = &[];

    /// What the stored types look like: [`Schema::of::<Self>()`](Schema::of) once input, fact and signal derive
    /// [`JsonSchema`].
    fn schema() -> Schema {
        Schema::undeclared()
    }

    /// Why it cannot be started like this, if it cannot.
    fn check(_id: &str, _input: &Self::Input) -> Result<(), String> {
        Ok(())
    }

    /// Looks once more at what an outcome means, with all that the saga knows.
    fn consider(_work: &Work<'_, Self>, _step: &Step, verdict: Verdict<Self::Fact>) -> Verdict<Self::Fact> {
        verdict
    }

    /// What a signal means.
    fn hear(_work: &Work<'_, Self>, _signal: Self::Signal) -> Heard<Self::Fact> {
        Heard::Nothing
    }

    /// Whom to tell that it has ended; nobody's answer is waited for.
    fn ended(_work: &Work<'_, Self>, _end: End) -> Vec<Action> {
        Vec::new()
    }

    /// Drops from the input what must not be kept once it has ended. No undo may need it, nor [`Saga::ended`].
    fn forget(_input: &mut Self::Input) {}
}

impl<S: Saga> Entity for S {
    const KIND: &'static str = S::NAME;
    type State = StateOf<S>;
    type Command = Command<S::Input, S::Fact, S::Signal>;
    type Event = Event<S::Input, S::Fact>;
    type Reply = Phase;
    type Rejection = Rejection;
    type Token = Token;
    const UPCASTS: &'static [Upcast] = <S as Saga>::UPCASTS;

    fn schema() -> Schema {
        <S as Saga>::schema()
    }

    fn decide(state: &Self::State, command: Self::Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide::<S>(state, command, context)
    }

    fn evolve(state: &mut Self::State, event: &Self::Event) {
        state::evolve::<S>(state, event);
    }

    fn resume(token: Token, outcome: Outcome) -> Self::Command {
        let of = match token {
            Token::Alarm(alarm) => return Command::Due(alarm),
            Token::Step(of) => of,
        };
        let row = S::TABLE.iter().find(|stage| stage.name == of.step.stage());
        let judge = row.and_then(|row| if of.undo { row.judge_undo } else { row.judge });
        let verdict = match judge {
            Some(judge) => judge(&of.step, &outcome),
            None => Verdict::usual(&of.step, &outcome),
        };
        Command::Answered(of, verdict)
    }

    fn saga() -> Option<About> {
        Some(About::of::<S>())
    }
}

#[cfg(test)]
mod tests;
