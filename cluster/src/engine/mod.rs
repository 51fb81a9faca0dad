//! A node's engine: what stands between the one door ([`crate::Cluster`]) and the shards.
//!
//! Reading order: this file (what it holds), [`start`] (how it comes to life and ends), [`folder`] (what is in its folder), [`call`] (how a command or a read
//! finds its leader), [`route`] (which node is asked), [`read`] (what a read asks for, and who may answer it), [`load`] (how much is let in), [`groups`] (the
//! replicas of this node), [`feed`] (who answers for the feed of a shard), [`projections`] (who answers of read models), [`upkeep`] (snapshots to fetch,
//! leaders and members to move), [`health`] (whether it is well enough to lead), [`roster`] (following the cluster's map, and changing it), [`schema`] (what the
//! members' builds can read), [`status`] and [`timers`] (what it tells people), [`history`] (what was recorded of an entity), [`forget`] (how it is
//! forgotten, and the proof of it), [`retention`] (how its beginning is let go), [`audit`] (who has looked at it).

mod any;
mod audit;
mod call;
mod detour;
mod feed;
mod folder;
pub(crate) mod forget;
mod groups;
mod health;
pub(crate) mod history;
mod load;
mod projections;
pub(crate) mod read;
mod refused;
mod retention;
mod roster;
mod route;
pub(crate) mod sagas;
pub(crate) mod schema;
mod start;
pub(crate) mod status;
mod supervision;
mod timers;
mod traced;
mod upkeep;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use audit::Auditor;
use bytes::Bytes;
use detour::Detours;
use parking_lot::Mutex;
use proto::cluster::v1 as pb;
use tokio::sync::{Semaphore, watch};

use crate::{
    admission::Admission,
    codec,
    config::{Config, Limits, NodeId},
    entity::Registry,
    faults::Faults,
    membership::Map,
    metrics::Meters,
    projection::projector::Projections,
    schema::fleet::Fleet,
    service::Services,
    shard::{
        checkpointer,
        live::LiveEntities,
        mailbox::Mailbox,
        replica::{Replica, Route},
        slots::Slots,
    },
    spans::Spans,
    store::{erase::Erasure, identity::Identity, log::Log, state::StateDb},
    transport::links::{Channel, Links},
};

/// Where snapshots for peers are kept, in the data folder.
const SNAPSHOTS: &str = "snapshots";

/// A node's engine.
pub(crate) struct Engine {
    config: Config,
    registry: Registry,
    services: Services,
    spans: Spans,
    meters: Meters,
    identity: Arc<Identity>,
    mailbox: Arc<Mailbox>,
    links: Arc<Links>,
    log: Arc<Log>,
    db: Arc<StateDb>,
    /// What was found in the data folder, until the replicas are made of it.
    found: Mutex<BTreeMap<u32, folder::Held>>,
    /// What is wrong with this node, where that is allowed.
    faults: Arc<Faults>,
    /// This node's replicas.
    replicas: Arc<Slots>,
    /// Who leads each shard, the system shard last.
    routes: Vec<watch::Sender<Route>>,
    detours: Detours,
    /// The cluster's map as this node last saw it, and its version.
    map: watch::Sender<Arc<(u64, Map)>>,
    /// Takes part: its replicas are open and its threads run.
    has_begun: AtomicBool,
    next_generation: AtomicU64,
    pub(crate) admission: Arc<Admission>,
    live: Arc<LiveEntities>,
    /// The read models of this node's replicas.
    projections: Projections,
    /// Subscriptions that may still begin.
    subscriptions: Arc<Semaphore>,
    /// Who has looked at what, and changed what by hand.
    auditor: Auditor,
    /// What is to be written anew at the next start.
    erasure: Arc<Erasure>,
    /// Room for histories that are read just now.
    histories: Semaphore,
    /// What the builds of the members can read.
    pub(crate) fleet: Arc<Fleet>,
    /// Chains of effects that were too deep, and the path of the last of them.
    chains_ended: AtomicU64,
    last_chain: Mutex<String>,
    /// Gives its leaderships away and takes none.
    leaving: AtomicBool,
    /// Why it leads nothing now, if so.
    unwell: Mutex<Option<String>>,
    /// Ends its streams.
    stopping: watch::Sender<bool>,
    started: Instant,
    checkpoints: OnceLock<mpsc::Sender<checkpointer::Request>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Engine {
    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn spans(&self) -> &Spans {
        &self.spans
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(crate) fn replicas(&self) -> &Slots {
        &self.replicas
    }

    pub(crate) fn live(&self) -> &LiveEntities {
        &self.live
    }

    pub(crate) fn chains_ended(&self) -> u64 {
        self.chains_ended.load(Ordering::Relaxed)
    }

    /// Whether another node can be reached.
    pub(crate) fn is_reached(&self, node: NodeId) -> bool {
        self.links.peer(node).is_some_and(|peer| peer.is_up())
    }

    /// The other members, each with a connection for single calls of whatever service.
    pub(crate) fn peer_channels(&self) -> Vec<(NodeId, Channel)> {
        (self.links.all().into_iter())
            .map(|(node, peer)| (node, peer.channel.clone()))
            .collect()
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    pub(crate) fn subscriptions(&self) -> &Arc<Semaphore> {
        &self.subscriptions
    }

    pub(crate) fn shards(&self) -> u32 {
        self.config.shards
    }

    pub(crate) fn snapshot_folder(&self) -> PathBuf {
        self.config.data.join(SNAPSHOTS)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the engine begins to stop.
    pub(crate) async fn until_stopping(&self) {
        // The sender lives as long as the engine.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// What may be made wrong with this node; `None` where that is not allowed.
    pub(crate) fn faults(&self) -> Option<&Faults> {
        self.config.chaos.then_some(&*self.faults)
    }

    fn replica(&self, shard: u32) -> Option<Arc<Replica>> {
        self.replicas.get(shard)
    }

    /// The cluster's map as this node last saw it.
    pub(crate) fn map(&self) -> MapView {
        MapView(Arc::clone(&self.map.borrow()))
    }

    fn own_address(&self) -> SocketAddr {
        self.config
            .address_of(self.config.node)
            .expect("the configuration was checked")
    }

    /// Takes note of a peer that introduces itself.
    pub(crate) fn introduce(&self, hello: &pb::HelloRequest) -> Result<pb::HelloResponse, String> {
        let node = NodeId::try_from(hello.node).unwrap_or_default();
        let map = self.map();
        let Some(member) = map.members.get(&node) else {
            return Err(format!(
                "node {} is no member of the cluster; to join it, name some members under `join` in its config file",
                hello.node
            ));
        };
        self.may_read(hello)?;
        let is_other = self.identity.introduce(node, hello.nonce, hello.has_begun)?;
        let is_other_to_all = member.nonce.is_some_and(|nonce| nonce != hello.nonce);
        Ok(pb::HelloResponse {
            known_under_other_nonce: is_other || is_other_to_all,
            shards: self.config.shards,
            is_unwell: self.unwell().is_some(),
            schema: if hello.has_begun {
                Bytes::new()
            } else {
                codec::encode(&**self.fleet.own())
            },
        })
    }
}

/// The cluster's map at some version.
pub(crate) struct MapView(Arc<(u64, Map)>);

impl MapView {
    /// How often it has changed.
    pub(crate) fn version(&self) -> u64 {
        self.0.0
    }
}

impl std::ops::Deref for MapView {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.0.1
    }
}

impl AsRef<Map> for MapView {
    fn as_ref(&self) -> &Map {
        &self.0.1
    }
}
