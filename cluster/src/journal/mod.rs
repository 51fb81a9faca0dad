//! A shard's durable order and the state that follows from it.
//!
//! Reading order: [`record`] (what one append makes durable), [`shard`] (the state of a shard: applies records, answers
//! reads), [`loading`] (what is needed to bring an entity to life), [`rebuild`] (its state from all of its events), [`history`] (its records,
//! page by page), [`forget`] (how all or the beginning of it is let go), [`timers`] (what records do to timers), [`quarantine`]
//! (which entities are put aside), [`outbox`] (effects that are open), [`tail`] (what was applied since the last checkpoint),
//! [`checkpoint`] (how the tail reaches the state store), [`feed`] (the order of all events of the shard), [`keys`] (every stored key
//! and value with its layout), [`chain`] (how deep a command is in a chain of effects), [`senders`] (which effects of others an
//! entity has taken).
//!
//! All of it is pure but for the [`StateStore`](crate::store::StateStore) it is given: the same code runs in a node and in
//! the simulation, on every replica, and gives the same result everywhere.

pub(crate) mod chain;
pub(crate) mod checkpoint;
pub(crate) mod feed;
pub(crate) mod forget;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod loading;
pub(crate) mod outbox;
pub(crate) mod quarantine;
pub(crate) mod rebuild;
pub(crate) mod record;
pub(crate) mod senders;
pub(crate) mod shard;
pub(crate) mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod timers;

pub(crate) use chain::Chain;
pub(crate) use forget::{Forgotten, Tombstone, Trimmed};
pub(crate) use loading::LoadedEntity;
pub(crate) use quarantine::{Lift, Quarantined};
pub(crate) use record::{Decided, EffectId, OutboxRow, Record, Reply, StoredEffect};
pub(crate) use senders::{Origin, TakenEffects};
pub(crate) use shard::Shard;
pub(crate) use timers::{Firing, TimerKey, TimerRow};
