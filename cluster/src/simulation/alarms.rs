//! Timers in a run: who sets and cancels them, each node's clock, and what a leader does to fire them, as `shard::timers`
//! does it. All chance of it comes from a generator of its own, so that runs without timers stay what they were.

use super::{
    activation::Caller,
    clients::Ask,
    rng::Rng,
    world::{Event, TICK, World},
};
use crate::{
    codec,
    config::NodeId,
    entity::{Outcome, decider::resume, envelope::Envelope},
    journal::{Firing, TimerKey},
    shard::schedule::Schedule,
    trace::TraceContext,
};

/// Timers that a leader fires at a time.
const FIRINGS_MAX: usize = 3;
/// Each name stands for timers of its kind, so that some are replaced and some cancelled.
const ONCE: [&str; 2] = ["once", "twice"];
const EVERY: &str = "every";
/// How far the clocks of two nodes may be apart, in ticks.
const SKEW_TICKS_MAX: u64 = 40;

/// What is drawn for timers.
#[derive(Debug)]
pub(super) struct Alarms {
    rng: Rng,
}

impl Alarms {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0x7469_6d65_7273),
        }
    }

    /// How far a node's clock is ahead; another one after each start.
    pub(super) fn skew(&mut self) -> u64 {
        self.rng.below(SKEW_TICKS_MAX * TICK)
    }

    /// What a client wants of a timer, if it wants anything.
    fn ask(&mut self, now: u64, request: &str) -> Option<Ask> {
        let request = request.to_owned();
        match self.rng.below(10) {
            0..3 => Some(Ask::SetTimer {
                request,
                name: self.rng.pick(&ONCE),
                due_ms: now + self.rng.below(120 * TICK),
                every_ms: None,
            }),
            3 => Some(Ask::SetTimer {
                request,
                name: EVERY,
                due_ms: now + self.rng.below(40 * TICK),
                every_ms: Some(self.rng.between(40, 150) * TICK),
            }),
            4 => {
                let name = self.rng.pick(&[ONCE[0], ONCE[1], EVERY]);
                Some(Ask::CancelTimer { request, name })
            }
            _ => None,
        }
    }
}

impl World {
    pub(super) fn with_alarms(mut self) -> Self {
        self.alarms = Some(Alarms::new(self.seed));
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.alarms_start(node);
        }
        self
    }

    pub(super) fn alarm_ask(&mut self, request: &str) -> Option<Ask> {
        let now = self.now;
        self.alarms.as_mut()?.ask(now, request)
    }

    pub(super) fn alarms_start(&mut self, node: NodeId) {
        let Some(alarms) = &mut self.alarms else { return };
        let skew = alarms.skew();
        let life = self.nodes[&node].life;
        self.node(node).clock_ahead = skew;
        self.after(TICK, node, Event::Alarms { life });
    }

    /// A node's clock.
    pub(super) fn clock(&self, node: NodeId) -> u64 {
        let base_ms = self.author.as_ref().map_or(0, |author| author.base_ms());
        base_ms + self.now + self.nodes[&node].clock_ahead
    }

    /// The schedule that a leadership begins with.
    pub(super) fn schedule(&mut self, node: NodeId, group: u32) -> Schedule {
        let mut schedule = Schedule::default();
        if !self.flaws.forgotten_timers {
            for (_, key, firing) in self.replica(node, group).shard.timers().page(None, usize::MAX) {
                schedule.changed(key, Some(firing));
            }
        }
        schedule
    }

    /// Timers have changed in a group that a node may lead.
    pub(super) fn timers_changed(&mut self, node: NodeId, group: u32, changes: Vec<(TimerKey, Option<Firing>)>) {
        let ignores_cancels = self.flaws.cancelled_timers;
        if let Some(leadership) = &mut self.replica(node, group).leadership {
            for (key, firing) in changes {
                if firing.is_some() || !ignores_cancels {
                    leadership.schedule.changed(key, firing);
                }
            }
        }
    }

    /// A node looks which timers are due in the groups that it leads.
    pub(super) fn alarms(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        self.after(TICK, node, Event::Alarms { life });
        if self.now < self.nodes[&node].paused_until {
            return;
        }
        let clock = self.clock(node);
        let held: Vec<u32> = self.node(node).running().replicas.keys().copied().collect();
        for group in held {
            let Some(leadership) = &mut self.replica(node, group).leadership else {
                continue;
            };
            for (key, firing) in leadership.schedule.due(clock, FIRINGS_MAX) {
                self.fire(node, group, &key, &firing);
            }
        }
    }

    /// One attempt.
    fn fire(&mut self, node: NodeId, group: u32, key: &TimerKey, firing: &Firing) {
        let (twice, cancelled) = (self.flaws.timers_fired_twice, self.flaws.cancelled_timers);
        let at_ms = self.clock(node);
        let Some((term, it)) = self.activation(node, group, &key.entity) else {
            return self.firing_ended(node, group, None, key, firing);
        };
        let row = it.decider.awaited(firing);
        let began = self
            .replica(node, group)
            .leadership
            .as_ref()
            .map_or(0, |leadership| leadership.began);
        let (token, missed) = match &row {
            Some(row) => (row.token.clone(), row.missed(at_ms)),
            None if cancelled => (codec::encode(&self.checks.timers.label_of(key, firing.seq)), 0),
            None => {
                self.put_back(node, group, &key.entity, it);
                return self.firing_ended(node, group, Some(term), key, firing);
            }
        };
        let outcome = Outcome::Fired {
            due_ms: firing.due_ms,
            missed,
        };
        let kind = self
            .registry
            .get(&key.entity.kind)
            .expect("its entity was brought back");
        let command = match resume(&**kind, &token, &outcome) {
            Ok(command) => command,
            Err(fault) => {
                return self.violated(
                    "panics",
                    format!("{}, of its timer {}: {}", key.entity, key.name, fault.reason),
                );
            }
        };
        let is_unnamed = row.is_none() || twice && firing.due_ms < began;
        let fires = row.filter(|_| !is_unnamed).map(|row| (firing.clone(), row));
        self.count("timers fired", 1);
        let work = super::activation::Work {
            envelope: Envelope::new(firing.request(), TraceContext::default()),
            command,
            caller: None::<Caller>,
            acknowledges: None,
            firing: Some((key.clone(), firing.clone())),
            fires,
        };
        // Nobody waits for the reply.
        let _ = self.decide(node, group, term, &key.entity, it, work);
    }

    /// An attempt has ended, in that term; the schedule of another one has not made it.
    pub(super) fn firing_ended(
        &mut self,
        node: NodeId,
        group: u32,
        term: Option<u64>,
        key: &TimerKey,
        firing: &Firing,
    ) {
        let clock = self.clock(node);
        if let Some(leadership) = &mut self.replica(node, group).leadership
            && term.is_none_or(|term| term == leadership.term)
        {
            leadership.schedule.ended(key, firing, clock, |pause_ms| pause_ms);
        }
    }
}
