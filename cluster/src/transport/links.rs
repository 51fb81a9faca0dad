//! The connections to all peers.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use proto::cluster::v1::{self as pb, peer_client::PeerClient};
use tonic::transport::{Channel, Endpoint};

use super::{FRAME_BYTES_MAX, consensus::ConsensusLink, forward::ForwardLink};
use crate::{
    config::{Config, NodeId},
    shard::{mailbox::Mailbox, runtime::Outgoing},
};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// A connection on which nothing comes back for so long is given up: a peer that was cut off does not close it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_MAX: Duration = Duration::from_secs(2);
/// Bytes under way on one stream before the other side must have read some.
const WINDOW_BYTES: u32 = 8 << 20;

/// The connections to one peer.
pub(crate) struct Peer {
    pub(crate) consensus: Arc<ConsensusLink>,
    pub(crate) forward: Arc<ForwardLink>,
    /// For single calls.
    pub(crate) client: PeerClient<Channel>,
}

/// The connections to all peers.
pub(crate) struct Links {
    peers: BTreeMap<NodeId, Peer>,
}

impl Links {
    /// Begins to connect to every peer, and goes on trying until it is dropped.
    pub(crate) fn connect(config: &Config, mailbox: &Arc<Mailbox>) -> Self {
        let peers = config
            .members
            .iter()
            .filter(|member| member.id != config.node)
            .map(|member| {
                let peer = Peer {
                    consensus: ConsensusLink::spawn(
                        config.node,
                        member.id,
                        client(member.address),
                        Arc::clone(mailbox),
                    ),
                    forward: ForwardLink::spawn(member.id, client(member.address), config.limits.in_flight_max),
                    client: client(member.address),
                };
                (member.id, peer)
            })
            .collect();
        Self { peers }
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(node, peer)| (*node, peer))
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        for peer in self.peers.values() {
            peer.consensus.close();
            peer.forward.close();
        }
    }
}

/// A client that connects when it is first used, and again after each break.
fn client(address: SocketAddr) -> PeerClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("a socket address makes a valid URL")
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_lazy();
    PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

impl Outgoing for Arc<Links> {
    fn send(&self, node: NodeId, messages: Vec<pb::GroupMessage>) {
        if let Some(peer) = self.peers.get(&node) {
            peer.consensus.send(messages);
        }
    }
}
