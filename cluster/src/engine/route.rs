//! Which node is asked for a shard, and for how long.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{Engine, detour::RELAY_MAX};
use crate::{config::NodeId, replication::node_of, shard::replica::Route};

/// How long a node is waited for that others say leads, and one that is asked because nobody is known to.
const HEARSAY_MAX: Duration = Duration::from_secs(1);
const GUESS_MAX: Duration = Duration::from_millis(300);

impl Engine {
    /// A node to ask when it is not known who leads: one that talks, if there is any.
    pub(super) fn any_replica(&self, shard: u32, attempt: u32) -> NodeId {
        let (map, now) = (self.map(), Instant::now());
        let home = || map.home(shard).iter().map(|id| node_of(*id));
        let talk: Vec<NodeId> = home().filter(|node| !self.detours.is_silent(*node, now)).collect();
        let asked = if talk.is_empty() { home().collect() } else { talk };
        match asked.len() {
            0 => self.node(),
            len => asked[attempt as usize % len],
        }
    }

    /// Takes note of who leads a shard of which this node has no replica; others learn it from consensus.
    pub(super) fn learn(&self, shard: u32, leader: Option<NodeId>) {
        let route = &self.routes[shard as usize];
        if route.borrow().leader != leader && self.replica(shard).is_none() {
            route.send_modify(|route| route.leader = leader);
        }
    }

    /// How long a node is waited for. Consensus tells who leads a shard of which this node has a replica, and when that ends.
    pub(super) fn patience(&self, shard: u32, is_leader: bool, waits_through_it: bool) -> Duration {
        match (is_leader, self.replica(shard).is_some()) {
            (true, true) => Duration::MAX,
            (true, false) => HEARSAY_MAX,
            // It says in time that nothing has happened yet.
            (false, _) if waits_through_it => RELAY_MAX + GUESS_MAX,
            (false, _) => GUESS_MAX,
        }
    }
}

/// Resolves when a shard is known to be led by another node than `leader`.
pub(super) async fn left(routes: &mut watch::Receiver<Route>, leader: NodeId) {
    let has_left = routes
        .wait_for(|route| route.leader.is_some_and(|now| now != leader))
        .await
        .is_ok();
    if !has_left {
        // The engine ends; so does whatever waits here.
        std::future::pending::<()>().await;
    }
}
