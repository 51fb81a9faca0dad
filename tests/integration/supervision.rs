//! Policies, quarantine and breakers from the command line: what one node's breaker meets, all nodes know, also after all
//! of them were killed.

use std::time::Duration;

use harness::TestCluster;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Failures take their time, and so does a start.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_known_to_all_nodes_and_people_have_the_last_word() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let policies = cluster.run("supervision --json").await.ok().json();
    let named = |name: &str| {
        policies
            .as_array()
            .expect("a list")
            .iter()
            .find(|p| p["name"] == name)
            .cloned()
    };
    assert_eq!(named("order").expect("a kind")["quarantine_after"], 3);
    assert_eq!(named("payment-provider").expect("a dependency")["of"], "outside");
    let list = cluster.run("quarantine list --json").await.ok().json();
    assert_eq!(list, json!({"entities": [], "failing": [], "unreachable_nodes": []}));
    for line in [
        "quarantine show order/none",
        "quarantine skip order/none",
        "breaker open nobody",
    ] {
        assert_eq!(cluster.run(line).await.code, 1, "{line}");
    }

    drop(cluster.run("product put tea --name Tea --price 2.50").await.ok());
    drop(cluster.run("stock receive tea 10").await.ok());
    let url = format!("{}/control", cluster.provider());
    let answer = reqwest::Client::new()
        .put(url)
        .json(&json!({"outage": true}))
        .send()
        .await;
    assert!(answer.expect("the provider answers").status().is_success());
    for order in 0..3 {
        let line = format!("order place --customer ann --line tea:1 --id o{order} --no-wait");
        drop(cluster.run(&line).await.ok());
    }
    // Not every node has called the provider, and each node that has not hears of it.
    breakers(&cluster, "open").await;
    for node in cluster.node_ids() {
        cluster.kill_9(node);
    }
    for node in cluster.node_ids() {
        cluster.restart(node).await;
    }
    breakers(&cluster, "open").await;

    drop(cluster.run("breaker close payment-provider").await.ok());
    let all = breakers(&cluster, "closed").await;
    assert!(all.iter().all(|breaker| breaker["forced"] == "closed"), "{all:?}");
    drop(cluster.run("breaker open payment-provider").await.ok());
    breakers(&cluster, "open").await;
    drop(cluster.run("breaker auto payment-provider").await.ok());
    let all = breakers(&cluster, "").await;
    assert!(all.iter().all(|breaker| breaker["forced"] == "auto"), "{all:?}");
}

/// Waits until the breakers of all three nodes are in this state; in any, if it is empty.
async fn breakers(cluster: &TestCluster, state: &str) -> Vec<Value> {
    let ends = Instant::now() + KNOWN_WITHIN;
    loop {
        let list = cluster.run("breaker list --json").await.ok().json();
        let all = list.as_array().expect("a list").clone();
        if all.len() == 3 && all.iter().all(|breaker| state.is_empty() || breaker["state"] == state) {
            return all;
        }
        assert!(Instant::now() < ends, "{list:#}");
        sleep(Duration::from_millis(100)).await;
    }
}
