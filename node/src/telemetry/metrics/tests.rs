//! What all metrics have to keep to: the page that describes them, and that there can never be too many of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use actors::{
    Currency, Money, OrderId,
    checkout::Checkout,
    models::levels::{Answer, SagaLevel},
    order, payment,
    returns::Return,
    stock,
};
use cluster::{
    Entity as _,
    metrics::{BreakerFigures, CallEnd, CommandEnd, Commit, Figures, Meter as _, ShardFigures},
    saga,
    supervision::{Guard, Policy},
};

use super::{Metrics, grpc::CANCELLED};

/// Labels that a metric may have.
const LABELS: [&str; 19] = [
    "code",
    "currency",
    "dependency",
    "job",
    "kind",
    "le",
    "limit",
    "method",
    "operation",
    "outcome",
    "part",
    "place",
    "reason",
    "service_instance_id",
    "service_name",
    "shard",
    "state",
    "telemetry_sdk_language",
    "telemetry_sdk_name",
];
/// Values that one label of one metric may have, in a node with 16 shards.
const VALUES_MAX: usize = 120;
/// What is in every id that the tests make up.
const ID: &str = "very-own-id";

fn money(minor: i64, currency: &str) -> Money {
    Money {
        minor,
        currency: currency.parse::<Currency>().expect("three letters"),
    }
}

fn figures() -> Figures {
    let shards = (0..=16).map(|shard| ShardFigures {
        shard,
        is_system: shard == 16,
        leads: true,
        ..ShardFigures::default()
    });
    let guard = Guard::new("payment-provider", Policy::OUTSIDE);
    Figures {
        node: 1,
        shards: shards.collect(),
        refused: vec![("mailbox_len_max", 2)],
        breakers: vec![BreakerFigures {
            dependency: guard.dependency().to_owned(),
            state: guard.state(),
            in_flight: 0,
        }],
        ..Figures::default()
    }
}

/// A node's metrics once everything has happened at least once.
async fn busy(folder: &Path) -> Metrics {
    let metrics = Metrics::begin(1, folder, None).expect("no collector, nothing to go wrong");
    let inner = metrics.0.as_ref().expect("they are on");
    inner.engine.set(Arc::new(figures()));
    inner.disk.look().await;
    metrics.watch_certificate(|| 4_102_444_800);
    inner.levels.take(Answer {
        sagas: [(Checkout::KIND.to_owned(), SagaLevel::default())].into(),
        ..Answer::default()
    });
    let took = Duration::from_millis(3);
    for end in CommandEnd::ALL {
        inner.recorder.command(end, took);
    }
    inner.recorder.committed(&Commit {
        queue: took,
        sync: took,
        network: took,
        apply: took,
    });
    inner.recorder.waited(took);
    inner.recorder.fired(took);
    for end in CallEnd::ALL {
        inner.recorder.called("payment-provider", end, took);
    }
    for path in ["/playhouse.order.v1.Orders/PlaceOrder", "/made.up/ByACaller"] {
        for code in [0, 14, 99, CANCELLED] {
            let method = inner.grpc.begin(path);
            inner.grpc.end(&method, code, took);
        }
    }
    let domain = inner.recorder.domain();
    for n in 0..100 {
        let (id, reason) = (format!("{ID}-{n}"), || ID.to_owned());
        let currency = format!("{}{}A", char::from(b'A' + n / 26), char::from(b'A' + n % 26));
        let (customer, lines, total) = (None, Vec::new(), money(250, &currency));
        domain.saw_order(&id, 5, &order::Event::Placed { customer, lines, total });
        domain.saw_order(&id, 9, &order::Event::Confirmed);
        domain.saw_order(&id, 9, &order::Event::Refused { reason: reason() });
        domain.saw_order(&id, 9, &order::Event::Cancelled);
        domain.saw_payment(&id, &payment::Event::AuthorisationRequested { amount: total });
        domain.saw_payment(&id, &payment::Event::Declined { reason: reason() });
        domain.saw_payment(&id, &payment::Event::Captured);
        let (reference, amount) = (reason(), total);
        domain.saw_payment(&id, &payment::Event::Refunded { reference, amount });
        let (order, quantity) = (OrderId::new(&id).expect("an id"), 2);
        domain.saw_stock(&stock::Event::Released { order, quantity });
        let step = saga::Step::new("reserve", &id);
        domain.saw_saga::<Checkout>(&saga::Event::Failed {
            step: step.clone(),
            reason: reason(),
            again_ms: 5,
        });
        domain.saw_saga::<Return>(&saga::Event::Undone {
            step,
            next: Some(saga::Next::Undone(70)),
        });
    }
    metrics
}

fn text(metrics: &Metrics) -> String {
    let text = metrics.text().expect("they are on").expect("it can be written");
    String::from_utf8(text).expect("it is text")
}

/// Name and type of all that is exported.
fn exported(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pairs = types.filter_map(|line| line.split_once(' '));
    pairs.map(|(name, of)| (name.to_owned(), of.to_owned())).collect()
}

/// Name, type and labels of all that the page has.
fn described() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../../../docs/metrics.md");
    let word = |cell: &str| cell.trim().trim_matches('`').to_owned();
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').collect();
            let [name, of, labels, ..] = cells[..] else { return None };
            let of = word(of);
            ["counter", "gauge", "histogram"].contains(&&*of).then(|| {
                let labels = labels.split(',').map(word).filter(|label| !label.is_empty());
                (word(name), (of, labels.collect()))
            })
        })
        .collect()
}

