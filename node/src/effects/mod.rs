//! The outside, as the engine's effects reach it: one file a service, each with its own breaker, limits and policy.
//!
//! [`payment`] is the payment provider and [`policy`] how it is called; [`breaker`] and [`retry_budget`] are what every
//! service needs.

pub(crate) mod breaker;
pub(crate) mod payment;
pub mod policy;
pub(crate) mod retry_budget;
