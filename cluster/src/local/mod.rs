//! A cluster in one process, over real sockets and real disks: for tests and trials of an author's own entities.
//!
//! ```no_run
//! # use cluster::{Context, Decision, Entity, LocalCluster, NoToken, Outcome, Registry, Services};
//! # use serde::{Deserialize, Serialize};
//! # struct Door;
//! # #[derive(Debug, Clone, Default, Serialize, Deserialize)]
//! # struct State { open: bool }
//! # #[derive(Debug, Clone, Serialize, Deserialize)]
//! # enum Command { Open }
//! # impl Entity for Door {
//! #     const KIND: &'static str = "door";
//! #     type State = State;
//! #     type Command = Command;
//! #     type Event = ();
//! #     type Reply = ();
//! #     type Rejection = ();
//! #     type Token = NoToken;
//! #     fn decide(_: &State, _: Command, _: &Context) -> Result<Decision<Self>, ()> { Ok(Decision::reply(()).event(())) }
//! #     fn evolve(state: &mut State, _: &()) { state.open = true }
//! #     fn resume(token: NoToken, _: Outcome) -> Command { match token {} }
//! # }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut three = LocalCluster::start(3, Registry::new().with::<Door>(), Services::new()).await?;
//! three.ask::<Door>("front", &Command::Open).await?;
//! three.kill(1).await;
//! assert!(three.read::<Door>("front").await?.open);
//! three.restart(1).await?;
//! three.stop_all().await;
//! # Ok(())
//! # }
//! ```
//!
//! Each node has a runtime and a data folder of its own, as a process would; [`LocalCluster::kill`] ends one without a last word.
//! What only a kernel can show (a lost cache of the disk, a process that stands still) it does not show.

mod node;
mod ports;

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use crate::{
    cluster::{Cluster, ReadOptions, Request, StartError},
    config::{Config, Limits, Member, NodeId},
    entity::{Entity, Registry, RequestId},
    error::{AskError, Error},
    service::Services,
    trace::TraceContext,
};

pub use node::LocalNode;
pub use ports::free_addresses;

/// How long [`LocalCluster::start`] and [`LocalCluster::restart`] wait until every shard has a leader.
const READY_MAX: Duration = Duration::from_secs(20);
/// How long [`LocalCluster::ask`] and [`LocalCluster::read`] wait for an answer.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Shards of a cluster that nobody says more of: enough that entities are spread over the nodes.
const SHARDS: u32 = 4;

/// What a local cluster is made of.
pub struct LocalBuilder {
    nodes: u16,
    shards: u32,
    registry: Registry,
    services: Box<ServicesOf>,
    limits: Box<LimitsOf>,
}

type ServicesOf = dyn Fn(NodeId) -> Services + Send + Sync;
type LimitsOf = dyn Fn(NodeId, &mut Limits) + Send + Sync;

impl LocalBuilder {
    /// Three nodes with these kinds of entities, four shards and no services.
    pub fn new(registry: Registry) -> Self {
        Self {
            nodes: 3,
            shards: SHARDS,
            registry,
            services: Box::new(|_| Services::new()),
            limits: Box::new(|_, _| {}),
        }
    }

    /// So many nodes, numbered from 1.
    #[must_use]
    pub fn nodes(mut self, nodes: u16) -> Self {
        self.nodes = nodes;
        self
    }

    /// So many shards.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The services of each node, by its number.
    #[must_use]
    pub fn services(mut self, services: impl Fn(NodeId) -> Services + Send + Sync + 'static) -> Self {
        self.services = Box::new(services);
        self
    }

    /// Other limits, by the node's number.
    #[must_use]
    pub fn limits(mut self, change: impl Fn(NodeId, &mut Limits) + Send + Sync + 'static) -> Self {
        self.limits = Box::new(change);
        self
    }

