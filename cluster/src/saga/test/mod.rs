//! Tests sagas together with the entities that they drive, without a cluster: with a failure at each step, and a repeat of each
//! step, in many orders of arrival.
//!
//! ```ignore
//! // Each step of the booking fails once, is repeated once, loses its answer once: it always ends, and well.
//! saga::test::every_fault(&kinds, |world| drop(world.command::<Trip>("t-1", &start)), |world| {
//!     let trip = world.state::<Trip>("t-1");
//!     let held = world.state::<Flight>("BA1").seats_held;
//!     assert_eq!(held, u64::from(trip.phase == Phase::Completed));
//! });
//! ```
//!
//! [`every_fault`] is the one line; [`World`] is what it runs, and can be driven by hand: [`World::command`], [`World::settle`],
//! then look at states. Services outside are stood in for by an [`Outside`].

mod deciding;
mod world;

use std::thread;

use crate::entity::Registry;

pub use world::{Fault, NoOutside, Outside, World};

/// Orders of arrival that each fault is tried in.
pub const SEEDS: u64 = 10;
/// More places than any scenario has effects.
const PLACES_MAX: usize = 10_000;

/// Runs a scenario with each fault at each of its effects, each in [`SEEDS`] orders of arrival. After each run all is carried out
/// that is under way and all timers that are due within some hours have fired; then every saga must have ended, and `check`
/// must hold. Gives the number of runs.
///
/// # Panics
/// When a saga has not ended or a check fails; everything that happened is printed before.
pub fn every_fault(
    kinds: &Registry,
    scenario: impl Fn(&mut World<NoOutside>),
    check: impl Fn(&World<NoOutside>),
) -> usize {
    every_fault_with(
        |seed, fault| World::new(kinds, NoOutside, seed, fault),
        SEEDS,
        scenario,
        check,
    )
}

/// The same with services outside: `world` makes one of a seed and a fault, usually by [`World::new`].
pub fn every_fault_with<O: Outside>(
    world: impl Fn(u64, Option<(usize, Fault)>) -> World<O>,
    seeds: u64,
    scenario: impl Fn(&mut World<O>),
    check: impl Fn(&World<O>),
) -> usize {
    let mut runs = 0;
    let run = |seed, fault| {
        let mut told = Told(world(seed, fault));
        scenario(&mut told.0);
        told.0.settle();
        if fault.is_none() || told.0.hit.is_some() {
            told.0.all_sagas_ended();
            check(&told.0);
        }
        told.0.hit.is_some()
    };
    for seed in 0..seeds {
        run(seed, None);
        runs += 1;
        for fault in Fault::ALL {
            let hits = (0..PLACES_MAX).take_while(|at| run(seed, Some((*at, fault)))).count();
            assert!(hits < PLACES_MAX, "the scenario has no end of effects");
            runs += hits;
        }
    }
    runs
}

/// Tells what happened in a world in which a test fails.
struct Told<O: Outside>(World<O>);

impl<O: Outside> Drop for Told<O> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.told());
        }
    }
}
