//! Three engines and a dependency outside that fails: breakers that follow each other, a bulkhead that holds.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::engines::{free_addresses, request, start_all};
use cluster::{
    AskError, CallError, Cluster, Context, Decision, Effect, Entity, Error, Outcome, ReadOptions, Registry, Service,
    ServiceCall, Services,
    supervision::{Forced, Guard, Phase, Policy},
};
use futures::{FutureExt as _, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Asks the oracle, and counts its answers.
struct Asker;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Command {
    Call,
    Called,
}

impl Entity for Asker {
    const KIND: &'static str = "asker";
    type State = u64;
    type Command = Command;
    type Event = ();
    type Reply = ();
    type Rejection = ();
    type Token = ();

    fn decide(_state: &u64, command: Command, _context: &Context) -> Result<Decision<Self>, ()> {
        Ok(match command {
            Command::Call => Decision::reply(()).effect(Effect::call("oracle", &"?", ())),
            Command::Called => Decision::reply(()).event(()),
        })
    }

    fn evolve(state: &mut u64, (): &()) {
        *state += 1;
    }

    fn resume((): (), _outcome: Outcome) -> Command {
        Command::Called
    }
}

/// Shards of each cluster here.
const SHARDS: u32 = 4;

fn registry() -> Registry {
    Registry::new().with::<Asker>()
}

async fn answers(cluster: &Cluster, id: &str) -> u64 {
    let read = cluster
        .read::<Asker>(id, ReadOptions::default(), &request("read"))
        .await;
    read.expect("readable").state
}

async fn ask(cluster: &Cluster, id: &str) {
    match cluster.ask::<Asker>(id, &Command::Call, &request("call")).await {
        Ok(()) => {}
        Err(AskError::Engine(error)) => panic!("{error}"),
        Err(AskError::Rejected(())) => panic!("it never refuses"),
    }
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

/// A dependency outside that fails until it is mended.
struct Oracle {
    guard: Guard,
    calls: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    is_up: Arc<AtomicBool>,
    running: Arc<Mutex<BTreeSet<String>>>,
    /// A call has begun while another of the same effect was under way.
    overlapped: Arc<AtomicBool>,
}

impl Service for Oracle {
    fn call(&self, call: ServiceCall) -> BoxFuture<'_, Result<bytes::Bytes, CallError>> {
        async move {
            let permit = self.guard.admit().map_err(|refused| CallError::Later {
                after: refused.retry_after.min(Duration::from_millis(50)),
                reason: "the breaker is open".to_owned(),
            })?;
            self.calls.fetch_add(1, Ordering::SeqCst);
            if !self.running.lock().expect("no panic").insert(call.effect_id.clone()) {
                self.overlapped.store(true, Ordering::SeqCst);
            }
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(at_once, Ordering::SeqCst);
            sleep(Duration::from_millis(5)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            self.running.lock().expect("no panic").remove(&call.effect_id);
            if self.is_up.load(Ordering::SeqCst) {
                permit.succeeded();
                return Ok(bytes::Bytes::from_static(b"true"));
            }
            permit.failed();
            Err(CallError::Later {
                after: Duration::from_millis(10),
                reason: "it is down".to_owned(),
            })
        }
        .boxed()
    }

    fn guard(&self) -> &Guard {
        &self.guard
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_known_to_all_nodes_and_a_bulkhead_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let policy = Policy {
        in_flight_max: 2,
        breaker_open_ms: 600_000,
        ..Policy::OUTSIDE
    };
    let guards: Vec<Guard> = (0..3).map(|_| Guard::new("oracle", policy)).collect();
    let (calls, is_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    // What fails and is repeated never runs several times at once (dapr 1.17.3): an attempt begins when the last one has
    // ended.
    let (running, overlapped): (Arc<Mutex<BTreeSet<String>>>, Arc<AtomicBool>) = Default::default();
    let most: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let services = |number: u16| {
        let oracle = Oracle {
            guard: guards[usize::from(number) - 1].clone(),
            calls: Arc::clone(&calls),
            at_once: Arc::default(),
            most: Arc::clone(&most[usize::from(number) - 1]),
            is_up: Arc::clone(&is_up),
            running: Arc::clone(&running),
            overlapped: Arc::clone(&overlapped),
        };
        Services::new().with("oracle", oracle)
    };
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), services).await;
    let cluster = &nodes[0].cluster;

    // However many wait, no more than two calls of a node are under way.
    for n in 0..60 {
        let id = format!("o{n}");
        ask(cluster, &id).await;
    }
    until("all calls have come back", || async {
        for n in 0..60 {
            if answers(cluster, &format!("o{n}")).await == 0 {
                return false;
            }
        }
        true
    })
    .await;
    assert!(most.iter().all(|most| most.load(Ordering::SeqCst) <= 2), "{most:?}");

    // Five failures open the breaker of the node that meets them; the others hear of it without a call of their own. A
    // success of their own must not be too fresh for that.
    sleep(Duration::from_millis(2_100)).await;
    is_up.store(false, Ordering::SeqCst);
    ask(cluster, "down").await;
    let all_open = || async { guards.iter().all(|guard| guard.state().phase == Phase::Open) };
    until("all breakers are open", all_open).await;
    let calls_then = calls.load(Ordering::SeqCst);
    ask(cluster, "down-2").await;
    ask(cluster, "down-3").await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(calls.load(Ordering::SeqCst), calls_then, "nobody hammers it");

    // A node that starts anew knows as well.
    for node in nodes {
        node.stop().await;
    }
    let guards: Vec<Guard> = (0..3).map(|_| Guard::new("oracle", policy)).collect();
    let services = |number: u16| {
        let oracle = Oracle {
            guard: guards[usize::from(number) - 1].clone(),
            calls: Arc::clone(&calls),
            at_once: Arc::default(),
            most: Arc::default(),
            is_up: Arc::clone(&is_up),
            running: Arc::clone(&running),
            overlapped: Arc::clone(&overlapped),
        };
        Services::new().with("oracle", oracle)
    };
    let nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), services).await;
    let cluster = &nodes[1].cluster;
    let all_open = || async { guards.iter().all(|guard| guard.state().phase == Phase::Open) };
    until("all breakers are open again", all_open).await;

    // People have the last word, on all nodes.
    is_up.store(true, Ordering::SeqCst);
    cluster
        .force_breaker("oracle", Forced::Closed, &request("force-1"))
        .await
        .expect("forced");
    let all = |phase: Phase| {
        let guards = guards.clone();
        move || {
            let guards = guards.clone();
            async move { guards.iter().all(|guard| guard.state().phase == phase) }
        }
    };
    until("all breakers are closed", all(Phase::Closed)).await;
    until("what waited is done", || async {
        answers(cluster, "down-3").await == 1
    })
    .await;
    cluster
        .force_breaker("oracle", Forced::Open, &request("force-2"))
        .await
        .expect("forced");
    until("all breakers are open", all(Phase::Open)).await;
    let status = cluster.status().await;
    assert!(
        status.breakers.iter().all(|b| b.forced == "open" && b.state == "open"),
        "{:?}",
        status.breakers
    );
    cluster
        .force_breaker("oracle", Forced::Auto, &request("force-3"))
        .await
        .expect("forced");
    until("all breakers are closed", all(Phase::Closed)).await;
    assert!(!overlapped.load(Ordering::SeqCst));
    let wrong = cluster.force_breaker("pythia", Forced::Open, &request("force-4")).await;
    assert!(matches!(wrong, Err(Error::Invalid { .. })));
    for node in nodes {
        node.stop().await;
    }
}
