//! Playhouse's engine: durable, replicated, supervised actors. Knows no domain.

pub mod cluster;
mod codec;
pub mod config;
pub mod entity;
pub mod error;
mod journal;
mod replication;
pub mod service;
mod store;
pub mod trace;

pub use cluster::{Cluster, ReadOptions, Request, StartError, Versioned};
pub use config::Config;
pub use entity::{Answer, Context, Decision, Effect, Entity, EntityKey, NoToken, Outcome, Registry, RequestId};
pub use error::{AskError, Error};
pub use service::{CallError, Service, ServiceCall, Services};
pub use trace::{SpanRecord, SpanSink, TraceContext};
