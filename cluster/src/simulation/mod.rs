//! The simulation: the real driver and the real shards of several nodes in one process, under one seed and in virtual time.
//!
//! Authors of entities run their own ones in it, with the feature `simulation`: [`Simulation`], with [`Step`]s in front of it,
//! services behind ([`Served`]), and invariants that look at a [`World`].
//!
//! The engine checks itself with it. Reading order: [`world`] (one run), [`node`] and [`disk`] (what a node has, and what a
//! crash leaves of it), [`boot`] (start and end), [`shell`] (carrying out what the driver says), [`storage`] (checkpoints and
//! snapshots), [`activation`] (what a leader does for its entities), [`alarms`] (timers, in runs that have them), [`homes`]
//! (which node is to hold what), [`clients`], [`glances`] (reads of any replica, in runs that have them), [`faults`],
//! [`network`]; in runs that have it, [`weather`] (more that goes wrong), [`failpoints`] (crashes at single steps) and [`damage`]
//! (flipped bits); [`author`] (runs of an author's entities); [`invariants`] holds what must be true, [`flaws`] the planted bugs
//! that show that it would be noticed, [`planted`] within how many seeds. [`engine`] is the door for a program that makes many
//! runs: `cargo run --release -p tests --bin simulate`.
//!
//! To run one seed again with its whole trace: `SIM_SEED=123 cargo test -p cluster simulation::one_seed -- --nocapture`.
//! With `SIM_KIND=timers` (or `reads`, `storms`) beside it, it is a run of that kind.
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
mod damage;
mod disk;
pub mod engine;
mod failpoints;
mod faults;
mod flaws;
mod glances;
mod homes;
mod invariants;
mod network;
mod node;
mod planted;
mod rng;
#[cfg(test)]
mod scenarios;
mod shell;
mod storage;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod weather;
mod world;

pub use author::{Answered, Bug, Called, Found, Served, Simulation, Step, Summary, World};
pub use rng::Rng;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seed of `SIM_SEED` with its trace, if there is one.
#[test]
fn one_seed() {
    let Some(seed) = number("SIM_SEED") else { return };
    let name = std::env::var("SIM_KIND").unwrap_or_else(|_| "engine".to_owned());
    let kind = engine::Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.expect("SIM_KIND is engine, timers, reads or storms");
    let limits = engine::Limits::default();
    let report = engine::run_world(|| engine::world(seed, kind, flaws::Flaws::default(), limits, true));
    assert_eq!(report.violation, None, "seed {seed}");
}
