//! What an engine does when there is too much: of callers, of live entities, of effects that cause effects.

use std::{sync::Arc, time::Duration};

use crate::engines::request;
use cluster::{
    AskError, Cluster, Context, Decision, Effect, Entity, EntityKey, Error, LocalBuilder, LocalCluster, Outcome,
    ReadOptions, Registry, Request, Tenant, Versioned, cluster::fingerprint, config::Limits,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// An entity that passes on what it is told.
struct Node;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    count: u64,
    failed: Option<String>,
    answered: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Count(u64),
    /// Tell the other to tell me to tell the other ...
    Tell {
        to: String,
    },
    /// Ask the other, who asks me, who asks the other ...
    Ask {
        to: String,
    },
    /// Ask the other, who asks me once.
    AskBack {
        to: String,
        back: bool,
    },
    Slow,
    Answered(Option<String>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Counted(u64),
    Passed,
    Answered(Option<String>),
}

impl Entity for Node {
    const KIND: &'static str = "node";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = ();
    type Token = ();

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, ()> {
        let own = context.key.id.to_string();
        let passed = Decision::reply(state.count).event(Event::Passed);
        Ok(match command {
            Command::Count(by) => Decision::reply(state.count + by).event(Event::Counted(by)),
            Command::Tell { to } => passed.effect(Effect::tell::<Node>(&to, &Command::Tell { to: own })),
            Command::Ask { to } => passed.effect(Effect::ask::<Node>(&to, &Command::Ask { to: own }, ())),
            Command::AskBack { to, back: true } => {
                let next = Command::AskBack { to: own, back: false };
                passed.effect(Effect::ask::<Node>(&to, &next, ()))
            }
            Command::AskBack { to, back: false } => passed.effect(Effect::ask::<Node>(&to, &Command::Count(1), ())),
            Command::Slow => {
                std::thread::sleep(Duration::from_millis(2));
                Decision::reply(state.count).event(Event::Passed)
            }
            Command::Answered(failure) => Decision::reply(state.count).event(Event::Answered(failure)),
        })
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Counted(by) => state.count += by,
            Event::Passed => {}
            Event::Answered(failure) => {
                state.answered += 1;
                state.failed.clone_from(failure);
            }
        }
    }

    fn resume((): (), outcome: Outcome) -> Command {
        Command::Answered(match outcome {
            Outcome::Failed(reason) => Some(reason),
            Outcome::Replied(_) | Outcome::Rejected(_) | Outcome::Fired { .. } => None,
        })
    }
}

async fn start(count: u16, limits: &Limits) -> LocalCluster {
    let limits = limits.clone();
    let builder = LocalBuilder::new(Registry::new().with::<Node>()).nodes(count);
    let started = builder.limits(move |_, its| *its = limits.clone()).start().await;
    started.expect("the engines start")
}

async fn ask(cluster: &Cluster, id: &str, command: Command, request: &Request) -> Result<u64, Error> {
    match cluster.ask::<Node>(id, &command, request).await {
        Ok(reply) => Ok(reply),
        Err(AskError::Engine(error)) => Err(error),
        Err(AskError::Rejected(())) => unreachable!("it rejects nothing"),
    }
}

/// The same as a client does it that obeys: one that is refused comes again after the delay that it was told.
async fn ask_patiently(cluster: &Cluster, id: &str, command: Command, request: &Request) -> Result<u64, Error> {
    loop {
        match ask(cluster, id, command.clone(), request).await {
            Err(Error::Overloaded { retry_after, .. }) => sleep(retry_after).await,
            answer => return answer,
        }
    }
}

async fn read(cluster: &Cluster, id: &str) -> Versioned<State> {
    let read = cluster.read::<Node>(id, ReadOptions::default(), &request("read")).await;
    read.expect("readable")
}

