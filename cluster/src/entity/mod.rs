//! What an author of entities writes and sees.
//!
//! An entity is a durable, addressable thing of the domain: an order, a stock item. Only its events are truth. Its author
//! writes two pure functions, [`Entity::decide`] and [`Entity::evolve`]; the engine does the rest: one writer at a time,
//! events replicated and synced before anyone sees a reply, the same request taken once, effects carried out.
//!
//! Reading order: [`key`] (how entities are addressed), this file (the trait), [`decision`] (what `decide` answers with),
//! [`outcome`] (how an effect comes back), [`timer`] (what timers may be), [`kind`] (how the engine handles all kinds alike),
//! [`script`] (how an author tests an entity without a cluster). The live form of an entity stands in [`activation`], its pure
//! part in [`decider`], its output gate in [`gate`], why it does not decide in [`hindrance`], what people may do to a quarantined
//! one in [`release`].

pub(crate) mod activation;
pub(crate) mod decider;
pub mod decision;
pub(crate) mod envelope;
pub(crate) mod gate;
mod hindrance;
pub mod key;
pub mod kind;
pub mod outcome;
pub(crate) mod release;
pub(crate) mod requests;
pub mod script;
pub mod timer;
mod traced;

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

pub use decision::{Context, Decision, Effect};
pub use key::{EntityKey, KeyError, RequestId};
pub use kind::Registry;
pub use outcome::{Answer, Outcome};

use crate::schema::{Schema, Upcast};

/// A value that is stored or sent in the entity's own encoding.
pub trait Value: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Value for T {}

/// A kind of durable entity.
///
/// Both functions are pure: no clock, no randomness, no input or output. What they need of the world comes in through the
/// command and the [`Context`]; what they want of the world goes out as an [`Effect`].
pub trait Entity: Sized + Send + Sync + 'static {
    /// The kind's name in addresses (`order/42`): lower case, fixed for ever.
    const KIND: &'static str;
    /// What the events add up to. The default is the entity that no event has reached yet.
    type State: Value + Default;
    /// What it can be told to do; imperative.
    type Command: Value;
    /// What has happened to it; past tense.
    type Event: Value;
    /// What a caller is told when a command was accepted.
    type Reply: Value;
    /// Why the domain says no.
    type Rejection: Value;
    /// What an effect was for; comes back with its outcome. [`NoToken`] for entities that never ask anything.
    type Token: Value;

    /// How stored values of earlier builds become values of this one: one entry for each change that is more than a new field
    /// with a default or a new variant. See [`Upcast`].
    const UPCASTS: &'static [Upcast] = &[];

    /// What the stored types look like: [`Schema::of::<Self>()`](Schema::of) once they derive
    /// [`JsonSchema`](crate::JsonSchema). Without it the engine compares versions only.
    fn schema() -> Schema {
        Schema::undeclared()
    }

    /// Answers a command with events, a reply and effects, or with a rejection. Changes nothing itself.
    fn decide(
        state: &Self::State,
        command: Self::Command,
        context: &Context,
    ) -> Result<Decision<Self>, Self::Rejection>;

    /// Takes one event into the state. Cannot fail: what is in the journal has happened.
    fn evolve(state: &mut Self::State, event: &Self::Event);

    /// Turns the outcome of an effect into the command that the entity is to decide next.
    fn resume(token: Self::Token, outcome: Outcome) -> Self::Command;

    /// What the engine can tell of it beyond this, if it is a saga ([`crate::saga`]). Not for authors to implement.
    #[doc(hidden)]
    fn saga() -> Option<crate::saga::About> {
        None
    }
}

/// The token of an entity that has no effects with an outcome; there is no value of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, crate::JsonSchema)]
pub enum NoToken {}
