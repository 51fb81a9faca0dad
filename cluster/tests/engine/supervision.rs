//! Three engines and an entity that fails: what its callers, its neighbours and people see of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::engines::{Node, free_addresses, request, start_all};
use cluster::{
    Answer, AskError, Cluster, Context, Decision, Effect, Entity, EntityKey, Error, Outcome, ReadOptions, Registry,
    Services, SpanRecord, SpanSink, supervision::Policy,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// What mends the code of [`Vault`]: as a later build would.
static IS_MENDED: AtomicBool = AtomicBool::new(false);

/// A vault that pays into others, and panics where it is told to.
struct Vault;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    gold: u64,
    sent: u64,
    undone: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Command {
    Add(u64),
    /// The code fails at it until it is mended.
    Curse(u64),
    /// Its event cannot be taken.
    Rot,
    Send {
        to: String,
        amount: u64,
    },
    Settle {
        amount: u64,
        is_done: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Added(u64),
    Rotted,
    Sent(u64),
    Settled { amount: u64, is_done: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Rejection {
    NotEnough,
}

impl Entity for Vault {
    const KIND: &'static str = "vault";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = u64;
    type Rejection = Rejection;
    type Token = u64;

    fn decide(state: &State, command: Command, _context: &Context) -> Result<Decision<Self>, Rejection> {
        let decision = Decision::reply(state.gold);
        Ok(match command {
            Command::Add(amount) => decision.event(Event::Added(amount)),
            Command::Curse(amount) => {
                assert!(IS_MENDED.load(Ordering::SeqCst), "cursed with {amount}");
                decision.event(Event::Added(amount))
            }
            Command::Rot => decision.event(Event::Rotted),
            Command::Send { amount, .. } if amount > state.gold => return Err(Rejection::NotEnough),
            Command::Send { to, amount } => {
                decision
                    .event(Event::Sent(amount))
                    .effect(Effect::ask::<Vault>(&to, &Command::Curse(amount), amount))
            }
            Command::Settle { amount, is_done } => decision.event(Event::Settled { amount, is_done }),
        })
    }

    fn evolve(state: &mut State, event: &Event) {
        match event {
            Event::Added(amount) => state.gold += amount,
            Event::Rotted => panic!("cannot take that"),
            Event::Sent(amount) => state.gold -= amount,
            Event::Settled { amount, is_done: true } => state.sent += amount,
            Event::Settled { amount, is_done: false } => {
                state.gold += amount;
                state.undone += amount;
            }
        }
    }

    fn resume(amount: u64, outcome: Outcome) -> Command {
        assert!(amount != 13 || IS_MENDED.load(Ordering::SeqCst), "thirteen came back");
        Command::Settle {
            amount,
            is_done: matches!(outcome.answer::<Vault>(), Answer::Replied(_)),
        }
    }
}

/// Shards of each cluster here.
const SHARDS: u32 = 4;

const POLICY: Policy = Policy {
    backoff_first_ms: 5,
    backoff_max_ms: 20,
    breaker_failures_max: 100,
    quarantine_after: 3,
    ..Policy::ENTITY
};

fn registry() -> Registry {
    Registry::new().with_policy::<Vault>(POLICY)
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(Vault::KIND, id).expect("a key")
}

async fn state(cluster: &Cluster, id: &str) -> State {
    let read = cluster
        .read::<Vault>(id, ReadOptions::default(), &request("read"))
        .await;
    read.expect("readable").state
}

/// Asks as a client does: again after the delay that it is told, under the same request id.
async fn ask(cluster: &Cluster, id: &str, command: &Command, by: &str) -> Result<u64, Error> {
    loop {
        match cluster.ask::<Vault>(id, command, &request(by)).await {
            Ok(reply) => return Ok(reply),
            Err(AskError::Engine(Error::Unavailable { retry_after, .. })) => sleep(retry_after).await,
            Err(AskError::Engine(error)) => return Err(error),
            Err(AskError::Rejected(rejection)) => panic!("{rejection:?}"),
        }
    }
}

/// Asks until the entity is quarantined; says how often its code failed before.
async fn poison(cluster: &Cluster, id: &str, command: &Command, by: &str) -> usize {
    for failures in 0..20 {
        match ask(cluster, id, command, by).await {
            Err(Error::Failed { .. }) => {}
            Err(Error::Quarantined { reason, .. }) => {
                assert!(reason.contains(by), "{reason}");
                return failures;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("never quarantined");
}

async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    for _ in 0..400 {
        if check().await {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}");
}

/// Keeps spans that failed.
#[derive(Default)]
struct Failed(Mutex<Vec<(String, String)>>);

impl SpanSink for Failed {
    fn record(&self, span: SpanRecord) {
        if let Some(error) = span.error {
            self.0.lock().expect("no panic").push((span.name.to_string(), error));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_entity_is_put_aside_and_its_neighbours_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let spans = Arc::new(Failed::default());
    let traced = |_| Services::new().with_spans(Some(Arc::clone(&spans) as Arc<dyn SpanSink>));
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), traced).await;
    let at = |nodes: &[Node], n: usize| nodes[n].cluster.clone();

    for id in ["p", "q", "r", "s", "n"] {
        ask(&at(&nodes, 0), id, &Command::Add(100), "first")
            .await
            .expect("accepted");
    }
    // Like failures quarantine, a rejection never does, and neither does one failure of each sort.
    for n in 0..10 {
        let too_much = Command::Send {
            to: "n".to_owned(),
            amount: 1_000,
        };
        let rejected = nodes[0]
            .cluster
            .ask::<Vault>("n", &too_much, &request(&format!("no-{n}")))
            .await;
        assert!(matches!(rejected, Err(AskError::Rejected(Rejection::NotEnough))));
    }
    assert_eq!(poison(&at(&nodes, 0), "p", &Command::Curse(1), "curse-p").await, 3);
    assert_eq!(poison(&at(&nodes, 1), "q", &Command::Rot, "rot-q").await, 3);

    let said = spans.0.lock().expect("no panic").clone();
    assert!(
        said.iter()
            .any(|(name, error)| name == "decide" && error.contains("cursed with 1")),
        "{said:?}"
    );

    // It refuses other commands, says so on every node, still knows its replies and can still be read.
    for node in &nodes {
        let refused = ask(&node.cluster, "p", &Command::Add(1), "other").await;
        assert!(
            matches!(&refused, Err(error @ Error::Quarantined { .. }) if !error.is_retryable()),
            "{refused:?}"
        );
        assert_eq!(ask(&node.cluster, "p", &Command::Add(100), "first").await, Ok(0));
        assert_eq!(state(&node.cluster, "p").await.gold, 100);
        assert_eq!(state(&node.cluster, "q").await.gold, 100);
        let list = node.cluster.quarantined().await;
        let keys: Vec<_> = list.entities.iter().map(|entity| entity.key.as_str()).collect();
        assert_eq!((keys, list.unreachable_nodes), (vec!["vault/p", "vault/q"], vec![]));
    }
    assert_eq!(ask(&at(&nodes, 2), "n", &Command::Add(1), "n-1").await, Ok(100));

    // All that is needed to understand it is there.
    let shown = at(&nodes, 2).show_quarantine(&key("p"), &request("show")).await;
    let shown = shown.expect("answered").expect("quarantined");
    let entity = shown.entity.expect("told");
    assert_eq!(
        (entity.request_id.as_str(), entity.seq, entity.failures),
        ("curse-p", 2, 3)
    );
    assert!(entity.reason.contains("cursed with 1"), "{}", entity.reason);
    assert!(entity.place.contains("supervision.rs"), "{}", entity.place);
    assert!(entity.position > 0 && shown.is_quarantined);
    assert_eq!(shown.command_json, r#"{"Curse":1}"#);
    assert!(shown.backtrace.contains("decide"), "{}", shown.backtrace);
    let status = at(&nodes, 0).status().await;
    assert_eq!(status.shards.iter().map(|shard| shard.quarantined).sum::<u64>(), 2);

    // It survives its leader, a checkpoint, and all nodes.
    let leader = status.shards[entity.shard as usize].leader as usize;
    let gone = nodes.remove(leader - 1);
    gone.stop().await;
    let refused = ask(&at(&nodes, 0), "p", &Command::Add(1), "other").await;
    assert!(matches!(refused, Err(Error::Quarantined { .. })), "{refused:?}");
    for node in nodes {
        node.stop().await;
    }
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    let refused = ask(&at(&nodes, 1), "p", &Command::Add(1), "other").await;
    assert!(matches!(refused, Err(Error::Quarantined { .. })), "{refused:?}");

    // A retry that fails keeps it, and the same request is told the same.
    for node in &nodes {
        let lifted = node.cluster.retry_quarantined(&key("p"), &request("retry-1")).await;
        let lifted = lifted.expect("answered").expect("quarantined");
        assert!(!lifted.lifted && lifted.failure.contains("cursed with 1"), "{lifted:?}");
    }
    let shown = at(&nodes, 0).show_quarantine(&key("p"), &request("show")).await;
    let shown = shown.expect("answered").expect("known");
    assert_eq!((shown.attempts.len(), shown.entity.expect("told").failures), (1, 4));
    assert_eq!(shown.command_json, r#"{"Curse":1}"#);

    // Once the code is mended, a retry lifts it: decided once, whoever asks how often.
    IS_MENDED.store(true, Ordering::SeqCst);
    for node in &nodes {
        let lifted = node.cluster.retry_quarantined(&key("p"), &request("retry-2")).await;
        let lifted = lifted.expect("answered").expect("known");
        assert!(lifted.lifted && !lifted.skipped, "{lifted:?}");
        assert_eq!(lifted.reply_json, "100");
    }
    assert_eq!(ask(&at(&nodes, 0), "p", &Command::Curse(1), "curse-p").await, Ok(100));
    assert_eq!(ask(&at(&nodes, 0), "p", &Command::Add(1), "other").await, Ok(101));
    IS_MENDED.store(false, Ordering::SeqCst);

    // Skipping lifts it as well, and the command is never done.
    for node in &nodes {
        let lifted = node.cluster.skip_quarantined(&key("q"), &request("skip-1")).await;
        assert!(lifted.expect("answered").expect("known").skipped);
    }
    let skipped = ask(&at(&nodes, 2), "q", &Command::Rot, "rot-q").await;
    assert!(
        matches!(&skipped, Err(error @ Error::Skipped { .. }) if !error.is_retryable()),
        "{skipped:?}"
    );
    assert_eq!(ask(&at(&nodes, 1), "q", &Command::Add(1), "more").await, Ok(100));
    let none = at(&nodes, 1).skip_quarantined(&key("n"), &request("skip-2")).await;
    assert_eq!(none, Ok(None));

    // What people did is remembered, also by a shard that is opened anew.
    for node in nodes {
        node.stop().await;
    }
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| Services::new()).await;
    let shown = at(&nodes, 0).show_quarantine(&key("p"), &request("show")).await;
    let shown = shown.expect("answered").expect("known");
    let ends: Vec<_> = shown
        .attempts
        .iter()
        .map(|a| (a.request_id.as_str(), &a.end[..6]))
        .collect();
    assert_eq!(
        (ends, shown.is_quarantined),
        (vec![("retry-1", "failed"), ("retry-2", "decide")], false)
    );
    assert!(at(&nodes, 2).quarantined().await.entities.is_empty());
    let skipped = ask(&at(&nodes, 0), "q", &Command::Rot, "rot-q").await;
    assert!(matches!(skipped, Err(Error::Skipped { .. })), "{skipped:?}");

    a_step_that_is_skipped_is_undone(&at(&nodes, 0)).await;
    an_outcome_that_cannot_be_taken_is_put_aside(&at(&nodes, 1)).await;
    what_waits_behind_a_failure_is_answered(&at(&nodes, 2)).await;
    for shard in at(&nodes, 0).digests().await.shards {
        let first = &shard.replicas[0];
        assert!(
            shard
                .replicas
                .iter()
                .all(|r| r.error.is_empty() && r.digest == first.digest)
        );
    }
    for node in nodes {
        node.stop().await;
    }
}

/// The step of a saga fails at the other side; skipped there, its saga goes on to undo.
async fn a_step_that_is_skipped_is_undone(cluster: &Cluster) {
    let send = Command::Send {
        to: "cursed".to_owned(),
        amount: 40,
    };
    ask(cluster, "r", &send, "send-r").await.expect("accepted");
    let is_quarantined = || async {
        cluster
            .quarantined()
            .await
            .entities
            .iter()
            .any(|e| e.key == "vault/cursed")
    };
    until("the effect's command is quarantined", is_quarantined).await;
    let payer = state(cluster, "r").await;
    assert_eq!((payer.gold, payer.undone), (60, 0), "its sender waits");
    let waiting = cluster.show(&key("r"), &request("show")).await.expect("shown");
    assert_eq!(waiting.outbox.len(), 1);
    let effect = &waiting.outbox[0];
    assert!(effect.attempts > 0 && !effect.waits_for.is_empty(), "{effect:?}");

    let skipped = cluster.skip_quarantined(&key("cursed"), &request("skip-r")).await;
    assert!(skipped.expect("answered").expect("known").lifted);
    until("the step is undone", || async {
        state(cluster, "r").await.undone == 40
    })
    .await;
    assert_eq!(state(cluster, "r").await.gold, 100);
    assert_eq!(state(cluster, "cursed").await.gold, 0);
}

/// An entity fails at the outcome of its own effect: that is put aside, and comes back with a retry.
async fn an_outcome_that_cannot_be_taken_is_put_aside(cluster: &Cluster) {
    IS_MENDED.store(true, Ordering::SeqCst);
    ask(cluster, "elsewhere", &Command::Add(1), "e")
        .await
        .expect("accepted");
    IS_MENDED.store(false, Ordering::SeqCst);
    let send = Command::Send {
        to: "elsewhere".to_owned(),
        amount: 13,
    };
    ask(cluster, "s", &send, "send-s").await.expect("accepted");
    // The receiver is cursed as well; skipped there, the outcome is the sender's trouble.
    let quarantined =
        |key: &'static str| async move { cluster.quarantined().await.entities.iter().any(|e| e.key == key) };
    until("the receiver is quarantined", || quarantined("vault/elsewhere")).await;
    let skipped = cluster.skip_quarantined(&key("elsewhere"), &request("skip-e")).await;
    assert!(skipped.expect("answered").expect("known").lifted);
    until("the sender is quarantined", || quarantined("vault/s")).await;
    let shown = cluster.show_quarantine(&key("s"), &request("show")).await;
    let entity = shown.expect("answered").expect("known").entity.expect("told");
    assert_eq!((entity.stage.as_str(), entity.effect.is_empty()), ("resume", false));

    IS_MENDED.store(true, Ordering::SeqCst);
    let lifted = cluster.retry_quarantined(&key("s"), &request("retry-s")).await;
    assert!(lifted.expect("answered").expect("known").lifted);
    let payer = state(cluster, "s").await;
    assert_eq!((payer.gold, payer.undone), (100, 13));
    IS_MENDED.store(false, Ordering::SeqCst);
    let is_settled = || async {
        cluster
            .show(&key("s"), &request("show"))
            .await
            .expect("shown")
            .outbox
            .is_empty()
    };
    until("the effect is acknowledged", is_settled).await;
}

/// Messages that wait behind a command that panics are not dropped in silence (tqwewe/kameo #345, #362): each is answered,
/// and repeated under its request id it takes effect once.
async fn what_waits_behind_a_failure_is_answered(cluster: &Cluster) {
    let calls = (0..200_u64).map(|n| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let command = if n == 20 { Command::Rot } else { Command::Add(1) };
            (n, ask(&cluster, "queue", &command, &format!("queued-{n}")).await)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (n, answer) = call.await.expect("no panic");
        assert_eq!(answer.is_ok(), n != 20, "{n}: {answer:?}");
    }
    assert_eq!(state(cluster, "queue").await.gold, 199);
}
