//! What can be asked of the engine about itself: gauges and counters of one node, as they stand.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{config::NodeId, engine::Engine, shard::replica::Replica, supervision::breaker::BreakerState};

/// A node's gauges and counters. Counters begin at zero with the process.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// The node.
    pub node: NodeId,
    /// Its replicas, in the order of their shards; the system shard is the last. Empty until the node takes part.
    pub shards: Vec<ShardFigures>,
    /// Members of the cluster as this node knows them, itself among them; and those that it can reach.
    pub members: usize,
    /// See `members`.
    pub members_reached: usize,
    /// It gives its leaderships away because it is not well.
    pub is_unwell: bool,
    /// Entities that may be live at one time.
    pub live_max: usize,
    /// Entities that were brought to life.
    pub activations: u64,
    /// Entities that were sent away because nothing had reached them for a while,
    pub passivations_idle: u64,
    /// and for want of room.
    pub passivations_for_room: u64,
    /// Entities that are being read from the store, and those that wait for it.
    pub recovering: usize,
    /// See `recovering`.
    pub recoveries_waiting: usize,
    /// Calls of clients under way at this node.
    pub calls_in_flight: usize,
    /// Commands and reads that it serves as a leader, and how many of them it takes just now.
    pub work_in_flight: usize,
    /// See `work_in_flight`.
    pub work_max: usize,
    /// Calls that were refused, by the limit that was reached; all limits are there.
    pub refused: Vec<(&'static str, u64)>,
    /// Chains of effects that were ended because they were too deep.
    pub chains_ended: u64,
    /// Writes of the log down to the device, and the time they took together.
    pub log_syncs: u64,
    /// See `log_syncs`.
    pub log_sync_time: Duration,
    /// How long the write that is under way has been; zero while there is none.
    pub log_sync_age: Duration,
    /// How long what is sent to the driver waits, as a running mean.
    pub driver_wait: Duration,
    /// Breakers to the outside.
    pub breakers: Vec<BreakerFigures>,
}

/// Gauges and counters of one replica.
#[derive(Debug, Clone, Default)]
pub struct ShardFigures {
    /// The shard.
    pub shard: u32,
    /// Whether it is the one that holds the roster.
    pub is_system: bool,
    /// Whether this node leads it.
    pub leads: bool,
    /// Who leads it, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Entries in the log.
    pub log_len: u64,
    /// Entries that the replica that is furthest behind is behind the leader; 0 unless this node leads.
    pub lag_max: u64,
    /// Entries that no checkpoint has moved yet,
    pub tail_len: u64,
    /// and their bytes, about.
    pub tail_bytes: usize,
    /// Time since the last checkpoint; zero while there is nothing that one would move.
    pub checkpoint_age: Duration,
    /// Checkpoints that were made, and the time they took together.
    pub checkpoints: u64,
    /// See `checkpoints`.
    pub checkpoint_time: Duration,
    /// Leaderships of this node that have begun.
    pub elections_won: u64,
    /// Snapshots that were made for a replica far behind,
    pub snapshots_made: u64,
    /// and that were installed here.
    pub snapshots_installed: u64,
    /// Entities that were ever there.
    pub entities: u64,
    /// Live entities; 0 unless this node leads, like all below.
    pub live: usize,
    /// Effects that are not acknowledged yet,
    pub outbox_len: usize,
    /// and the age of the oldest of them; zero where there is none.
    pub outbox_age: Duration,
    /// Timers that are set,
    pub timers: usize,
    /// and how long the most urgent of them has been due; zero while none is.
    pub timers_late: Duration,
    /// Entities that are quarantined,
    pub quarantined: usize,
    /// and those that fail just now.
    pub failing: usize,
}

/// A breaker to the outside.
#[derive(Debug, Clone)]
pub struct BreakerFigures {
    /// What it stands in front of.
    pub dependency: String,
    /// How it stands.
    pub state: BreakerState,
    /// Calls under way.
    pub in_flight: usize,
}

