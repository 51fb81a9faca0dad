//! Nodes join, are drained, lose their folders and leave, over real sockets and disks.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::engines::{Node, free_addresses, request, start_all};
use cluster::{
    Cluster, Context, Decision, Entity, NoToken, Outcome, ReadOptions, Registry, Services, StartError, config::Limits,
};
use proto::cluster::v1 as pb;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const SHARDS: u32 = 4;
/// A cluster in which nothing has changed for so long has a bug.
const LOOKS_MAX: u32 = 600;

/// Counts.
struct Counter;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add(u64);

impl Entity for Counter {
    const KIND: &'static str = "counter";
    type State = u64;
    type Command = Add;
    type Event = Add;
    type Reply = u64;
    type Rejection = ();
    type Token = NoToken;

    fn decide(state: &u64, command: Add, _: &Context) -> Result<Decision<Self>, ()> {
        Ok(Decision::reply(state + command.0).event(command))
    }

    fn evolve(state: &mut u64, event: &Add) {
        *state += event.0;
    }

    fn resume(token: NoToken, _: Outcome) -> Add {
        match token {}
    }
}

fn registry() -> Registry {
    Registry::new().with::<Counter>()
}

async fn join(number: u16, address: SocketAddr, seeds: &[SocketAddr], folder: &Path) -> Node {
    let joined = crate::engines::join(number, address, seeds, folder, registry(), Services::new()).await;
    joined.expect("the cluster lets it in")
}

async fn add(cluster: &Cluster, round: u64) {
    for n in 0..20 {
        let id = format!("c{n}");
        let reply = cluster
            .ask::<Counter>(&id, &Add(1), &request(&format!("add-{round}")))
            .await;
        assert_eq!(reply.expect("accepted"), round + 1);
    }
}

async fn holds(cluster: &Cluster, rounds: u64) {
    for n in 0..20 {
        let read = cluster
            .read::<Counter>(&format!("c{n}"), ReadOptions::default(), &request("read"))
            .await;
        assert_eq!(read.expect("readable").state, rounds);
    }
}

