//! Read models that events feed: what an author writes, and how each replica keeps its copy of them.
//!
//! A projection is a pair of pure functions over ordered rows: [`Projection::apply`] takes an event in, [`Projection::query`]
//! answers of one shard, and [`Projection::merge`] makes one answer of all shards' parts. Each replica of each shard keeps the
//! model of its own shard, fed by the shard's feed in order. Rows and the position of the feed are written in one batch, so a
//! crash never makes an event count twice or be left out.
//!
//! Reading order: this file (the trait), [`rows`] and [`event`] (what `apply` works with), [`script`] (how an author tests one
//! without a cluster), [`carried`] (how the engine handles all of them alike), [`keys`] (what is stored), [`line`] (one model on
//! one replica as a function of its store: batches, generations, taking over), [`models`] (the same for those who ask beside it),
//! [`projector`] (the task that feeds them), [`question`] (what is asked of a replica), [`door`] (what a user of the engine calls).
//! Who is asked stands in `engine/projections.rs`.
//!
//! A model is built in **generations**. A rebuild begins another one at the beginning of the feed, under keys of its own, while the
//! first goes on answering; when it has come as far, it takes over with one write, and the rows of the other are removed in
//! steps. Where both are of the same version their digests are compared at that moment.

pub(crate) mod carried;
pub(crate) mod door;
pub mod event;
mod keys;
mod line;
pub(crate) mod models;
pub(crate) mod projector;
pub mod question;
pub mod rows;
pub mod script;
#[cfg(test)]
mod tests;

use serde::{Serialize, de::DeserializeOwned};

pub use door::ModelRows;
pub use event::ProjectedEvent;
pub use question::{GenerationView, Projected, ProjectionView, QueryOptions, RebuildBegun, ReplicaModel};
pub use rows::{Rows, key, last_part, prefix};

/// A read model.
///
/// All functions are pure: no clock, no randomness, no input or output, no maps without order. The same events make the same
/// bytes on every replica and in every rebuild.
///
/// ```
/// use cluster::{Entity, projection::{ProjectedEvent, Projection, Rows, script::Folded}};
/// # use cluster::{Context, Decision, NoToken, Outcome};
/// # use serde::{Deserialize, Serialize};
/// # struct Account;
/// # #[derive(Debug, Clone, Default, Serialize, Deserialize)]
/// # struct State;
/// # #[derive(Debug, Clone, Serialize, Deserialize)]
/// # enum Event { Deposited(u64) }
/// # impl Entity for Account {
/// #     const KIND: &'static str = "account";
/// #     type State = State;
/// #     type Command = u64;
/// #     type Event = Event;
/// #     type Reply = ();
/// #     type Rejection = ();
/// #     type Token = NoToken;
/// #     fn decide(_: &State, amount: u64, _: &Context) -> Result<Decision<Self>, ()> {
/// #         Ok(Decision::reply(()).event(Event::Deposited(amount)))
/// #     }
/// #     fn evolve(_: &mut State, _: &Event) {}
/// #     fn resume(token: NoToken, _: Outcome) -> u64 { match token {} }
/// # }
/// /// The richest accounts.
/// struct Richest;
///
/// impl Projection for Richest {
///     const NAME: &'static str = "richest";
///     const VERSION: u32 = 1;
///     const KINDS: &'static [&'static str] = &[Account::KIND];
///     type Query = usize;
///     type Partial = Vec<(u64, String)>;
///     type Answer = Vec<(u64, String)>;
///
///     fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
///         if let Some(Event::Deposited(amount)) = event.of::<Account>() {
///             rows.update(event.id(), |balance: &mut u64| *balance += amount);
///         }
///     }
///
///     fn query(rows: &Rows<'_>, count: &usize) -> Self::Partial {
///         let mut all = Vec::new();
///         rows.scan("", None, |id, balance: u64| {
///             all.push((balance, String::from_utf8_lossy(id).into_owned()));
///             true
///         });
///         Self::merge(vec![all], count)
///     }
///
///     fn merge(parts: Vec<Self::Partial>, count: &usize) -> Self::Answer {
///         let mut all = parts.concat();
///         all.sort_by(|a, b| b.cmp(a));
///         all.truncate(*count);
///         all
///     }
/// }
///
/// let mut bank = Folded::<Richest>::new(4);
/// bank.given::<Account>("ann", 0, &Event::Deposited(5));
/// bank.given::<Account>("bob", 0, &Event::Deposited(7));
/// assert_eq!(bank.query(&1), Ok(vec![(7, "bob".to_owned())]));
/// ```
///
/// A cluster carries it once it is registered: `Registry::new().with::<Account>().with_projection::<Richest>()`. Then
/// `cluster.query::<Richest>(&10, &QueryOptions::default(), &request)` is all that a caller writes.
pub trait Projection: Send + Sync + 'static {
    /// Its name, 1 to 64 of `a-z`, `0-9` and `-`; fixed for ever.
    const NAME: &'static str;
    /// Raise it with every change of what `apply` makes of the same events: the model is then built anew beside the old one.
    const VERSION: u32;
    /// The kinds of entities whose events feed it.
    const KINDS: &'static [&'static str];
    /// What can be asked.
    type Query: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// One shard's part of an answer, at most [`question::PART_BYTES_MAX`] of it.
    type Partial: Serialize + DeserializeOwned + Send + 'static;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Says what is wrong with a question, before any shard is asked.
    fn check(_query: &Self::Query) -> Result<(), String> {
        Ok(())
    }

    /// Takes an event in. Sees the rows of one shard: those that events of entities of this shard have made.
    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>);

    /// Answers of one shard.
    fn query(rows: &Rows<'_>, query: &Self::Query) -> Self::Partial;

    /// Makes one answer of the parts of all shards, which come in the order of the shards.
    fn merge(parts: Vec<Self::Partial>, query: &Self::Query) -> Self::Answer;
}
