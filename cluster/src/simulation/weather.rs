//! What goes wrong beside the faults that all runs have: clocks that jump, links that flap, clog or leave one bridge, devices that
//! are slow, full, or fail a sync, bits that flip, crashes at single steps, bursts, hot entities. Only in runs that have it, so that
//! all other runs of a seed stay what they are; all chance of it comes from a generator of its own.

use super::{
    clients::Ask,
    failpoints::Failpoints,
    faults::{Fault, STORMS},
    rng::Rng,
    world::{Event, TICK, World},
};
use crate::config::NodeId;

/// Operations of one burst, at most.
const BURST_LEN_MAX: u64 = 40;
/// How far a clock jumps: mostly less than a run, now and then an hour. In moments, which are milliseconds.
const JUMPS: [u64; 3] = [40 * TICK, 400 * TICK, 3_600_000];
/// How many times as long a slow device takes, at most.
const SLOWER_MAX: u64 = 30;

/// What is drawn for one run.
#[derive(Debug)]
pub(super) struct Weather {
    pub(super) rng: Rng,
    /// Of each of [`STORMS`].
    weights: [u64; STORMS.len()],
    /// The longest time between two of them, in moments.
    pause_max: u64,
    /// How many of a thousand operations go to one entity, and to which.
    hot: Option<(u64, u64)>,
    pub(super) failpoints: Failpoints,
}

impl Weather {
    fn draw(seed: u64, without: impl Fn(Fault) -> bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x0077_6561_7468_6572);
        let mut weights = STORMS.map(|_| rng.pick(&[0, 1, 3]));
        for (weight, fault) in weights.iter_mut().zip(STORMS) {
            if without(fault) {
                *weight = 0;
            }
        }
        let hot = rng.chance(300).then(|| (rng.between(500, 950), rng.next()));
        Self {
            weights,
            pause_max: rng.pick(&[15, 50]) * TICK,
            hot: hot.filter(|_| !without(Fault::HotKeys)),
            failpoints: Failpoints::draw(&mut rng, without(Fault::Failpoints)),
            rng,
        }
    }
}

impl World {
    /// From now on there is weather.
    pub(super) fn with_weather(mut self) -> Self {
        self.begin_weather();
        self
    }

    pub(super) fn begin_weather(&mut self) {
        self.weather = Some(Weather::draw(self.seed, |fault| self.limits.without.contains(&fault)));
        self.after(TICK * 30, 0, Event::Storm);
    }

    /// Does one thing wrong, and sees to the next.
    pub(super) fn storm(&mut self) {
        if self.calm {
            return;
        }
        self.repair();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let Some(weather) = &mut self.weather else { return };
        let rng = &mut weather.rng;
        let (node, other) = (rng.pick(&nodes), rng.pick(&nodes));
        let total: u64 = weather.weights.iter().sum();
        let mut drawn = rng.below(total.max(1));
        let hit = weather.weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        let (pause, length) = (rng.between(1, weather.pause_max), rng.between(5, 120) * TICK);
        self.after(pause, 0, Event::Storm);
        let Some(fault) = hit.map(|place| STORMS[place]) else {
            return;
        };
        match fault {
            Fault::ClockJump => self.clock_jumps(node),
            Fault::Flap => self.link_flaps(node, other, length),
            Fault::Clog => self.links_clog(node, other, &nodes, length),
            Fault::Bridge => self.leave_one_bridge(node, &nodes, length),
            Fault::FailedSync => {
                self.node(node).disk.fails_next_sync = true;
                self.tell(format!("the next sync of node {node} is to fail"));
            }
            Fault::FullDisk => {
                let until = self.now + length;
                self.node(node).disk.full_until = until;
                self.tell(format!("the disk of node {node} is full until {}", until / TICK));
                self.count("disks full", 1);
            }
            Fault::SlowDisk => {
                let slower = self.weather_rng().between(3, SLOWER_MAX);
                let until = self.now + length;
                self.node(node).disk.slow = (until, slower);
                self.tell(format!(
                    "the disk of node {node} takes {slower} times as long until {}",
                    until / TICK
                ));
                self.count("disks slow", 1);
            }
            Fault::FlippedBit => self.flip_a_bit(node),
            Fault::Burst => self.burst(),
            other => unreachable!("{other:?} is none of the weather's"),
        }
    }

