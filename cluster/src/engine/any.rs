//! Reads that any replica may answer: who is asked before the leader.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Engine,
    call::{Body, Call},
    refused::refused,
};
use crate::{config::NodeId, error::Error, replication::node_of, transport::outcome::Forwarded};

/// How long another replica is waited for that need not lead, and how many are asked before the leader.
const FROM_ANOTHER_MAX: Duration = Duration::from_millis(200);
const OTHERS_MAX: usize = 2;

impl Engine {
    /// Asks replicas that need not lead: this node's own, then the others, the nearest first. `None` where the read is for
    /// the leader, or none of them can answer.
    pub(super) async fn from_any(self: &Arc<Self>, call: &Call<'_>) -> Option<Result<Forwarded, Error>> {
        let Body::Query(query) = &call.body else { return None };
        query.behind?;
        for node in self.any_order(call.shard) {
            let answer = if node == self.node() {
                self.here(call.shard, call).await
            } else {
                // Another replica shall answer from what it knows already, or the leader is asked.
                let asked = self.there(node, call, false);
                timeout(FROM_ANOTHER_MAX, asked).await.unwrap_or(Forwarded::Unknown)
            };
            match answer {
                Forwarded::State(_) => return Some(Ok(answer)),
                Forwarded::Failed(_) | Forwarded::Invalid { .. } | Forwarded::Forgotten(_) => {
                    return Some(Err(refused(call.key, answer)));
                }
                _ => {}
            }
        }
        None
    }

    /// The nodes that may answer a read for any replica, in the order in which they are asked.
    fn any_order(&self, shard: u32) -> Vec<NodeId> {
        let leader = self.routes[shard as usize].borrow().leader;
        let mut others: Vec<_> = self
            .map()
            .home(shard)
            .iter()
            .map(|id| node_of(*id))
            // The leader is asked in any case, for what is true now.
            .filter(|node| *node != self.node() && Some(*node) != leader)
            .filter_map(|node| {
                let peer = self.links.peer(node).filter(|peer| peer.forward.is_up())?;
                Some((peer.forward.nearness(), node))
            })
            .collect();
        others.sort_unstable();
        let own = self.replica(shard).map(|_| self.node());
        own.into_iter()
            .chain(others.into_iter().map(|(_, node)| node).take(OTHERS_MAX))
            .collect()
    }
}
