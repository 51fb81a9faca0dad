//! `playhouse chaos` on a cluster of real processes: faults are done and healed, and nothing that a client was told is untrue.

use std::fs;

use harness::{TestCluster, playhouse};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_hurt_keeps_its_word() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let finished = cluster
        .run("chaos --for 12s --faults kill,partition,slow-disk,full-disk --seed 11 --rate 120 --json")
        .await;
    let report = finished.json();
    assert_eq!(
        (finished.code, &report["ok"]),
        (0, &true.into()),
        "{report:#}\n{}",
        finished.stderr
    );
    assert_eq!(report["seed"], 11);
    assert!(
        report["operations"]["writes"].as_u64().expect("a number") > 100,
        "{report:#}"
    );
    assert!(
        report["operations"]["orders"].as_u64().expect("a number") > 5,
        "{report:#}"
    );
    let faults = report["faults"].as_array().expect("a list");
    assert!(!faults.is_empty(), "{report:#}");
    // A machine that is busy with something else makes windows outside of any fault, which happened no times.
    let lines = report["unavailability"].as_array().expect("a list");
    assert!(
        (lines.iter().filter(|line| line["fault"] != "(no fault)")).all(|line| line["times"].as_u64() > Some(0)),
        "{report:#}"
    );
    let checks = report["checks"].as_array().expect("a list");
    assert!(
        checks
            .iter()
            .all(|check| check["checked"].as_u64().expect("a number") > 5),
        "{report:#}"
    );
    assert_eq!(report["verify"]["ok"], true);
    // Nothing is left of it.
    for node in cluster.node_ids() {
        assert!(cluster.pid(node).is_some(), "node {node} runs");
    }

    let wrong = cluster.run("chaos --faults kill,explode").await;
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("explode") && wrong.stderr.contains("slow-disk"),
        "{}",
        wrong.stderr
    );

    // One whose configuration does not allow it takes no faults.
    let config = cluster.data().join("node-2.toml");
    let text = fs::read_to_string(&config).expect("it is there");
    assert!(text.contains("chaos = true"));
    fs::write(&config, text.replace("chaos = true", "chaos = false")).expect("written");
    cluster.restart(2).await;
    let refused = cluster.run("chaos --for 2s").await;
    assert_eq!(refused.code, 2, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stderr.contains("node 2") && refused.stderr.contains("chaos = true"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn without_a_cluster_it_says_so() {
    let finished = playhouse(harness::program!(), ["chaos", "--base-port", "1"]).await;
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    assert!(finished.stderr.contains("playhouse up"), "{}", finished.stderr);
}
