//! A cluster of real processes that ends with its test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    command::{Finished, playhouse},
    ports::free_base_port,
};

/// A cluster that is not ready by then never will be.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a clean stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Another process may take a port between the look and the start.
const STARTS_MAX: usize = 5;

/// A cluster of real processes. Everything ends when it is dropped.
#[derive(Debug)]
pub struct TestCluster {
    program: String,
    folder: TempDir,
    nodes: u8,
    environment: Vec<(String, String)>,
    base_port: u16,
    up: Child,
    ready: Value,
}

impl TestCluster {
    /// Starts so many nodes without demo load and waits until they serve. `program` is [`crate::program!`].
    pub async fn start(program: &str, nodes: u8) -> Self {
        Self::start_with(program, nodes, Vec::new()).await
    }

    /// The same with variables that every process of the cluster finds in its environment.
    pub async fn start_with(program: &str, nodes: u8, environment: Vec<(String, String)>) -> Self {
        let folder = TempDir::new().expect("a folder for the test");
        let data = folder.path().join("data");
        for _ in 0..STARTS_MAX {
            let base_port = free_base_port(u16::from(nodes));
            if let Some((up, ready)) = up(program, &data, nodes, base_port, &environment).await {
                return Self {
                    program: program.to_owned(),
                    folder,
                    nodes,
                    environment,
                    base_port,
                    up,
                    ready,
                };
            }
        }
        panic!("the cluster did not start {STARTS_MAX} times; the last messages stand above");
    }

    /// The line that `up --json` printed.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The folder of the cluster.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path in the test's own folder.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The numbers of the nodes.
    pub fn node_ids(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.nodes
    }

    /// Where a node listens.
    pub fn grpc(&self, node: u8) -> String {
        format!("127.0.0.1:{}", self.base_port + u16::from(node))
    }

    /// The payment provider's URL.
    pub fn provider(&self) -> &str {
        self.ready["provider"]["http"]
            .as_str()
            .expect("`up --json` names the provider")
    }

    /// Runs a command against this cluster; the words are divided by spaces.
    pub async fn run(&self, line: &str) -> Finished {
        self.run_words(&line.split(' ').collect::<Vec<_>>()).await
    }

    /// Runs a command against this cluster.
    pub async fn run_words(&self, words: &[&str]) -> Finished {
        let base_port = self.base_port.to_string();
        let words = words.iter().copied().chain(["--base-port", &base_port]);
        playhouse(&self.program, words).await
    }

    /// The process of a node, or nothing while it does not run.
    pub fn pid(&self, node: u8) -> Option<u32> {
        let state = fs::read(self.data().join("cluster.json")).expect("a running cluster keeps its state");
        let state: Value = serde_json::from_slice(&state).expect("the state is JSON");
        let nodes = state["nodes"].as_array().expect("the state lists the nodes");
        let found = nodes
            .iter()
            .find(|entry| entry["id"] == node)
            .expect("the node is listed");
        found["pid"].as_u64().map(|pid| pid as u32)
    }

    /// SIGKILL from outside: the launcher is not told.
    pub fn kill_9(&self, node: u8) {
        let pid = self.pid(node).expect("the node runs");
        signal(pid, Signal::KILL).expect("the process can be killed");
    }

    /// `playhouse pause`.
    pub async fn pause(&self, node: u8) {
        let _ = self.run(&format!("pause {node}")).await.ok();
    }

    /// `playhouse resume`.
    pub async fn resume(&self, node: u8) {
        let _ = self.run(&format!("resume {node}")).await.ok();
    }

    /// `playhouse restart`.
    pub async fn restart(&self, node: u8) {
        let _ = self.run(&format!("restart {node}")).await.ok();
    }

    /// Deletes everything that a dead node kept.
    pub fn wipe(&self, node: u8) {
        fs::remove_dir_all(self.data().join(format!("node-{node}"))).expect("the folder can be deleted");
    }

    /// The node that leads most shards.
    pub async fn busiest_leader(&self) -> u8 {
        let status = self.run("status --json").await.ok().json();
        let shards = status["shards"]
            .as_array()
            .expect("the status lists the shards")
            .clone();
        let leads = |node: &u8| shards.iter().filter(|shard| shard["leader"] == *node).count();
        self.node_ids().max_by_key(leads).expect("there is a node")
    }

    /// `playhouse verify`, which must find nothing.
    pub async fn verify(&self) -> Value {
        let finished = self.run("verify --json").await;
        let report = finished.json();
        assert_eq!(report["ok"], true, "{report:#}");
        assert_eq!(finished.code, 0);
        report
    }

    /// Ctrl-C on `up`; gives its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        if let Some(pid) = self.up.id() {
            signal(pid, Signal::INT).expect("the launcher can be signalled");
        }
        let status = timeout(STOP_TIMEOUT, self.up.wait()).await.expect("`up` stops in time");
        status.expect("`up` can be waited for").code()
    }

    /// A second `up` on the same folder.
    pub async fn start_again(&mut self) {
        let data = self.data();
        let started = up(&self.program, &data, self.nodes, self.base_port, &self.environment).await;
        (self.up, self.ready) = started.expect("the cluster starts again");
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        // The nodes are told by the system to end with `up`, so nothing is left behind.
        if let Some(pid) = self.up.id() {
            let _ = signal(pid, Signal::KILL);
        }
    }
}

async fn up(
    program: &str,
    data: &Path,
    nodes: u8,
    base_port: u16,
    environment: &[(String, String)],
) -> Option<(Child, Value)> {
    let mut child = Command::new(program)
        .args([
            "up",
            "--json",
            "--no-load",
            "--nodes",
            &nodes.to_string(),
            "--base-port",
            &base_port.to_string(),
        ])
        .arg("--data")
        .arg(data)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.take().expect("standard output is piped");
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(READY_TIMEOUT, lines.next_line())
        .await
        .expect("the cluster is ready in time");
    let line = line.expect("standard output can be read")?;
    // The pipe stays open as long as the child: it must be able to write.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let ready = serde_json::from_str(&line).expect("`up --json` prints JSON");
    Some((child, ready))
}

fn signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)?;
    kill_process(pid, signal)
}
