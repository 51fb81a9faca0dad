//! A node stands still for a while, keeps its connections, and comes back in the belief that it leads.

use std::{fs, time::Duration};

use harness::{TestCluster, invoices};
use tokio::time::sleep;

/// The promise is one second. A test machine that runs other tests too gets twice that.
const LONGEST_GAP_MS_MAX: u64 = 2_000;
/// Long enough for every other node to have given it up.
const PAUSE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_neither_stops_nor_doubles_anything() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(500);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let shop = [
        "shop",
        "--json",
        "--rate",
        "70",
        "--orders",
        file.to_str().expect("is UTF-8"),
    ];
    let pause_and_resume = async {
        sleep(Duration::from_millis(1_500)).await;
        let node = cluster.busiest_leader().await;
        cluster.pause(node).await;
        sleep(PAUSE).await;
        cluster.resume(node).await;
    };
    let (shopped, ()) = tokio::join!(cluster.run_words(&shop), pause_and_resume);
    let report = shopped.ok().json();
    assert_eq!(report["orders"]["confirmed"], made_up.orders, "{report:#}");
    assert_eq!(report["orders"]["unknown"], 0);
    assert_eq!(report["captured_minor"], made_up.total_minor);
    let gap_ms = report["longest_gap_ms"].as_u64().expect("a number");
    assert!(gap_ms <= LONGEST_GAP_MS_MAX, "{report:#}");
    cluster.verify().await;
}
