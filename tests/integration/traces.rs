//! A checkout's trace is read by the command line and at an independent collector with the same ids and a whole tree, also
//! when the leader is killed while the saga runs; a dead collector costs a counter; log lines are followed through a kill.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use harness::TestCluster;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
    time::{Instant, sleep},
};
use tonic::{
    Request, Response, Status, async_trait,
    transport::{Server, server::TcpIncoming},
};

/// What does not come within this never comes.
const WITHIN: Duration = Duration::from_mins(1);

/// A collector that keeps all spans by their traces.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<HashMap<String, BTreeMap<String, Span>>>>);

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        let mut traces = self.0.lock();
        for span in scopes.flat_map(|scope| scope.spans) {
            let (trace, id) = (hex(&span.trace_id), hex(&span.span_id));
            traces.entry(trace).or_default().insert(id, span);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn listen() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        (collector, address)
    }

    /// The ids of a trace's spans with those of their parents.
    fn tree(&self, trace: &str) -> BTreeMap<String, String> {
        let traces = self.0.lock();
        let spans = traces.get(trace).into_iter().flatten();
        spans
            .map(|(id, span)| (id.clone(), hex(&span.parent_span_id)))
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn tree(trace: &Value) -> BTreeMap<String, String> {
    let spans = trace["spans"].as_array().expect("a list");
    let text = |span: &Value, key: &str| span[key].as_str().expect("a text").to_owned();
    spans
        .iter()
        .map(|span| (text(span, "span_id"), text(span, "parent_span_id")))
        .collect()
}

/// One root, and every parent is known.
fn is_whole(tree: &BTreeMap<String, String>) -> bool {
    let ids: HashSet<&String> = tree.keys().collect();
    tree.values().filter(|parent| parent.is_empty()).count() == 1
        && tree.values().all(|parent| parent.is_empty() || ids.contains(parent))
}

fn has(trace: &Value, name: &str) -> bool {
    trace["spans"]
        .as_array()
        .expect("a list")
        .iter()
        .any(|span| span["name"] == name)
}

async fn shown(cluster: &TestCluster, trace: &str) -> Value {
    cluster.run(&format!("trace show {trace} --json")).await.json()
}

/// The trace once it is whole at both places and has all of these.
async fn whole(cluster: &TestCluster, collector: &Collector, trace: &str, names: &[&str]) -> Value {
    let begun = Instant::now();
    loop {
        let finished = cluster.run(&format!("trace show {trace} --json")).await;
        if finished.code == 0 {
            let found = finished.json();
            let (inside, outside) = (tree(&found), collector.tree(trace));
            let is_same =
                inside.iter().all(|(id, parent)| outside.get(id) == Some(parent)) && inside.len() == outside.len();
            if is_same && is_whole(&outside) && names.iter().all(|name| has(&found, name)) {
                return found;
            }
            assert!(
                begun.elapsed() < WITHIN,
                "{names:?}\ninside {found:#}\noutside {outside:#?}"
            );
        }
        assert!(begun.elapsed() < WITHIN, "{finished:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn control(switches: &str, change: &Value) {
    let answered = reqwest::Client::new().put(switches).json(change).send().await;
    assert!(answered.expect("the provider answers").status().is_success());
}

async fn sell_tea(cluster: &TestCluster) {
    drop(cluster.run("product put tea --name Tea --price 2.55").await.ok());
    drop(cluster.run("stock receive tea 1000").await.ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_is_one_whole_trace_also_when_its_leader_is_killed() {
    let (collector, address) = Collector::listen().await;
    let environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), address)];
    let cluster = TestCluster::start_with(harness::program!(), 3, environment).await;
    sell_tea(&cluster).await;
    let names = [
        "playhouse order place",
        "Orders/PlaceOrder",
        "mailbox",
        "decide",
        "commit",
        "commit.sync",
        "outbox",
        "effect checkout",
        "effect stock",
        "call payment-provider",
        "POST /v1/authorisations",
    ];

    let placed = cluster
        .run("order place --customer ann --line tea:1 --json")
        .await
        .ok()
        .json();
    let id = placed["trace_id"].as_str().expect("a trace").to_owned();
    let trace = whole(&cluster, &collector, &id, &names).await;
    assert!(
        trace["spans"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|span| span["lost"] == false)
    );
    let written: Vec<&str> = trace["events"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["name"].as_str())
        .collect();
    assert!(
        written.contains(&"Placed") && written.contains(&"Confirmed"),
        "{written:?}"
    );
    let order = placed["order_id"].as_str().expect("an id");
    for search in [
        format!("--entity order/{order}"),
        format!("--saga checkout/{order}"),
        "--user ann".to_owned(),
        "--service payment-provider".to_owned(),
        format!("--text {order}"),
    ] {
        let found = cluster.run(&format!("trace list --json {search}")).await.ok().json();
        let traces = found["traces"].as_array().expect("a list").clone();
        assert!(
            traces.iter().any(|trace| trace["trace_id"] == id.as_str()),
            "{search}: {found}"
        );
    }
    let human = cluster.run(&format!("trace show {id}")).await.ok();
    assert!(
        human.stdout.contains("Orders/PlaceOrder") && !human.stdout.contains('\x1b'),
        "{}",
        human.stdout
    );
    let graph = cluster.run("trace graph --json").await.ok().json();
    let edges = graph["edges"].as_array().expect("a list");
    assert!(
        edges
            .iter()
            .any(|edge| edge["from"] == "payment" && edge["to"] == "payment-provider"),
        "{graph:#}"
    );

    // The provider keeps the first call waiting, so that the saga is under way when its leader dies.
    let switches = format!("{}/control", cluster.provider());
    control(&switches, &serde_json::json!({ "hang": true, "latency_ms": 1000 })).await;
    let placed = cluster
        .run("order place --customer bob --line tea:1 --no-wait --json")
        .await
        .ok()
        .json();
    let (id, order) = (
        placed["trace_id"].as_str().expect("a trace"),
        placed["order_id"].as_str().expect("an id"),
    );
    let begun = Instant::now();
    let waits = loop {
        let explained = cluster.run(&format!("entity show payment/{order} --json")).await;
        if explained.code == 0
            && explained.json()["outbox"]
                .as_array()
                .is_some_and(|open| !open.is_empty())
        {
            break explained.json();
        }
        assert!(begun.elapsed() < WITHIN, "{explained:?}");
        sleep(Duration::from_millis(50)).await;
    };
    let leader = waits["leader"].as_u64().expect("a node") as u8;
    // What has ended is on its way by then, and nothing else ends until the call times out after 2 s.
    sleep(Duration::from_millis(800)).await;
    cluster.kill_9(leader);
    control(&switches, &serde_json::json!({ "hang": false })).await;
    let again = whole(&cluster, &collector, id, &names).await;
    assert!(
        again["spans"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|span| span["lost"] == false),
        "{again:#}"
    );
    let nodes: HashSet<u64> = again["spans"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|span| span["node"].as_u64())
        .collect();
    assert!(nodes.len() > 2, "{nodes:?}");
    assert_ne!(tree(&shown(&cluster, id).await), tree(&trace));
    cluster.restart(leader).await;

    let compared = cluster
        .run(&format!(
            "trace compare {} {id} --json",
            trace["trace_id"].as_str().expect("an id")
        ))
        .await
        .ok()
        .json();
    let differences: Vec<(&str, i64)> = compared["names"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| {
            let difference = name["self_difference_ns"].as_i64().expect("a number");
            (name["name"].as_str().expect("a text"), difference)
        })
        .collect();
    assert!(
        differences.is_sorted_by_key(|(_, difference)| std::cmp::Reverse(difference.unsigned_abs())),
        "{differences:?}"
    );
    // The failover made others wait too; that the provider was slow to capture, after it, is sure.
    let captures = differences.iter().find(|(name, _)| *name == "POST /v1/captures");
    assert!(
        captures.is_some_and(|(_, difference)| *difference > 0),
        "{differences:?}"
    );
    for (line, code) in [
        (format!("trace show {}", "0123456789abcdef".repeat(2)), 1),
        ("trace show order/42".to_owned(), 2),
        (
            "trace show 0af7651916cd43dd8448eb211c80319c --address 127.0.0.1:1".to_owned(),
            3,
        ),
    ] {
        let finished = if code == 3 {
            harness::playhouse(harness::program!(), line.split(' ')).await
        } else {
            cluster.run(&line).await
        };
        assert_eq!(finished.code, code, "{line}: {finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_a_counter_and_logs_are_followed_through_a_kill() {
    let nobody = cluster::local::free_addresses(1)[0];
    let environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://{nobody}"))];
    let cluster = TestCluster::start_with(harness::program!(), 3, environment).await;
    sell_tea(&cluster).await;

    let port = cluster.grpc(1);
    let mut follower = Command::new(harness::program!())
        .args([
            "logs",
            "--follow",
            "--json",
            "--limit",
            "0",
            "--address",
            &port,
            "--address",
            &cluster.grpc(3),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();

    for _ in 0..3 {
        drop(cluster.run("order place --line tea:1 --json").await.ok());
    }
    let begun = Instant::now();
    loop {
        let stores = cluster.run("trace stores --json").await.ok().json();
        let sum = |key: &str| {
            stores["nodes"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(|node| node[key].as_u64())
                .sum::<u64>()
        };
        if sum("collector_spans_lost") > 0 && sum("spans_taken") > 0 {
            assert_eq!(sum("collector_spans"), 0);
            break;
        }
        assert!(begun.elapsed() < WITHIN, "{stores}");
        sleep(Duration::from_millis(200)).await;
    }

    let set = cluster.run("logs level info,node=debug --json").await.ok().json();
    assert_eq!(set["nodes"].as_array().map(Vec::len), Some(3), "{set}");
    assert_eq!(set["nodes"][0]["before"], "info");
    assert_eq!(cluster.run("logs level loud").await.code, 2);
    let failed = cluster.run("order show nowhere").await;
    assert_eq!(failed.code, 1);
    let told = cluster
        .run("logs --level debug --grep Orders/GetOrder --json")
        .await
        .ok();
    let line: Value = serde_json::from_str(told.stdout.lines().next_back().expect("a line")).expect("JSON");
    let trace = line["trace_id"].as_str().expect("a trace");
    // One that fails is told of whatever the sampler says, and has its line.
    let begun = Instant::now();
    loop {
        let shown = cluster.run(&format!("trace show {trace} --json")).await;
        if shown.code == 0 {
            let shown = shown.json();
            let spans = shown["spans"].as_array().expect("a list");
            let root = spans.iter().find(|span| span["parent_span_id"] == "").expect("a root");
            assert_eq!(root["status"], "error", "{shown:#}");
            assert!(!shown["logs"].as_array().expect("a list").is_empty(), "{shown:#}");
            break;
        }
        assert!(begun.elapsed() < WITHIN, "{shown:?}");
        sleep(Duration::from_millis(100)).await;
    }

    cluster.kill_9(2);
    wait_for(&mut lines, |line| line["notice"] == "away" && line["node"] == 2).await;
    cluster.restart(2).await;
    wait_for(&mut lines, |line| {
        line["node"] == 2 && line["message"] == "node listens"
    })
    .await;
    follower.kill().await.expect("it runs");
}

async fn wait_for(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    is_it: impl Fn(&Value) -> bool,
) {
    loop {
        let line = tokio::time::timeout(WITHIN, lines.next_line())
            .await
            .expect("a line comes");
        let line = line.expect("it can be read").expect("it goes on");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if is_it(&line) {
            return;
        }
    }
}
