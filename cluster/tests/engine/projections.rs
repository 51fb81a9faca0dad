//! Read models on three engines: what is rebuilt under load, after crashes and by another version equals the live one, and the
//! answers are as new as they say.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::engines::{Node, free_addresses, request, start_all};
use cluster::{
    Cluster, Consistency, Context, Decision, Entity, Error, NoToken, Outcome, ProjectedEvent, Projection, QueryOptions,
    Registry, Rows, VersionToken,
    feed::{FeedFilter, Start, SubscribeOptions},
    projection::{ModelRows, ProjectionView, script::Folded},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const SHARDS: u32 = 3;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State(u64);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deposit(u64);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deposited(u64);

macro_rules! account {
    ($name:ident, $kind:literal) => {
        struct $name;

        impl Entity for $name {
            const KIND: &'static str = $kind;
            type State = State;
            type Command = Deposit;
            type Event = Deposited;
            type Reply = u64;
            type Rejection = ();
            type Token = NoToken;

            fn decide(state: &State, Deposit(amount): Deposit, _: &Context) -> Result<Decision<Self>, ()> {
                Ok(Decision::reply(state.0 + amount).event(Deposited(amount)))
            }

            fn evolve(state: &mut State, Deposited(amount): &Deposited) {
                state.0 += amount;
            }

            fn resume(token: NoToken, _: Outcome) -> Deposit {
                match token {}
            }
        }
    };
}

account!(Current, "current");
account!(Savings, "savings");

/// What each account holds, and how many deposits there were by kind.
struct Wealth<const VERSION: u32>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    accounts: u64,
    deposits: u64,
    amount: u64,
}

impl<const V: u32> Projection for Wealth<V> {
    const NAME: &'static str = "wealth";
    const VERSION: u32 = V;
    const KINDS: &'static [&'static str] = &[Current::KIND, Savings::KIND];
    type Query = ();
    type Partial = Sum;
    type Answer = Sum;

    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        let current = event.of::<Current>();
        let Some(Deposited(amount)) = current.or_else(|| event.of::<Savings>()) else {
            return;
        };
        // Each version counts in its own way.
        let amount = amount * u64::from(V);
        let account = format!("a/{}/{}", event.kind(), event.id());
        rows.update(account, |held: &mut u64| *held += amount);
        rows.update(format!("k/{}", event.kind()), |count: &mut u64| *count += 1);
    }

    fn query(rows: &Rows<'_>, (): &()) -> Sum {
        let mut sum = Sum::default();
        rows.scan("a/", None, |_, held: u64| {
            sum.accounts += 1;
            sum.amount += held;
            true
        });
        rows.scan("k/", None, |_, count: u64| {
            sum.deposits += count;
            true
        });
        sum
    }

    fn merge(parts: Vec<Sum>, (): &()) -> Sum {
        parts.into_iter().fold(Sum::default(), |sum, part| Sum {
            accounts: sum.accounts + part.accounts,
            deposits: sum.deposits + part.deposits,
            amount: sum.amount + part.amount,
        })
    }
}

fn accounts() -> Registry {
    Registry::new().with::<Current>().with::<Savings>()
}

fn registry() -> Registry {
    accounts().with_projection::<Wealth<1>>()
}