/// Waits until the entity is as it should be.
async fn until(cluster: &Cluster, id: &str, is_there: impl Fn(&State) -> bool) -> State {
    for _ in 0..1_000 {
        let state = read(cluster, id).await.state;
        if is_there(&state) {
            return state;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} did not come where it should be");
}

async fn open_effects(cluster: &Cluster) -> u64 {
    cluster.status().await.shards.iter().map(|shard| shard.outbox).sum()
}

/// dotnet/orleans #5456, tqwewe/kameo #340: A calls B calls A. Nobody waits while deciding, so nothing stands still; and what would
/// go on for ever ends at a depth, with its path named.
#[tokio::test(flavor = "multi_thread")]
async fn entities_that_call_each_other_do_not_deadlock_and_an_endless_chain_is_ended_with_its_path() {
    let limits = Limits {
        effect_depth_max: 12,
        ..Limits::default()
    };
    let mut nodes = start(1, &limits).await;
    let cluster = nodes.on(1);

    // a asks b, b asks a while a's own ask is open.
    let back = Command::AskBack {
        to: "b".to_owned(),
        back: true,
    };
    ask(cluster, "a", back, &request("ask-back")).await.expect("accepted");
    until(cluster, "b", |state| state.answered == 1).await;
    let a = until(cluster, "a", |state| state.answered == 1).await;
    assert_eq!((a.count, a.failed), (1, None));

    // Tells without an end: both are told so often and no more, and the node names the path.
    let tell = Command::Tell { to: "d".to_owned() };
    ask(cluster, "c", tell, &request("tell")).await.expect("accepted");
    let mut load = None;
    for _ in 0..1_000 {
        load = cluster.status().await.nodes[0].load.clone();
        if load.as_ref().is_some_and(|load| load.chains_ended > 0) && open_effects(cluster).await == 0 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let load = load.expect("a node tells of its load");
    assert_eq!(load.chains_ended, 1);
    assert!(
        load.last_chain.ends_with("node/d -> node/c -> node/d"),
        "{}",
        load.last_chain
    );
    let versions = (read(cluster, "c").await.version, read(cluster, "d").await.version);
    assert_eq!(versions.0 + versions.1, 13, "the first command and twelve effects");

    // Asks without an end: the deepest is told why, and all above it have their answers.
    let asks = Command::Ask { to: "f".to_owned() };
    ask(cluster, "e", asks, &request("ask")).await.expect("accepted");
    let mut reasons = Vec::new();
    // Thirteen asks, the first one at "e".
    for (id, asked) in [("e", 7), ("f", 6)] {
        until(cluster, id, |state| state.answered == asked).await;
        let events = cluster
            .show(&EntityKey::new("node", id).expect("a key"), &request("show"))
            .await
            .expect("shown")
            .events;
        reasons.extend(
            events
                .into_iter()
                .map(|event| event.json)
                .filter(|json| json.contains("->")),
        );
    }
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains("node/e -> node/f"), "{reasons:?}");
    nodes.stop_all().await;
}

/// slawlor/ractor #84, dotnet/orleans #7972: mailboxes without a bound, no protection against too much.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_refuses_by_name_and_with_a_delay_and_others_do_not_notice() {
    let limits = Limits {
        mailbox_len_max: 20,
        ..Limits::default()
    };
    let mut nodes = start(1, &limits).await;
    let cluster = nodes.on(1).clone();
    let flood: Vec<_> = (0..500)
        .map(|n| {
            let cluster = cluster.clone();
            tokio::spawn(async move { ask(&cluster, "busy", Command::Slow, &request(&format!("slow-{n}"))).await })
        })
        .collect();
    for n in 0..20 {
        let id = format!("calm-{n}");
        ask(&cluster, &id, Command::Count(1), &request(&id))
            .await
            .expect("not its mailbox");
    }
    let (mut done, mut refused) = (0, 0);
    for call in flood {
        match call.await.expect("no panic") {
            Ok(_) => done += 1,
            Err(Error::Overloaded { what, retry_after }) => {
                refused += 1;
                assert!(what.contains("mailbox_len_max") && what.contains("node/busy"), "{what}");
                assert!(retry_after >= Duration::from_millis(20), "{retry_after:?}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(done >= 20 && refused > 100, "{done} done, {refused} refused");
    assert_eq!(
        read(&cluster, "busy").await.version,
        done,
        "what was refused was not done"
    );
    let load = cluster.status().await.nodes[0].load.clone().expect("told");
    assert_eq!(load.refused["mailbox_len_max"], refused);
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_ten_times_the_load_does_not_starve_another() {
    let limits = Limits {
        in_flight_max: 50,
        ..Limits::default()
    };
    let mut nodes = start(1, &limits).await;
    let cluster = nodes.on(1).clone();
    let of = |tenant: &str, id: String| Request {
        tenant: Tenant::new(tenant).expect("a tenant"),
        ..request(&id)
    };
    let greedy: Vec<_> = (0..100)
        .map(|client| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                for n in 0..40 {
                    let asked = of("greedy", format!("g-{client}-{n}"));
                    match ask(&cluster, &format!("g{client}"), Command::Slow, &asked).await {
                        Ok(_) => {}
                        Err(Error::Overloaded { what, .. }) => {
                            assert!(what.contains("share"), "{what}");
                            refused += 1;
                            sleep(Duration::from_millis(1)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                refused
            })
        })
        .collect();
    for n in 0..100 {
        let asked = of("modest", format!("m-{n}"));
        let answer = ask(&cluster, &format!("m{n}"), Command::Count(1), &asked).await;
        assert_eq!(answer, Ok(1), "the modest one is always let in");
    }
    let mut refused = 0;
    for client in greedy {
        refused += client.await.expect("no panic");
    }
    assert!(refused > 0, "the greedy one is not");
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_to_its_cap_of_live_entities_and_effects_go_on_after_a_failover() {
    let limits = Limits {
        live_entities_max: 40,
        recoveries_in_flight_max: 4,
        checkpoint_interval_ms: 200,
        ..Limits::default()
    };
    let mut nodes = start(3, &limits).await;
    let cluster = Arc::new(nodes.on(1).clone());
    for round in 0..2_u64 {
        let calls: Vec<_> = (0..600)
            .map(|n| {
                let cluster = Arc::clone(&cluster);
                let id = format!("e{n}");
                let asked = request(&format!("{round}-{n}"));
                tokio::spawn(async move { ask_patiently(&cluster, &id, Command::Count(1), &asked).await })
            })
            .collect();
        for call in calls {
            assert_eq!(
                call.await.expect("no panic"),
                Ok(round + 1),
                "nothing is lost with a live form"
            );
        }
    }
    let mut most = 0;
    for _ in 0..100 {
        let status = cluster.status().await;
        most = status
            .nodes
            .iter()
            .map(|node| node.activations)
            .max()
            .unwrap_or_default();
        if most <= 40 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(most <= 40, "{most} live on one node");
    let status = cluster.status().await;
    let left: u64 = (status.nodes.iter().filter_map(|node| node.load.as_ref()))
        .map(|load| load.left_for_room)
        .sum();
    assert!(left > 300, "{left} left for want of room");
    // A look at many cold ones brings none of them to life.
    let before: u64 = (status.nodes.iter().filter_map(|node| node.load.as_ref()))
        .map(|load| load.read_cold)
        .sum();
    for n in 0..50 {
        assert_eq!(read(&cluster, &format!("new-{n}")).await.state.count, 0);
    }
    let status = cluster.status().await;
    let after: u64 = (status.nodes.iter().filter_map(|node| node.load.as_ref()))
        .map(|load| load.read_cold)
        .sum();
    assert!(after >= before + 40, "nearly all of them were read cold");

    // Effects of entities that are not live come back by themselves: nobody sends these entities anything after the failover.
    let asks: Vec<_> = (0..200)
        .map(|n| {
            let cluster = Arc::clone(&cluster);
            let back = Command::AskBack {
                to: format!("t{n}"),
                back: true,
            };
            let asked = request(&format!("b-{n}"));
            tokio::spawn(async move { ask_patiently(&cluster, &format!("s{n}"), back, &asked).await })
        })
        .collect();
    for call in asks {
        call.await.expect("no panic").expect("accepted");
    }
    nodes.kill(3).await;
    for _ in 0..1_000 {
        if open_effects(&cluster).await == 0 && cluster.status().await.shards.iter().all(|shard| shard.leader != 0) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    for n in 0..600 {
        assert_eq!(read(&cluster, &format!("e{n}")).await.state.count, 2);
    }
    for n in 0..200 {
        let s = until(&cluster, &format!("s{n}"), |state| state.answered == 1).await;
        assert_eq!((s.count, s.answered, s.failed), (1, 1, None), "s{n}");
    }
    nodes.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_command_under_the_same_request_id_is_refused() {
    let mut nodes = start(1, &Limits::default()).await;
    let cluster = nodes.on(1);
    let sent = |what: &str| Request {
        fingerprint: fingerprint(what.as_bytes()),
        ..request("r-1")
    };
    let first = ask(cluster, "x", Command::Count(5), &sent("five")).await;
    assert_eq!(first, Ok(5));
    // An honest repetition may lead to another command, by what was read meanwhile: it is what was sent that counts.
    assert_eq!(ask(cluster, "x", Command::Count(6), &sent("five")).await, Ok(5));
    assert_eq!(
        ask(cluster, "x", Command::Count(6), &request("r-1")).await,
        Ok(5),
        "who says nothing compares nothing"
    );
    let other = ask(cluster, "x", Command::Count(6), &sent("six"))
        .await
        .expect_err("refused");
    assert!(
        matches!(other, Error::Invalid { .. }) && other.to_string().contains("another command"),
        "{other}"
    );
    assert_eq!(read(cluster, "x").await.state.count, 5);
    nodes.stop_all().await;
}
