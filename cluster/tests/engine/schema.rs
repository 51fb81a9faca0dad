//! Engines of two builds in one cluster: an upgrade node by node, in which nothing is lost, nothing is written that a member
//! cannot read, and after which old builds are refused.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, time::Duration};

use crate::engines::{Node, free_addresses, request, start_all};
use cluster::{
    AskError, Context, Decision, Entity, Error, JsonSchema, NoToken, Outcome, Registry, Request, RequestId, Schema,
    Services, StartError, Upcast, cluster::ReadOptions,
};
use serde::{Deserialize, Serialize};
use tempfile::tempdir;

const SHARDS: u32 = 2;
const ACCOUNTS: u64 = 6;

/// The build that the cluster begins with.
mod old {
    use super::*;

    pub(super) struct Account;

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    pub(super) struct State {
        pub(super) balance: u64,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    pub(super) enum Command {
        Deposit { sum: u64 },
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    pub(super) enum Event {
        Deposited { sum: u64 },
        Closed { why: String },
    }

    impl Entity for Account {
        const KIND: &'static str = "account";
        type State = State;
        type Command = Command;
        type Event = Event;
        type Reply = u64;
        type Rejection = String;
        type Token = NoToken;

        fn schema() -> Schema {
            Schema::of::<Self>()
        }

        fn decide(state: &State, command: Command, _: &Context) -> Result<Decision<Self>, String> {
            let Command::Deposit { sum } = command;
            Ok(Decision::reply(state.balance + sum).event(Event::Deposited { sum }))
        }

        fn evolve(state: &mut State, event: &Event) {
            if let Event::Deposited { sum } = event {
                state.balance += sum;
            }
        }

        fn resume(token: NoToken, _: Outcome) -> Command {
            match token {}
        }
    }
}

/// The build that it is upgraded to: a field more, a variant more, and a field of another name.
mod new {
    use super::*;

    pub(super) struct Account;

    #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
    pub(super) struct State {
        pub(super) balance: u64,
        #[serde(default)]
        pub(super) notes: BTreeSet<String>,
        #[serde(default)]
        pub(super) is_frozen: bool,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    pub(super) enum Command {
        Deposit {
            sum: u64,
            #[serde(default)]
            note: Option<String>,
        },
        Freeze,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    pub(super) enum Event {
        Deposited {
            sum: u64,
            #[serde(default)]
            note: Option<String>,
        },
        Closed {
            reason: String,
        },
        Frozen,
    }

    impl Entity for Account {
        const KIND: &'static str = "account";
        const UPCASTS: &'static [Upcast] = &[Upcast::event("Closed", 1, |event| event.rename("why", "reason"))];
        type State = State;
        type Command = Command;
        type Event = Event;
        type Reply = u64;
        type Rejection = String;
        type Token = NoToken;

        fn schema() -> Schema {
            Schema::of::<Self>()
        }

        fn decide(state: &State, command: Command, _: &Context) -> Result<Decision<Self>, String> {
            Ok(match command {
                Command::Deposit { sum, note } => {
                    Decision::reply(state.balance + sum).event(Event::Deposited { sum, note })
                }
                Command::Freeze => Decision::reply(state.balance).event(Event::Frozen),
            })
        }

        fn evolve(state: &mut State, event: &Event) {
            match event {
                Event::Deposited { sum, note } => {
                    state.balance += sum;
                    state.notes.extend(note.clone());
                }
                Event::Closed { .. } => {}
                Event::Frozen => state.is_frozen = true,
            }
        }

        fn resume(token: NoToken, _: Outcome) -> Command {
            match token {}
        }
    }
}

fn old_build() -> Registry {
    Registry::new().with::<old::Account>()
}

fn new_build() -> Registry {
    Registry::new().with::<new::Account>()
}

/// Asks until it is answered.
async fn ask<E: Entity>(node: &Node, id: &str, command: &E::Command, request: &str) -> E::Reply {
    let request = Request::new(RequestId::new(request).expect("an id"), Duration::from_secs(5));
    let mut last = String::new();
    for _ in 0..200 {
        match node.cluster.ask::<E>(id, command, &request).await {
            Ok(reply) => return reply,
            Err(AskError::Engine(error)) if error.is_retryable() => {
                last = error.to_string();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{id}: {error}"),
        }
    }
    panic!("{id} does not answer: {last}")
}

async fn restart(nodes: &mut Vec<Node>, number: u16, addresses: &[SocketAddr], folder: &Path, build: Registry) {
    let place = usize::from(number) - 1;
    nodes.remove(place).stop().await;
    nodes.insert(place, start(number, addresses, folder, build).await);
}

/// Starts a node; one that was stopped in this process just now may not have let go of its folder yet.
async fn start(number: u16, addresses: &[SocketAddr], folder: &Path, build: Registry) -> Node {
    for _ in 0..100 {
        match crate::engines::try_start(number, addresses, folder, SHARDS, build.clone()).await {
            Ok(node) => {
                let ready = node.cluster.ready(Duration::from_secs(20)).await;
                ready.expect("it is ready");
                return node;
            }
            Err(StartError::Data(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("node {number}: {error}"),
        }
    }
    panic!("node {number} does not let go of its folder")
}

/// Waits until a node says that the old build cannot read this.
async fn until_unreadable(node: &Node, name: &str) {
    let old = old_build().schema_json();
    for _ in 0..200 {
        let checked = node.cluster.check_schema(&old).expect("a schema");
        if checked.unreadable.iter().any(|finding| finding.name == name) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a node never hears of {name}");
}

/// Why a build is refused that is started on a node's folder.
async fn refusal(number: u16, addresses: &[SocketAddr], folder: &Path, build: Registry) -> String {
    for _ in 0..100 {
        match crate::engines::try_start(number, addresses, folder, SHARDS, build.clone()).await {
            Err(StartError::Schema(reason)) => return reason,
            Err(StartError::Data(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("node {number}: {error}"),
            Ok(_) => panic!("node {number} is let in"),
        }
    }
    panic!("node {number} does not let go of its folder")
}

/// Deposits with a note through a node of the new build, and without one through a node of the old build.
async fn deposit(nodes: &[Node], by_new: usize, by_old: usize, round: u64) {
    for account in 0..ACCOUNTS {
        let id = format!("a{account}");
        let command = new::Command::Deposit {
            sum: 10,
            note: Some(format!("round {round}")),
        };
        ask::<new::Account>(&nodes[by_new], &id, &command, &format!("new-{round}-{account}")).await;
        let command = old::Command::Deposit { sum: 1 };
        ask::<old::Account>(&nodes[by_old], &id, &command, &format!("old-{round}-{account}")).await;
    }
}

async fn state_of(node: &Node, id: &str) -> new::State {
    let read = node
        .cluster
        .read::<new::Account>(id, ReadOptions::default(), &request("read"))
        .await;
    read.expect("readable").state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_node_beside_a_new_one_loses_no_field() {
    let folder = tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &old_build(), |_| Services::new()).await;
    for account in 0..ACCOUNTS {
        let command = old::Command::Deposit { sum: 100 };
        ask::<old::Account>(&nodes[2], &format!("a{account}"), &command, &format!("first-{account}")).await;
    }
    restart(&mut nodes, 1, &addresses, folder.path(), new_build()).await;
    deposit(&nodes, 0, 1, 1).await;
    // The new build is away for a while: the old one leads, takes what it understands, and makes snapshots of what it knows.
    nodes.remove(0).stop().await;
    for account in 0..ACCOUNTS {
        let command = old::Command::Deposit { sum: 1_000 };
        ask::<old::Account>(&nodes[0], &format!("a{account}"), &command, &format!("alone-{account}")).await;
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    nodes.insert(0, start(1, &addresses, folder.path(), new_build()).await);
    deposit(&nodes, 0, 1, 2).await;
    for number in [2, 3] {
        restart(&mut nodes, number, &addresses, folder.path(), new_build()).await;
    }
    let expected: BTreeSet<String> = ["round 1", "round 2"].map(str::to_owned).into();
    for node in &nodes {
        for account in 0..ACCOUNTS {
            let state = state_of(node, &format!("a{account}")).await;
            assert_eq!(
                (state.balance, &state.notes),
                (100 + 11 + 1_000 + 11, &expected),
                "a{account}"
            );
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_member_cannot_read_is_held_back_and_afterwards_old_builds_are_refused() {
    let folder = tempdir().expect("a folder");
    let addresses = free_addresses(4);
    let (joining, addresses) = addresses.split_last().expect("four");
    let mut nodes = start_all(addresses, folder.path(), SHARDS, &old_build(), |_| Services::new()).await;
    let checked = nodes[0]
        .cluster
        .check_schema(&new_build().schema_json())
        .expect("a schema");
    assert!(checked.is_known && checked.unreadable.is_empty(), "{checked:?}");
    assert!(
        checked
            .held_back
            .iter()
            .any(|finding| finding.name == "Frozen" && finding.version == 1),
        "{checked:?}"
    );
    assert!(
        checked
            .held_back
            .iter()
            .any(|finding| finding.name == "Closed" && finding.version == 2),
        "{checked:?}"
    );
    restart(&mut nodes, 1, addresses, folder.path(), new_build()).await;
    let freeze = |id: &'static str| Request::new(RequestId::new(id).expect("an id"), Duration::from_secs(5));
    let mut said = String::new();
    for _ in 0..200 {
        match nodes[0]
            .cluster
            .ask::<new::Account>("a0", &new::Command::Freeze, &freeze("freeze"))
            .await
        {
            Err(AskError::Engine(Error::Unavailable { reason, .. })) => said = reason,
            Err(AskError::Engine(error)) if error.is_retryable() => {}
            other => panic!("it is held back: {other:?}"),
        }
        if said.contains("event Frozen version 1 of account is not written") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        said.contains("event Frozen version 1 of account is not written"),
        "{said}"
    );
    assert!(said.contains("node 2, node 3"), "{said}");
    // What it can write in a form that all read goes on.
    let command = new::Command::Deposit { sum: 5, note: None };
    assert_eq!(ask::<new::Account>(&nodes[0], "a0", &command, "deposit").await, 5);
    // Until the last member is upgraded there is a way back.
    restart(&mut nodes, 1, addresses, folder.path(), old_build()).await;
    for number in 1..=3 {
        restart(&mut nodes, number, addresses, folder.path(), new_build()).await;
    }
    ask::<new::Account>(&nodes[2], "a0", &new::Command::Freeze, "freeze").await;
    let state = state_of(&nodes[1], "a0").await;
    assert_eq!((state.balance, state.is_frozen), (5, true));

    // The one that is stopped has to know it too: it refuses by what is on its own device. One that does not know it yet begins, hears it
    // from the roster, and ends its process.
    for node in [&nodes[0], &nodes[2]] {
        until_unreadable(node, "Frozen").await;
    }
    nodes.pop().expect("three").stop().await;
    let reason = refusal(3, addresses, folder.path(), old_build()).await;
    assert!(reason.contains("event Frozen version 1 of account"), "{reason}");
    assert!(reason.contains("event Closed version 2 of account"), "{reason}");
    let reason = refusal(3, addresses, folder.path(), Registry::new()).await;
    assert!(reason.contains("the kind account"), "{reason}");
    let refused = crate::engines::join(4, *joining, addresses, folder.path(), old_build(), Services::new()).await;
    let Err(StartError::Join(reason)) = refused else {
        panic!("an old build is not let in")
    };
    assert!(reason.contains("event Frozen version 1 of account"), "{reason}");
    nodes.push(start(3, addresses, folder.path(), new_build()).await);
    for node in nodes {
        node.stop().await;
    }
}
