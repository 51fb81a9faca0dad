//! A shard's durable order and the state that follows from it.
//!
//! Reading order: [`record`] (what one append makes durable), [`shard`] (the state of a shard: applies records, answers
//! reads), [`timers`] (what records do to timers), [`quarantine`] (which entities are put aside), [`tail`] (what was applied
//! since the last checkpoint), [`checkpoint`] (how the tail reaches the state store),
//! [`keys`] (every stored key and value with its layout).
//!
//! All of it is pure but for the [`StateStore`](crate::store::StateStore) it is given: the same code runs in a node and in
//! the simulation, on every replica, and gives the same result everywhere.

pub(crate) mod checkpoint;
pub(crate) mod keys;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod shard;
pub(crate) mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod timers;

pub(crate) use quarantine::{Lift, Quarantined};
pub(crate) use record::{Decided, EffectId, OutboxRow, Record, Reply, StoredEffect};
pub(crate) use shard::{LoadedEntity, Shard};
pub(crate) use timers::{Firing, TimerKey, TimerRow};
