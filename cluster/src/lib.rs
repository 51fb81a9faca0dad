//! Playhouse's engine: durable, replicated, supervised actors. Knows no domain.
//!
//! An author implements [`Entity`]: two pure functions, one that decides commands and one that takes events into a state. The
//! engine gives each entity one writer at a time, makes its events durable on a majority of nodes before anyone sees a reply,
//! takes the same request once, carries its effects out until they are acknowledged, and brings it back elsewhere when its
//! node is gone.
//!
//! ```
//! use cluster::{Context, Decision, Entity, NoToken, Outcome, Registry, script::Script};
//! use serde::{Deserialize, Serialize};
//!
//! /// A counter that stops at three.
//! struct Counter;
//!
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! struct Add;
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! struct Added;
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! struct Full;
//!
//! impl Entity for Counter {
//!     const KIND: &'static str = "counter";
//!     type State = u64;
//!     type Command = Add;
//!     type Event = Added;
//!     type Reply = u64;
//!     type Rejection = Full;
//!     type Token = NoToken;
//!
//!     fn decide(count: &u64, _: Add, _: &Context) -> Result<Decision<Self>, Full> {
//!         if *count == 3 { Err(Full) } else { Ok(Decision::reply(count + 1).event(Added)) }
//!     }
//!
//!     fn evolve(count: &mut u64, _: &Added) {
//!         *count += 1;
//!     }
//!
//!     fn resume(token: NoToken, _: Outcome) -> Add {
//!         match token {}
//!     }
//! }
//!
//! // Tested without a cluster,
//! Script::<Counter>::new("a").given([Added, Added]).when(Add).then_reply(3).when(Add).then_rejected(Full);
//! // and carried by every node that has it in its registry.
//! let registry = Registry::new().with::<Counter>();
//! # drop(registry);
//! ```
//!
//! | for | see |
//! | --- | --- |
//! | writing entities | [`Entity`], [`Decision`], [`Effect`], [`Outcome`], [`entity::timer`] |
//! | writing sagas, as a table of do and undo | [`saga::Saga`] |
//! | running a node | [`Cluster::start`], [`Config`], [`Services`] |
//! | asking and reading | [`Cluster::ask`], [`Cluster::read`], [`ReadOptions`], [`VersionToken`] |
//! | testing one entity | [`script::Script`], [`script::golden`] |
//! | testing all of them under faults | `simulation::Simulation`, with the feature `simulation` |
//! | testing and trying over real sockets and disks | [`LocalCluster`] |
//! | how failures are met | [`supervision::Policy`], [`Error`], [`AskError`] |
//!
//! `docs/entities.md` in the repository walks through an application of one's own.

#![deny(missing_docs)]

mod admission;
mod clock;
pub mod cluster;
mod codec;
pub mod config;
mod engine;
pub mod entity;
pub mod error;
pub mod faults;
pub mod feed;
pub mod history;
#[cfg(test)]
mod inputs;
mod journal;
pub mod local;
mod membership;
pub mod metrics;
mod placement;
pub mod projection;
mod replication;
pub mod saga;
pub mod schema;
pub mod service;
mod shard;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod spans;
mod store;
pub mod supervision;
mod token;
pub mod trace;
mod transport;

pub use admission::tenants::Tenant;
pub use cluster::{Cluster, Consistency, ReadOptions, Request, StartError, Told, Versioned};
pub use config::Config;
pub use entity::script;
pub use entity::{Answer, Context, Decision, Effect, Entity, EntityKey, NoToken, Outcome, Registry, RequestId};
pub use error::{AskError, Error};
pub use history::Caller;
pub use local::{LocalBuilder, LocalCluster};
pub use projection::{Projected, ProjectedEvent, Projection, QueryOptions, Rows};
pub use schema::{JsonSchema, Schema, Stored, Upcast, schemars};
pub use service::{CallError, Service, ServiceCall, Services};
pub use token::{TokenError, VersionToken};
pub use trace::{SpanRecord, SpanSink, TraceContext};
