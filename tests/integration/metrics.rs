//! What a cluster tells of itself while it works and while a node is gone: over HTTP for Prometheus, over gRPC for people.

use std::{collections::BTreeSet, time::Duration};

use harness::TestCluster;
use proto::telemetry::v1::{
    ExemplarsRequest, ObjectivesRequest, SeriesRequest, SeriesResponse, metrics_client::MetricsClient,
};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

/// Figures are looked at once a second, and read models are told of what is new about as often.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// What is in every id of the test.
const ID: &str = "very-own-id";
/// Orders that are placed.
const ORDERS: u64 = 6;

async fn client(cluster: &TestCluster, node: u8) -> MetricsClient<Channel> {
    let address = format!("http://{}", cluster.grpc(node));
    MetricsClient::connect(address).await.expect("the node is there")
}

/// What a node tells who accepts this.
async fn scraped_as(cluster: &TestCluster, node: u8, accepted: &str) -> String {
    let http = &cluster.ready()["nodes"][usize::from(node) - 1]["http"];
    let url = format!("http://{}/metrics", http.as_str().expect("an address"));
    let asked = reqwest::Client::new().get(url).header("accept", accepted);
    let answer = asked.send().await.expect("the node answers");
    assert!(answer.status().is_success());
    let content_type = answer.headers()["content-type"].to_str().expect("a text");
    assert!(content_type.starts_with(accepted), "{content_type}");
    answer.text().await.expect("text")
}

async fn scraped(cluster: &TestCluster, node: u8) -> String {
    scraped_as(cluster, node, "text/plain").await
}

/// The sum of a metric with these labels over all nodes.
async fn sum(cluster: &TestCluster, metric: &str) -> f64 {
    let mut sum = 0.0;
    for node in cluster.node_ids() {
        let text = scraped(cluster, node).await;
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        sum += lines.map(|value| value.parse::<f64>().expect("a number")).sum::<f64>();
    }
    sum
}

