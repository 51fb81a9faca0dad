//! Files of a node are damaged while it is down. It says what is wrong, fetches everything from its peers, and is equal again; a last write that
//! was torn is only cut off.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use harness::{TestCluster, invoices};
use tokio::time::{Instant, sleep};

/// The node whose files are damaged.
const NODE: u8 = 2;
/// No node takes longer to be whole again.
const WHOLE_MAX: Duration = Duration::from_mins(1);
/// What a node says when it has set its folder aside.
const SAID: &str = "the data folder is damaged";

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_fetched_from_peers_and_a_torn_write_is_cut_off() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(60);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");
    let shop = ["shop", "--json", "--orders", file.to_str().expect("is UTF-8")];
    let _ = cluster.run_words(&shop).await.ok();
    // Long enough for a checkpoint, or there is no state to damage.
    sleep(Duration::from_secs(6)).await;

    hurt(&cluster, "torn", |folder| torn(&log_file(folder)), false).await;
    hurt(&cluster, "a bit of the log", |folder| flip(&log_file(folder), 1), true).await;
    sleep(Duration::from_secs(6)).await;
    hurt(
        &cluster,
        "bits of the state",
        |folder| flip(&folder.join("state/db"), 400),
        true,
    )
    .await;
    hurt(
        &cluster,
        "identity",
        |folder| flip(&folder.join("identity.json"), 1),
        true,
    )
    .await;

    // What it fetched is good enough to lose another node.
    cluster.kill_9(1);
    let again = cluster.run_words(&shop).await.ok().json();
    assert_eq!(again["orders"]["confirmed"], made_up.orders);
    cluster.restart(1).await;
    cluster.verify().await;
}

/// Kills the node, damages its folder, starts it, and waits until it is whole again.
async fn hurt(cluster: &TestCluster, what: &str, damage: impl Fn(&Path), is_said: bool) {
    let folder = cluster.data().join(format!("node-{NODE}"));
    let said = || {
        let log = fs::read_to_string(folder.join("node.log")).unwrap_or_default();
        log.matches(SAID).count()
    };
    let before = said();
    cluster.kill_9(NODE);
    damage(&folder);
    cluster.restart(NODE).await;
    until_whole(cluster, what).await;
    assert_eq!(said() > before, is_said, "{what}");
    assert_eq!(
        said() > 0,
        folder.join("damaged").exists(),
        "{what}: what was there is set aside"
    );
    cluster.verify().await;
}

async fn until_whole(cluster: &TestCluster, what: &str) {
    let deadline = Instant::now() + WHOLE_MAX;
    loop {
        let status = cluster.run("status --json").await;
        let is_whole = status.code == 0 && {
            let status = status.json();
            let shards = status["shards"].as_array().expect("a list").clone();
            shards.iter().all(|shard| {
                let replicas = shard["replicas"].as_array().map_or(0, Vec::len);
                let lag = shard["lag"].as_object().expect("by node");
                shard["leader"] != 0 && replicas == 3 && lag.values().all(|lag| lag == 0)
            })
        };
        if is_whole {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {}{}", status.stdout, status.stderr);
        sleep(Duration::from_millis(200)).await;
    }
}

/// The file of the log that is written.
fn log_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("log")).expect("there is a log");
    let files = files.map(|entry| entry.expect("can be listed").path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "raftlog"));
    logs.max().expect("it has a file")
}

/// A write of which only the first part reached the device.
fn torn(path: &Path) {
    let mut bytes = fs::read(path).expect("it can be read");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it holds something") + 1;
    bytes.truncate(end);
    let whole = bytes[end - end.min(400)..].to_vec();
    bytes.extend_from_slice(&whole[..whole.len() / 2]);
    bytes.resize(bytes.len() + 4_096, 0);
    fs::write(path, bytes).expect("it can be written");
}

/// Flips so many bits, spread over what is written of a file.
fn flip(path: &Path, count: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it holds something");
    for number in 1..=count {
        bytes[end * number / (count + 1)] ^= 4;
    }
    fs::write(path, bytes).expect("it can be written");
}
