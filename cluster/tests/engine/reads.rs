//! Reads that another replica than the leader answers, on three engines whose connections can be cut: they are as new as
//! they say, or they are refused.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::engines::{Node, free_addresses, request};
use cluster::{
    Cluster, Config, Consistency, Context, Decision, Entity, Error, LocalBuilder, LocalCluster, NoToken, Outcome,
    ReadOptions, Registry, Request, Services, SpanRecord, SpanSink, VersionToken, Versioned,
    config::{Limits, Member},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Shards of the cluster of three.
const SHARDS: u32 = 4;

/// Counts.
struct Counter;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Count(u64);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Added;

impl Entity for Counter {
    const KIND: &'static str = "counter";
    type State = Count;
    type Command = Add;
    type Event = Added;
    type Reply = u64;
    type Rejection = ();
    type Token = NoToken;

    fn decide(state: &Count, _: Add, _: &Context) -> Result<Decision<Self>, ()> {
        Ok(Decision::reply(state.0 + 1).event(Added))
    }

    fn evolve(state: &mut Count, _: &Added) {
        state.0 += 1;
    }

    fn resume(token: NoToken, _: Outcome) -> Add {
        match token {}
    }
}

/// Keeps the spans of an engine.
#[derive(Default, Clone)]
struct Kept(Arc<Mutex<Vec<SpanRecord>>>);

impl SpanSink for Kept {
    fn record(&self, span: SpanRecord) {
        self.0.lock().expect("no panic").push(span);
    }
}

/// A cable between two nodes that can be pulled.
struct Cable {
    address: SocketAddr,
    pulled: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cable {
    async fn lay(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (pulled, is_pulled) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_pulled = is_pulled.clone();
                tokio::spawn(async move {
                    if *is_pulled.borrow() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_pulled.wait_for(|pulled| *pulled) => {}
                    }
                });
            }
        });
        Self { address, pulled, task }
    }
}

/// Three engines; the third is connected to the others by cables.
struct Three {
    nodes: Vec<Node>,
    clusters: Vec<Cluster>,
    cables: Vec<Cable>,
    spans: Kept,
}

impl Three {
    async fn start(folder: &Path) -> Self {
        let own = free_addresses(3);
        let mut cables = Vec::new();
        for address in &own {
            cables.push(Cable::lay(*address).await);
        }
        let spans = Kept::default();
        let (mut nodes, mut clusters) = (Vec::new(), Vec::new());
        for node in 1..=3_u16 {
            let address = |other: u16| {
                let place = usize::from(other) - 1;
                if (node == 3) == (other == 3) {
                    own[place]
                } else {
                    cables[place].address
                }
            };
            let members = (1..=3).map(|id| Member {
                id,
                address: address(id),
            });
            let config = crate::engines::config(node, folder, members.collect(), Vec::new(), SHARDS);
            let started = serve(config, &spans).await;
            clusters.push(started.cluster.clone());
            nodes.push(started);
        }
        for cluster in &clusters {
            cluster
                .ready(Duration::from_secs(20))
                .await
                .expect("every shard has a leader");
        }
        Self {
            nodes,
            clusters,
            cables,
            spans,
        }
    }

    fn cut_off_the_third(&self, pulled: bool) {
        for cable in &self.cables {
            cable.pulled.send_replace(pulled);
        }
    }

    /// Adds one at a node; the count, and its token.
    async fn add(&self, node: usize, id: &str, request_id: &str) -> (u64, VersionToken) {
        let told = self.clusters[node]
            .ask_at::<Counter>(id, &Add, &request(request_id))
            .await
            .expect("accepted");
        (told.answer.expect("never refused"), told.token)
    }

