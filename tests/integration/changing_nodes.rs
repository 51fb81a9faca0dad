//! Nodes are restarted one after another, join, are drained and leave, while a file is replayed: no call fails, and nothing is
//! lost or doubled.

use std::fs;

use harness::{TestCluster, invoices};
use serde_json::{Value, json};

async fn shop(cluster: &TestCluster, run: &str, orders: usize) -> Value {
    let file = cluster.scratch(&format!("{run}.csv"));
    let made_up = invoices(orders);
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let file = file.to_str().expect("is UTF-8");
    let words = ["shop", "--json", "--rate", "40", "--run", run, "--orders", file];
    let report = cluster.run_words(&words).await.ok().json();
    let orders = json!({"placed": orders, "confirmed": orders, "refused": {}, "unknown": 0});
    assert_eq!(report["orders"], orders, "{report:#}");
    assert_eq!(report["captured_minor"], made_up.total_minor);
    report
}

/// Of each node: number, standing, replicas, leaderships.
async fn nodes(cluster: &TestCluster) -> Vec<(u64, String, u64, u64)> {
    let status = cluster.run("status --json").await.ok().json();
    let nodes = status["nodes"].as_array().expect("the status lists the nodes");
    let number = |node: &Value, key: &str| node[key].as_u64().expect("a number");
    nodes
        .iter()
        .map(|node| {
            let standing = node["standing"].as_str().expect("a word").to_owned();
            (
                number(node, "id"),
                standing,
                number(node, "replicas"),
                number(node, "leads"),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_under_load_without_a_failed_call() {
    let mut cluster = TestCluster::start(harness::program!(), 3).await;

    let (_, rolled) = tokio::join!(shop(&cluster, "rolling", 200), cluster.run("restart --rolling --json"));
    assert_eq!(rolled.ok().json(), json!({"restarted": [1, 2, 3]}));

    let (_, joined) = tokio::join!(shop(&cluster, "join", 120), cluster.run("node join --json"));
    assert_eq!(joined.ok().json()["id"], 4);
    let even = |id| (id, "serving".to_owned(), 12, 4);
    assert_eq!(
        nodes(&cluster).await,
        [1, 2, 3, 4].map(even),
        "shards and leaders are even again"
    );

    let (_, drained) = tokio::join!(shop(&cluster, "drain", 120), cluster.run("node drain 2 --json"));
    assert_eq!(drained.ok().json()["done"], "drained");
    assert_eq!(nodes(&cluster).await[1], (2, "draining".to_owned(), 0, 0));

    // With only three left, another one cannot go without being told that copies go with it.
    let refused = cluster.run("node drain 3").await;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);

    let _ = cluster.run("node uncordon 2").await.ok();
    let removed = cluster.run("node remove 4 --json").await;
    assert_eq!(removed.ok().json()["done"], "removed");
    let members: Vec<u64> = nodes(&cluster).await.into_iter().map(|node| node.0).collect();
    assert_eq!(members, [1, 2, 3]);
    cluster.verify().await;

    // What was decided outlives all processes.
    assert_eq!(cluster.stop().await, Some(0));
    cluster.start_again().await;
    cluster.verify().await;
}
