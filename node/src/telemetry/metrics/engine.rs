//! The engine's own gauges and counters, as they were at the last look.

use std::sync::Arc;

use cluster::{
    metrics::{Figures, ShardFigures},
    supervision::Phase,
};
use opentelemetry::{KeyValue, metrics::Meter};
use parking_lot::RwLock;

/// The figures of the last look, and the attributes that they are told with.
#[derive(Default)]
struct Looked {
    figures: Arc<Figures>,
    /// By the place of the shard in the figures.
    shards: Vec<[KeyValue; 1]>,
}

/// What the readers are shown.
#[derive(Clone, Default)]
pub(super) struct Engine(Arc<RwLock<Looked>>);

/// Reads one figure.
type Read<T> = fn(&T) -> f64;

/// Which replicas a figure is told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// All of the node's replicas.
    Replicas,
    /// Those of the shards that it leads.
    Led,
}

impl Engine {
    pub(super) fn new(meter: &Meter) -> Self {
        let engine = Self::default();
        engine.observe_shards(meter);
        engine.observe_node(meter);
        engine.observe_breakers(meter);
        engine
    }

    /// Takes the figures of a new look.
    pub(super) fn set(&self, figures: Arc<Figures>) {
        let mut looked = self.0.write();
        let shard_of = |at: usize| looked.figures.shards.get(at).map(|shard| shard.shard);
        let is_same = figures.shards.len() == looked.shards.len()
            && (figures.shards.iter().enumerate()).all(|(at, shard)| shard_of(at) == Some(shard.shard));
        if !is_same {
            looked.shards = figures.shards.iter().map(|shard| [attribute(shard)]).collect();
        }
        looked.figures = figures;
    }

