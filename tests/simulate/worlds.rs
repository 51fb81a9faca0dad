//! Which runs there are, what each comes to, and how one that failed is made smaller.

use std::collections::BTreeMap;

use clap::ValueEnum;
use cluster::simulation::engine::{self, Kind, Limits};

use crate::{arguments::Arguments, shop};

/// A world that seeds are run in. A seed is another run in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum World {
    /// Commands and reads of counters; crashes, partitions, moves.
    Engine,
    /// The same with timers, on clocks that disagree.
    Timers,
    /// The same with reads of any replica.
    Reads,
    /// All of it, with clocks, links and devices that do worse, and crashes at single steps.
    Storms,
    /// Orders, stock, payments and sagas, in all of that.
    Shop,
}

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) found: Option<Finding>,
}

/// A run that broke a promise, made as small as it gets.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) world: World,
    pub(crate) seed: u64,
    pub(crate) invariant: String,
    pub(crate) what: String,
    /// What happened, a line each.
    pub(crate) history: Vec<String>,
    /// What is typed to run it again.
    pub(crate) again: String,
}

impl World {
    pub(crate) const ALL: [Self; 5] = [Self::Engine, Self::Timers, Self::Reads, Self::Storms, Self::Shop];

    pub(crate) fn name(self) -> &'static str {
        match self.kind() {
            Some(kind) => kind.name(),
            None => "shop",
        }
    }

    /// The engine's kind of run; none for the shop.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::Engine => Some(Kind::Engine),
            Self::Timers => Some(Kind::Timers),
            Self::Reads => Some(Kind::Reads),
            Self::Storms => Some(Kind::Storms),
            Self::Shop => None,
        }
    }

    /// Runs a seed, and makes it small if it fails.
    pub(crate) fn run(self, seed: u64, arguments: &Arguments) -> Ran {
        match self.kind() {
            Some(kind) => run_engine(self, kind, seed, &arguments.limits()),
            None => run_shop(seed, arguments.size()),
        }
    }

    fn again(self, seed: u64, how: &str) -> String {
        let name = self.name();
        format!("cargo run --release -p tests --bin simulate -- --worlds {name} --seed {seed} --seeds 1{how}")
    }
}

fn run_engine(world: World, kind: Kind, seed: u64, limits: &Limits) -> Ran {
    let outcome = engine::run(seed, kind, limits);
    let found = outcome.violation.map(|violation| {
        let shrunk = engine::shrink(seed, kind, None, limits);
        let (limits, violation, history) = match shrunk {
            Some(shrunk) => (shrunk.limits, shrunk.violation, shrunk.story),
            None => (
                limits.clone(),
                violation,
                vec!["it did not fail again: the run is not the same twice".to_owned()],
            ),
        };
        Finding {
            world,
            seed,
            invariant: violation.invariant.to_owned(),
            what: violation.what,
            history,
            again: world.again(seed, &typed(&limits)),
        }
    });
    Ran {
        counts: outcome.counts,
        found,
    }
}

/// How limits are typed.
fn typed(limits: &Limits) -> String {
    let mut text = String::new();
    if let Some(ticks) = limits.ticks {
        text.extend([format!(" --ticks {ticks}")]);
    }
    if let Some(operations) = limits.operations {
        text.extend([format!(" --operations {operations}")]);
    }
    if !limits.without.is_empty() {
        let names: Vec<&str> = limits.without.iter().map(|fault| fault.name()).collect();
        text.extend([format!(" --without {}", names.join(","))]);
    }
    text
}

fn run_shop(seed: u64, size: shop::Size) -> Ran {
    match shop::run(seed, size) {
        Ok(summary) => Ran {
            counts: summary.counts,
            found: None,
        },
        Err(found) => {
            let without = if found.needs_faults { "" } else { " --without all" };
            let how = format!(" --operations {}{without}", found.steps);
            Ran {
                counts: BTreeMap::new(),
                found: Some(Finding {
                    world: World::Shop,
                    seed,
                    invariant: found.invariant.to_owned(),
                    what: found.what,
                    history: found.story,
                    again: World::Shop.again(seed, &how),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster::simulation::engine::Fault;

    use super::*;

    #[test]
    fn limits_are_typed_as_they_are_read() {
        use clap::Parser as _;
        let limits = Limits {
            ticks: Some(30),
            operations: Some(4),
            without: [Fault::Crash, Fault::ClockJump].into(),
        };
        let line = World::Storms.again(17, &typed(&limits));
        let (_, typed) = line.split_once(" -- ").expect("arguments");
        let arguments = Arguments::parse_from(std::iter::once("simulate").chain(typed.split(' ')));
        assert_eq!(arguments.limits(), limits);
        assert_eq!(
            (arguments.worlds(), arguments.seed, arguments.seeds()),
            (vec![World::Storms], 17, 1)
        );
    }
}
