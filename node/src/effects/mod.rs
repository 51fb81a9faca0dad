//! The outside, as the engine's effects reach it: one file a service, each with its own limits and policy. Breaker
//! and bulkhead are the engine's, `cluster::supervision`.
//!
//! [`payment`] is the payment provider and [`policy`] how it is called; [`retry_budget`] is what every service
//! needs.

pub(crate) mod payment;
pub mod policy;
pub(crate) mod retry_budget;