    /// The weather's own chance.
    pub(super) fn weather_rng(&mut self) -> &mut Rng {
        &mut self.weather.as_mut().expect("only runs with weather ask").rng
    }

    fn clock_jumps(&mut self, node: NodeId) {
        let rng = self.weather_rng();
        let longest = rng.pick(&JUMPS);
        let ahead = rng.below(longest);
        self.node(node).clock_ahead = ahead;
        self.tell(format!("the clock of node {node} jumps: it is {ahead} ahead"));
        self.count("clock jumps", 1);
    }

    fn link_flaps(&mut self, node: NodeId, other: NodeId, length: u64) {
        let period = self.weather_rng().between(2, 3 * TICK);
        let until = self.now + length;
        self.network.flaps.insert((node, other), (until, period));
        self.network.flaps.insert((other, node), (until, period));
        self.tell(format!(
            "the link of nodes {node} and {other} flaps every {period} moments"
        ));
        self.count("links that flap", 1);
    }

    /// What is sent meanwhile comes when it is over, all at once.
    fn links_clog(&mut self, node: NodeId, other: NodeId, nodes: &[NodeId], length: u64) {
        let until = self.now + length;
        let to_all = self.weather_rng().chance(400);
        for to in nodes
            .iter()
            .copied()
            .filter(|to| *to != node && (to_all || *to == other))
        {
            self.network.clogs.insert((node, to), until);
        }
        self.tell(format!("links of node {node} are clogged: {:?}", self.network.clogs));
        self.count("links clogged", 1);
    }

    /// Two halves that cannot talk, and one node that can talk to both.
    fn leave_one_bridge(&mut self, bridge: NodeId, nodes: &[NodeId], length: u64) {
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != bridge).collect();
        let (left, right) = others.split_at(others.len() / 2);
        for (one, other) in left
            .iter()
            .flat_map(|one| right.iter().map(move |other| (*one, *other)))
        {
            self.network.cut.extend([(one, other), (other, one)]);
        }
        self.tell(format!("node {bridge} is the only bridge: {:?}", self.network.cut));
        self.count("bridges", 1);
        self.after(length, 0, Event::Heal);
    }

    /// Many operations at once, of clients that are not seen again.
    fn burst(&mut self) {
        if self.author.is_some() {
            return;
        }
        let keys = self.clients.keys().to_vec();
        let rng = self.weather_rng();
        let count = rng.between(10, BURST_LEN_MAX);
        let one = rng.chance(500).then(|| rng.below(keys.len() as u64) as usize);
        self.tell(format!("a burst of {count} operations"));
        self.count("bursts", 1);
        for _ in 0..count {
            let rng = self.weather_rng();
            let place = one.unwrap_or_else(|| rng.below(keys.len() as u64) as usize);
            let (is_read, with_effect) = (rng.chance(200), rng.chance(100));
            if self.is_done_asking() {
                return;
            }
            let request = format!("r{}", self.clients.ops.len());
            let ask = if is_read {
                Ask::Read
            } else {
                Ask::Add { request, with_effect }
            };
            let (key, group) = keys[place].clone();
            self.begin_operation(None, key, group, ask);
        }
    }

    /// Which entity is asked next: the one that was drawn, or the hot one.
    pub(super) fn warmed(&mut self, place: usize, count: usize) -> usize {
        let Some(weather) = &mut self.weather else { return place };
        match weather.hot {
            Some((permille, hot)) if weather.rng.chance(permille) => hot as usize % count,
            _ => place,
        }
    }
}
