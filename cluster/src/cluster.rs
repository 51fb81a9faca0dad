//! The one door to the engine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::cluster::v1 as pb;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tonic::{service::Routes, transport::Channel};

use crate::{
    admission::Tenant,
    config::{Config, NodeId},
    engine::{Engine, read::Query},
    entity::{Entity, EntityKey, Registry, RequestId, release::Release},
    error::{AskError, Error},
    faults::Faults,
    feed::{
        ConsumeOptions, Consumer, Start, SubscribeOptions, Subscription,
        groups::{DeadLetterView, GroupView},
    },
    history::Caller,
    journal::keys::fnv,
    membership::Standing,
    metrics::{CommandEnd, Figures},
    schema::{Part, SchemaCheck, SchemaView, versioned},
    service::Services,
    shard::shard_of,
    supervision::Forced,
    token::VersionToken,
    trace::TraceContext,
    transport::{
        FRAME_BYTES_MAX,
        outcome::{EventView, StateView},
        server::PeerServer,
    },
};

pub use crate::engine::read::Consistency;

/// What every call carries beside its content.
#[derive(Debug, Clone)]
pub struct Request {
    /// The idempotency key.
    pub id: RequestId,
    /// How long the caller waits.
    pub timeout: Duration,
    /// What caused the call.
    pub trace: TraceContext,
    /// On whose behalf: no tenant may take what others need.
    pub tenant: Tenant,
    /// Who asks, for the record.
    pub caller: Caller,
    /// Of what the caller sent, so that another command under the same request id is refused and not answered with the first
    /// one's reply. 0 compares nothing. Take it of what stays the same when the caller repeats: see [`fingerprint`].
    pub fingerprint: u64,
}

impl Request {
    /// A request on nobody's behalf, which nothing caused.
    pub fn new(id: RequestId, timeout: Duration) -> Self {
        Self {
            id,
            timeout,
            trace: TraceContext::default(),
            tenant: Tenant::default(),
            caller: Caller::default(),
            fingerprint: 0,
        }
    }

    /// What its records say of who asked: tenant and caller; `None` where neither is named.
    pub(crate) fn asked_by(&self) -> Option<Arc<str>> {
        self.caller.of(&self.tenant)
    }
}

/// The fingerprint of what a caller sent; never 0.
pub fn fingerprint(sent: &[u8]) -> u64 {
    fnv(sent).max(1)
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
    /// A read that presents this sees at least as much.
    pub token: VersionToken,
    /// Everything that was acknowledged so long before it was read is part of it. Zero for a linearizable read, which has
    /// everything acknowledged before the call; `None` where the answering replica does not know.
    pub staleness: Option<Duration>,
    /// Who answered.
    pub node: NodeId,
}

/// What a command was answered.
#[derive(Debug, Clone)]
pub struct Told<E: Entity> {
    /// The reply, or the rejection.
    pub answer: Result<E::Reply, E::Rejection>,
    /// A read that presents this sees at least what the answer rests on.
    pub token: VersionToken,
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
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Wait until the version is greater than this, at most until the deadline; then the state is given as it is.
    pub newer_than: Option<u64>,
    /// Also the events after this version.
    pub events_after: Option<u64>,
    /// How new it must be. A read that waits (`newer_than`) is always linearizable.
    pub consistency: Consistency,
    /// What is read is at least as new as these, as far as they are of the entity's shard.
    pub after: Vec<VersionToken>,
}

/// A running node's engine; a cheap handle.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) engine: Arc<Engine>,
}

impl Cluster {
    /// Opens the data folder and begins to take part. Returns as soon as peers can be served ([`Cluster::add_peer_service`]);
    /// [`Cluster::ready`] waits for the rest.
    pub async fn start(config: Config, kinds: Registry, services: Services) -> Result<Self, StartError> {
        let engine = Engine::start(config, kinds, services).await?;
        Ok(Self { engine })
    }

    /// For the doors that stand beside what they open.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Adds the gRPC service that peers talk to; the node serves it on its one port.
    #[must_use]
    pub fn add_peer_service(&self, routes: Routes) -> Routes {
        let server = PeerServer {
            engine: Arc::downgrade(&self.engine),
        };
        routes.add_service(
            pb::peer_server::PeerServer::new(server)
                .max_decoding_message_size(FRAME_BYTES_MAX)
                .max_encoding_message_size(FRAME_BYTES_MAX),
        )
    }

    /// What may be made wrong with this node, for trials; `None` unless [`Config::chaos`] allows it.
    pub fn faults(&self) -> Option<&Faults> {
        self.engine.faults()
    }

    /// Waits until every shard has a leader that this node knows of.
    pub async fn ready(&self, timeout: Duration) -> Result<(), Error> {
        self.engine.ready(timeout).await
    }

