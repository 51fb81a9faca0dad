//! Which cluster a command talks to, and how its nodes are found.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use proto::cluster::v1::{NodeStatus, StatusRequest};
use tokio::{net::TcpStream, time::timeout};

use super::Client;
use crate::{
    cli::failure::{Failure, no_cluster},
    local::{NODES_MAX, layout::BASE_PORT_MAX},
};

/// How long a port may take to accept.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the nodes may take to say who belongs to the cluster.
const DISCOVERY_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long one call of a command may take, repetitions included.
const COMMAND_PATIENCE: Duration = Duration::from_secs(15);

/// The cluster a command talks to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which cluster")]
pub(crate) struct Target {
    /// The local cluster whose node N listens on 127.0.0.1, port P + N.
    #[arg(long, value_name = "P", default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..=i64::from(BASE_PORT_MAX)))]
    pub(crate) base_port: u16,
    /// Any nodes of the cluster, as HOST:PORT; repeat it or divide by commas.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_address, conflicts_with = "base_port")]
    pub(crate) address: Vec<String>,
}

impl Target {
    /// What a command that is named to a person needs to reach the same cluster.
    pub(crate) fn words(&self) -> String {
        match (&self.address[..], self.base_port) {
            ([], 7000) => String::new(),
            ([], port) => format!(" --base-port {port}"),
            (addresses, _) => format!(" --address {}", addresses.join(",")),
        }
    }

    /// A client with the patience of a person.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_for(COMMAND_PATIENCE).await.map(Client::traced)
    }

    /// A client that knows all nodes of the cluster, also those that are down now.
    pub(crate) async fn connect_for(&self, patience: Duration) -> Result<Client, Failure> {
        if !self.address.is_empty() {
            if listening(&self.address).await.is_empty() {
                return Err(no_cluster(&self.address));
            }
            return client(&self.address, patience);
        }
        let candidates: Vec<String> = (1..=NODES_MAX)
            .map(|n| format!("127.0.0.1:{}", self.base_port + u16::from(n)))
            .collect();
        let seeds = listening(&candidates).await;
        if seeds.is_empty() {
            return Err(no_cluster(&candidates[..3]));
        }
        let members = self.members(&seeds).await?;
        client(&members.unwrap_or(seeds), patience)
    }

    /// What the first node to answer says about who belongs to this cluster. Another cluster may listen on the ports
    /// above ours, so the addresses must be those that this base port gives.
    async fn members(&self, seeds: &[String]) -> Result<Option<Vec<String>>, Failure> {
        let mut answers = FuturesUnordered::new();
        for seed in seeds {
            let scout = client(std::slice::from_ref(seed), DISCOVERY_PATIENCE)?;
            answers.push(async move { scout.status(StatusRequest {}).await });
        }
        while let Some(answer) = answers.next().await {
            let nodes = answer.map(|status| status.nodes).unwrap_or_default();
            let ours = |node: &NodeStatus| {
                node.address == format!("127.0.0.1:{}", u32::from(self.base_port).saturating_add(node.id))
            };
            if !nodes.is_empty() && nodes.iter().all(ours) {
                return Ok(Some(nodes.into_iter().map(|node| node.address).collect()));
            }
        }
        Ok(None)
    }
}

/// Those of the addresses that accept a connection.
async fn listening(addresses: &[String]) -> Vec<String> {
    let probes = join_all(addresses.iter().map(|address| async move {
        let accepted = matches!(timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)));
        accepted.then(|| address.clone())
    }));
    probes.await.into_iter().flatten().collect()
}

fn client(addresses: &[String], patience: Duration) -> Result<Client, Failure> {
    Client::new(addresses, patience).map_err(|error| Failure::usage(format!("an address cannot be used: {error}")))
}

fn parse_address(text: &str) -> Result<String, String> {
    let text = text.trim().trim_start_matches("http://").trim_end_matches('/');
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        _ => Err("write it as HOST:PORT, for example 127.0.0.1:7001".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_host_and_port() {
        assert_eq!(parse_address("localhost:7001"), Ok("localhost:7001".to_owned()));
        assert_eq!(parse_address("http://10.0.0.1:7001/"), Ok("10.0.0.1:7001".to_owned()));
        for wrong in ["", "7001", ":7001", "localhost:", "localhost:0", "localhost:70000"] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }
}
