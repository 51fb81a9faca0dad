//! A cluster is started, a file is replayed on it, and the node that leads most shards is killed meanwhile.

use std::{fs, time::Duration};

use harness::{TestCluster, invoices};
use serde_json::json;
use tokio::time::sleep;

/// Written by hand; has one of everything that real files have.
const ODDITIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/data/oddities.csv");
/// The promise is one second. A test machine that runs other tests too gets twice that.
const LONGEST_GAP_MS_MAX: u64 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_replayed_to_the_penny_also_across_a_kill() {
    let cluster = TestCluster::start(harness::program!(), 3).await;

    let first = cluster
        .run_words(&["shop", "--json", "--orders", ODDITIES])
        .await
        .ok()
        .json();
    assert_eq!(first["rows"], 29);
    assert_eq!(first["invoices"], 21);
    assert_eq!(first["orders"]["placed"], 8, "{first:#}");
    assert_eq!(first["orders"]["confirmed"], 8, "{first:#}");
    assert_eq!(first["orders"]["unknown"], 0);
    assert_eq!(first["returned"], 1);
    assert_eq!(first["write_offs"], 1);
    let refused = first["refused_invoices"].as_object().expect("an object");
    let mut numbers: Vec<_> = refused.keys().map(String::as_str).collect();
    numbers.sort_unstable();
    let expected = [
        "1008", "1009", "1010", "1011", "1013", "1018", "1019", "C1005", "C1006", "C1017", "row 21",
    ];
    assert_eq!(numbers, expected, "{first:#}");
    assert_eq!(refused["1008"], "a price is finer than a penny");
    assert_eq!(refused["C1006"], "guest return");
    // 50.10 + 2.50 + 30.50 + 15.00 + 110.06 + 7.90 + 7.29 + 4.20
    assert_eq!(first["captured_minor"], 22_755);
    assert_eq!(first["refunded_minor"], 1_250 + 2 * 105);
    let cups = cluster.run("stock show CUP --json").await.ok().json();
    assert_eq!(cups["received"], 12 + 2 + 6 + 1 + 4);
    assert_eq!(cups["written_off"], 4);
    assert_eq!(cups["on_hand"], 2, "two came back");

    let again = cluster
        .run_words(&["shop", "--json", "--orders", ODDITIES])
        .await
        .ok()
        .json();
    for field in [
        "orders",
        "refused_invoices",
        "returned",
        "write_offs",
        "captured_minor",
        "refunded_minor",
    ] {
        assert_eq!(
            again[field], first[field],
            "a file that was replayed before changes nothing"
        );
    }
    assert_eq!(cluster.run("stock show CUP --json").await.ok().json(), cups);

    let made_up = invoices(400);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let file = file.to_str().expect("is UTF-8");
    let shop = ["shop", "--json", "--rate", "80", "--run", "kill", "--orders", file];
    let kill_and_restart = async {
        sleep(Duration::from_millis(1_500)).await;
        let node = cluster.busiest_leader().await;
        cluster.kill_9(node);
        sleep(Duration::from_millis(1_500)).await;
        cluster.restart(node).await;
    };
    let (shopped, ()) = tokio::join!(cluster.run_words(&shop), kill_and_restart);
    let report = shopped.ok().json();
    assert_eq!(
        report["orders"],
        json!({"placed": 400, "confirmed": 400, "refused": {}, "unknown": 0}),
        "{report:#}"
    );
    assert_eq!(report["captured_minor"], made_up.total_minor);
    let gap_ms = report["longest_gap_ms"].as_u64().expect("a number");
    assert!(gap_ms <= LONGEST_GAP_MS_MAX, "{report:#}");
    cluster.verify().await;
}
