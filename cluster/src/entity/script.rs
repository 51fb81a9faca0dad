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

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Context, Decision, Effect, Entity, EntityKey, Outcome, decision::EffectRequest, timer};
use crate::{
    codec,
    journal::{TimerRow, timers},
    schema::{Part, versioned},
    trace::TraceContext,
};

pub use golden::golden;

/// The clock of a script starts here and moves by one with each command.
const FIRST_MS: u64 = 1_000;

/// One entity and what it last decided. The checks panic with both sides printed when they do not hold.
pub struct Script<E: Entity> {
    context: Context,
    state: E::State,
    timers: BTreeMap<Arc<str>, TimerRow>,
    last: Result<Decided<E>, E::Rejection>,
}

struct Decided<E: Entity> {
    events: Vec<E::Event>,
    reply: Option<E::Reply>,
    effects: Vec<Sent<E>>,
    /// What it did to its timers.
    timers: Vec<Sent<E>>,
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
    fn is_timer(&self) -> bool {
        matches!(
            self.request,
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. }
        )
    }

    /// The id and the command, when it is a command to an entity of kind `T`.
    pub fn command<T: Entity>(&self) -> Option<(String, T::Command)> {
        command_of::<T>(&self.request)
    }

    /// The name of the service and the request, when it is a call whose request has the form `R`.
    pub fn call<R: DeserializeOwned>(&self) -> Option<(String, R)> {
        match &self.request {
            EffectRequest::Call { service, request } => Some((service.clone(), serde_json::from_slice(request).ok()?)),
            _ => None,
        }
    }
}

/// Reads a recorded command to an entity of kind `T`: its id and the command. `None` when it is meant for another kind.
pub fn command_of<T: Entity>(request: &EffectRequest) -> Option<(String, T::Command)> {
    match request {
        EffectRequest::Command { to, command } if &*to.kind == T::KIND => Some((
            to.id.to_string(),
            versioned::decode::<T, _>(Part::Command, command).ok()?,
        )),
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
            timers: BTreeMap::new(),
            last: Ok(Decided {
                events: Vec::new(),
                reply: None,
                effects: Vec::new(),
                timers: Vec::new(),
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
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
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
            let requests = effects.iter().map(|effect| &effect.request);
            if let Err(error) = timer::check(requests, &self.timers) {
                panic!("the engine would not take this decision of {}: {error}", E::KIND);
            }
            let sent = effects
                .into_iter()
                .map(|Effect { request, token }| Sent { request, token });
            let (timers, effects): (Vec<_>, Vec<_>) = sent.partition(Sent::is_timer);
            for timer in &timers {
                self.change_timer(timer);
            }
            Decided {
                events,
                reply: Some(reply),
                effects,
                timers,
            }
        });
        outcome
    }

    fn change_timer(&mut self, Sent { request, token }: &Sent<E>) {
        let token = token.as_ref().map(codec::encode);
        match timers::change_of(request, token.as_ref(), 0, TraceContext::default()) {
            Some((name, Some(row))) => drop(self.timers.insert(name, row)),
            Some((name, None)) => drop(self.timers.remove(&name)),
            None => {}
        }
    }

    /// Lets time pass. Timers that become due fire one after the other, as the engine lets them.
    ///
    /// # Panics
    /// When timers fire without an end.
    #[must_use]
    pub fn wait(mut self, ms: u64) -> Self {
        let until_ms = self.context.now_ms + ms;
        while let Some((name, _)) = self.due(until_ms) {
            let _ = self.fire(&name);
        }
        self.set_clock(until_ms);
        self
    }

    /// Sets the clock forward; timers that are due wait for [`Script::fire`].
    pub fn set_clock(&mut self, now_ms: u64) {
        self.context.now_ms = self.context.now_ms.max(now_ms);
    }

    /// The timers that are set, each with the time at which it is due, in milliseconds.
    pub fn timers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.timers.iter().map(|(name, row)| (&**name, row.due_ms))
    }

    /// The timer that is due first, if it is due by then.
    fn due(&self, until_ms: u64) -> Option<(Arc<str>, u64)> {
        let first = self.timers.iter().min_by_key(|(_, row)| row.due_ms)?;
        (first.1.due_ms <= until_ms).then(|| (Arc::clone(first.0), first.1.due_ms))
    }

    /// Lets a timer fire now, or, if it is not due yet, when it is due; the outcome as the engine sees it. `None` if there
    /// is no timer of that name.
    pub fn fire(&mut self, name: &str) -> Option<Outcome> {
        let (name, row) = self.timers.remove_entry(name)?;
        // Deciding moves the clock by one.
        self.set_clock(row.due_ms.saturating_sub(1));
        let at_ms = self.context.now_ms + 1;
        let outcome = Outcome::Fired {
            due_ms: row.due_ms,
            missed: row.missed(at_ms),
        };
        if let Some(next) = row.after_firing(at_ms) {
            self.timers.insert(name, next);
        }
        let token = codec::decode(&row.token).expect("the token of a timer can be read back");
        Some(self.run(E::resume(token, outcome)))
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
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
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

    /// What the last command did to the entity's timers; nothing when it was refused.
    pub fn timer_changes(&self) -> &[Sent<E>] {
        match &self.last {
            Ok(decided) => &decided.timers,
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