async fn until(cluster: &Cluster, what: &str, is_so: impl Fn(&pb::StatusResponse) -> bool) {
    for _ in 0..LOOKS_MAX {
        if is_so(&cluster.status().await) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} never came: {:#?}", cluster.status().await);
}

fn shards(status: &pb::StatusResponse) -> impl Iterator<Item = &pb::ShardStatus> {
    status.shards.iter().chain(&status.system)
}

/// Everything is where the roster says, and there is nothing more to move.
fn is_settled(status: &pb::StatusResponse) -> bool {
    let is_home = |shard: &pb::ShardStatus| {
        let mut home = shard.home.clone();
        home.sort_unstable();
        home == shard.replicas && shard.leader == shard.home[0]
    };
    status.moves_left == 0 && shards(status).all(is_home)
}

fn node(status: &pb::StatusResponse, id: u32) -> Option<&pb::NodeStatus> {
    status.nodes.iter().find(|node| node.id == id)
}

async fn set(cluster: &Cluster, node: u32, standing: pb::Standing, with_fewer_copies: bool) -> Result<(), String> {
    let request = pb::SetStandingRequest {
        node,
        standing: standing.into(),
        with_fewer_copies,
    };
    cluster.set_standing(request).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_takes_its_part_and_leaves_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(4);
    let mut nodes = start_all(&addresses[..3], folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    add(&nodes[0].cluster, 0).await;

    nodes.push(join(4, addresses[3], &addresses[..2], folder.path()).await);
    until(&nodes[0].cluster, "an even spread", |status| {
        is_settled(status) && node(status, 4).is_some_and(|node| node.replicas == 3 && node.leads == 1)
    })
    .await;
    // Also asked of the node that knows some shards by hearsay only.
    for node in &nodes {
        holds(&node.cluster, 1).await;
    }
    add(&nodes[3].cluster, 1).await;

    // One that runs already is not replaced by another machine of that number.
    let stranger = free_addresses(1)[0];
    let other = tempfile::tempdir().expect("a folder");
    let refused = crate::engines::join(4, stranger, &addresses[..2], other.path(), registry(), Services::new()).await;
    assert!(matches!(refused, Err(StartError::Join(reason)) if reason.contains("another one")));

    // Copies are not given up without being told.
    let drain = set(&nodes[1].cluster, 1, pb::Standing::Draining, false).await;
    assert_eq!(drain, Ok(()));
    let second = set(&nodes[1].cluster, 2, pb::Standing::Draining, false).await;
    assert!(second.expect_err("two are too few").contains("--force"));
    until(&nodes[1].cluster, "an empty node 1", |status| {
        is_settled(status) && shards(status).all(|shard| !shard.home.contains(&1) && !shard.replicas.contains(&1))
    })
    .await;
    add(&nodes[0].cluster, 2).await;

    assert_eq!(set(&nodes[1].cluster, 1, pb::Standing::Leaving, false).await, Ok(()));
    until(&nodes[1].cluster, "the end of node 1", |status| {
        node(status, 1).is_none()
    })
    .await;
    nodes.remove(0).stop().await;
    holds(&nodes[0].cluster, 3).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_for_good_and_one_that_joined_may_lose_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(4);
    let mut nodes = start_all(&addresses[..3], folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    add(&nodes[0].cluster, 0).await;
    nodes.push(join(4, addresses[3], &addresses[..1], folder.path()).await);
    until(&nodes[0].cluster, "an even spread", |status| {
        is_settled(status) && node(status, 4).is_some_and(|node| node.replicas == 3)
    })
    .await;

    nodes.remove(2).stop().await;
    assert_eq!(set(&nodes[0].cluster, 3, pb::Standing::Leaving, true).await, Ok(()));
    until(&nodes[0].cluster, "three copies on three nodes", |status| {
        node(status, 3).is_none() && is_settled(status) && shards(status).all(|shard| shard.replicas == [1, 2, 4])
    })
    .await;
    add(&nodes[1].cluster, 1).await;

    // The node that joined comes back with an empty folder, by the same configuration.
    nodes.remove(2).stop().await;
    let other = tempfile::tempdir().expect("another folder");
    sleep(Duration::from_millis(200)).await;
    nodes.push(join(4, addresses[3], &addresses[..1], other.path()).await);
    until(&nodes[0].cluster, "equal replicas", |status| {
        is_settled(status)
            && status
                .shards
                .iter()
                .all(|shard| shard.lag.values().all(|lag| *lag == 0))
    })
    .await;
    // What it fetched is good enough to lose another node.
    nodes.remove(0).stop().await;
    holds(&nodes[1].cluster, 2).await;
    add(&nodes[1].cluster, 2).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_after_all_nodes_were_stopped_in_the_middle_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(4);
    let mut nodes = start_all(&addresses[..3], folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    add(&nodes[0].cluster, 0).await;
    nodes.push(join(4, addresses[3], &addresses[..1], folder.path()).await);
    until(&nodes[0].cluster, "the first move", |status| {
        node(status, 4).is_some_and(|node| node.replicas > 0)
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    until(&nodes[0].cluster, "an even spread", |status| {
        is_settled(status) && node(status, 4).is_some_and(|node| node.replicas == 3 && node.leads == 1)
    })
    .await;
    holds(&nodes[3].cluster, 1).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_unwell_gives_its_leaderships_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    // No task ever runs exactly when it should.
    let never_good = |limits: &mut Limits| limits.scheduler_lag_ms_max = 0;
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let adjust: &dyn Fn(&mut Limits) = if number == 1 { &never_good } else { &|_| () };
        let start = crate::engines::start_with(number, &addresses, folder.path(), SHARDS, registry(), adjust);
        nodes.push(start.await);
    }
    nodes[0]
        .cluster
        .ready(Duration::from_secs(20))
        .await
        .expect("every shard has a leader");
    until(&nodes[1].cluster, "another leader for all", |status| {
        let first = node(status, 1).expect("a member");
        first.leads == 0 && !first.unwell.is_empty() && shards(status).all(|shard| shard.leader > 1)
    })
    .await;
    add(&nodes[0].cluster, 0).await;
    for node in nodes {
        node.stop().await;
    }
}
