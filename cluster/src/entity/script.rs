//! Tests an entity without a cluster: given these events, when this command, then that.
//!
//! ```
//! use cluster::{Context, Decision, Effect, Entity, NoToken, Outcome, entity::script::Script};
//! use serde::{Deserialize, Serialize};
//!
//! struct Door;
//! #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! struct State { open: bool }
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! enum Command { Open }
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! enum Event { Opened }
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! enum Rejection { AlreadyOpen }
//!
//! impl Entity for Door {
//!     const KIND: &'static str = "door";
//!     type State = State;
//!     type Command = Command;
//!     type Event = Event;
//!     type Reply = ();
//!     type Rejection = Rejection;
//!     type Token = NoToken;
//!     fn decide(state: &State, _: Command, _: &Context) -> Result<Decision<Self>, Rejection> {
//!         if state.open { Err(Rejection::AlreadyOpen) } else { Ok(Decision::reply(()).event(Event::Opened)) }
//!     }
//!     fn evolve(state: &mut State, _: &Event) { state.open = true }
//!     fn resume(token: NoToken, _: Outcome) -> Command { match token {} }
//! }
//!
//! Script::<Door>::new("front").when(Command::Open).then_events([Event::Opened]).then_reply(());
//! Script::<Door>::new("front").given([Event::Opened]).when(Command::Open).then_rejected(Rejection::AlreadyOpen);
//! ```
//!
//! [`golden`] runs the same thing from text files that read like a trace.

mod golden;

use std::fmt::{self, Debug};

use serde::{Serialize, de::DeserializeOwned};

use super::{Context, Decision, Effect, Entity, EntityKey, Outcome, decision::EffectRequest};
use crate::codec;

pub use golden::golden;

/// The clock of a script starts here and moves by one with each command.
const FIRST_MS: u64 = 1_000;

/// One entity and what it last decided. The checks panic with both sides printed when they do not hold.
pub struct Script<E: Entity> {
    context: Context,
    state: E::State,
    last: Result<Decided<E>, E::Rejection>,
}

struct Decided<E: Entity> {
    events: Vec<E::Event>,
    reply: Option<E::Reply>,
    effects: Vec<Sent<E>>,
}

/// An effect that the entity wanted, in readable form.
pub struct Sent<E: Entity> {
    /// Who is to do what.
    pub request: EffectRequest,
    /// What the outcome comes back with; `None` where nobody waits for one.
    pub token: Option<E::Token>,
}

impl<E: Entity> Debug for Sent<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("request", &self.request)
            .field("token", &self.token)
            .finish()
    }
}

impl<E: Entity> Sent<E> {
    /// The id and the command, when it is a command to an entity of kind `T`.
    pub fn command<T: Entity>(&self) -> Option<(String, T::Command)> {
        command_of::<T>(&self.request)
    }

    /// The name of the service and the request, when it is a call whose request has the form `R`.
    pub fn call<R: DeserializeOwned>(&self) -> Option<(String, R)> {
        match &self.request {
            EffectRequest::Call { service, request } => Some((service.clone(), serde_json::from_slice(request).ok()?)),
            EffectRequest::Command { .. } => None,
        }
    }
}

/// Reads a recorded command to an entity of kind `T`: its id and the command. `None` when it is meant for another kind.
pub fn command_of<T: Entity>(request: &EffectRequest) -> Option<(String, T::Command)> {
    match request {
        EffectRequest::Command { to, command } if &*to.kind == T::KIND => {
            Some((to.id.to_string(), codec::decode(command).ok()?))
        }
        _ => None,
    }
}

impl<E: Entity> Script<E> {
    /// An entity that nothing has happened to yet.
    pub fn new(id: &str) -> Self {
        Self {
            context: Context {
                key: EntityKey::new(E::KIND, id).expect("a script is given a valid entity id"),
                version: 0,
                now_ms: FIRST_MS,
            },
            state: E::State::default(),
            last: Ok(Decided {
                events: Vec::new(),
                reply: None,
                effects: Vec::new(),
            }),
        }
    }