    /// Sends a command; resolves once its events are durable on a majority, or with the same reply as before for a
    /// request id that was seen before. Finds the leader and asks again by itself while the time allows.
    pub async fn ask<E: Entity>(
        &self,
        id: &str,
        command: &E::Command,
        request: &Request,
    ) -> Result<E::Reply, AskError<E::Rejection>> {
        let told = self.ask_at::<E>(id, command, request).await?;
        told.answer.map_err(AskError::Rejected)
    }

    /// The same; says also how far the entity's shard had come, for reads that must see what was answered.
    pub async fn ask_at<E: Entity>(&self, id: &str, command: &E::Command, request: &Request) -> Result<Told<E>, Error> {
        let key = key_of::<E>(id)?;
        let command = self.engine.fit(&key, versioned::encode::<E>(Part::Command, command));
        let begun = Instant::now();
        let asked = self.engine.ask(&key, command, request).await;
        (self.engine.meters())
            .tell(|meter| meter.command(CommandEnd::of(&asked, |(reply, _)| reply.is_ok()), begun.elapsed()));
        let (reply, token) = asked?;
        let answer = match reply {
            Ok(reply) => Ok(read_back::<E, _>(&key, Part::Reply, &reply)?),
            Err(rejection) => Err(read_back::<E, _>(&key, Part::Rejection, &rejection)?),
        };
        Ok(Told { answer, token })
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        self.engine.node()
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.engine.shards()
    }

    /// A read, linearizable unless the options say otherwise. An entity without events has version 0 and the default
    /// state.
    pub async fn read<E: Entity>(
        &self,
        id: &str,
        options: ReadOptions,
        request: &Request,
    ) -> Result<Versioned<E::State>, Error> {
        let key = key_of::<E>(id)?;
        let view = self.view(&key, &options, request).await?;
        Ok(Versioned {
            version: view.version,
            state: read_back::<E, _>(&key, Part::State, &view.state)?,
            events: self.events(&key, view.events)?,
            token: view.token,
            staleness: view.age_us.map(Duration::from_micros),
            node: view.node,
        })
    }

    async fn view(&self, key: &EntityKey, options: &ReadOptions, request: &Request) -> Result<StateView, Error> {
        let query = Query {
            newer_than: options.newer_than,
            events_after: options.events_after,
            ..Query::default()
        };
        let wanted = (options.consistency, &options.after[..]);
        let view = self.engine.read(key, query, wanted, request).await?;
        Ok(self.engine.as_own(key, query, view, request).await)
    }

    /// One entity of any kind, for people, as it is now.
    pub async fn show(&self, key: &EntityKey, request: &Request) -> Result<pb::ShowEntityResponse, Error> {
        let shown = self.show_with(key, ReadOptions::default(), request).await;
        shown.map(|(shown, _)| shown)
    }

    /// The same as a read like others, with its token. Open effects and timers come from the leader, and not with a stale
    /// read.
    pub async fn show_with(
        &self,
        key: &EntityKey,
        options: ReadOptions,
        request: &Request,
    ) -> Result<(pb::ShowEntityResponse, VersionToken), Error> {
        let options = ReadOptions {
            events_after: Some(0),
            ..options
        };
        let view = self.view(key, &options, request).await?;
        let token = view.token;
        let (outbox, timers) = match options.consistency {
            Consistency::Stale(_) => (Vec::new(), Vec::new()),
            Consistency::Linearizable | Consistency::Tokens => (
                self.engine.outbox_of(key, request.trace, request.timeout).await?,
                self.engine.timers_of(key).await,
            ),
        };
        let shard = shard_of(key, self.engine.shards());
        let route = self.engine.route(shard);
        let events = self.events(key, view.events)?;
        let shown = pb::ShowEntityResponse {
            kind: key.kind.to_string(),
            id: key.id.to_string(),
            shard,
            leader: route.leader.map_or(0, u32::from),
            term: route.term,
            version: view.version,
            state_json: self.json(key, &view.state)?,
            events: events
                .into_iter()
                .map(|event| pb::EventView {
                    version: event.version,
                    name: event.name,
                    json: event.json.to_string(),
                    at_unix_ms: event.at_ms,
                    request_id: event.request_id,
                    trace_id: if event.trace.is_some() {
                        event.trace.trace_hex()
                    } else {
                        String::new()
                    },
                })
                .collect(),
            outbox: outbox
                .into_iter()
                .map(|effect| pb::EffectView {
                    id: effect.id,
                    target: effect.target,
                    json: effect.json,
                    attempts: effect.attempts,
                    waits_for: effect.waits_for,
                })
                .collect(),
            timers,
            answered_by: u32::from(view.node),
            staleness_us: view.age_us,
        };
        Ok((shown, token))
    }

