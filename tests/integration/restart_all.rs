//! All nodes are killed at once and started again; then `up` itself is stopped and started again.

use std::fs;

use harness::{TestCluster, invoices};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_all_nodes_die() {
    let mut cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(60);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let shop = ["shop", "--json", "--orders", file.to_str().expect("is UTF-8")];
    let before = cluster.run_words(&shop).await.ok().json();
    assert_eq!(before["orders"]["confirmed"], made_up.orders);

    for node in cluster.node_ids() {
        cluster.kill_9(node);
    }
    let refused = cluster.run("status").await;
    assert_eq!(refused.code, 3, "{refused:?}");
    for node in cluster.node_ids() {
        cluster.restart(node).await;
    }
    let order = cluster.run("order show 7 --json").await.ok().json();
    assert_eq!(order["status"], "confirmed");
    let again = cluster.run_words(&shop).await.ok().json();
    assert_eq!(
        again["orders"], before["orders"],
        "the same request ids get the same replies"
    );
    assert_eq!(again["captured_minor"], made_up.total_minor);
    cluster.verify().await;

    assert_eq!(cluster.stop().await, Some(0));
    cluster.start_again().await;
    let again = cluster.run_words(&shop).await.ok().json();
    assert_eq!(again["captured_minor"], made_up.total_minor);
    cluster.verify().await;
}
