//! What is measured: a cluster of its own, or one that runs already.

use std::{fs::File, io::Write as _, time::Duration};

use harness::TestCluster;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::{arguments::Arguments, process::Processes};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be under way on a connection: enough for the widest windows measured.
const WINDOW_BYTES: u32 = 4 << 20;
/// Writes that are made to see what the device takes for a sync,
const SYNCS: usize = 200;
/// each of this size.
const SYNC_BYTES: usize = 4096;

/// A cluster and the connections to it.
pub(crate) struct Target {
    /// Nothing where the cluster was there already.
    pub(crate) cluster: Option<TestCluster>,
    /// Connections, one node after the other in turn.
    pub(crate) channels: Vec<Channel>,
    /// The median time of a small write with its sync where the cluster keeps its data.
    pub(crate) sync_us: Option<u64>,
}

impl Target {
    /// Takes the cluster that was named, or starts one.
    pub(crate) async fn open(arguments: &Arguments) -> Result<Self, String> {
        Self::open_with(arguments, Vec::new()).await
    }

    /// The same; a cluster that is started finds these variables in its environment.
    pub(crate) async fn open_with(arguments: &Arguments, environment: Vec<(String, String)>) -> Result<Self, String> {
        let (cluster, addresses) = if arguments.address.is_empty() {
            let cluster = TestCluster::start_with(&arguments.program()?, arguments.nodes, environment).await;
            let addresses = cluster.node_ids().map(|node| cluster.grpc(node)).collect();
            (Some(cluster), addresses)
        } else {
            (None, arguments.address.clone())
        };
        let sync_us = match &cluster {
            Some(cluster) => {
                let file = File::create(cluster.scratch("sync")).map_err(|error| error.to_string())?;
                Some(sync_us(file).map_err(|error| format!("the device cannot be tried: {error}"))?)
            }
            None => None,
        };
        Ok(Self {
            channels: connect(&addresses, arguments.connections()).await?,
            cluster,
            sync_us,
        })
    }

    /// The processes of a cluster of its own.
    pub(crate) fn processes(&self) -> Processes {
        let ready = self.cluster.as_ref().map(TestCluster::ready);
        let pid = |value: &serde_json::Value| value["pid"].as_u64();
        let nodes = ready.and_then(|ready| ready["nodes"].as_array());
        Processes {
            nodes: nodes.into_iter().flatten().filter_map(pid).collect(),
            provider: ready.and_then(|ready| pid(&ready["provider"])),
        }
    }

    /// The cluster of its own, for benches that do more to it than send commands.
    pub(crate) fn own(&mut self) -> Result<&mut TestCluster, String> {
        self.cluster
            .as_mut()
            .ok_or_else(|| "this bench needs a cluster of its own: leave --address out".to_owned())
    }
}

/// So many connections to each node, one node after the other in turn.
pub(crate) async fn connect(addresses: &[String], connections: usize) -> Result<Vec<Channel>, String> {
    let mut channels = Vec::new();
    for _ in 0..connections {
        for address in addresses {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|error| format!("{address} is no address: {error}"))?;
            let channel = endpoint
                .tcp_nodelay(true)
                .connect_timeout(CONNECT_TIMEOUT)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .connect()
                .await;
            channels.push(channel.map_err(|error| format!("{address} cannot be reached: {error}"))?);
        }
    }
    Ok(channels)
}

fn sync_us(mut file: File) -> std::io::Result<u64> {
    let block = [7_u8; SYNC_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_micros() as u64);
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}
