//! The connections to all peers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use proto::cluster::v1::{self as pb, peer_client::PeerClient};
pub(crate) use tonic::transport::Channel;
use tonic::transport::Endpoint;

use super::{FRAME_BYTES_MAX, consensus::ConsensusLink, forward::ForwardLink, shaped::Connector};
use crate::{
    config::{Config, NodeId},
    faults::Faults,
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
    address: SocketAddr,
    pub(crate) consensus: Arc<ConsensusLink>,
    pub(crate) forward: Arc<ForwardLink>,
    /// For single calls.
    pub(crate) client: PeerClient<Channel>,
    /// For single calls of other services that it serves.
    pub(crate) channel: Channel,
    /// It has said that it should lead nothing now.
    is_unwell: AtomicBool,
}

impl Peer {
    /// Whether it can be reached.
    pub(crate) fn is_up(&self) -> bool {
        self.forward.is_up()
    }

    /// Whether it can be reached, and is well enough to lead.
    pub(crate) fn can_lead(&self) -> bool {
        self.is_up() && !self.is_unwell.load(Ordering::Relaxed)
    }

    /// Takes note of what it says of itself.
    pub(crate) fn set_unwell(&self, is_unwell: bool) {
        self.is_unwell.store(is_unwell, Ordering::Relaxed);
    }

    fn close(&self) {
        self.consensus.close();
        self.forward.close();
    }
}

/// The connections to all peers. They come and go with the members.
pub(crate) struct Links {
    node: NodeId,
    calls_max: usize,
    mailbox: Arc<Mailbox>,
    /// What may be wrong with the connections, where that is allowed.
    faults: Option<Arc<Faults>>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
}

impl Links {
    /// No connections yet.
    pub(crate) fn new(config: &Config, mailbox: &Arc<Mailbox>, faults: &Arc<Faults>) -> Self {
        Self {
            node: config.node,
            calls_max: calls_max(config),
            mailbox: Arc::clone(mailbox),
            faults: config.chaos.then(|| Arc::clone(faults)),
            peers: RwLock::default(),
        }
    }

    /// Begins to connect to a peer, and goes on trying; one that is reached there already is left alone.
    pub(crate) fn connect(&self, node: NodeId, address: SocketAddr) {
        let mut peers = self.peers.write();
        if node == self.node || peers.get(&node).is_some_and(|peer| peer.address == address) {
            return;
        }
        let channel = || match &self.faults {
            None => endpoint(address).connect_lazy(),
            Some(faults) => endpoint(address).connect_with_connector_lazy(Connector {
                peer: node,
                address,
                faults: Arc::clone(faults),
            }),
        };
        let client = || client_over(channel());
        let single = channel();
        let peer = Peer {
            address,
            consensus: ConsensusLink::spawn(self.node, node, client(), Arc::clone(&self.mailbox)),
            forward: ForwardLink::spawn(node, client(), self.calls_max),
            client: client_over(single.clone()),
            channel: single,
            is_unwell: AtomicBool::new(false),
        };
        if let Some(before) = peers.insert(node, Arc::new(peer)) {
            before.close();
        }
    }

    /// Ends the connections to a node that is no peer any more.
    pub(crate) fn disconnect(&self, node: NodeId) {
        if let Some(peer) = self.peers.write().remove(&node) {
            peer.close();
        }
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().get(&node).cloned()
    }

    /// What goes to each peer.
    pub(crate) fn told(&self) -> Vec<pb::LinkStatus> {
        let told = self.all().into_iter().map(|(node, peer)| {
            let (consensus_messages, consensus_bytes) = peer.consensus.sent();
            pb::LinkStatus {
                to: u32::from(node),
                up: peer.is_up(),
                consensus_messages,
                consensus_bytes,
                forwarded: peer.forward.sent(),
                unanswered: peer.forward.unanswered() as u64,
            }
        });
        told.collect()
    }

    /// All peers.
    pub(crate) fn all(&self) -> Vec<(NodeId, Arc<Peer>)> {
        let peers = self.peers.read();
        peers.iter().map(|(node, peer)| (*node, Arc::clone(peer))).collect()
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        for peer in std::mem::take(&mut *self.peers.write()).into_values() {
            peer.close();
        }
    }
}

/// Calls that may wait for one peer: all that clients can have under way here, those that wait for a change, and room for effects.
fn calls_max(config: &Config) -> usize {
    config.limits.in_flight_max * 2 + config.limits.effects_in_flight_max
}

/// A client that connects when it is first used, and again after each break.
pub(crate) fn client(address: SocketAddr) -> PeerClient<Channel> {
    client_over(endpoint(address).connect_lazy())
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a socket address makes a valid URL")
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
}

fn client_over(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

impl Outgoing for Arc<Links> {
    fn send(&self, node: NodeId, messages: Vec<pb::GroupMessage>) {
        if let Some(peer) = self.peers.read().get(&node) {
            peer.consensus.send(messages);
        }
    }
}
