//! The runs that `cargo test` makes.

use std::{collections::BTreeMap, ops::Range};

use super::{flaws::Flaws, run};

/// Seeds of each test of the fixed set.
const SEEDS_PER_TEST: u64 = 100;

fn holds(seeds: Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in seeds {
        let report = run(seed, Flaws::default(), false);
        if let Some(violation) = report.violation {
            panic!(
                "seed {seed} violates {}: {}\nrun it again: SIM_SEED={seed} cargo test -p cluster simulation::one_seed -- --nocapture",
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
