//! A day of orders is looked back at, decided once more, audited, and one customer's order is forgotten: by the command line, while a node
//! is killed.

use std::{fs, path::Path, time::Duration};

use harness::{TestCluster, invoices};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// A checkpoint comes every five seconds, a start takes its time.
const WITHIN: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_orders_is_looked_back_at_replayed_and_partly_forgotten() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(40);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let shop = ["shop", "--json", "--orders", file.to_str().expect("is UTF-8")];
    drop(cluster.run_words(&shop).await.ok());

    // The past.
    let now = cluster.run("entity show order/7 --json").await.ok().json();
    let last = now["version"].as_u64().expect("a version");
    let first = cluster.run("entity show order/7 --at 1 --json").await.ok().json();
    assert_eq!(
        (&first["version"], &first["state"]["status"]),
        (&1.into(), &"Pending".into())
    );
    assert_eq!(
        (&first["key"], &first["kind"], &first["id"]),
        (&now["key"], &now["kind"], &now["id"])
    );
    let at = first["at"]["unix_ms"].as_u64().expect("a time");
    let then = cluster
        .run(&format!("entity show order/7 --at {at} --json"))
        .await
        .ok()
        .json();
    assert_eq!(then["state"], first["state"]);
    let same = cluster
        .run(&format!("entity show order/7 --at {last} --json"))
        .await
        .ok()
        .json();
    assert_eq!(same["state"], now["state"]);
    let diff = cluster
        .run(&format!("entity diff order/7 1 {last} --json"))
        .await
        .ok()
        .json();
    let paths: Vec<&Value> = diff["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|change| &change["path"])
        .collect();
    assert!(paths.contains(&&Value::from("status")), "{diff}");
    assert_eq!(diff["events"].as_array().map(Vec::len), Some(last as usize - 1));
    for (line, code, said) in [
        (
            format!("entity show order/7 --at {}", last + 1),
            1,
            "has only come to version",
        ),
        (
            "entity show order/7 --at 2001-01-01T00:00:00Z".to_owned(),
            1,
            "did not exist yet",
        ),
        ("entity show order/none --at 1".to_owned(), 1, "there is no event yet"),
        ("entity show order/7 --at noon".to_owned(), 2, "2026-11-21T10:30:00Z"),
        ("entity replay order/none".to_owned(), 1, "nothing is recorded"),
        ("entity replay --kind ordr".to_owned(), 2, "knows no kind"),
        ("entity forget order/none".to_owned(), 1, "there is no record"),
        ("entity forget --verify order/7".to_owned(), 1, "is not forgotten"),
    ] {
        let finished = cluster.run(&line).await;
        assert!(
            finished.code == code && finished.stderr.contains(said),
            "{line}: {finished:?}"
        );
    }

    // The same build decides everything as it was, with a node less.
    cluster.kill_9(cluster.busiest_leader().await);
    for kind in ["order", "checkout", "stock", "payment", "customer"] {
        let replayed = cluster
            .run(&format!("entity replay --kind {kind} --json"))
            .await
            .ok()
            .json();
        assert_eq!(replayed["equal"], true, "{replayed}");
        assert!(
            replayed["decisions"].as_u64() > Some(20) && replayed["without_effects"] == 0,
            "{replayed}"
        );
    }
    let few = cluster
        .run("entity replay --kind order --limit 3 --json")
        .await
        .ok()
        .json();
    assert_eq!(few["entities"], 3);
    for node in cluster.node_ids() {
        if cluster.pid(node).is_none() {
            cluster.restart(node).await;
        }
    }

    // Who asked.
    let asked = cluster.run("audit order/7 --json").await.ok().json();
    let entries = asked["entries"].as_array().expect("a list");
    let actions: Vec<&str> = entries.iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert!(
        ["command", "effect", "show", "show at", "diff"]
            .iter()
            .all(|action| actions.contains(action)),
        "{actions:?}"
    );

    // One order is forgotten, and its copies with it.
    let forgotten = cluster
        .run("entity forget order/7 --reason asked --json")
        .await
        .ok()
        .json();
    assert_eq!(forgotten["receipt"]["reason"], "asked");
    let shown = cluster.run("entity show order/7").await;
    assert!(shown.code == 1 && shown.stderr.contains("forgotten"), "{shown:?}");
    let done = cluster.run("audit --json").await.ok().json();
    let done = done["entries"].as_array().expect("a list").clone();
    assert!(
        done.iter()
            .any(|entry| entry["action"] == "forget" && entry["subject"] == "order/7"),
        "{done:?}"
    );
    verified(&cluster, |node| {
        node["rows"] == 0 && node["log_entries"] == 0 && node["in_memory"] == 0
    })
    .await;
    drop(cluster.run("restart --rolling").await.ok());
    verified(&cluster, |node| node["clean"] == true).await;
    drop(cluster.run("entity forget --verify order/7").await.ok());
    // The record of the placed order is in no file: its request id was only there.
    let request = forgotten_request(&entries[..]);
    assert!(
        !holds(&cluster.data(), request.as_bytes()),
        "{request} is still in a file"
    );
    let again = cluster.run("order show 8 --json").await.ok().json();
    assert_eq!(again["status"], "confirmed");
}

/// Of the command that placed the order.
fn forgotten_request(entries: &[Value]) -> String {
    let placed = entries
        .iter()
        .find(|entry| entry["action"] == "command")
        .expect("it was placed");
    placed["request_id"].as_str().expect("a text").to_owned()
}

async fn verified(cluster: &TestCluster, is_enough: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let found = cluster.run("entity forget --verify order/7 --json").await.json();
        if found["nodes"].as_array().expect("a list").iter().all(&is_enough) {
            return;
        }
        assert!(begun.elapsed() < WITHIN, "{found}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Whether a node's log or state holds these bytes.
fn holds(folder: &Path, wanted: &[u8]) -> bool {
    let entries = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    entries
        .filter(|path| path.extension().is_none_or(|end| end != "sock"))
        .any(|path| {
            if path.is_dir() {
                return holds(&path, wanted);
            }
            let bytes = fs::read(&path).unwrap_or_default();
            bytes.windows(wanted.len()).any(|window| window == wanted)
        })
}
