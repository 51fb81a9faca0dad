//! A node's engine: what stands between the one door ([`crate::Cluster`]) and the shards.
//!
//! Reading order: this file (what it holds), [`start`] (how it comes to life and ends), [`call`] (how a command or a read
//! finds its leader), [`upkeep`] (snapshots to fetch, leaders and members to move), [`status`] and [`timers`] (what
//! it tells people).

mod call;
mod start;
mod status;
mod timers;
mod upkeep;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::Mutex;
use proto::cluster::v1 as pb;
use tokio::sync::watch;

use crate::{
    config::{Config, Limits, NodeId},
    entity::Registry,
    service::Services,
    shard::{
        checkpointer,
        mailbox::Mailbox,
        replica::{Replica, Route},
    },
    spans::Spans,
    store::{
        identity::{Identity, KnownPeer},
        log::Log,
        state::StateDb,
    },
    transport::links::Links,
};

/// Where snapshots for peers are kept, in the data folder.
const SNAPSHOTS: &str = "snapshots";

/// A node's engine.
pub(crate) struct Engine {
    config: Config,
    registry: Registry,
    services: Services,
    spans: Spans,
    identity: Arc<Identity>,
    mailbox: Arc<Mailbox>,
    links: Arc<Links>,
    log: Arc<Log>,
    db: Arc<StateDb>,
    /// This node's shards; set once it takes part.
    replicas: OnceLock<BTreeMap<u32, Arc<Replica>>>,
    routes: Vec<watch::Sender<Route>>,
    next_generation: AtomicU64,
    in_flight: AtomicUsize,
    /// Gives its leaderships away and takes none.
    leaving: AtomicBool,
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

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
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

    fn replica(&self, shard: u32) -> Option<&Arc<Replica>> {
        self.replicas.get()?.get(&shard)
    }

    /// Takes note of a peer that introduces itself.
    pub(crate) fn introduce(&self, hello: pb::HelloRequest) -> Result<pb::HelloResponse, String> {
        let node = NodeId::try_from(hello.node).unwrap_or_default();
        if self.config.address_of(node).is_none() {
            return Err(format!("node {} is not among the configured members", hello.node));
        }
        let peer = KnownPeer {
            nonce: hello.nonce,
            raft_id: hello.raft_id,
        };
        Ok(pb::HelloResponse {
            known_under_other_nonce: self.identity.introduce(node, peer)?,
            shards: self.config.shards,
        })
    }
}
