//! What a launcher leaves in the data folder: what runs, and what the folder was made for.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layout::write_atomically;

const FILE_NAME: &str = "cluster.json";

/// The content of `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The launcher; nothing while none runs.
    pub(crate) pid: Option<u32>,
    pub(crate) base_port: u16,
    pub(crate) shards: u32,
    /// Where the launcher listens for orders.
    pub(crate) control: PathBuf,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) provider: ProviderState,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub(crate) id: u8,
    /// Nothing while it does not run.
    pub(crate) pid: Option<u32>,
    pub(crate) grpc: String,
    /// Empty in the state of a build that had no HTTP port.
    #[serde(default)]
    pub(crate) http: String,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
}

/// The payment provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderState {
    /// Nothing while it does not run.
    pub(crate) pid: Option<u32>,
    pub(crate) http: String,
    pub(crate) log: PathBuf,
}

impl State {
    /// What the folder says, if it holds a cluster.
    pub(crate) fn read(data: &Path) -> io::Result<Option<Self>> {
        match fs::read(data.join(FILE_NAME)) {
            Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces what the folder says.
    pub(crate) fn write(&self, data: &Path) -> io::Result<()> {
        write_atomically(&data.join(FILE_NAME), &serde_json::to_vec_pretty(self)?)
    }

    /// The one line that `up --json` prints.
    pub(crate) fn ready_json(&self, ready_ms: u128) -> Value {
        json!({
            "ready": true, "nodes": self.nodes, "provider": self.provider, "base_port": self.base_port,
            "shards": self.shards, "pid": self.pid, "control": self.control, "ready_ms": ready_ms as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        State {
            pid: Some(4700),
            base_port: 7000,
            shards: 16,
            control: PathBuf::from("/tmp/7000.sock"),
            nodes: vec![NodeState {
                id: 1,
                pid: Some(4711),
                grpc: "127.0.0.1:7001".to_owned(),
                http: "127.0.0.1:7081".to_owned(),
                data: PathBuf::from("/d/node-1"),
                log: PathBuf::from("/d/node-1/node.log"),
            }],
            provider: ProviderState {
                pid: Some(4712),
                http: "http://127.0.0.1:7090".to_owned(),
                log: PathBuf::from("/d/provider/provider.log"),
            },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(State::read(folder.path()).expect("no error").is_none());
        example().write(folder.path()).expect("written");
        assert_eq!(State::read(folder.path()).expect("no error"), Some(example()));
    }

    #[test]
    fn scripts_find_the_agreed_shape() {
        let value = example().ready_json(1_900);
        assert_eq!(value["ready"], true);
        assert_eq!(value["nodes"][0]["id"], 1);
        assert_eq!(value["nodes"][0]["pid"], 4711);
        assert_eq!(value["nodes"][0]["grpc"], "127.0.0.1:7001");
        assert_eq!(value["nodes"][0]["http"], "127.0.0.1:7081");
        assert_eq!(value["nodes"][0]["data"], "/d/node-1");
        assert_eq!(value["provider"]["pid"], 4712);
        assert_eq!(value["provider"]["http"], "http://127.0.0.1:7090");
    }
}
