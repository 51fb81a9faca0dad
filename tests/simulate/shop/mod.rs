//! The world `shop`: the real entities of `actors` on several nodes with the engine's own consensus, journal and storage, a payment
//! provider that fails, is slow and answers late, and all the faults that the simulation knows.
//!
//! [`workload`] is what customers and the warehouse do, [`provider`] what the provider does and what its books say,
//! [`invariants`] what must be true, [`wrong_undo`] a checkout whose table undoes in a wrong order, to see that it is noticed.

mod invariants;
mod provider;
mod workload;
mod wrong_undo;

use actors::{customer, order, payment, product, returns, stock};
use cluster::{
    Registry,
    simulation::{Bug, Found, Simulation, Summary},
};

use wrong_undo::WrongUndo;

/// Steps of a run that nobody says more of.
pub(crate) const STEPS: u64 = 60;

/// How a run of the shop is smaller than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) steps: u64,
    /// Whether anything goes wrong with nodes, disks and links.
    pub(crate) faults: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            steps: STEPS,
            faults: true,
        }
    }
}

/// A bug planted in the shop, or in the engine under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    /// Within how many seeds, from 0 on, it must be noticed.
    pub(crate) seeds_max: u64,
    bug: Plant,
}

#[derive(Debug, Clone, Copy)]
enum Plant {
    Engine(Bug),
    WrongUndoOrder,
}

/// All of them.
pub(crate) const PLANTED: [Planted; 5] = [
    Planted {
        name: "an outbox that sends before the commit",
        seeds_max: 100,
        bug: Plant::Engine(Bug::OutboxBeforeCommit),
    },
    Planted {
        name: "an outbox that is forgotten at a failover",
        seeds_max: 10,
        bug: Plant::Engine(Bug::OutboxForgotten),
    },
    Planted {
        name: "effects decided again",
        seeds_max: 10,
        bug: Plant::Engine(Bug::NoDeduplication),
    },
    Planted {
        name: "timers of entities fired twice",
        seeds_max: 100,
        bug: Plant::Engine(Bug::TimersFiredTwice),
    },
    Planted {
        name: "a saga that undoes in a wrong order",
        seeds_max: 10,
        bug: Plant::WrongUndoOrder,
    },
];

/// Runs one seed.
pub(crate) fn run(seed: u64, size: Size) -> Result<Summary, Box<Found>> {
    simulation(actors::registry(), seed, size).try_run()
}

impl Planted {
    /// Runs one seed with it.
    pub(crate) fn run(&self, seed: u64) -> Result<Summary, Box<Found>> {
        let shop = |registry| simulation(registry, seed, Size::default()).shrink(false);
        match self.bug {
            Plant::Engine(bug) => shop(actors::registry()).plant(bug).try_run(),
            Plant::WrongUndoOrder => shop(with_wrong_undo()).try_run(),
        }
    }
}

fn with_wrong_undo() -> Registry {
    Registry::new()
        .with::<product::Product>()
        .with::<stock::StockItem>()
        .with::<customer::Customer>()
        .with::<payment::Payment>()
        .with::<order::Order>()
        .with::<WrongUndo>()
        .with::<returns::Return>()
}

fn simulation(registry: Registry, seed: u64, size: Size) -> Simulation {
    let shop = Simulation::new(registry)
        .seeds(seed..seed + 1)
        .steps(size.steps)
        .faults(size.faults)
        .storms(true)
        .workload(workload::step)
        .service(payment::provider::SERVICE, provider::serve);
    invariants::of(shop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{PLANTED, Size, run};

    /// Seeds of the fixed set.
    const SEEDS: u64 = 30;

    #[test]
    fn seeds_of_the_shop_hold() {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for seed in 0..SEEDS {
            let summary = run(seed, Size::default()).unwrap_or_else(|found| {
                panic!(
                    "{found}\nor: cargo run --release -p tests --bin simulate -- --worlds shop --seed {seed} --seeds 1"
                )
            });
            for (what, number) in summary.counts {
                *counts.entry(what).or_default() += number;
            }
        }
        println!("{counts:#?}");
        for what in [
            "crashes",
            "effects repeated",
            "calls",
            "timers fired",
            "services that answer late",
        ] {
            assert!(
                counts.get(what).is_some_and(|count| *count > SEEDS),
                "{what}: {counts:#?}"
            );
        }
    }

    #[test]
    fn the_same_seed_twice_is_the_same_run() {
        let [first, second] = [(); 2].map(|()| run(3, Size::default()).expect("it holds"));
        assert_eq!(first, second);
    }

    #[test]
    fn every_planted_bug_is_noticed() {
        for planted in PLANTED {
            let found = (0..planted.seeds_max).find_map(|seed| planted.run(seed).err());
            let found = found.unwrap_or_else(|| panic!("{} is not noticed", planted.name));
            println!(
                "{}: seed {}, {}: {}",
                planted.name, found.seed, found.invariant, found.what
            );
        }
    }
}
