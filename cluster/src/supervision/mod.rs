//! What happens when something fails again and again: one policy for each kind of entity and each dependency outside.
//!
//! Reading order: [`policy`] (the one visible object), [`contain`] (how a panic of an entity is caught with its place and
//! its backtrace), [`breaker`] (the state machine: closed, open, one probe), [`failures`] (what a leader knows of entities
//! that fail: restarts with backoff, and which of them are to be quarantined), [`guard`] (breaker and bulkhead of one
//! dependency outside), [`dependency`] (the built-in entity that makes a breaker known to the whole cluster).
//!
//! What is quarantined stands in the shard's journal: [`crate::journal::quarantine`].

pub mod breaker;
pub(crate) mod contain;
pub(crate) mod dependency;

pub(crate) mod failures;
pub mod guard;
pub mod policy;

pub use breaker::{BreakerState, Forced, Phase};
pub use guard::{Guard, Permit, Refused};
pub use policy::{Overrides, Policy, PolicyFault};
