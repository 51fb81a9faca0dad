//! The simulation: the real driver and the real shards of several nodes in one process, under one seed and in virtual time.
//!
//! Authors of entities run their own ones in it, with the feature `simulation`: [`Simulation`], with [`Step`]s in front of it,
//! services behind ([`Served`]), and invariants that look at a [`World`].
//!
//! The engine checks itself with it. Reading order: [`world`] (one run), [`node`] and [`disk`] (what a node has, and what a
//! crash leaves of it), [`boot`] (start and end), [`shell`] (carrying out what the driver says), [`storage`] (checkpoints and
//! snapshots), [`activation`] (what a leader does for its entities), [`alarms`] (timers, in runs that have them), [`homes`]
//! (which node is to hold what), [`clients`], [`glances`] (reads of any replica, in runs that have them), [`faults`],
//! [`network`]; [`author`] (runs of an author's entities); [`invariants`] holds what must be true, [`flaws`] the planted bugs
//! that show that it would be noticed.
//!
//! To run one seed again with its whole trace: `SIM_SEED=123 cargo test -p cluster simulation::one_seed -- --nocapture`.
//! To run many: `SIM_SEEDS=5000 cargo test -p cluster simulation::many_seeds -- --nocapture` (from `SIM_SEED` on).
//! With `SIM_TIMERS=1` beside it, clients set timers as well; with `SIM_GLANCES=1`, somebody reads from any replica.
//! `tests.rs` says which seeds `cargo test` runs, and `scenarios.rs` which seeds have found bugs.

#![cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "what the engine checks of itself stands beside what authors need"
    )
)]

mod activation;
mod alarms;
mod author;
mod boot;
mod clients;
mod disk;
mod faults;
mod flaws;
mod glances;
mod homes;
mod invariants;
mod network;
mod node;
mod rng;
#[cfg(test)]
mod scenarios;
mod shell;
mod storage;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use author::{Answered, Called, Found, Served, Simulation, Step, Summary, World};
pub use rng::Rng;

use flaws::Flaws;
use world::{Report, Violation, World as Run};

/// Runs a seed. A panic is a violation like others.
fn run(seed: u64, flaws: Flaws, print: bool) -> Report {
    run_world(|| Run::new(seed, flaws, print))
}

/// Runs a seed in which clients set timers too.
fn run_with_timers(seed: u64, flaws: Flaws, print: bool) -> Report {
    run_world(|| Run::new(seed, flaws, print).with_alarms())
}

/// Runs a seed in which somebody reads from any replica too.
fn run_with_glances(seed: u64, flaws: Flaws, print: bool) -> Report {
    run_world(|| Run::new(seed, flaws, print).with_glances())
}

fn run_world(make: impl FnOnce() -> Run) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = make();
        world.run();
        world.report()
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Report {
            violation: Some(Violation {
                invariant: "panics",
                what: text.unwrap_or_default(),
            }),
            ..Report::default()
        }
    })
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The kind of run that the environment asks for.
fn chosen() -> fn(u64, Flaws, bool) -> Report {
    if number("SIM_TIMERS").is_some() {
        run_with_timers
    } else if number("SIM_GLANCES").is_some() {
        run_with_glances
    } else {
        run
    }
}

/// Runs the seed of `SIM_SEED` with its trace, if there is one.
#[test]
fn one_seed() {
    if let (Some(seed), None) = (number("SIM_SEED"), number("SIM_SEEDS")) {
        let report = chosen()(seed, Flaws::default(), true);
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

/// Runs `SIM_SEEDS` seeds, from `SIM_SEED` on, and says what each failing one violates.
#[test]
fn many_seeds() {
    let Some(count) = number("SIM_SEEDS") else { return };
    let first = number("SIM_SEED").unwrap_or(10_000);
    let mut failed = 0;
    let mut counts: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for seed in first..first + count {
        let report = chosen()(seed, Flaws::default(), false);
        if let Some(Violation { invariant, what }) = report.violation {
            failed += 1;
            println!("seed {seed} violates {invariant}: {what}");
        }
        for (what, number) in report.counts {
            *counts.entry(what).or_default() += number;
        }
    }
    println!("{counts:#?}");
    assert_eq!(failed, 0, "seeds failed");
}