    /// What has happened before.
    #[must_use]
    pub fn given(mut self, events: impl IntoIterator<Item = E::Event>) -> Self {
        for event in events {
            self.take(&event);
        }
        self
    }

    /// Decides a command and takes its events into the state.
    #[must_use]
    pub fn when(mut self, command: E::Command) -> Self {
        self.run(command);
        self
    }

    /// Delivers the outcome of an effect, as the engine does.
    #[must_use]
    pub fn outcome(self, token: E::Token, outcome: Outcome) -> Self {
        self.when(E::resume(token, outcome))
    }

    /// Like [`Script::when`], for callers that keep the script: the outcome as the sender of the command would get it.
    ///
    /// Command, events and state pass through the encoding that they are stored in, so that what does not survive
    /// it is found here.
    pub fn run(&mut self, command: E::Command) -> Outcome {
        self.context.now_ms += 1;
        let decided = E::decide(&self.state, stored(&command), &self.context);
        let outcome = match &decided {
            Ok(decision) => Outcome::replied::<E>(&decision.reply),
            Err(rejection) => Outcome::rejected::<E>(rejection),
        };
        self.last = decided.map(|Decision { events, reply, effects }| {
            for event in &events {
                self.take(&stored(event));
            }
            self.state = stored(&self.state);
            Decided {
                events,
                reply: Some(reply),
                effects: effects
                    .into_iter()
                    .map(|Effect { request, token }| Sent { request, token })
                    .collect(),
            }
        });
        outcome
    }

    fn take(&mut self, event: &E::Event) {
        E::evolve(&mut self.state, event);
        self.context.version += 1;
    }

    /// The last command was accepted with exactly these events.
    #[must_use]
    pub fn then_events(self, events: impl IntoIterator<Item = E::Event>) -> Self {
        same(
            "events",
            &self.decided().events,
            &events.into_iter().collect::<Vec<_>>(),
        );
        self
    }

    /// The last command was accepted with this reply.
    #[must_use]
    pub fn then_reply(self, reply: E::Reply) -> Self {
        same("reply", &self.decided().reply, &Some(reply));
        self
    }

    /// The last command was refused like this.
    #[must_use]
    pub fn then_rejected(self, rejection: E::Rejection) -> Self {
        match &self.last {
            Err(actual) => same("rejection", actual, &rejection),
            Ok(decided) => panic!(
                "expected the rejection {rejection:?}, but it was accepted: {:#?}",
                decided.events
            ),
        }
        self
    }

    /// The last command was accepted and wants nothing done.
    #[must_use]
    pub fn then_no_effects(self) -> Self {
        let effects = self.effects();
        assert!(effects.is_empty(), "expected no effects, but there are: {effects:#?}");
        self
    }

    /// What the last command wants done; nothing when it was refused.
    pub fn effects(&self) -> &[Sent<E>] {
        match &self.last {
            Ok(decided) => &decided.effects,
            Err(_) => &[],
        }
    }

    /// The events of the last command; none when it was refused.
    pub fn events(&self) -> &[E::Event] {
        match &self.last {
            Ok(decided) => &decided.events,
            Err(_) => &[],
        }
    }

    /// The state as it is now.
    pub fn state(&self) -> &E::State {
        &self.state
    }

    /// The number of events so far.
    pub fn version(&self) -> u64 {
        self.context.version
    }

    fn decided(&self) -> &Decided<E> {
        match &self.last {
            Ok(decided) => decided,
            Err(rejection) => panic!("expected the command to be accepted, but it was refused: {rejection:?}"),
        }
    }
}

/// What is left of a value after it was stored and read back.
fn stored<T: Serialize + DeserializeOwned + Debug>(value: &T) -> T {
    codec::decode(&codec::encode(value))
        .unwrap_or_else(|error| panic!("this value cannot be read back after it was stored ({error}): {value:?}"))
}

/// Values of the domain need no equality of their own: what is stored the same is the same.
fn same<T: Serialize + Debug>(what: &str, actual: &T, expected: &T) {
    assert!(
        codec::encode(actual) == codec::encode(expected),
        "other {what} than expected\nexpected: {expected:#?}\nactual:   {actual:#?}"
    );
}
