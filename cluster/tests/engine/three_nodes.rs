//! Three engines in one process, over real sockets and real disks: what an author of entities sees.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::engines::{Node, free_addresses, members, request};
use cluster::{
    Answer, AskError, Cluster, Config, Context, Decision, Effect, Entity, Error, Outcome, ReadOptions, Registry,
    Services,
    faults::{Direction, Fault},
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// An account that pays others: it shows events, rejections, effects with outcomes, and panics.
struct Account;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    balance: u64,
    paid: u64,
    failed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Deposit(u64),
    Pay { to: String, amount: u64 },
    Receive(u64),
    Settle { amount: u64, is_taken: bool },
    Panic,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Deposited(u64),
    Paying(u64),
    Settled { amount: u64, is_taken: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Rejection {
    NotEnough,
    Closed,
}

impl Entity for Account {
    const KIND: &'static str = "account";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = Rejection;
    type Token = u64;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        match command {
            Command::Receive(_) if context.key.id.starts_with("closed") => Err(Rejection::Closed),
            Command::Deposit(amount) | Command::Receive(amount) => {
                Ok(Decision::reply(state.balance + amount).event(Event::Deposited(amount)))
            }
            Command::Pay { amount, .. } if amount > state.balance => Err(Rejection::NotEnough),
            Command::Pay { to, amount } => Ok(Decision::reply(state.balance - amount)
                .event(Event::Paying(amount))
                .effect(Effect::ask::<Account>(&to, &Command::Receive(amount), amount))),
            Command::Settle { amount, is_taken } => {
                Ok(Decision::reply(state.balance).event(Event::Settled { amount, is_taken }))
            }
            Command::Panic => panic!("told to"),
        }
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Deposited(amount) => state.balance += amount,
            Event::Paying(amount) => state.balance -= amount,
            Event::Settled { amount, is_taken: true } => state.paid += amount,
            Event::Settled {
                amount,
                is_taken: false,
            } => {
                state.balance += amount;
                state.failed += amount;
            }
        }
    }

    fn resume(amount: u64, outcome: Outcome) -> Command {
        Command::Settle {
            amount,
            is_taken: matches!(outcome.answer::<Account>(), Answer::Replied(_)),
        }
    }
}

/// Shards of each cluster here.
const SHARDS: u32 = 4;

async fn start_all(addresses: &[SocketAddr], folder: &Path) -> Vec<Node> {
    let registry = Registry::new().with::<Account>();
    crate::engines::start_all(addresses, folder, SHARDS, &registry, |_| Services::new()).await
}

