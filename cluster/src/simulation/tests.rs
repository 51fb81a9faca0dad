//! The runs that `cargo test` makes.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    flaws::Flaws,
    world::{Report, Violation, World},
};

/// Seeds of each test of the fixed set.
const SEEDS_PER_TEST: u64 = 80;

/// Runs a seed. A panic is a violation like others.
fn run(seed: u64, flaws: Flaws, print: bool) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, flaws, print);
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

fn holds(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in seeds {
        let report = run(seed, Flaws::default(), false);
        if let Some(violation) = report.violation {
            panic!(
                "seed {seed} violates {}: {}\nrun it again: SIM_SEED={seed} cargo test -p cluster simulation::tests::one_seed -- --nocapture",
                violation.invariant, violation.what
            );
        }
        for (what, number) in report.counts {
            *counts.entry(what).or_default() += number;
        }
    }
    println!("{counts:#?}");
    counts
}

#[test]
fn seeds_of_the_first_set_hold() {
    holds(0..SEEDS_PER_TEST);
}

#[test]
fn seeds_of_the_second_set_hold() {
    holds(1_000..1_000 + SEEDS_PER_TEST);
}

#[test]
fn seeds_of_the_third_set_hold() {
    holds(2_000..2_000 + SEEDS_PER_TEST);
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in 0..6 {
        let [first, second] = [(); 2].map(|()| run(seed, Flaws::default(), false));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the seed of `SIM_SEED` with its trace, if there is one.
#[test]
fn one_seed() {
    if let (Some(seed), None) = (number("SIM_SEED"), number("SIM_SEEDS")) {
        let report = run(seed, Flaws::default(), true);
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

/// Runs `SIM_SEEDS` seeds, from `SIM_SEED` on, and says what each failing one violates.
#[test]
fn many_seeds() {
    let Some(count) = number("SIM_SEEDS") else { return };
    let first = number("SIM_SEED").unwrap_or(10_000);
    let mut failed = 0;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + count {
        let report = run(seed, Flaws::default(), false);
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

/// Each planted bug, and within how many seeds it must be noticed.
const PLANTED: [(&str, u64, fn(&mut Flaws)); 14] = [
    ("a write counts before its sync", 20, |flaws| {
        flaws.written_before_sync = true
    }),
    ("a device that lies about its sync", 20, |flaws| {
        flaws.device_lies = true
    }),
    ("a vote forgotten at a restart", 600, |flaws| {
        flaws.forgotten_vote = true
    }),
    ("a checkpoint that counts before its sync", 10, |flaws| {
        flaws.checkpoint_without_sync = true
    }),
    ("a log cut too far", 10, |flaws| flaws.cut_too_far = true),
    ("requests decided again", 10, |flaws| flaws.no_deduplication = true),
    ("an answer before the commit", 20, |flaws| {
        flaws.answer_before_commit = true
    }),
    ("a read without the driver's word", 600, |flaws| {
        flaws.unconfirmed_reads = true
    }),
    ("a read from any replica", 20, |flaws| flaws.follower_reads = true),
    ("a read of what is not committed", 20, |flaws| {
        flaws.ungated_reads = true
    }),
    ("a snapshot without the request ids", 60, |flaws| {
        flaws.snapshot_without_requests = true
    }),
    ("a snapshot without its end", 20, |flaws| {
        flaws.snapshot_without_end = true
    }),
    ("activations that outlive their leadership", 20, |flaws| {
        flaws.immortal_activations = true
    }),
    ("a lost disk under its old name", 20, |flaws| {
        flaws.wiped_under_old_name = true
    }),
];

#[test]
fn every_planted_bug_is_noticed() {
    let mut missed = Vec::new();
    for (name, seeds_max, plant) in PLANTED {
        let mut flaws = Flaws::default();
        plant(&mut flaws);
        let noticed = (0..seeds_max).find_map(|seed| Some((seed, run(seed, flaws, false).violation?)));
        match noticed {
            Some((seed, violation)) => println!("{name}: seed {seed}, {}: {}", violation.invariant, violation.what),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
