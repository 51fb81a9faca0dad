//! The way round where two nodes do not reach each other and a third reaches both: it asks the leader, and answers for it. Without
//! that, what one of the two asks of a shard that the other leads would wait until they reach each other again, because the leader
//! still has its majority and stays.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{Engine, call::Call};
use crate::{config::NodeId, transport::outcome::Forwarded};

/// How long a way round is taken, and a silent node is not the first to be asked, before the straight way is tried again.
const KEPT: Duration = Duration::from_secs(1);
/// How long a leader is waited for on behalf of another node; a read that waits for news is asked for anew then.
pub(super) const RELAY_MAX: Duration = Duration::from_secs(1);

/// What was lately found out where no leader is known.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// The nodes that have answered for leaders which cannot be reached from here, by shard.
    via: Mutex<HashMap<u32, (NodeId, Instant)>>,
    /// Nodes that were asked and have said nothing.
    silent: Mutex<HashMap<NodeId, Instant>>,
}

impl Detours {
    /// Whom to ask for a shard.
    pub(super) fn of(&self, shard: u32, now: Instant) -> Option<NodeId> {
        let mut via = self.via.lock();
        let (node, until) = *via.get(&shard)?;
        if now < until {
            return Some(node);
        }
        via.remove(&shard);
        None
    }

    /// A node has answered for a shard whose leader is not known here.
    pub(super) fn found(&self, shard: u32, via: NodeId, now: Instant) {
        self.via.lock().entry(shard).or_insert((via, now + KEPT));
    }

    /// A node was waited for in vain.
    pub(super) fn heard_nothing(&self, of: NodeId, now: Instant) {
        self.silent.lock().insert(of, now + KEPT);
    }

    /// Whether another node is better asked first.
    pub(super) fn is_silent(&self, node: NodeId, now: Instant) -> bool {
        self.silent.lock().get(&node).is_some_and(|until| now < *until)
    }
}

impl Engine {
    /// Asks a leader for a node that may not reach it.
    pub(super) async fn relay(&self, leader: NodeId, call: &Call<'_>) -> Forwarded {
        let asked = self.there(leader, call, false);
        timeout(RELAY_MAX, asked).await.unwrap_or(Forwarded::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_straight_way_is_tried_again_after_a_while() {
        let (detours, now) = (Detours::default(), Instant::now());
        assert_eq!(detours.of(7, now), None);
        detours.found(7, 3, now);
        detours.found(7, 3, now + KEPT / 2);
        assert_eq!((detours.of(7, now + KEPT / 2), detours.of(8, now)), (Some(3), None));
        assert_eq!(detours.of(7, now + KEPT), None, "although it was of use meanwhile");
        detours.heard_nothing(2, now);
        let is_silent = |node, at| detours.is_silent(node, at);
        assert!(is_silent(2, now) && !is_silent(3, now) && !is_silent(2, now + KEPT));
    }
}
