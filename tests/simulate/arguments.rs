//! What can be typed.

use std::thread;

use clap::Parser;
use cluster::simulation::engine::{Fault, Limits};

use crate::{shop, worlds::World};

/// Seeds that are run when nobody says how many, and no time either.
const SEEDS: u64 = 1_000;

/// Run the simulation: the whole engine on several nodes in one process, in virtual time, each run under one seed.
#[derive(Debug, Clone, Parser)]
#[command(name = "simulate")]
pub(crate) struct Arguments {
    /// How many seeds each world runs; 1000 if neither this nor --minutes is given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// For how long seeds are run; with --seeds, whichever ends first.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) minutes: Option<u64>,
    /// Which worlds, divided by commas; all if none is named.
    #[arg(long, value_name = "WORLD", value_enum, value_delimiter = ',')]
    worlds: Vec<World>,
    /// How many runs at a time; as many as there are cores if nobody says.
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
    /// Print one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Look for the planted bugs instead: after how many seeds is each noticed, and by which invariant?
    #[arg(long)]
    pub(crate) planted: bool,
    /// Faults and new operations end after so many ticks, of 900 (not for the world shop).
    #[arg(long, value_name = "N")]
    ticks: Option<u64>,
    /// Clients begin so many operations at most (in the world shop: so many steps).
    #[arg(long, value_name = "N")]
    operations: Option<u64>,
    /// Kinds of faults to leave out, divided by commas; in the world shop only `all` of them.
    #[arg(long, value_name = "FAULT", value_delimiter = ',', value_parser = parse_without)]
    without: Vec<Without>,
}

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    All,
    One(Fault),
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=256) => Ok(threads),
        _ => Err("say a number from 1 to 256".to_owned()),
    }
}

fn parse_without(text: &str) -> Result<Without, String> {
    let names: Vec<&str> = Fault::ALL.iter().map(|(_, name)| *name).collect();
    match (text, Fault::named(text)) {
        ("all", _) => Ok(Without::All),
        (_, Some(fault)) => Ok(Without::One(fault)),
        _ => Err(format!(
            "there is no such fault; say all, or some of {}",
            names.join(", ")
        )),
    }
}

impl Arguments {
    pub(crate) fn worlds(&self) -> Vec<World> {
        if self.worlds.is_empty() {
            World::ALL.to_vec()
        } else {
            self.worlds.clone()
        }
    }

    /// How many seeds each world runs at most.
    pub(crate) fn seeds(&self) -> u64 {
        let unlimited = if self.minutes.is_some() { u64::MAX } else { SEEDS };
        let seeds = self.seeds.unwrap_or(unlimited);
        seeds.min(u64::MAX - self.seed)
    }

    pub(crate) fn threads(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores)
    }

    /// How the engine's runs are smaller than usual.
    pub(crate) fn limits(&self) -> Limits {
        let left_out = |without: &Without| match without {
            Without::All => Fault::ALL.iter().map(|(fault, _)| *fault).collect(),
            Without::One(fault) => vec![*fault],
        };
        Limits {
            ticks: self.ticks,
            operations: self.operations,
            without: self.without.iter().flat_map(left_out).collect(),
        }
    }

    /// How the shop's runs are smaller than usual.
    pub(crate) fn size(&self) -> shop::Size {
        shop::Size {
            steps: self.operations.unwrap_or(shop::STEPS),
            faults: !self.without.contains(&Without::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_run() {
        let line = "simulate --seeds 5 --seed 7 --worlds timers,shop --without crash,loss --operations 9";
        let arguments = Arguments::parse_from(line.split(' '));
        assert_eq!((arguments.seed, arguments.seeds()), (7, 5));
        assert_eq!(arguments.worlds(), [World::Timers, World::Shop]);
        let limits = arguments.limits();
        assert_eq!(
            limits.without.into_iter().collect::<Vec<_>>(),
            [Fault::Crash, Fault::Loss]
        );
        assert!(arguments.size().faults && arguments.size().steps == 9);
        assert!(!Arguments::parse_from(["simulate", "--without", "all"]).size().faults);
    }

    #[test]
    fn a_fault_that_is_none_is_refused_with_those_that_are() {
        let error = Arguments::try_parse_from(["simulate", "--without", "crsh"]).expect_err("it is none");
        let text = error.to_string();
        assert!(text.contains("crash") && text.contains("clock-jump"), "{text}");
    }

    #[test]
    fn with_a_time_alone_seeds_go_on_until_it_is_over() {
        assert_eq!(Arguments::parse_from(["simulate", "--minutes", "1"]).seeds(), u64::MAX);
        assert_eq!(Arguments::parse_from(["simulate"]).seeds(), SEEDS);
    }
}