    /// An entity of a shard that the third node has a replica of and does not lead.
    async fn followed_by_the_third(&self) -> String {
        for n in 0..100 {
            let id = format!("c{n}");
            let key = cluster::EntityKey::new(Counter::KIND, &id).expect("a key");
            self.add(0, &id, "first").await;
            let shown = self.clusters[0].show(&key, &request("r")).await;
            if shown.expect("readable").leader != 3 {
                return id;
            }
        }
        panic!("node 3 leads every shard");
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
        self.cables.into_iter().for_each(|cable| cable.task.abort());
    }
}

async fn serve(config: Config, spans: &Kept) -> Node {
    let services = Services::new().with_spans(Some(Arc::new(spans.clone())));
    let started = Node::start(config, Registry::new().with::<Counter>(), services).await;
    started.expect("the engine starts")
}

async fn read(
    cluster: &Cluster,
    id: &str,
    consistency: Consistency,
    after: Vec<VersionToken>,
    timeout: Duration,
) -> Result<Versioned<Count>, Error> {
    let options = ReadOptions {
        consistency,
        after,
        ..ReadOptions::default()
    };
    let request = Request {
        timeout,
        ..request("read")
    };
    cluster.read::<Counter>(id, options, &request).await
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_what_it_can_show_to_be_new_enough_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let three = Three::start(folder.path()).await;
    let id = three.followed_by_the_third().await;
    let third = &three.clusters[2];

    // The third node answers itself, and says how old it may be.
    let bound = Duration::from_secs(5);
    let seen = read(third, &id, Consistency::Stale(bound), vec![], LONG)
        .await
        .expect("readable");
    assert_eq!((seen.state.0, seen.node), (1, 3));
    assert!(seen.staleness.is_some_and(|age| age <= bound), "{:?}", seen.staleness);
    // A linearizable read is answered by the leader.
    let seen = read(third, &id, Consistency::Linearizable, vec![], LONG)
        .await
        .expect("readable");
    assert_ne!(seen.node, 3);
    assert_eq!(seen.staleness, Some(Duration::ZERO));

    // Cut off, it goes on only as far as its word goes.
    three.cut_off_the_third(true);
    let bound = Duration::from_millis(400);
    let mut acknowledged: Vec<Instant> = Vec::new();
    let (mut answered, mut refused) = (0, 0);
    // As long as it takes for some to be refused.
    for n in 0.. {
        if refused >= 5 {
            break;
        }
        assert!(n < 2_000, "{answered} were answered, and none was refused");
        sleep(Duration::from_millis(5)).await;
        three.add(n % 2, &id, &format!("cut-{n}")).await;
        acknowledged.push(Instant::now());
        let begun = Instant::now();
        let within = Duration::from_millis(60);
        match read(third, &id, Consistency::Stale(bound), vec![], within).await {
            Ok(seen) => {
                answered += 1;
                let known = acknowledged.iter().filter(|at| **at + bound < begun).count() as u64;
                assert!(
                    seen.state.0 > known,
                    "{} of {known} that are older than the bound",
                    seen.state.0
                );
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(answered > 0);
    let written = acknowledged.len() as u64 + 1;
    // With a bound as long as the cut it may answer, and says how old it may be.
    let hour = Consistency::Stale(Duration::from_hours(1));
    let seen = read(third, &id, hour, vec![], LONG).await.expect("readable");
    assert!(seen.state.0 < written && seen.staleness > Some(bound), "{seen:?}");
    assert_eq!(seen.node, 3);

    // Back again, it catches up.
    three.cut_off_the_third(false);
    let (count, token) = three.add(0, &id, "back").await;
    let seen = read(third, &id, Consistency::Tokens, vec![token], LONG)
        .await
        .expect("readable");
    assert_eq!((count, seen.state.0), (written + 1, written + 1));
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_on_every_node_by_its_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let three = Three::start(folder.path()).await;
    let mut by_others = 0;
    let mut tokens = Vec::new();
    for n in 0..1_000_usize {
        let id = format!("w{}", n % 7);
        let (count, token) = three.add(n % 3, &id, &format!("w-{n}")).await;
        VersionToken::keep(&mut tokens, token);
        let reader = &three.clusters[(n + 1) % 3];
        let seen = read(reader, &id, Consistency::Tokens, tokens.clone(), LONG)
            .await
            .expect("readable");
        assert!(
            seen.state.0 >= count,
            "{} was read after {count} was written",
            seen.state.0
        );
        by_others += u64::from(seen.staleness != Some(Duration::ZERO));
    }
    assert!(
        by_others > 100,
        "only {by_others} reads were answered by others than the leader"
    );
    assert!(tokens.len() <= 4, "one token for each shard: {tokens:?}");

    // The parts of a commit are told apart.
    let spans = three.spans.0.lock().expect("no panic").clone();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
    let commits = of("commit");
    assert!(commits >= 1_000);
    for part in ["commit.queue", "commit.sync", "commit.majority", "commit.apply"] {
        assert_eq!(of(part), commits, "{part}");
    }
    let status = three.clusters[0].status().await;
    assert!(
        status
            .nodes
            .iter()
            .all(|node| node.times.is_some_and(|times| times.sync_mean_us > 0))
    );
    three.stop().await;
}

/// One engine alone.
async fn alone(limits: Limits, spans: &Kept) -> LocalCluster {
    let (sink, registry) = (spans.clone(), Registry::new().with::<Counter>());
    let builder = LocalBuilder::new(registry).nodes(1).shards(1);
    let builder = builder.services(move |_| Services::new().with_spans(Some(Arc::new(sink.clone()))));
    let started = builder.limits(move |_, its| *its = limits.clone()).start().await;
    started.expect("the engine starts")
}

/// How many commits of one entity began while another was under way.
async fn commits_side_by_side(gate_records_max: usize) -> usize {
    let limits = Limits {
        gate_records_max,
        ..Limits::default()
    };
    let spans = Kept::default();
    let mut one = alone(limits, &spans).await;
    let cluster = one.any().clone();
    let adds = (0..100).map(|n| {
        let cluster = cluster.clone();
        async move { cluster.ask::<Counter>("a", &Add, &request(&format!("a-{n}"))).await }
    });
    let mut counts: Vec<u64> = futures::future::join_all(adds)
        .await
        .into_iter()
        .map(|added| added.expect("accepted"))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=100).collect::<Vec<_>>());
    one.stop_all().await;
    let mut commits: Vec<_> = spans.0.lock().expect("no panic").clone();
    commits.retain(|span| span.name == "commit");
    commits.sort_unstable_by_key(|span| span.start_unix_ns);
    commits
        .windows(2)
        .filter(|pair| pair[1].start_unix_ns < pair[0].end_unix_ns)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pipelining_an_entity_has_one_record_on_its_way() {
    assert_eq!(commits_side_by_side(1).await, 0);
    assert!(commits_side_by_side(Limits::default().gate_records_max).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_is_refused() {
    let (one, other) = (Limits::default(), Limits::default());
    let mut clusters = [alone(one, &Kept::default()).await, alone(other, &Kept::default()).await];
    let mut tokens = Vec::new();
    for cluster in &clusters {
        let told = cluster
            .any()
            .ask_at::<Counter>("a", &Add, &request("a"))
            .await
            .expect("accepted");
        tokens.push(told.token);
    }
    for consistency in [Consistency::Linearizable, Consistency::Tokens, Consistency::Stale(LONG)] {
        let own = read(clusters[0].any(), "a", consistency, vec![tokens[0]], LONG).await;
        assert_eq!(own.expect("readable").state.0, 1);
        match read(clusters[0].any(), "a", consistency, vec![tokens[1]], LONG).await {
            Err(Error::Invalid { field, reason }) => {
                assert!(
                    field == "version token" && reason.contains("another cluster"),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    for cluster in &mut clusters {
        cluster.stop_all().await;
    }
}
