//! Where the parts of a local cluster lie: ports, folders, configuration files.
//!
//! ```text
//! DIR/cluster.json      what runs, for people and scripts
//! DIR/up.lock           held by the `up` that uses the folder
//! DIR/provider/         the payment provider's ledger and log
//! DIR/node-1.toml       the configuration of node 1, written anew at each start
//! DIR/node-1/           everything durable of node 1, and its log
//! ```

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{NODES_MAX, PROVIDER_PORT_OFFSET, state::State};
use crate::{cli::Failure, config::LocalConfig, http::HttpConfig};

/// The highest base port that leaves room for the nodes and the provider.
pub(crate) const BASE_PORT_MAX: u16 = u16::MAX - 140;
/// Where `up` keeps its data unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = "playhouse-data";
/// How many nodes hold a copy of each shard.
const REPLICAS: usize = 3;
/// Node N serves HTTP on the base port and this and N; where that would reach the provider's port, beyond it.
const HTTP_PORT_OFFSET: u16 = 80;
const HTTP_PORT_OFFSET_ABOVE: u16 = 100;
/// Only the owner may read a configuration: it holds the console's token.
const PRIVATE_FILE_MODE: u32 = 0o600;
/// Only the owner may enter the folder of the control sockets.
const PRIVATE_MODE: u32 = 0o700;

/// Which local cluster a command means.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which cluster")]
pub(crate) struct LocalCluster {
    /// The cluster that `up` started with this base port.
    #[arg(long, value_name = "P", default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..=i64::from(BASE_PORT_MAX)))]
    pub(crate) base_port: u16,
    /// The cluster that `up` keeps in this folder, whatever its ports are.
    #[arg(long, value_name = "DIR", conflicts_with = "base_port")]
    pub(crate) data: Option<PathBuf>,
}

impl LocalCluster {
    /// Its base port.
    pub(crate) fn base_port(&self) -> Result<u16, Failure> {
        let Some(data) = &self.data else {
            return Ok(self.base_port);
        };
        Ok(held_by(data)?.base_port)
    }

    /// Where its launcher listens for orders.
    pub(crate) fn control_socket(&self) -> Result<PathBuf, Failure> {
        let Some(data) = &self.data else {
            return Ok(control_socket(self.base_port));
        };
        Ok(held_by(data)?.control)
    }
}

fn held_by(data: &Path) -> Result<State, Failure> {
    match State::read(data) {
        Ok(Some(state)) => Ok(state),
        Ok(None) => Err(Failure::usage(format!("{} holds no cluster", data.display()))
            .help("name the folder that `playhouse up --data` was given")),
        Err(error) => Err(Failure::usage(format!(
            "the state of {} cannot be read: {error}",
            data.display()
        ))),
    }
}

/// Where everything of one local cluster lies.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The folder, as an absolute path.
    pub(crate) data: PathBuf,
    pub(crate) base_port: u16,
    /// The numbers of its nodes.
    pub(crate) nodes: BTreeSet<u8>,
    pub(crate) shards: u32,
    /// Who presents it to the console may change things; new with each start.
    pub(crate) token: String,
}

#[derive(Serialize)]
struct NodeConfig {
    cluster: ClusterConfig,
    provider: ProviderConfig,
    telemetry: TelemetryConfig,
    http: HttpConfig,
    local: LocalConfig,
}

#[derive(Serialize)]
struct ClusterConfig {
    node: u8,
    data: PathBuf,
    shards: u32,
    replicas: usize,
    /// A cluster to try things out on.
    chaos: bool,
    members: Vec<MemberConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    join: Vec<SocketAddr>,
}

#[derive(Serialize)]
struct MemberConfig {
    id: u8,
    address: SocketAddr,
}

#[derive(Serialize)]
struct ProviderConfig {
    url: String,
}

/// A cluster to try things out on records every trace, as long as there are few.
#[derive(Serialize)]
struct TelemetryConfig {
    sample_ratio: f64,
}

