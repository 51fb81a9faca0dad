//! The one door to the engine.

use std::time::Duration;

use proto::cluster::v1 as pb;
use tonic::service::Routes;

use crate::{
    config::Config,
    entity::{Entity, EntityKey, Registry, RequestId},
    error::{AskError, Error},
    service::Services,
    trace::TraceContext,
};

/// What every call carries beside its content.
#[derive(Debug, Clone)]
pub struct Request {
    /// The idempotency key.
    pub id: RequestId,
    /// How long the caller waits.
    pub timeout: Duration,
    /// What caused the call.
    pub trace: TraceContext,
}

/// An entity's state, and after how many events.
#[derive(Debug, Clone)]
pub struct Versioned<S> {
    /// The number of events.
    pub version: u64,
    /// What they add up to.
    pub state: S,
    /// The events after the asked version, where they were asked for.
    pub events: Vec<EventRecord>,
}

/// A stored event, for people.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The entity's version after it; the first event has 1.
    pub version: u64,
    /// The event's name.
    pub name: String,
    /// The event as JSON.
    pub json: serde_json::Value,
    /// When it was decided, by the leader's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The request that caused it.
    pub request_id: String,
    /// The trace it belongs to.
    pub trace: TraceContext,
}

/// What a read waits for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Wait until the version is greater than this, at most until the deadline; then the state is given as it is.
    pub newer_than: Option<u64>,
    /// Also the events after this version.
    pub events_after: Option<u64>,
}

/// A running node's engine; a cheap handle.
#[derive(Clone)]
pub struct Cluster;

#[allow(clippy::unused_async, unused_variables, missing_docs, clippy::unimplemented)]
impl Cluster {
    /// Opens the data folder, joins the peers, serves. Returns once the node takes part.
    pub async fn start(config: Config, kinds: Registry, services: Services) -> Result<Self, StartError> {
        unimplemented!()
    }
    /// The gRPC service that peers talk to; the node mounts it on its one server.
    pub fn peer_routes(&self) -> Routes {
        unimplemented!()
    }
    /// Waits until every shard has a leader that this node can reach.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Error> {
        unimplemented!()
    }
    /// Sends a command; resolves once its events are durable on a majority, or with the same reply as before for a
    /// request id seen before. Retries inside while the deadline allows.
    pub async fn ask<E: Entity>(
        &self,
        id: &str,
        command: &E::Command,
        request: &Request,
    ) -> Result<E::Reply, AskError<E::Rejection>> {
        unimplemented!()
    }
    /// A linearizable read. An entity without events has version 0 and the default state.
    pub async fn read<E: Entity>(
        &self,
        id: &str,
        options: ReadOptions,
        request: &Request,
    ) -> Result<Versioned<E::State>, Error> {
        unimplemented!()
    }
    /// One entity of any kind for people.
    pub async fn show(&self, key: &EntityKey, request: &Request) -> Result<pb::ShowEntityResponse, Error> {
        unimplemented!()
    }
    pub async fn status(&self) -> pb::StatusResponse {
        unimplemented!()
    }
    pub async fn digests(&self) -> pb::DigestsResponse {
        unimplemented!()
    }
    /// Entities of a shard, read from its leader.
    pub async fn scan(
        &self,
        shard: u32,
        kind: &str,
    ) -> Result<tokio::sync::mpsc::Receiver<Result<pb::ScannedEntity, Error>>, Error> {
        unimplemented!()
    }
    /// Hands leaderships over, syncs, closes.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("the data folder cannot be used: {0}")]
    Data(String),
    /// The configuration is wrong.
    #[error("the configuration is wrong: {0}")]
    Config(String),
}
