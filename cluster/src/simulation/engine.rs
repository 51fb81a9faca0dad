//! The engine's own runs, for a program that makes many of them: which kinds there are, one run, and one that failed made as
//! small as it gets.

mod shrink;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    flaws::Flaws,
    world::{Report, World},
};

pub use self::shrink::{Shrunk, shrink};
pub use super::{
    faults::Fault,
    planted::{Planted, planted},
    world::{Limits, Violation},
};

/// Kinds of runs. A seed is another run in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Commands and reads; crashes, partitions, moves.
    Engine,
    /// The same, and clients set and cancel timers, on clocks that disagree.
    Timers,
    /// The same as the first, and somebody reads from any replica.
    Reads,
    /// All of it, with weather: what else can go wrong with clocks, links and devices, crashes at single steps, bursts.
    Storms,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Engine, Self::Timers, Self::Reads, Self::Storms];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Timers => "timers",
            Self::Reads => "reads",
            Self::Storms => "storms",
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The promise that it broke.
    pub violation: Option<Violation>,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The same for the same seed, kind and code: of everything that happened, in order.
    pub trace_hash: u64,
    /// When it ended, in ticks.
    pub ticks: u64,
    /// What happened, a line each, where that was asked for.
    pub story: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, kind: Kind, limits: &Limits) -> Outcome {
    run_with(seed, kind, Flaws::default(), limits, false)
}

/// The crashes at single steps that runs with weather make, by the names under which they are counted.
pub fn failpoints() -> impl Iterator<Item = &'static str> {
    super::failpoints::POINTS
        .iter()
        .flat_map(|(_, before, after)| [*before, *after])
}

impl Planted {
    /// Runs a seed with it.
    pub fn run(&self, seed: u64) -> Outcome {
        run_with(seed, self.kind, self.flaws, &Limits::default(), false)
    }

    /// The first seed that notices it, how many seeds that took, and what it says.
    pub fn notice(&self, first: u64) -> Option<(u64, Violation)> {
        (first..first + self.seeds_max).find_map(|seed| Some((seed, self.run(seed).violation?)))
    }
}

fn run_with(seed: u64, kind: Kind, flaws: Flaws, limits: &Limits, keeps_story: bool) -> Outcome {
    let report = run_world(|| {
        let mut world = world(seed, kind, flaws, limits.clone(), false);
        if keeps_story {
            world.trace.keep();
        }
        world
    });
    Outcome {
        violation: report.violation,
        counts: report.counts,
        trace_hash: report.trace_hash,
        ticks: report.ticks,
        story: report.story,
    }
}

/// A run's world before it has begun.
pub(super) fn world(seed: u64, kind: Kind, flaws: Flaws, limits: Limits, print: bool) -> World {
    let world = World::limited(seed, flaws, limits, print);
    match kind {
        Kind::Engine => world,
        Kind::Timers => world.with_alarms(),
        Kind::Reads => world.with_glances(),
        Kind::Storms => world.with_alarms().with_glances().with_weather(),
    }
}

/// Runs a world to its end. A panic is a violation like others.
pub(super) fn run_world(make: impl FnOnce() -> World) -> Report {
    let mut world = make();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violated("panics", text.unwrap_or_default());
    }
    world.report()
}
