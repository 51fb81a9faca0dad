//! Playhouse's engine: durable, replicated, supervised actors. Knows no domain.

mod admission;
mod clock;
pub mod cluster;
mod codec;
pub mod config;
mod engine;
pub mod entity;
pub mod error;
pub mod feed;
mod journal;
mod membership;
mod placement;
pub mod projection;
mod replication;
pub mod schema;
pub mod service;
mod shard;
#[cfg(test)]
mod simulation;
mod spans;
mod store;
pub mod supervision;
mod token;
pub mod trace;
mod transport;

pub use admission::tenants::Tenant;
pub use cluster::{Cluster, Consistency, ReadOptions, Request, StartError, Told, Versioned};
pub use config::Config;
pub use entity::{Answer, Context, Decision, Effect, Entity, EntityKey, NoToken, Outcome, Registry, RequestId};
pub use error::{AskError, Error};
pub use projection::{Projected, ProjectedEvent, Projection, QueryOptions, Rows};
pub use schema::{JsonSchema, Schema, Stored, Upcast, schemars};
pub use service::{CallError, Service, ServiceCall, Services};
pub use token::{TokenError, VersionToken};
pub use trace::{SpanRecord, SpanSink, TraceContext};
