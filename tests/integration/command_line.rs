//! The shape of what each command prints, and its exit code.

use harness::{TestCluster, playhouse};
use serde_json::{Value, json};

fn is_trace_id(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_print_what_scripts_rely_on() {
    let mut cluster = TestCluster::start(harness::program!(), 3).await;
    ready_line(&cluster);
    catalog(&cluster).await;
    orders(&cluster).await;
    nodes(&cluster).await;
    second_up(&cluster).await;
    cluster.verify().await;
    assert_eq!(cluster.stop().await, Some(0), "Ctrl-C is a clean end");
    no_cluster(&cluster).await;
}

fn ready_line(cluster: &TestCluster) {
    let ready = cluster.ready();
    assert_eq!(ready["ready"], true);
    for (index, id) in cluster.node_ids().enumerate() {
        let node = &ready["nodes"][index];
        assert_eq!(node["id"], id);
        assert_eq!(node["grpc"], cluster.grpc(id));
        assert!(node["pid"].as_u64().is_some_and(|pid| pid > 0), "{node}");
        assert!(
            std::path::Path::new(node["data"].as_str().expect("a path")).is_dir(),
            "{node}"
        );
    }
    assert!(ready["provider"]["pid"].is_u64());
    assert!(cluster.provider().starts_with("http://127.0.0.1:"));
}

async fn catalog(cluster: &TestCluster) {
    let product = cluster
        .run("product put tea --name Tea --price 2.55 --json")
        .await
        .ok()
        .json();
    assert_eq!(
        product,
        json!({"sku": "tea", "name": "Tea", "price_minor": 255, "currency": "GBP", "version": 1})
    );
    assert_eq!(cluster.run("product show tea --json").await.ok().json(), product);
    let received = cluster.run("stock receive tea 100 --json").await.ok().json();
    assert_eq!(received["on_hand"], 100);
    let written_off = cluster.run("stock write-off tea 5 --json").await.ok().json();
    assert_eq!(written_off["written_off"], 5);
    assert_eq!(cluster.run("stock show tea --json").await.ok().json(), written_off);
    let once = "stock receive tea 5 --request-id delivery-1 --json";
    let first = cluster.run(once).await.ok().json();
    assert_eq!(
        cluster.run(once).await.ok().json(),
        first,
        "the same request id takes effect once"
    );
    let text = cluster.run("stock show tea").await.ok().stdout;
    assert!(text.contains("on hand") && !text.contains('\u{1b}'), "{text}");
}

async fn orders(cluster: &TestCluster) {
    let placed = cluster
        .run("order place --customer ann --line tea:3 --id first --json")
        .await
        .ok()
        .json();
    assert_eq!(placed["order_id"], "first");
    assert_eq!(placed["status"], "confirmed");
    assert_eq!(placed["total_minor"], 765);
    assert!(is_trace_id(&placed["trace_id"]), "{placed}");
    let shown = cluster.run("order show first --json").await.ok().json();
    assert_eq!(
        shown["lines"][0],
        json!({"sku": "tea", "quantity": 3, "returned": 0, "unit_price_minor": 255})
    );
    let events = cluster.run("order watch first --json").await.ok().stdout;
    let versions: Vec<u64> = events
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["version"]
                .as_u64()
                .expect("a number")
        })
        .collect();
    assert!(versions.len() >= 2 && versions.is_sorted(), "{events}");

    let entity = cluster.run("entity show order/first --json").await.ok().json();
    assert_eq!(entity["key"], "order/first");
    assert!(
        entity["version"].as_u64() >= Some(2) && entity["leader"].as_u64() >= Some(1),
        "{entity}"
    );
    assert_eq!(entity["state"]["status"], "Confirmed");
    assert!(!entity["events"].as_array().expect("a list").is_empty());

    let returned = cluster
        .run("order return --customer ann --line tea:1 --json")
        .await
        .ok()
        .json();
    assert_eq!(returned["refunded_minor"], 255);
    assert_eq!(returned["order_ids"], json!(["first"]));
    let cancelled = cluster.run("order cancel first --json").await.ok().json();
    assert!(
        matches!(cancelled["status"].as_str(), Some("cancelled" | "cancelling")),
        "{cancelled}"
    );

    let declined = cluster
        .run("order place --line tea:1 --card 4000000000000002 --json")
        .await;
    assert_eq!(declined.code, 1, "the answer is no");
    assert_eq!(declined.json()["status"], "refused");
    let too_many = cluster.run("order place --line tea:1000 --json").await;
    assert_eq!((too_many.code, &too_many.json()["status"]), (1, &json!("refused")));
    let missing = cluster.run("order show no-such-order").await;
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.starts_with("error: "), "{}", missing.stderr);
    assert_eq!(
        cluster.run("order place --customer ann").await.code,
        2,
        "an order needs a line"
    );
}

async fn nodes(cluster: &TestCluster) {
    let status = cluster.run("status --json").await.ok().json();
    assert_eq!(status["nodes"].as_array().expect("a list").len(), 3);
    let shards = status["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 16);
    for shard in shards {
        let leader = shard["leader"].as_u64().expect("a number");
        assert!((1..=3).contains(&leader), "{shard}");
        assert_eq!(shard["replicas"].as_array().expect("a list").len(), 3);
        let lag = shard["lag"].as_object().expect("an object");
        assert!(lag.keys().all(|node| *node != leader.to_string()), "{shard}");
        assert!(shard["term"].is_u64() && shard["applied"].is_u64());
    }
    let killed = cluster.run("kill 3 --json").await.ok().json();
    assert_eq!(killed["id"], 3);
    assert_eq!(cluster.pid(3), None);
    assert_eq!(cluster.run("kill 3").await.code, 1, "it is dead already");
    let started = cluster.run("restart 3 --json").await.ok().json();
    assert_eq!(started["pid"].as_u64(), cluster.pid(3).map(u64::from));
    assert_ne!(started["pid"], killed["pid"]);
    assert_eq!(cluster.run("kill 9").await.code, 1, "there is no such node");
}

async fn second_up(cluster: &TestCluster) {
    let data = cluster.data();
    let data = data.to_str().expect("is UTF-8");
    let same_folder = playhouse(harness::program!(), ["up", "--data", data, "--base-port", "19000"]).await;
    assert_eq!(same_folder.code, 2);
    assert!(
        same_folder.stderr.contains("in use by a running `playhouse up`"),
        "{}",
        same_folder.stderr
    );
    let other = cluster.scratch("other");
    let same_ports = cluster
        .run_words(&["up", "--data", other.to_str().expect("is UTF-8")])
        .await;
    assert_eq!(same_ports.code, 2);
    assert!(same_ports.stderr.contains("port "), "{}", same_ports.stderr);
}

async fn no_cluster(cluster: &TestCluster) {
    for line in ["status", "order show first", "verify --json", "kill 1"] {
        let finished = cluster.run(line).await;
        assert_eq!(finished.code, 3, "{line}: {finished:?}");
        assert!(finished.stderr.contains("playhouse up"), "{line}: {}", finished.stderr);
    }
}
