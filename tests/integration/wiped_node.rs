//! The data folder of a node is deleted; the node fetches everything from its peers.

use std::fs;

use harness::{TestCluster, invoices};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_becomes_equal_again() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(80);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let shop = ["shop", "--json", "--orders", file.to_str().expect("is UTF-8")];
    let _ = cluster.run_words(&shop).await.ok();

    cluster.kill_9(2);
    cluster.wipe(2);
    cluster.restart(2).await;
    let report = cluster.verify().await;
    let replicas = report["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|check| check["name"] == "replicas_equal");
    assert_eq!(replicas.expect("is checked")["checked"], 16);

    // What it fetched is good enough to lose another node.
    cluster.kill_9(1);
    let again = cluster.run_words(&shop).await.ok().json();
    assert_eq!(again["orders"]["confirmed"], made_up.orders);
    assert_eq!(again["captured_minor"], made_up.total_minor);
    cluster.restart(1).await;
    cluster.verify().await;
}