/// The samples: name, labels.
fn samples(text: &str) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| {
        let (name, rest) = line
            .split_once('{')
            .unwrap_or((line.split(' ').next().unwrap_or(line), ""));
        let labels = rest.split_once("\"}").map_or("", |(labels, _)| labels);
        let pairs = labels.split("\",").filter_map(|label| label.split_once("=\""));
        (name, pairs.collect())
    })
}

#[tokio::test]
async fn the_page_has_what_a_node_exports_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(&busy(folder.path()).await);
    let (exported, described) = (exported(&text), described());
    for (name, of) in &exported {
        let on_page = described.get(name).map(|(of, _)| of);
        assert_eq!(on_page, Some(of), "docs/metrics.md has it wrong: {name}");
    }
    for name in described.keys() {
        assert!(
            exported.contains_key(name),
            "docs/metrics.md has {name}, which no node exports"
        );
    }
    for (name, labels) in samples(&text) {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let known = described.get(name).or_else(|| described.get(base?));
        let (_, known) = known.unwrap_or_else(|| panic!("{name} belongs to no metric of the page"));
        for (label, _) in labels
            .into_iter()
            .filter(|(label, _)| *label != "le" && name != "target_info")
        {
            assert!(
                known.contains(label),
                "docs/metrics.md does not have the label {label} of {name}"
            );
        }
    }
}

#[tokio::test]
async fn no_id_is_a_label_and_no_label_has_many_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(&busy(folder.path()).await);
    assert!(!text.contains(ID), "an id is in the metrics");
    assert!(!text.contains("ByACaller"), "a caller has made up a label");
    let mut values: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (name, labels) in samples(&text) {
        for (label, value) in labels {
            let is_known = LABELS.contains(&label) || name == "target_info";
            assert!(
                is_known,
                "{name} has the label {label}, which is not in the list of this test"
            );
            values.entry((name, label)).or_default().insert(value);
        }
    }
    for ((name, label), values) in values {
        assert!(
            values.len() <= VALUES_MAX,
            "{name} has {} values of {label}",
            values.len()
        );
    }
}

#[tokio::test]
async fn counts_are_those_of_what_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = text(&busy(folder.path()).await);
    for line in [
        "playhouse_orders_placed_total 100",
        "playhouse_orders_ended_total{outcome=\"confirmed\"} 100",
        "playhouse_command_duration_seconds_count{outcome=\"unknown\"} 1",
        "playhouse_saga_duration_seconds_count{kind=\"return\",outcome=\"undone\"} 100",
        "playhouse_stock_operation_pieces_total{operation=\"released\"} 200",
        "playhouse_shard_leader{shard=\"system\"} 1",
        "playhouse_shards_led 16",
        "playhouse_breaker_state{dependency=\"payment-provider\",state=\"closed\"} 1",
        "playhouse_grpc_server_calls_total{code=\"CANCELLED\",method=\"Orders/PlaceOrder\"} 1",
        "playhouse_grpc_server_calls_total{code=\"UNKNOWN\",method=\"other\"} 1",
        "playhouse_admission_refused_total{limit=\"mailbox_len_max\"} 2",
        "playhouse_payments_amount_minor_total{currency=\"AAA\",operation=\"captured\"} 250",
    ] {
        let has = |line: &str| text.lines().any(|has| has == line);
        let swapped = line.split_once('{').and_then(|(name, rest)| {
            let (labels, value) = rest.split_once('}')?;
            let (a, b) = labels.split_once(',')?;
            Some(format!("{name}{{{b},{a}}}{value}"))
        });
        assert!(
            has(line) || swapped.is_some_and(|line| has(&line)),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn a_node_without_metrics_does_nothing() {
    let off = Metrics::default();
    assert!(off.text().is_none() && off.meter().is_none() && off.grpc().is_none() && off.series().is_none());
    off.stop();
}

mod collector {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    };
    use tokio::{net::TcpListener, sync::mpsc};
    use tonic::{Request, Response, Status, transport::server::TcpIncoming};

    use super::*;

    struct Collector(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

    #[tonic::async_trait]
    impl MetricsService for Collector {
        async fn export(
            &self,
            request: Request<ExportMetricsServiceRequest>,
        ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
            // The test may be over.
            let _ = self.0.send(request.into_inner());
            Ok(Response::new(ExportMetricsServiceResponse::default()))
        }
    }

    async fn stopped(metrics: Metrics) -> Metrics {
        tokio::task::spawn_blocking(move || {
            metrics.stop();
            metrics
        })
        .await
        .expect("no panic")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_gets_the_same_metrics() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let (sender, mut requests) = mpsc::unbounded_channel();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(MetricsServiceServer::new(Collector(sender)))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Metrics::begin(3, folder.path(), Some(&endpoint)).expect("a good endpoint");
        let recorder = Arc::clone(&metrics.0.as_ref().expect("on").recorder);
        recorder.command(CommandEnd::Replied, Duration::from_millis(1));
        stopped(metrics).await;
        let request = requests.recv().await.expect("an export");
        let metrics = request
            .resource_metrics
            .iter()
            .flat_map(|of| &of.scope_metrics)
            .flat_map(|of| &of.metrics);
        let names: BTreeSet<&str> = metrics.map(|metric| &*metric.name).collect();
        assert!(
            names.contains("playhouse.command.duration") && names.contains("process.cpu"),
            "{names:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_collector_costs_a_count() {
        let endpoint = format!("http://{}", cluster::local::free_addresses(1)[0]);
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Metrics::begin(3, folder.path(), Some(&endpoint)).expect("nobody has to be there");
        let readers = &metrics.0.as_ref().expect("on").readers;
        assert_eq!(readers.exports(), (0, 0));
        let metrics = stopped(metrics).await;
        assert_eq!(metrics.0.as_ref().expect("on").readers.exports(), (0, 1));
    }
}