    /// Starts all nodes on free ports of this machine with empty folders, and waits until every shard has a leader.
    pub async fn start(self) -> Result<LocalCluster, StartError> {
        let folder = tempfile::Builder::new().prefix("local-cluster-").tempdir();
        let folder = folder.map_err(|error| StartError::Data(format!("there is no temporary folder: {error}")))?;
        let listeners = ports::listeners(usize::from(self.nodes));
        let listeners = listeners.map_err(|error| StartError::Config(error.to_string()))?;
        let addresses: Result<Vec<SocketAddr>, _> = listeners.iter().map(TcpListener::local_addr).collect();
        let mut cluster = LocalCluster {
            addresses: addresses.map_err(|error| StartError::Config(error.to_string()))?,
            nodes: Vec::new(),
            made_of: self,
            folder,
        };
        for (number, listener) in (1..).zip(listeners) {
            let (config, services) = cluster.config(number);
            let registry = cluster.made_of.registry.clone();
            let node = LocalNode::start_on(listener, config, registry, services).await?;
            cluster.nodes.push(Some(node));
        }
        cluster.ready().await?;
        Ok(cluster)
    }
}

/// Several engines in one process. Dropping it ends them all and removes their folders.
pub struct LocalCluster {
    made_of: LocalBuilder,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<LocalNode>>,
    folder: tempfile::TempDir,
}

impl LocalCluster {
    /// Starts so many nodes with the same services each, and waits until every shard has a leader. [`LocalBuilder`] says more.
    pub async fn start(nodes: u16, registry: Registry, services: Services) -> Result<Self, StartError> {
        let builder = LocalBuilder::new(registry).nodes(nodes);
        builder.services(move |_| services.clone()).start().await
    }

    fn config(&self, number: NodeId) -> (Config, Services) {
        let mut limits = quick_limits();
        (self.made_of.limits)(number, &mut limits);
        let members = (1..).zip(&self.addresses);
        let config = Config {
            node: number,
            data: self.folder.path().join(number.to_string()),
            members: members.map(|(id, address)| Member { id, address: *address }).collect(),
            join: Vec::new(),
            shards: self.made_of.shards,
            replicas: 3,
            chaos: false,
            limits,
        };
        (config, (self.made_of.services)(number))
    }