async fn becomes(cluster: &TestCluster, metric: &str, wanted: f64) {
    let until = Instant::now() + SEEN_WITHIN;
    loop {
        let found = sum(cluster, metric).await;
        if (found - wanted).abs() < 1e-9 {
            return;
        }
        assert!(Instant::now() < until, "{metric} is {found}, not {wanted}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// All that a series adds up to, and what is known of it.
fn total(told: &SeriesResponse, name: &str, node: u32) -> f64 {
    let series = told
        .series
        .iter()
        .find(|series| series.name == name && series.node == node);
    let values = &series
        .unwrap_or_else(|| panic!("no series {name} of node {node}"))
        .values;
    values.iter().filter(|value| !value.is_nan()).sum()
}

/// Of the calls that took about as long, one leads to its trace: for people, and for Prometheus where it was measured.
async fn lead_to_traces(cluster: &TestCluster, asked: &mut MetricsClient<Channel>) {
    let told = asked.exemplars(ExemplarsRequest::default()).await.expect("an answer");
    let told = told.into_inner();
    assert!(told.unanswered.is_empty(), "{:?}", told.unanswered);
    let of_orders = told.exemplars.iter().find(|one| one.method == "Orders/PlaceOrder");
    let exemplar = of_orders.expect("the command line has its calls traced");
    let label = format!("trace_id=\"{}\"", exemplar.trace_id);
    let node = u8::try_from(exemplar.node).expect("a node");
    let text = scraped_as(cluster, node, "application/openmetrics-text").await;
    let line = text
        .lines()
        .find(|line| line.contains(&label))
        .expect("the exemplar is there");
    let bucket = "playhouse_grpc_server_call_duration_seconds_bucket{method=\"Orders/PlaceOrder\"";
    assert!(line.starts_with(bucket), "{line}");
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !scraped(cluster, node).await.contains(&label),
        "the older format has no place for it"
    );
    let trace = cluster
        .run(&format!("trace show {} --json", exemplar.trace_id))
        .await
        .ok();
    assert!(trace.stdout.contains(&exemplar.span_id), "{}", trace.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_once_and_a_node_that_is_gone_is_named() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    becomes(&cluster, "playhouse_shards_led", 16.0).await;
    let tea = format!("{ID}-tea");
    drop(
        cluster
            .run(&format!("product put {tea} --name Tea --price 2.50"))
            .await
            .ok(),
    );
    drop(cluster.run(&format!("stock receive {tea} 100")).await.ok());
    for order in 0..ORDERS {
        let line = format!("order place --customer {ID} --line {tea}:2 --id {ID}-{order} --request-id {ID}-{order}");
        drop(cluster.run(&line).await.ok());
        // The same again is the same order.
        drop(cluster.run(&line).await.ok());
    }
    drop(cluster.run(&format!("order cancel {ID}-0")).await.ok());

    for (metric, wanted) in [
        ("playhouse_orders_placed_total", 6.0),
        ("playhouse_orders_ended_total{outcome=\"confirmed\"}", 6.0),
        ("playhouse_orders_ended_total{outcome=\"cancelled\"}", 1.0),
        ("playhouse_orders_value_minor_total{currency=\"GBP\"}", 3000.0),
        ("playhouse_sagas_started_total{kind=\"checkout\"}", 6.0),
        (
            "playhouse_saga_duration_seconds_count{kind=\"checkout\",outcome=\"completed\"}",
            6.0,
        ),
        ("playhouse_order_duration_seconds_count{outcome=\"confirmed\"}", 6.0),
        ("playhouse_payment_amount_count{currency=\"GBP\"}", 6.0),
        ("playhouse_stock_operations_total{operation=\"reserved\"}", 6.0),
        // Read models say the rest: it is known whoever leads.
        ("playhouse_stock_pieces{place=\"on_hand\"}", 90.0),
        ("playhouse_stock_pieces{place=\"sold\"}", 10.0),
        ("playhouse_orders_active", 0.0),
        ("playhouse_sagas_active{kind=\"checkout\"}", 0.0),
    ] {
        becomes(&cluster, metric, wanted).await;
    }
    for node in cluster.node_ids() {
        assert!(
            !scraped(&cluster, node).await.contains(ID),
            "an id is a label at node {node}"
        );
    }

    let mut first = client(&cluster, 1).await;
    lead_to_traces(&cluster, &mut first).await;
    let request = SeriesRequest {
        by_node: true,
        ..SeriesRequest::default()
    };
    let told = first.series(request.clone()).await.expect("an answer").into_inner();
    assert!(told.unanswered.is_empty(), "{:?}", told.unanswered);
    assert!((total(&told, "orders_per_s", 0) - ORDERS as f64).abs() < 1e-9);
    let of_nodes: f64 = (1..=3).map(|node| total(&told, "orders_per_s", node)).sum();
    assert!((of_nodes - ORDERS as f64).abs() < 1e-9, "the parts are the whole");
    let names: BTreeSet<&str> = told.names.iter().map(|known| &*known.name).collect();
    assert_eq!(told.series.len(), names.len() * 4);
    let unknown = SeriesRequest {
        names: vec!["tea".to_owned()],
        ..SeriesRequest::default()
    };
    let refused = first.series(unknown).await.expect_err("there is no such series");
    assert!(refused.message().contains("orders_per_s"), "{}", refused.message());

    let mut watched = first
        .watch(SeriesRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let mut newest_ms = 0;
    for _ in 0..3 {
        let told = watched.message().await.expect("it goes on").expect("it goes on");
        let series = &told.series[0];
        assert!(series.first_unix_ms > newest_ms, "each point comes once");
        newest_ms = series.first_unix_ms + (series.values.len() as u64 - 1) * u64::from(told.step_ms);
    }
    let objectives = first.objectives(ObjectivesRequest::default()).await.expect("an answer");
    let availability = &objectives.into_inner().objectives[0];
    assert_eq!((&*availability.name, &*availability.state), ("availability", "met"));
    let window = &availability.windows[0];
    assert!(window.total > 2 * ORDERS && window.good == window.total, "{window:?}");

    cluster.kill_9(3);
    let told = first.series(request).await.expect("an answer").into_inner();
    let unanswered: Vec<u32> = told.unanswered.iter().map(|node| node.node).collect();
    assert_eq!(unanswered, [3]);
    assert!(
        total(&told, "commands_per_s", 0) > 0.0,
        "the others are told of all the same"
    );
}