    /// Begins a subscription to the events of the cluster; see [`feed`](crate::feed).
    pub async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, Error> {
        self.engine.subscribe(options).await
    }

    /// Joins a consumer group, and creates it if there is none of that name; see [`feed`](crate::feed).
    pub async fn consume(&self, options: ConsumeOptions) -> Result<Consumer, Error> {
        self.engine.consume(options).await
    }

    /// All consumer groups, without the ends of their shards.
    pub async fn groups(&self) -> Result<Vec<GroupView>, Error> {
        self.engine.groups().await
    }

    /// A consumer group; `None` if there is none of that name.
    pub async fn group(&self, name: &str) -> Result<Option<GroupView>, Error> {
        self.engine.group(name).await
    }

    /// Lets a group go on from elsewhere: in these shards, or in all of them if there are none.
    pub async fn reset_group(&self, name: &str, start: &Start, shards: &[u32]) -> Result<(), Error> {
        self.engine.reset_group(name, start, shards).await
    }

    /// Deletes a group without members.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        self.engine.delete_group(name).await
    }

    /// What a group has put aside, the oldest first; `None` if there is no such group.
    pub async fn dead_letters(&self, group: &str) -> Result<Option<Vec<DeadLetterView>>, Error> {
        self.engine.dead_letters(group).await
    }

    /// One dead letter with its events; `None` if there is no such group or letter.
    pub async fn dead_letter(&self, group: &str, id: u64) -> Result<Option<DeadLetterView>, Error> {
        self.engine.dead_letter(group, id).await
    }

    /// Hands a dead letter to its group once more, or skips it for good.
    pub async fn lift_dead_letter(&self, group: &str, id: u64, skip: bool) -> Result<(), Error> {
        self.engine.lift_dead_letter(group, id, skip).await
    }

    /// What the cluster's journal may hold, and the build of each node, as this node last heard it.
    pub fn schema(&self) -> SchemaView {
        self.engine.schema()
    }

    /// What would come of a node with a build whose [`Registry::schema_json`] this is.
    pub fn check_schema(&self, schema_json: &str) -> Result<SchemaCheck, Error> {
        self.engine.check_schema(schema_json)
    }

    /// The whole cluster, as far as it can be reached from this node.
    pub async fn status(&self) -> pb::StatusResponse {
        self.engine.status().await
    }

    /// This node's gauges and counters.
    pub async fn figures(&self) -> Figures {
        self.engine.figures().await
    }

    /// The other members, each with a connection for calls of services that they serve. Connects when it is first used.
    pub fn peers(&self) -> Vec<(NodeId, Channel)> {
        self.engine.peer_channels()
    }

    /// The most urgent timers of all shards, at most `limit` of them (0 for a usual number).
    pub async fn timers(&self, limit: u32) -> pb::ListTimersResponse {
        self.engine.timers(limit).await
    }

    /// What each replica of each shard holds, at positions that all of them have reached.
    pub async fn digests(&self) -> pb::DigestsResponse {
        self.engine.digests().await
    }

    /// The entities of a shard (of one kind, or of all if `kind` is empty), read from its leader.
    pub async fn scan(
        &self,
        shard: u32,
        kind: &str,
    ) -> Result<mpsc::Receiver<Result<pb::ScannedEntity, Error>>, Error> {
        let mut rows = self.engine.scan(shard, kind, "").await?;
        let (sender, receiver) = mpsc::channel(SCAN_AHEAD_LEN);
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Some(page) = rows.recv().await {
                let entities: Vec<Result<pb::ScannedEntity, Error>> = match page {
                    Ok(page) => page.rows.into_iter().map(|row| cluster.scanned(row)).collect(),
                    Err(error) => vec![Err(error)],
                };
                for entity in entities {
                    if sender.send(entity).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }

    /// Changes what a node is used for. What follows from it is seen in the status; a rejection says why not, in words.
    pub async fn set_standing(&self, request: pb::SetStandingRequest) -> Result<(), AskError<String>> {
        let with_fewer_copies = request.with_fewer_copies;
        let standing = match request.standing() {
            pb::Standing::Unspecified => {
                return Err(AskError::Engine(Error::Invalid {
                    field: "standing".to_owned(),
                    reason: "must be given".to_owned(),
                }));
            }
            pb::Standing::Serving => Standing::Serving,
            pb::Standing::Cordoned => Standing::Cordoned,
            pb::Standing::Draining => Standing::Draining { with_fewer_copies },
            pb::Standing::Leaving => Standing::Leaving { with_fewer_copies },
        };
        self.engine
            .set_standing(request.node, standing)
            .await
            .map_err(|error| match error {
                AskError::Rejected(rejection) => AskError::Rejected(rejection.to_string()),
                AskError::Engine(error) => AskError::Engine(error),
            })
    }

    /// Gives leaderships away and takes none from now on. Calls are still taken, and forwarded to where they belong.
    pub async fn hand_over(&self) {
        self.engine.hand_over().await;
    }

    /// How failures are met, on the node that is asked.
    pub fn policies(&self) -> pb::SupervisionResponse {
        pb::SupervisionResponse {
            policies: self.engine.policies(),
        }
    }

    /// Entities that are quarantined or fail just now, as far as the cluster can be reached from this node.
    pub async fn quarantined(&self) -> pb::ListQuarantineResponse {
        self.engine.all_quarantine().await
    }

    /// All that is known of an entity's quarantine; `None` if it never had one.
    pub async fn show_quarantine(
        &self,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::ShowQuarantineResponse>, Error> {
        self.engine.show_quarantine(key, request.trace, request.timeout).await
    }

    /// Decides the command of a quarantined entity once more: if that succeeds, the quarantine is lifted. `None` if the
    /// entity has none. Idempotent under the request id.
    pub async fn retry_quarantined(
        &self,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::LiftQuarantineResponse>, Error> {
        self.engine
            .lift_quarantine(key, Release::Retry, &request.id, request.trace, request.timeout)
            .await
    }

    /// Lifts an entity's quarantine and skips its command for good: whoever repeats it is told so. `None` if the entity has
    /// no quarantine. Idempotent under the request id.
    pub async fn skip_quarantined(
        &self,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::LiftQuarantineResponse>, Error> {
        self.engine
            .lift_quarantine(key, Release::Skip, &request.id, request.trace, request.timeout)
            .await
    }

    /// Forces the breaker to a dependency outside open or closed on all nodes, or lets it follow the calls again.
    pub async fn force_breaker(&self, dependency: &str, forced: Forced, request: &Request) -> Result<(), Error> {
        self.engine
            .force_breaker(dependency, forced, &request.id, request.trace, request.timeout)
            .await
    }

    /// Gives leaderships away, makes a last checkpoint, closes.
    pub async fn shutdown(&self) {
        self.engine.shutdown().await;
    }

    /// Ends at once, as a kill would; waits for the threads.
    pub(crate) fn halt(&self) {
        self.engine.halt();
    }

    fn scanned(&self, row: pb::ScanRow) -> Result<pb::ScannedEntity, Error> {
        let key = EntityKey::new(&row.kind, &row.id).map_err(|error| Error::key("id", &error))?;
        Ok(pb::ScannedEntity {
            state_json: self.json(&key, &row.state)?,
            kind: row.kind,
            id: row.id,
            version: row.version,
            outbox: row.outbox,
        })
    }

    fn json(&self, key: &EntityKey, state: &[u8]) -> Result<String, Error> {
        let kind = self.engine.registry().get(&key.kind).ok_or_else(|| unknown_kind(key))?;
        kind.state_json(state)
            .map(|json| json.to_string())
            .map_err(|error| unreadable(key, &error))
    }

    fn events(&self, key: &EntityKey, events: Vec<EventView>) -> Result<Vec<EventRecord>, Error> {
        let kind = self.engine.registry().get(&key.kind).ok_or_else(|| unknown_kind(key))?;
        events
            .into_iter()
            .map(|event| {
                let (name, json) = kind.event_json(&event.event).map_err(|error| unreadable(key, &error))?;
                Ok(EventRecord {
                    version: event.version,
                    name,
                    json,
                    at_ms: event.at_ms,
                    request_id: event.request,
                    trace: event.trace,
                })
            })
            .collect()
    }
}

/// Scanned entities that may wait for whoever asked.
const SCAN_AHEAD_LEN: usize = 1024;

fn key_of<E: Entity>(id: &str) -> Result<EntityKey, Error> {
    EntityKey::new(E::KIND, id).map_err(|error| Error::key("id", &error))
}

fn read_back<E: Entity, T: DeserializeOwned>(key: &EntityKey, part: Part, bytes: &[u8]) -> Result<T, Error> {
    versioned::decode::<E, T>(part, bytes).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &EntityKey, error: &dyn std::error::Error) -> Error {
    Error::Failed {
        entity: key.to_string(),
        reason: format!("its stored form cannot be read by this build: {error}"),
    }
}

fn unknown_kind(key: &EntityKey) -> Error {
    Error::Invalid {
        field: "kind".to_owned(),
        reason: format!("{:?} is not a kind of entity this cluster carries", key.kind),
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
    /// The cluster does not let this node in.
    #[error("the cluster does not let this node in: {0}")]
    Join(String),
    /// This build cannot read what is in the data folder, or may be in it.
    #[error("{0}")]
    Schema(String),
}