async fn balance(cluster: &Cluster, id: &str) -> State {
    let read = cluster
        .read::<Account>(id, ReadOptions::default(), &request("read"))
        .await;
    read.expect("readable").state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_sees_durable_deduplicated_linearizable_entities() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let nodes = start_all(&addresses, folder.path()).await;

    // Any node takes any call, and the same request counts once, on whichever node it is repeated.
    for n in 0..30_u64 {
        let id = format!("a{}", n % 10);
        for node in &nodes {
            let reply = node
                .cluster
                .ask::<Account>(&id, &Command::Deposit(10), &request(&format!("d{n}")))
                .await;
            assert_eq!(reply.expect("accepted"), 10 * (n / 10 + 1));
        }
    }
    for n in 0..10 {
        assert_eq!(balance(&nodes[n % 3].cluster, &format!("a{n}")).await.balance, 30);
    }

    // A rejection is an answer, and the same one again.
    for node in &nodes {
        let to = "a1".to_owned();
        let too_much = Command::Pay { to, amount: 1_000 };
        match node.cluster.ask::<Account>("a0", &too_much, &request("p0")).await {
            Err(AskError::Rejected(rejection)) => assert_eq!(rejection, Rejection::NotEnough),
            other => panic!("{other:?}"),
        }
    }

    // Effects take place once, and their outcomes come back.
    let pay = |to: &str| Command::Pay {
        to: to.to_owned(),
        amount: 5,
    };
    nodes[0]
        .cluster
        .ask::<Account>("a0", &pay("a1"), &request("p1"))
        .await
        .expect("accepted");
    nodes[1]
        .cluster
        .ask::<Account>("a0", &pay("closed"), &request("p2"))
        .await
        .expect("accepted");
    let mut payer = State::default();
    for _ in 0..200 {
        payer = balance(&nodes[2].cluster, "a0").await;
        if payer.paid + payer.failed == 10 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((payer.balance, payer.paid, payer.failed), (25, 5, 5));
    assert_eq!(balance(&nodes[0].cluster, "a1").await.balance, 35);

    // A panic fails its command, and nothing else.
    let panicked = nodes[0]
        .cluster
        .ask::<Account>("a2", &Command::Panic, &request("x"))
        .await;
    assert!(panicked.expect_err("it panics").to_string().contains("told to"));
    assert_eq!(balance(&nodes[1].cluster, "a2").await.balance, 30);
    let again = loop {
        let deposit = Command::Deposit(1);
        match nodes[0].cluster.ask::<Account>("a2", &deposit, &request("y")).await {
            // It restarts after a pause, and says how long.
            Err(AskError::Engine(Error::Unavailable { retry_after, .. })) => sleep(retry_after).await,
            answer => break answer,
        }
    };
    assert_eq!(again.expect("accepted"), 31);

    // A waiting read sees the next event.
    let newer = ReadOptions {
        newer_than: Some(3),
        events_after: Some(3),
        ..ReadOptions::default()
    };
    let waiting = tokio::spawn({
        let cluster = nodes[1].cluster.clone();
        async move { cluster.read::<Account>("a5", newer, &request("w")).await }
    });
    sleep(Duration::from_millis(50)).await;
    nodes[2]
        .cluster
        .ask::<Account>("a5", &Command::Deposit(7), &request("d-a5"))
        .await
        .expect("accepted");
    let seen = waiting.await.expect("no panic").expect("readable");
    assert_eq!((seen.version, seen.state.balance, seen.events.len()), (4, 37, 1));
    assert_eq!(seen.events[0].name, "Deposited");

    // Replicas hold the same, and everything is there after all nodes were stopped.
    sleep(Duration::from_millis(700)).await;
    for shard in nodes[0].cluster.digests().await.shards {
        let first = &shard.replicas[0];
        assert!(
            shard
                .replicas
                .iter()
                .all(|replica| replica.error.is_empty() && replica.digest == first.digest)
        );
    }
    for node in nodes {
        node.stop().await;
    }
    let nodes = start_all(&addresses, folder.path()).await;
    assert_eq!(balance(&nodes[0].cluster, "a5").await.balance, 37);
    let reply = nodes[2]
        .cluster
        .ask::<Account>("a9", &Command::Deposit(10), &request("d29"))
        .await;
    assert_eq!(reply.expect("the reply of the first time"), 30);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_folder_comes_back_as_a_new_replica() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path()).await;
    for n in 0..40 {
        let deposit = Command::Deposit(1);
        let id = format!("b{n}");
        nodes[0]
            .cluster
            .ask::<Account>(&id, &deposit, &request("first"))
            .await
            .expect("accepted");
    }
    nodes.remove(2).stop().await;
    // The engine before it may still hold the old folder open in this process.
    let other_folder = tempfile::tempdir().expect("another folder");
    for n in 0..40 {
        let deposit = Command::Deposit(1);
        let id = format!("b{n}");
        nodes[1]
            .cluster
            .ask::<Account>(&id, &deposit, &request("second"))
            .await
            .expect("a majority is there");
    }
    let registry = Registry::new().with::<Account>();
    let third = crate::engines::start(3, &addresses, other_folder.path(), SHARDS, registry, Services::new());
    nodes.push(third.await);
    let mut is_whole = false;
    for _ in 0..300 {
        let digests = nodes[0].cluster.digests().await;
        let status = nodes[0].cluster.status().await;
        is_whole = digests.shards.iter().all(|shard| {
            let first = &shard.replicas[0];
            shard
                .replicas
                .iter()
                .all(|replica| replica.error.is_empty() && replica.digest == first.digest)
        }) && status.shards.iter().all(|shard| shard.replicas == [1, 2, 3]);
        if is_whole {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(is_whole, "{:?}", nodes[0].cluster.status().await);
    // The other two may now be in the minority of those that saw the beginning.
    nodes.remove(0).stop().await;
    for n in 0..40 {
        assert_eq!(balance(&nodes[1].cluster, &format!("b{n}")).await.balance, 2);
    }
    for node in nodes {
        node.stop().await;
    }
}

/// The third has a majority with each of them, so nobody's leadership ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_nodes_ask_of_each_other_goes_through_the_third_while_they_are_cut_off_from_each_other() {
    const ACCOUNTS: usize = 24;
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let plain = crate::engines::config(number, folder.path(), members(&addresses), Vec::new(), SHARDS);
        let config = Config { chaos: true, ..plain };
        let started = Node::start(config, Registry::new().with::<Account>(), Services::new()).await;
        nodes.push(started.expect("the engine starts"));
    }
    for node in &nodes {
        let ready = node.cluster.ready(Duration::from_secs(20)).await;
        ready.expect("every shard has a leader");
    }
    let ask = async |node: &Node, account: usize, command: Command, id: &str| {
        let (account, request) = (format!("c{account}"), request(&format!("{id}{account}")));
        let told = node.cluster.ask::<Account>(&account, &command, &request).await;
        told.expect("accepted")
    };
    let deposit = async |node, account, id: &str| ask(node, account, Command::Deposit(10), id).await;
    for account in 0..ACCOUNTS {
        assert_eq!(deposit(&nodes[0], account, "before").await, 10);
    }

    for (node, peer) in [(0, 2), (1, 1)] {
        let cut = Fault::Cut {
            peer,
            direction: Direction::Both,
        };
        let faults = nodes[node].cluster.faults().expect("they are allowed");
        faults.set(cut, Duration::from_secs(100)).expect("it can be had");
    }
    let leaders: Vec<u32> = (nodes[2].cluster.status().await.shards.iter())
        .map(|shard| shard.leader)
        .collect();
    assert!(leaders.contains(&1) && leaders.contains(&2), "{leaders:?}");
    let told = join_all((0..ACCOUNTS).flat_map(|account| {
        [
            deposit(&nodes[0], account, "through"),
            deposit(&nodes[1], account, "through"),
        ]
    }));
    assert!(
        told.await.iter().all(|balance| *balance == 20),
        "each request counts once"
    );

    // Effects find the same way.
    let pay = |account: usize| Command::Pay {
        to: format!("c{}", (account + 1) % ACCOUNTS),
        amount: 5,
    };
    for account in 0..ACCOUNTS {
        ask(&nodes[2], account, pay(account), "pay").await;
    }
    for account in 0..ACCOUNTS {
        let mut payer = State::default();
        for _ in 0..600 {
            payer = balance(&nodes[2].cluster, &format!("c{account}")).await;
            if payer.paid == 5 && payer.balance == 20 {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!((payer.paid, payer.balance), (5, 20), "c{account}");
    }
    for node in nodes {
        node.stop().await;
    }
}
