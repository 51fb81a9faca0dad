//! Engines of one process, over real sockets and real disks, where a test wants other folders, addresses or limits than
//! [`cluster::LocalCluster`] gives: what all of its nodes have in common here.

use std::{net::SocketAddr, path::Path, time::Duration};

pub(crate) use cluster::local::LocalNode as Node;
use cluster::{
    Config, Registry, Request, RequestId, Services, StartError, TraceContext,
    config::{Limits, Member},
    local::quick_limits,
};

/// Starts an engine on the address of its number.
pub(crate) async fn start(
    number: u16,
    addresses: &[SocketAddr],
    folder: &Path,
    shards: u32,
    registry: Registry,
    services: Services,
) -> Node {
    let config = config(number, folder, members(addresses), Vec::new(), shards);
    let started = Node::start(config, registry, services).await;
    started.expect("the engine starts")
}

/// The same, for one that may be refused.
pub(crate) async fn try_start(
    number: u16,
    addresses: &[SocketAddr],
    folder: &Path,
    shards: u32,
    registry: Registry,
) -> Result<Node, StartError> {
    let config = config(number, folder, members(addresses), Vec::new(), shards);
    Node::start(config, registry, Services::new()).await
}

/// The same without services, and with other limits.
pub(crate) async fn start_with(
    number: u16,
    addresses: &[SocketAddr],
    folder: &Path,
    shards: u32,
    registry: Registry,
    adjust: &dyn Fn(&mut Limits),
) -> Node {
    let mut config = config(number, folder, members(addresses), Vec::new(), shards);
    adjust(&mut config.limits);
    let started = Node::start(config, registry, Services::new()).await;
    started.expect("the engine starts")
}

/// Starts an engine that joins the cluster of these seeds.
pub(crate) async fn join(
    number: u16,
    address: SocketAddr,
    seeds: &[SocketAddr],
    folder: &Path,
    registry: Registry,
    services: Services,
) -> Result<Node, StartError> {
    let itself = vec![Member { id: number, address }];
    let config = config(number, folder, itself, seeds.to_vec(), 1);
    Node::start(config, registry, services).await
}

/// Members with the numbers from 1.
pub(crate) fn members(addresses: &[SocketAddr]) -> Vec<Member> {
    let numbered = (1..).zip(addresses);
    numbered.map(|(id, address)| Member { id, address: *address }).collect()
}

/// The config of a node whose folder has its number.
pub(crate) fn config(node: u16, folder: &Path, members: Vec<Member>, join: Vec<SocketAddr>, shards: u32) -> Config {
    Config {
        node,
        data: folder.join(node.to_string()),
        members,
        join,
        shards,
        replicas: 3,
        chaos: false,
        limits: quick_limits(),
    }
}

/// Addresses that nobody listens on.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    cluster::local::free_addresses(count)
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
        nodes.push(start(number, addresses, folder, shards, registry.clone(), services(number)).await);
    }
    for node in &nodes {
        let ready = node.cluster.ready(Duration::from_secs(20)).await;
        ready.expect("every shard has a leader");
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
