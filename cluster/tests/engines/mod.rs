//! Engines of one process, over real sockets and real disks, for tests with entities of their own.

use std::{net::SocketAddr, path::Path, time::Duration};

use cluster::{
    Cluster, Config, Registry, Request, RequestId, Services, StartError, TraceContext,
    config::{Limits, Member},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

/// A running engine.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    server: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Node {
    /// Starts an engine on the address of its number.
    pub(crate) async fn start(
        number: u16,
        addresses: &[SocketAddr],
        folder: &Path,
        shards: u32,
        registry: Registry,
        services: Services,
    ) -> Self {
        let config = config(number, folder, members(addresses), Vec::new(), shards);
        let started = Self::launch(config, registry, services).await;
        started.expect("the engine starts")
    }

    /// The same, for one that may be refused.
    #[allow(dead_code, reason = "not every test has nodes that are refused")]
    pub(crate) async fn try_start(
        number: u16,
        addresses: &[SocketAddr],
        folder: &Path,
        shards: u32,
        registry: Registry,
    ) -> Result<Self, StartError> {
        let config = config(number, folder, members(addresses), Vec::new(), shards);
        Self::launch(config, registry, Services::new()).await
    }

    /// The same without services, and with other limits.
    #[allow(dead_code, reason = "not every test has limits of its own")]
    pub(crate) async fn start_with(
        number: u16,
        addresses: &[SocketAddr],
        folder: &Path,
        shards: u32,
        registry: Registry,
        adjust: &dyn Fn(&mut Limits),
    ) -> Self {
        let mut config = config(number, folder, members(addresses), Vec::new(), shards);
        adjust(&mut config.limits);
        let started = Self::launch(config, registry, Services::new()).await;
        started.expect("the engine starts")
    }

    /// Starts an engine that joins the cluster of these seeds.
    #[allow(dead_code, reason = "not every test has nodes that join")]
    pub(crate) async fn join(
        number: u16,
        address: SocketAddr,
        seeds: &[SocketAddr],
        folder: &Path,
        registry: Registry,
        services: Services,
    ) -> Result<Self, StartError> {
        let itself = vec![Member { id: number, address }];
        let config = config(number, folder, itself, seeds.to_vec(), 1);
        Self::launch(config, registry, services).await
    }

    async fn launch(config: Config, registry: Registry, services: Services) -> Result<Self, StartError> {
        let address = config.address_of(config.node).expect("a node lists itself");
        let cluster = Cluster::start(config, registry, services).await?;
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let routes = cluster.add_peer_service(Routes::default());
        let (end, ending) = oneshot::channel();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let ended = async { drop(ending.await) };
            let server = Server::builder().add_routes(routes);
            let served = server.serve_with_incoming_shutdown(incoming, ended);
            served.await.expect("the server runs");
        });
        Ok(Self { cluster, server, end })
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.cluster.shutdown().await;
        drop(self.end);
        self.server.await.expect("no panic");
    }
}

fn members(addresses: &[SocketAddr]) -> Vec<Member> {
    let numbered = (1..).zip(addresses);
    numbered.map(|(id, address)| Member { id, address: *address }).collect()
}

fn config(node: u16, folder: &Path, members: Vec<Member>, join: Vec<SocketAddr>, shards: u32) -> Config {
    Config {
        node,
        data: folder.join(node.to_string()),
        members,
        join,
        shards,
        replicas: 3,
        limits: Limits {
            checkpoint_interval_ms: 300,
            idle_ms: 500,
            ..Limits::default()
        },
    }
}

/// Addresses that nobody listens on.
pub(crate) async fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
    }
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .collect()
}

/// Starts all engines and waits until every shard has a leader.
pub(crate) async fn start_all(
    addresses: &[SocketAddr],
    folder: &Path,
    shards: u32,
    registry: &Registry,
    services: impl Fn(u16) -> Services,
) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=addresses.len() as u16 {
        nodes.push(Node::start(number, addresses, folder, shards, registry.clone(), services(number)).await);
    }
    for node in &nodes {
        node.cluster
            .ready(Duration::from_secs(20))
            .await
            .expect("every shard has a leader");
    }
    nodes
}

/// A call under this request id.
pub(crate) fn request(id: &str) -> Request {
    let id = RequestId::new(id).expect("a request id");
    Request {
        trace: TraceContext::random(true),
        ..Request::new(id, Duration::from_secs(10))
    }
}