    /// A gauge in whole numbers for each replica.
    fn of_shards(
        &self,
        meter: &Meter,
        of: Of,
        (name, unit, about): (&'static str, &'static str, &'static str),
        read: impl Fn(&ShardFigures) -> f64 + Send + Sync + 'static,
    ) {
        let engine = self.clone();
        meter
            .f64_observable_gauge(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |observer| {
                engine.each(of, |shard, attributes| observer.observe(read(shard), attributes));
            })
            .build();
    }

    /// A counter for each replica.
    fn count_of_shards(
        &self,
        meter: &Meter,
        (name, unit, about): (&'static str, &'static str, &'static str),
        read: impl Fn(&ShardFigures) -> f64 + Send + Sync + 'static,
    ) {
        let engine = self.clone();
        meter
            .f64_observable_counter(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |observer| {
                engine.each(Of::Replicas, |shard, attributes| {
                    observer.observe(read(shard), attributes);
                });
            })
            .build();
    }

    fn each(&self, of: Of, mut see: impl FnMut(&ShardFigures, &[KeyValue])) {
        let looked = self.0.read();
        for (shard, attributes) in looked.figures.shards.iter().zip(&looked.shards) {
            if of == Of::Replicas || shard.leads {
                see(shard, attributes);
            }
        }
    }

    fn observe_shards(&self, meter: &Meter) {
        use Of::{Led, Replicas};
        let gauges: [(Of, _, Read<ShardFigures>); 15] = [
            (
                Replicas,
                (
                    "playhouse.shard.leader",
                    "",
                    "1 at the node that leads the shard, 0 at its other replicas.",
                ),
                |s| f64::from(u8::from(s.leads)),
            ),
            (
                Replicas,
                ("playhouse.shard.term", "", "The term of the shard's group."),
                |s| s.term as f64,
            ),
            (
                Replicas,
                ("playhouse.shard.log.entries", "", "Entries in the log of the replica."),
                |s| s.log_len as f64,
            ),
            (
                Replicas,
                (
                    "playhouse.shard.tail.entries",
                    "",
                    "Entries that no checkpoint has moved into the state store yet.",
                ),
                |s| s.tail_len as f64,
            ),
            (
                Replicas,
                ("playhouse.shard.tail.size", "By", "Bytes of those entries, about."),
                |s| s.tail_bytes as f64,
            ),
            (
                Replicas,
                (
                    "playhouse.shard.checkpoint.age",
                    "s",
                    "Time since the last checkpoint; 0 while there is nothing to move.",
                ),
                |s| s.checkpoint_age.as_secs_f64(),
            ),
            (
                Led,
                (
                    "playhouse.shard.lag.entries",
                    "",
                    "Entries that the replica that is furthest behind is behind its leader.",
                ),
                |s| s.lag_max as f64,
            ),
            (
                Led,
                ("playhouse.shard.entities", "", "Entities that were ever there."),
                |s| s.entities as f64,
            ),
            (
                Led,
                (
                    "playhouse.shard.live.entities",
                    "",
                    "Entities that are live: activations.",
                ),
                |s| s.live as f64,
            ),
            (
                Led,
                (
                    "playhouse.shard.outbox.effects",
                    "",
                    "Effects that are not acknowledged yet.",
                ),
                |s| s.outbox_len as f64,
            ),
            (
                Led,
                (
                    "playhouse.shard.outbox.age",
                    "s",
                    "Age of the oldest effect that is not acknowledged yet.",
                ),
                |s| s.outbox_age.as_secs_f64(),
            ),
            (Led, ("playhouse.shard.timers", "", "Timers that are set."), |s| {
                s.timers as f64
            }),
            (
                Led,
                (
                    "playhouse.shard.timers.late",
                    "s",
                    "How long the most urgent timer has been due; 0 while none is.",
                ),
                |s| s.timers_late.as_secs_f64(),
            ),
            (
                Led,
                (
                    "playhouse.shard.quarantined.entities",
                    "",
                    "Entities that are quarantined.",
                ),
                |s| s.quarantined as f64,
            ),
            (
                Led,
                (
                    "playhouse.shard.failing.entities",
                    "",
                    "Entities that failed lately and come back after a pause.",
                ),
                |s| s.failing as f64,
            ),
        ];
        for (of, names, read) in gauges {
            self.of_shards(meter, of, names, read);
        }
        let counters: [(_, Read<ShardFigures>); 5] = [
            (
                ("playhouse.shard.checkpoints", "", "Checkpoints of the replica."),
                |s| s.checkpoints as f64,
            ),
            (
                (
                    "playhouse.shard.checkpoint.time",
                    "s",
                    "Time that its checkpoints took together.",
                ),
                |s| s.checkpoint_time.as_secs_f64(),
            ),
            (
                (
                    "playhouse.shard.elections.won",
                    "",
                    "Leaderships of this node that have begun.",
                ),
                |s| s.elections_won as f64,
            ),
            (
                (
                    "playhouse.shard.snapshots.made",
                    "",
                    "Snapshots made for a replica that was far behind.",
                ),
                |s| s.snapshots_made as f64,
            ),
            (
                (
                    "playhouse.shard.snapshots.installed",
                    "",
                    "Snapshots of another replica that were installed here.",
                ),
                |s| s.snapshots_installed as f64,
            ),
        ];
        for (names, read) in counters {
            self.count_of_shards(meter, names, read);
        }
    }

    fn observe_node(&self, meter: &Meter) {
        let gauges: [(_, _, _, Read<Figures>); 12] = [
            (
                "playhouse.node.members",
                "",
                "Members of the cluster, as this node knows them.",
                |f| f.members as f64,
            ),
            (
                "playhouse.node.members.reached",
                "",
                "Members that this node can reach, itself among them.",
                |f| f.members_reached as f64,
            ),
            (
                "playhouse.node.unwell",
                "",
                "1 while the node gives its leaderships away because it is not well.",
                |f| f64::from(u8::from(f.is_unwell)),
            ),
            (
                "playhouse.live.entities.limit",
                "",
                "Entities that may be live on the node.",
                |f| f.live_max as f64,
            ),
            (
                "playhouse.recoveries.in.flight",
                "",
                "Entities that are being read from the store.",
                |f| f.recovering as f64,
            ),
            (
                "playhouse.recoveries.waiting",
                "",
                "Entities that wait for being read from the store.",
                |f| f.recoveries_waiting as f64,
            ),
            (
                "playhouse.admission.calls",
                "",
                "Calls of clients under way at the node that heard them.",
                |f| f.calls_in_flight as f64,
            ),
            (
                "playhouse.admission.work",
                "",
                "Commands and reads that the node serves as a leader.",
                |f| f.work_in_flight as f64,
            ),
            (
                "playhouse.admission.work.limit",
                "",
                "How many of those it takes at most just now.",
                |f| f.work_max as f64,
            ),
            (
                "playhouse.log.sync.age",
                "s",
                "How long the sync of the log that is under way has taken so far.",
                |f| f.log_sync_age.as_secs_f64(),
            ),
            (
                "playhouse.driver.wait",
                "s",
                "How long what is sent to the driver waits, as a running mean.",
                |f| f.driver_wait.as_secs_f64(),
            ),
            (
                "playhouse.shards.led",
                "",
                "Shards that the node leads, without the system shard.",
                |f| f.shards.iter().filter(|shard| shard.leads && !shard.is_system).count() as f64,
            ),
        ];
        for (name, unit, about, read) in gauges {
            let engine = self.clone();
            meter
                .f64_observable_gauge(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| observer.observe(read(&engine.0.read().figures), &[]))
                .build();
        }
        let counters: [(_, _, _, Read<Figures>); 4] = [
            (
                "playhouse.activations",
                "",
                "Entities that were brought to life.",
                |f| f.activations as f64,
            ),
            (
                "playhouse.effect.chains.ended",
                "",
                "Chains of effects that were ended because they were too deep.",
                |f| f.chains_ended as f64,
            ),
            (
                "playhouse.log.syncs",
                "",
                "Writes of the log down to the device.",
                |f| f.log_syncs as f64,
            ),
            ("playhouse.log.sync.time", "s", "Time that those took together.", |f| {
                f.log_sync_time.as_secs_f64()
            }),
        ];
        for (name, unit, about, read) in counters {
            let engine = self.clone();
            meter
                .f64_observable_counter(name)
                .with_unit(unit)
                .with_description(about)
                .with_callback(move |observer| observer.observe(read(&engine.0.read().figures), &[]))
                .build();
        }
        let engine = self.clone();
        let reasons = ["idle", "room"].map(|reason| [KeyValue::new("reason", reason)]);
        meter
            .u64_observable_counter("playhouse.passivations")
            .with_description("Entities that were sent away: idle for a while, or for want of room.")
            .with_callback(move |observer| {
                let figures = &engine.0.read().figures;
                observer.observe(figures.passivations_idle, &reasons[0]);
                observer.observe(figures.passivations_for_room, &reasons[1]);
            })
            .build();
        let engine = self.clone();
        meter
            .u64_observable_counter("playhouse.admission.refused")
            .with_description("Calls that got no credit, by the limit that was reached.")
            .with_callback(move |observer| {
                for (limit, count) in &engine.0.read().figures.refused {
                    observer.observe(*count, &[KeyValue::new("limit", *limit)]);
                }
            })
            .build();
    }

    fn observe_breakers(&self, meter: &Meter) {
        let engine = self.clone();
        meter
            .u64_observable_gauge("playhouse.breaker.state")
            .with_description("1 for the state that the breaker to a dependency is in, 0 for the others.")
            .with_callback(move |observer| {
                for breaker in &engine.0.read().figures.breakers {
                    for phase in [Phase::Closed, Phase::Open, Phase::HalfOpen] {
                        let attributes = [
                            KeyValue::new("dependency", breaker.dependency.clone()),
                            KeyValue::new("state", phase.as_str()),
                        ];
                        observer.observe(u64::from(breaker.state.phase == phase), &attributes);
                    }
                }
            })
            .build();
        let engine = self.clone();
        meter
            .u64_observable_gauge("playhouse.breaker.failures")
            .with_description("Failures of a dependency in a row.")
            .with_callback(move |observer| {
                for breaker in &engine.0.read().figures.breakers {
                    let attributes = [KeyValue::new("dependency", breaker.dependency.clone())];
                    observer.observe(u64::from(breaker.state.failures), &attributes);
                }
            })
            .build();
        let engine = self.clone();
        meter
            .u64_observable_gauge("playhouse.breaker.calls")
            .with_description("Calls to a dependency under way.")
            .with_callback(move |observer| {
                for breaker in &engine.0.read().figures.breakers {
                    let attributes = [KeyValue::new("dependency", breaker.dependency.clone())];
                    observer.observe(breaker.in_flight as u64, &attributes);
                }
            })
            .build();
    }
}

fn attribute(shard: &ShardFigures) -> KeyValue {
    if shard.is_system {
        KeyValue::new("shard", "system")
    } else {
        KeyValue::new("shard", shard.shard.to_string())
    }
}
