//! What a node does about its own load: how much it lets in, how it divides its room for live entities, and the chains of effects
//! that it ends.

use std::sync::{Arc, Weak, atomic::Ordering};

use proto::cluster::v1 as pb;
use tokio::time::interval;

use super::Engine;
use crate::{
    admission::{LOOK_INTERVAL, Limit},
    entity::EntityKey,
    journal::Chain,
    shard::{replica::Replica, shares},
    transport::outcome::Forwarded,
};

impl Engine {
    /// Looks again and again at how the node is doing, until it stops.
    pub(super) async fn keep_looking(engine: Weak<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            // Held no longer than it takes: the folder can be opened again once the engine is gone.
            let Some(engine) = engine.upgrade() else { return };
            engine.admission.look();
            engine.divide_room();
        }
    }

    /// Divides the room for live entities over the shards that this node leads.
    fn divide_room(&self) {
        let led: Vec<(Arc<Replica>, usize)> = self
            .replicas
            .iter()
            .filter_map(|replica| {
                let wanted = replica.room_wanted()?;
                Some((replica, wanted))
            })
            .collect();
        let wanted: Vec<usize> = led.iter().map(|(_, wanted)| *wanted).collect();
        for ((replica, _), room) in led.iter().zip(shares::divide(self.limits().live_entities_max, &wanted)) {
            replica.set_room(room);
        }
    }

    /// A call that was not let in, for whoever asked.
    pub(super) fn refused(&self, limit: Limit) -> Forwarded {
        Forwarded::overloaded(self.admission.refuse(limit))
    }

    /// Takes note of a chain of effects that is not carried on; gives the reason for its outcome.
    pub(crate) fn end_chain(&self, chain: &Chain, to: &EntityKey) -> String {
        let path = chain.to(to);
        self.chains_ended.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            depth = chain.depth,
            path,
            "a chain of effects became too deep and was ended; entities that send each other commands need an end of their own"
        );
        self.last_chain.lock().clone_from(&path);
        format!(
            "the chain of effects is deeper than {}: {path}",
            self.limits().effect_depth_max
        )
    }

    /// This node's load, for people.
    pub(super) fn load_status(&self) -> pb::LoadStatus {
        let (calls, work, work_max) = self.admission.in_flight();
        let live = &self.live;
        let (recovering, recoveries_waiting) = live.recoveries();
        pb::LoadStatus {
            live_max: live.max as u64,
            activated: live.activated.load(Ordering::Relaxed),
            left_idle: live.left_idle.load(Ordering::Relaxed),
            left_for_room: live.left_for_room.load(Ordering::Relaxed),
            read_cold: live.read_cold.load(Ordering::Relaxed),
            recovering: recovering as u64,
            recoveries_waiting: recoveries_waiting as u64,
            calls: calls as u64,
            work: work as u64,
            work_max: work_max as u64,
            refused: (self.admission.refusals().into_iter())
                .map(|(limit, count)| (limit.to_owned(), count))
                .collect(),
            chains_ended: self.chains_ended.load(Ordering::Relaxed),
            last_chain: self.last_chain.lock().clone(),
        }
    }
}