impl Layout {
    /// The numbers of all nodes.
    pub(crate) fn node_ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.nodes.iter().copied()
    }

    /// A number that no node has, nor had: a folder that is left of one must not be taken for another's.
    pub(crate) fn free_id(&self) -> Option<u8> {
        (1..=NODES_MAX).find(|id| !self.nodes.contains(id) && !self.node_data(*id).exists())
    }

    /// Where a node listens.
    pub(crate) fn node_address(&self, node: u8) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base_port + u16::from(node)).into()
    }

    /// Where a node serves HTTP.
    pub(crate) fn http_address(&self, node: u8) -> SocketAddr {
        let offset = if node < PROVIDER_PORT_OFFSET as u8 - HTTP_PORT_OFFSET as u8 {
            HTTP_PORT_OFFSET
        } else {
            HTTP_PORT_OFFSET_ABOVE
        };
        (Ipv4Addr::LOCALHOST, self.base_port + offset + u16::from(node)).into()
    }

    /// Where the provider listens.
    pub(crate) fn provider_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base_port + PROVIDER_PORT_OFFSET).into()
    }

    /// The provider's address as a URL.
    pub(crate) fn provider_url(&self) -> String {
        format!("http://{}", self.provider_address())
    }

    /// The folder of everything durable of a node.
    pub(crate) fn node_data(&self, node: u8) -> PathBuf {
        self.data.join(format!("node-{node}"))
    }

    /// A node's log. It lies beside what the node keeps, and goes with it.
    pub(crate) fn node_log(&self, node: u8) -> PathBuf {
        self.node_data(node).join("node.log")
    }

    /// The folder of the provider.
    pub(crate) fn provider_data(&self) -> PathBuf {
        self.data.join("provider")
    }

    /// The provider's log.
    pub(crate) fn provider_log(&self) -> PathBuf {
        self.provider_data().join("provider.log")
    }

    /// A node's configuration. Outside of its folder: it must outlive a lost disk.
    pub(crate) fn config_path(&self, node: u8) -> PathBuf {
        self.data.join(format!("node-{node}.toml"))
    }

    /// The file whose lock says that an `up` uses the folder.
    pub(crate) fn lock_path(&self) -> PathBuf {
        self.data.join("up.lock")
    }

    /// Writes every node's configuration.
    pub(crate) fn write_configs(&self) -> io::Result<()> {
        for node in self.node_ids() {
            write_privately(&self.config_path(node), self.config(node)?.as_bytes())?;
        }
        Ok(())
    }

    /// Writes the configuration of a node that is to join the others.
    pub(crate) fn write_join_config(&self, node: u8) -> io::Result<()> {
        let others = self.node_ids().filter(|id| *id != node);
        let join = others.map(|id| self.node_address(id)).collect();
        let config = self.config_with(node, std::iter::once(node), join)?;
        write_privately(&self.config_path(node), config.as_bytes())
    }

    fn config(&self, node: u8) -> io::Result<String> {
        self.config_with(node, self.node_ids(), Vec::new())
    }

    fn config_with(&self, node: u8, members: impl Iterator<Item = u8>, join: Vec<SocketAddr>) -> io::Result<String> {
        let members = members.map(|id| MemberConfig {
            id,
            address: self.node_address(id),
        });
        let config = NodeConfig {
            cluster: ClusterConfig {
                node,
                data: self.node_data(node),
                shards: self.shards,
                replicas: REPLICAS,
                chaos: true,
                members: members.collect(),
                join,
            },
            provider: ProviderConfig {
                url: self.provider_url(),
            },
            telemetry: TelemetryConfig { sample_ratio: 1.0 },
            http: HttpConfig {
                address: Some(self.http_address(node)),
                operator_token: Some(self.token.clone()),
                reader_token: None,
                tls: None,
            },
            local: LocalConfig {
                control: Some(control_socket(self.base_port)),
            },
        };
        // Fails for a path that is not UTF-8.
        let text = toml::to_string(&config).map_err(io::Error::other)?;
        Ok(format!("# Written by `playhouse up`, anew at each start.\n{text}"))
    }
}

/// Where the launcher with this base port listens for orders: a folder of the user's own, with a short path, because
/// the name of a Unix socket has no more than about 100 bytes.
pub(crate) fn control_socket(base_port: u16) -> PathBuf {
    control_folder().join(format!("{base_port}.sock"))
}

fn control_folder() -> PathBuf {
    env::temp_dir().join(format!("playhouse-{}", rustix::process::getuid().as_raw()))
}

/// Makes the folder of the control sockets and checks that it is ours alone.
pub(crate) fn make_control_folder() -> io::Result<()> {
    let folder = control_folder();
    match fs::DirBuilder::new().mode(PRIVATE_MODE).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&folder)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
    if !is_ours || found.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} must be a folder that only you can enter", folder.display()),
        ));
    }
    Ok(())
}

/// The same for a file that only its owner may read.
fn write_privately(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE_MODE)
        .open(&part)?;
    file.write_all(content)?;
    fs::rename(&part, path)
}

/// Replaces a file so that a reader sees the old or the new content, never a part.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, content)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_base_port_and_the_configuration_says_so() {
        let layout = Layout {
            data: PathBuf::from("/srv/playhouse \"x\""),
            base_port: 7000,
            nodes: (1..=3).collect(),
            shards: 16,
            token: "0123456789abcdef".to_owned(),
        };
        let config: toml::Table = layout.config(2).expect("is UTF-8").parse().expect("is TOML");
        let cluster = &config["cluster"];
        assert_eq!(cluster["node"].as_integer(), Some(2));
        assert_eq!(cluster["data"].as_str(), Some("/srv/playhouse \"x\"/node-2"));
        assert_eq!(cluster["shards"].as_integer(), Some(16));
        assert_eq!(cluster["replicas"].as_integer(), Some(3));
        assert_eq!(cluster["chaos"].as_bool(), Some(true));
        assert_eq!(cluster["members"][2]["id"].as_integer(), Some(3));
        assert_eq!(cluster["members"][2]["address"].as_str(), Some("127.0.0.1:7003"));
        assert_eq!(config["provider"]["url"].as_str(), Some("http://127.0.0.1:7090"));
        assert_eq!(config["http"]["address"].as_str(), Some("127.0.0.1:7082"));
        let ports = (1..=NODES_MAX).map(|node| layout.http_address(node).port());
        let ports: BTreeSet<u16> = ports.collect();
        assert_eq!(ports.len(), usize::from(NODES_MAX));
        assert!(!ports.contains(&7090) && ports.iter().all(|port| *port > 7_000 + u16::from(NODES_MAX)));
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cluster.json");
        write_atomically(&path, b"one").expect("written");
        write_atomically(&path, b"two").expect("written");
        assert_eq!(fs::read(&path).expect("is there"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 1);
    }
}