    /// The numbers of the nodes that are up.
    pub fn up(&self) -> impl Iterator<Item = NodeId> + '_ {
        let numbered = (1..).zip(&self.nodes);
        numbered.filter(|(_, node)| node.is_some()).map(|(number, _)| number)
    }

    /// The engine of a node.
    ///
    /// # Panics
    /// When there is no such node, or it is down.
    pub fn on(&self, node: NodeId) -> &Cluster {
        match self.nodes.get(usize::from(node).wrapping_sub(1)) {
            Some(Some(node)) => &node.cluster,
            Some(None) => panic!("node {node} is down; restart it first"),
            None => panic!(
                "there is no node {node}; they are numbered from 1 to {}",
                self.nodes.len()
            ),
        }
    }

    /// The engine of the first node that is up.
    ///
    /// # Panics
    /// When all are down.
    pub fn any(&self) -> &Cluster {
        self.on(self.up().next().expect("a node is up"))
    }

    /// The folder that holds the nodes' data folders, each named by its number.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends a command by any node, under a request id of its own, and repeats it under the same one while the engine says that
    /// it may: for at most 10 s.
    pub async fn ask<E: Entity>(&self, id: &str, command: &E::Command) -> Result<E::Reply, AskError<E::Rejection>> {
        self.ask_as::<E>(id, command, &new_request()).await
    }

    /// The same under a request id that the caller gives, so that it can be repeated.
    pub async fn ask_as<E: Entity>(
        &self,
        id: &str,
        command: &E::Command,
        request: &Request,
    ) -> Result<E::Reply, AskError<E::Rejection>> {
        let begun = std::time::Instant::now();
        loop {
            match self.any().ask::<E>(id, command, request).await {
                Err(AskError::Engine(error)) if error.is_retryable() && begun.elapsed() < request.timeout => {
                    tokio::time::sleep(retry_after(&error)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The state of an entity, with everything that was acknowledged before.
    pub async fn read<E: Entity>(&self, id: &str) -> Result<E::State, Error> {
        let request = new_request();
        let read = self.any().read::<E>(id, ReadOptions::default(), &request).await;
        read.map(|versioned| versioned.state)
    }

    /// Waits until the state of an entity is as wanted, and gives it: for what effects bring about, which nobody waits for.
    /// At most 20 s; then the last state is the error.
    pub async fn until<E: Entity>(&self, id: &str, wanted: impl Fn(&E::State) -> bool) -> Result<E::State, E::State> {
        let begun = std::time::Instant::now();
        let mut last = E::State::default();
        while begun.elapsed() < READY_MAX {
            if let Ok(state) = self.read::<E>(id).await {
                if wanted(&state) {
                    return Ok(state);
                }
                last = state;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(last)
    }

    /// Waits until every node that is up knows a leader of every shard.
    pub async fn ready(&self) -> Result<(), StartError> {
        for node in self.nodes.iter().flatten() {
            let ready = node.cluster.ready(READY_MAX).await;
            ready.map_err(|error| StartError::Join(format!("not every shard has a leader: {error}")))?;
        }
        Ok(())
    }

    /// Ends a node at once, as `kill -9` would: no leadership is handed over, no last checkpoint is made, its connections break.
    /// Nothing if it is down.
    pub async fn kill(&mut self, node: NodeId) {
        if let Some(node) = self.take(node) {
            node.kill().await;
        }
    }

    /// Ends a node in good order. Nothing if it is down.
    pub async fn stop(&mut self, node: NodeId) {
        if let Some(node) = self.take(node) {
            node.stop().await;
        }
    }

    fn take(&mut self, node: NodeId) -> Option<LocalNode> {
        let count = self.nodes.len();
        let place = self.nodes.get_mut(usize::from(node).wrapping_sub(1));
        place
            .unwrap_or_else(|| panic!("there is no node {node}; they are numbered from 1 to {count}"))
            .take()
    }

    /// Starts a node on its folder and its port again (it is ended in good order first if it is up), and waits until it knows a
    /// leader of every shard, if enough nodes are up for that. A [`Cluster`] of the node's life before must not be held any
    /// more: it holds the folder.
    pub async fn restart(&mut self, node: NodeId) -> Result<(), StartError> {
        self.stop(node).await;
        self.start_again(node).await?;
        if self.up().count() * 2 > self.nodes.len() {
            self.ready().await?;
        }
        Ok(())
    }

    /// Starts all nodes that are down, and waits until every shard has a leader.
    pub async fn restart_all(&mut self) -> Result<(), StartError> {
        for node in 1..=self.nodes.len() as NodeId {
            if !self.up().any(|up| up == node) {
                self.start_again(node).await?;
            }
        }
        self.ready().await
    }

    async fn start_again(&mut self, node: NodeId) -> Result<(), StartError> {
        let (config, services) = self.config(node);
        let started = LocalNode::start(config, self.made_of.registry.clone(), services).await?;
        self.nodes[usize::from(node) - 1] = Some(started);
        Ok(())
    }

    /// Ends all nodes in good order; they can be restarted.
    pub async fn stop_all(&mut self) {
        for node in 1..=self.nodes.len() as NodeId {
            self.stop(node).await;
        }
    }
}

/// Limits with which checkpoints are made and entities leave memory while a test looks.
pub fn quick_limits() -> Limits {
    Limits {
        checkpoint_interval_ms: 300,
        idle_ms: 500,
        ..Limits::default()
    }
}

fn new_request() -> Request {
    let id = RequestId::new(&format!("{:032x}", rand::random::<u128>())).expect("plain and short");
    Request {
        trace: TraceContext::random(false),
        ..Request::new(id, ASK_MAX)
    }
}

/// After how long to ask again.
fn retry_after(error: &Error) -> Duration {
    match error {
        Error::Overloaded { retry_after, .. } | Error::Unavailable { retry_after, .. } => *retry_after,
        _ => Duration::from_millis(20),
    }
}