/// Deposits until it is told to stop; says how many were acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn begin(cluster: &Cluster) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..4)
            .map(|worker: u64| {
                let (cluster, stop, done) = (cluster.clone(), Arc::clone(&stop), Arc::clone(&done));
                tokio::spawn(async move {
                    for number in 0_u64.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let id = format!("{}", (number * 7 + worker) % 23);
                        let call = request(&format!("w{worker}-{number}"));
                        let amount = Deposit(number % 9 + 1);
                        let told = match number % 2 {
                            0 => cluster.ask::<Current>(&id, &amount, &call).await.is_ok(),
                            _ => cluster.ask::<Savings>(&id, &amount, &call).await.is_ok(),
                        };
                        done.fetch_add(u64::from(told), Ordering::SeqCst);
                    }
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    async fn until(&self, count: u64) {
        wait(&format!("{count} deposits"), async || {
            self.done.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
    }
}

async fn wait(what: &str, is_so: impl AsyncFn() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !is_so().await {
        assert!(Instant::now() < until, "{what}: it never came to that");
        sleep(Duration::from_millis(30)).await;
    }
}

async fn view(cluster: &Cluster, version: u32) -> ProjectionView {
    let mut views = cluster.projections().await;
    views.retain(|view| (&*view.name, view.version) == ("wealth", version));
    views.pop().expect("it is carried")
}

/// Waits until all copies have the same position in each shard, and nothing is being built or removed.
async fn settled(cluster: &Cluster, version: u32, copies: usize) -> ProjectionView {
    wait("all copies are at one position", async || {
        let view = view(cluster, version).await;
        let is_at_rest = view.replicas.len() == copies
            && view
                .replicas
                .iter()
                .all(|copy| copy.lag() == 0 && copy.building.is_none() && copy.removing == 0);
        let of = |shard: u32| view.replicas.iter().filter(move |copy| copy.shard == shard);
        is_at_rest
            && (0..SHARDS).all(|shard| {
                let mut last: Vec<_> = of(shard)
                    .filter_map(|copy| copy.serving)
                    .map(|serving| serving.last)
                    .collect();
                last.dedup();
                last.len() == 1
            })
    })
    .await;
    view(cluster, version).await
}

/// The models as a fold over the whole history makes them, by shard.
async fn folded<const V: u32>(cluster: &Cluster) -> BTreeMap<u32, Vec<(Vec<u8>, bytes::Bytes)>> {
    let options = SubscribeOptions {
        from: Start::Beginning,
        filter: FeedFilter::of_kinds([Current::KIND, Savings::KIND]),
        stop_at_end: true,
        ..SubscribeOptions::default()
    };
    let mut subscription = cluster.subscribe(options).await.expect("subscribed");
    let mut folded = Folded::<Wealth<V>>::new(SHARDS);
    while let Some(delivery) = subscription.next().await {
        for event in delivery.expect("delivered").events {
            let entity = cluster::EntityKey::new(&event.kind, &event.id).expect("a key");
            folded.given_raw(&entity, event.at_ms, event.raw);
        }
    }
    (0..SHARDS).map(|shard| (shard, folded.rows(shard))).collect()
}

/// Every copy of every shard holds, byte for byte, what a fold over the history holds.
async fn are_equal<const V: u32>(nodes: &[&Node]) {
    let expected = folded::<V>(&nodes[0].cluster).await;
    assert!(expected.values().all(|rows| !rows.is_empty()));
    for node in nodes {
        for (shard, rows) in &expected {
            let copy: Option<ModelRows> = node
                .cluster
                .projection_rows::<Wealth<V>>(*shard)
                .await
                .expect("readable");
            assert_eq!(&copy.expect("it answers").1, rows, "shard {shard}");
        }
    }
}

async fn three(folder: &Path) -> Vec<Node> {
    let addresses = free_addresses(3);
    start_all(&addresses, folder, SHARDS, &registry(), |_| cluster::Services::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rebuild_under_load_with_a_node_away_equals_the_live_one_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| {
        cluster::Services::new()
    })
    .await;
    let load = Load::begin(&nodes[0].cluster);
    load.until(300).await;
    let begun = nodes[0].cluster.rebuild_projection("wealth").await.expect("begun");
    assert!(begun.not_told.is_empty(), "{begun:?}");
    // One of them ends in the middle of it, and comes back.
    nodes.pop().expect("three").stop().await;
    // The others go on answering all the while.
    let options = QueryOptions::default();
    let held = nodes[0]
        .cluster
        .query::<Wealth<1>>(&(), &options, &request("q"))
        .await
        .expect("answered");
    assert!(held.answer.deposits > 0, "{held:?}");
    let third = crate::engines::start(
        3,
        &addresses,
        folder.path(),
        SHARDS,
        registry(),
        cluster::Services::new(),
    )
    .await;
    nodes.push(third);
    wait("everything is rebuilt while the load goes on", async || {
        let view = view(&nodes[0].cluster, 1).await;
        let is_done = |copy: &&cluster::projection::ReplicaModel| copy.building.is_none() && copy.compared.is_some();
        view.replicas.iter().filter(is_done).count() >= 2 * SHARDS as usize
    })
    .await;
    let under_load = load.done.load(Ordering::SeqCst);
    load.until(under_load + 50).await;
    load.end().await;
    let view = settled(&nodes[0].cluster, 1, 3 * SHARDS as usize).await;
    for copy in &view.replicas {
        assert_ne!(copy.compared, Some(false), "{copy:?}");
        assert_eq!(copy.fault, "");
        let other = view
            .replicas
            .iter()
            .find(|other| other.shard == copy.shard)
            .expect("there");
        assert_eq!(
            copy.serving.map(|serving| serving.digest),
            other.serving.map(|serving| serving.digest)
        );
    }
    are_equal::<1>(&nodes.iter().collect::<Vec<_>>()).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_version_is_built_beside_the_one_that_answers_through_a_rolling_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = free_addresses(3);
    let mut nodes = start_all(&addresses, folder.path(), SHARDS, &registry(), |_| {
        cluster::Services::new()
    })
    .await;
    let load = Load::begin(&nodes[0].cluster);
    load.until(200).await;
    load.end().await;
    settled(&nodes[0].cluster, 1, 3 * SHARDS as usize).await;
    let options = QueryOptions::default();
    let both = || registry().with_projection::<Wealth<2>>();
    for number in (1..=3).rev() {
        let last = nodes.remove(number - 1);
        last.stop().await;
        let node = crate::engines::start(
            number as u16,
            &addresses,
            folder.path(),
            SHARDS,
            both(),
            cluster::Services::new(),
        )
        .await;
        nodes.insert(number - 1, node);
        for node in &nodes {
            node.cluster
                .ready(Duration::from_secs(20))
                .await
                .expect("every shard has a leader");
        }
        // Those who ask for the first version are answered all the while.
        let held = nodes[0].cluster.query::<Wealth<1>>(&(), &options, &request("q")).await;
        assert!(held.expect("answered").answer.deposits >= 200);
    }
    settled(&nodes[0].cluster, 2, 3 * SHARDS as usize).await;
    let first = nodes[0]
        .cluster
        .query::<Wealth<1>>(&(), &options, &request("q"))
        .await
        .expect("answered");
    let second = nodes[0]
        .cluster
        .query::<Wealth<2>>(&(), &options, &request("q"))
        .await
        .expect("answered");
    assert_eq!(second.answer.amount, 2 * first.answer.amount);
    let by_name = nodes[0]
        .cluster
        .query_json("wealth", "null", &options, &request("q"))
        .await
        .expect("answered");
    assert_eq!(
        (by_name.version, by_name.answer["amount"].as_u64()),
        (2, Some(second.answer.amount))
    );
    are_equal::<2>(&nodes.iter().collect::<Vec<_>>()).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_are_as_new_as_is_asked_and_a_shard_that_cannot_answer_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut nodes = three(folder.path()).await;
    let mut tokens: Vec<VersionToken> = Vec::new();
    for number in 0..60_u64 {
        let node = &nodes[(number % 3) as usize].cluster;
        let call = request(&format!("d-{number}"));
        let told = node
            .ask_at::<Current>(&number.to_string(), &Deposit(1), &call)
            .await
            .expect("told");
        VersionToken::keep(&mut tokens, told.token);
        // What was just done is seen by whoever presents its token, on whichever node.
        let after = QueryOptions {
            after: tokens.clone(),
            ..QueryOptions::default()
        };
        let other = &nodes[((number + 1) % 3) as usize].cluster;
        let held = other
            .query::<Wealth<1>>(&(), &after, &request("q"))
            .await
            .expect("answered");
        assert_eq!(held.answer.deposits, number + 1);
        let options = QueryOptions {
            consistency: Some(Consistency::Linearizable),
            ..QueryOptions::default()
        };
        let held = other
            .query::<Wealth<1>>(&(), &options, &request("q"))
            .await
            .expect("answered");
        assert_eq!((held.answer.deposits, held.answer.accounts), (number + 1, number + 1));
    }
    let bound = Duration::from_secs(1);
    let stale = QueryOptions {
        consistency: Some(Consistency::Stale(bound)),
        ..QueryOptions::default()
    };
    let held = nodes[1]
        .cluster
        .query::<Wealth<1>>(&(), &stale, &request("q"))
        .await
        .expect("answered");
    assert!(held.staleness.is_some_and(|staleness| staleness <= bound), "{held:?}");
    assert_eq!(held.tokens.len(), SHARDS as usize);

    let unknown = nodes[0].cluster.query_json("health", "{}", &stale, &request("q")).await;
    assert!(
        matches!(unknown, Err(Error::Invalid { field, reason }) if field == "projection" && reason.contains("wealth"))
    );
    let wrong = nodes[0]
        .cluster
        .query_json("wealth", "{\"a\": 1}", &stale, &request("q"))
        .await;
    assert!(matches!(wrong, Err(Error::Invalid { field, .. }) if field == "query"));

    // Alone, a node answers with what it has, and not with what it cannot know.
    nodes.pop().expect("three").stop().await;
    nodes.pop().expect("two").stop().await;
    let any = nodes[0]
        .cluster
        .query::<Wealth<1>>(&(), &QueryOptions::default(), &request("q"))
        .await;
    assert_eq!(any.expect("answered").answer.deposits, 60);
    let short = cluster::Request {
        timeout: Duration::from_millis(1500),
        ..request("q")
    };
    let options = QueryOptions {
        consistency: Some(Consistency::Linearizable),
        ..QueryOptions::default()
    };
    let refused = nodes[0].cluster.query::<Wealth<1>>(&(), &options, &short).await;
    assert!(
        matches!(&refused, Err(Error::Unavailable { reason, .. }) if reason.contains("in shard ")),
        "{refused:?}"
    );
    nodes.pop().expect("one").stop().await;
}