impl Engine {
    /// This node's gauges and counters.
    pub(crate) async fn figures(&self) -> Figures {
        let groups: BTreeMap<_, _> = self
            .group_status()
            .await
            .unwrap_or_default()
            .into_iter()
            .map(|group| (group.group, group))
            .collect();
        let shards = (self.replicas().iter())
            .map(|replica| {
                let mut figures = of_replica(&replica);
                figures.is_system = figures.shard == self.shards();
                if let Some(group) = groups.get(&figures.shard) {
                    figures.term = group.term;
                    figures.leader = group.leader;
                    figures.log_len = group.last + 1 - group.first.min(group.last + 1);
                    let behind = group
                        .matched
                        .iter()
                        .map(|(_, matched)| group.last.saturating_sub(*matched));
                    figures.lag_max = behind.max().unwrap_or_default();
                }
                figures
            })
            .collect();
        let (calls_in_flight, work_in_flight, work_max) = self.admission.in_flight();
        let live = self.live();
        let (recovering, recoveries_waiting) = live.recoveries();
        let mailbox = self.mailbox();
        let timings = mailbox.timings();
        let (log_syncs, log_sync_time) = timings.sync().total();
        let map = self.map();
        let reached = |node: &NodeId| *node == self.node() || self.is_reached(*node);
        Figures {
            node: self.node(),
            shards,
            members: map.members.len(),
            members_reached: map.members.keys().filter(|node| reached(node)).count(),
            is_unwell: self.unwell().is_some(),
            live_max: live.max,
            activations: live.activated.load(Ordering::Relaxed),
            passivations_idle: live.left_idle.load(Ordering::Relaxed),
            passivations_for_room: live.left_for_room.load(Ordering::Relaxed),
            recovering,
            recoveries_waiting,
            calls_in_flight,
            work_in_flight,
            work_max,
            refused: self.admission.all_refusals(),
            chains_ended: self.chains_ended(),
            log_syncs,
            log_sync_time,
            log_sync_age: timings.sync_age().unwrap_or_default(),
            driver_wait: timings.wait().mean().unwrap_or_default(),
            breakers: (self.services().iter())
                .map(|(name, service)| BreakerFigures {
                    dependency: name.to_owned(),
                    state: service.guard().state(),
                    in_flight: service.guard().in_flight(),
                })
                .collect(),
        }
    }
}

fn of_replica(replica: &Arc<Replica>) -> ShardFigures {
    let now_ms = replica.now_ms();
    let ago = |at_ms: u64| Duration::from_millis(now_ms.saturating_sub(at_ms));
    let meter = replica.meter();
    let led = replica.leads_term().is_some();
    let state = replica.state();
    let meta = state.meta();
    let oldest_effect_ms = || state.outbox().values().map(|row| row.at_ms).min();
    let mut figures = ShardFigures {
        shard: replica.shard(),
        tail_len: meta.applied.0.saturating_sub(state.checkpoint_index()),
        tail_bytes: state.tail_bytes(),
        checkpoint_age: if state.is_dirty() {
            meter.checkpoint_age()
        } else {
            Duration::ZERO
        },
        checkpoints: meter.checkpoints.load(Ordering::Relaxed),
        checkpoint_time: Duration::from_nanos(meter.checkpoint_ns.load(Ordering::Relaxed)),
        elections_won: meter.elections_won.load(Ordering::Relaxed),
        snapshots_made: meter.snapshots_made.load(Ordering::Relaxed),
        snapshots_installed: meter.snapshots_installed.load(Ordering::Relaxed),
        entities: meta.entities,
        ..ShardFigures::default()
    };
    figures.leads = led;
    if led {
        figures.outbox_len = state.outbox().len();
        figures.outbox_age = oldest_effect_ms().map(ago).unwrap_or_default();
        figures.timers = state.timers().len();
        figures.timers_late = state.timers().first_due_ms().map(ago).unwrap_or_default();
        figures.quarantined = state.quarantined().open();
    }
    drop(state);
    if led {
        figures.live = replica.activations();
        figures.failing = replica.failing_len();
    }
    figures
}
