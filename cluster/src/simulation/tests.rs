//! The runs that `cargo test` makes.

use std::{collections::BTreeMap, ops::Range};

use super::engine::{Kind, Limits, failpoints, planted, run};

/// Seeds of each test of the fixed set.
const SEEDS_PER_TEST: u64 = 100;

fn hold(seeds: Range<u64>, kind: Kind) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in seeds {
        let outcome = run(seed, kind, &Limits::default());
        if let Some(violation) = outcome.violation {
            let (invariant, what, kind) = (violation.invariant, violation.what, kind.name());
            panic!(
                "seed {seed} violates {invariant}: {what}\n\
                 run it again: SIM_KIND={kind} SIM_SEED={seed} cargo test -p cluster simulation::one_seed -- --nocapture\n\
                 make it smaller: cargo run --release -p tests --bin simulate -- --worlds {kind} --seed {seed} --seeds 1"
            );
        }
        for (what, number) in outcome.counts {
            *counts.entry(what).or_default() += number;
        }
    }
    println!("{counts:#?}");
    counts
}

#[test]
fn seeds_of_the_first_set_hold() {
    hold(0..SEEDS_PER_TEST, Kind::Engine);
}

#[test]
fn seeds_of_the_second_set_hold() {
    hold(1_000..1_000 + SEEDS_PER_TEST, Kind::Engine);
}

#[test]
fn seeds_of_the_third_set_hold() {
    let counts = hold(2_000..2_000 + SEEDS_PER_TEST, Kind::Engine);
    assert!(counts["operations placed in one order"] > 10_000, "{counts:?}");
}

/// Reads of any replica are never older than they say, nor older than the token that they present.
#[test]
fn seeds_with_reads_of_any_replica_hold() {
    let counts = hold(3_000..3_000 + SEEDS_PER_TEST, Kind::Reads);
    assert!(counts["glances"] > 10_000 && counts["glances turned away"] > 100);
}

#[test]
fn seeds_with_timers_hold() {
    let counts = hold(0..SEEDS_PER_TEST, Kind::Timers);
    assert!(counts["timers fired"] > 10 * SEEDS_PER_TEST, "{counts:?}");
}

/// All of it at once, and each thing that the weather does wrong has happened.
#[test]
fn seeds_with_weather_hold() {
    let counts = hold(0..SEEDS_PER_TEST, Kind::Storms);
    let happened = |what: &str| counts.get(what).copied().unwrap_or_default();
    for what in [
        "clock jumps",
        "links that flap",
        "links clogged",
        "bridges",
        "syncs failed",
        "writes refused by full disks",
        "disks slow",
        "bits flipped in the state",
        "bits flipped in the log",
        "bits flipped in snapshots",
        "damage found",
        "damaged folders replaced",
        "bursts",
    ] {
        assert!(happened(what) > 0, "{what} never happened: {counts:#?}");
    }
    let hit = failpoints().filter(|point| happened(point) > 0).count();
    assert!(hit > failpoints().count() / 2, "{hit} failpoints were hit: {counts:#?}");
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for kind in Kind::ALL {
        for seed in 0..6 {
            let [first, second] = [(); 2].map(|()| run(seed, kind, &Limits::default()).trace_hash);
            assert_eq!(first, second, "seed {seed} of {}", kind.name());
        }
    }
}

fn notice(kind: Kind) {
    let mut missed = Vec::new();
    for bug in planted().into_iter().filter(|bug| bug.kind == kind) {
        let Some((seed, violation)) = bug.notice(0) else {
            missed.push(bug.name);
            continue;
        };
        println!("{}: seed {seed}, {}: {}", bug.name, violation.invariant, violation.what);
        if let Some(by) = bug.by {
            assert_eq!(violation.invariant, by, "{}", bug.name);
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn every_planted_bug_is_noticed() {
    notice(Kind::Engine);
}

#[test]
fn every_planted_bug_among_timers_is_noticed() {
    notice(Kind::Timers);
}

#[test]
fn every_planted_bug_of_reads_of_any_replica_is_noticed() {
    notice(Kind::Reads);
}

#[test]
fn every_planted_bug_in_weather_is_noticed() {
    notice(Kind::Storms);
}
