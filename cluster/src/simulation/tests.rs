//! The runs that `cargo test` makes.

use std::{collections::BTreeMap, ops::Range};

use super::{flaws::Flaws, run, run_with_glances, run_with_timers, world::Report};

/// Seeds of each test of the fixed set.
const SEEDS_PER_TEST: u64 = 100;

fn holds(seeds: Range<u64>) -> BTreeMap<&'static str, u64> {
    hold(seeds, run, "")
}

fn hold(seeds: Range<u64>, run: fn(u64, Flaws, bool) -> Report, environment: &str) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in seeds {
        let report = run(seed, Flaws::default(), false);
        if let Some(violation) = report.violation {
            panic!(
                "seed {seed} violates {}: {}\nrun it again: {environment}SIM_SEED={seed} cargo test -p cluster simulation::one_seed -- --nocapture",
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

/// Reads of any replica are never older than they say, nor older than the token that they present.
#[test]
fn seeds_with_reads_of_any_replica_hold() {
    let counts = hold(3_000..3_000 + SEEDS_PER_TEST, run_with_glances, "SIM_GLANCES=1 ");
    assert!(counts["glances"] > 10_000 && counts["glances turned away"] > 100);
}

#[test]
fn every_planted_bug_of_such_reads_is_noticed() {
    let none = Flaws::default();
    let planted = [
        (
            "freshness that was never shown",
            20,
            Flaws {
                claimed_freshness: true,
                ..none
            },
        ),
        (
            "an age counted from the answer",
            20,
            Flaws {
                age_from_answer: true,
                ..none
            },
        ),
    ];
    for (name, seeds_max, flaws) in planted {
        let noticed = (0..seeds_max).find_map(|seed| Some((seed, run_with_glances(seed, flaws, false).violation?)));
        println!("{name}: {noticed:?}");
        let (_, violation) = noticed.expect(name);
        assert_eq!(violation.invariant, "glances", "{name}");
    }
}

#[test]
fn seeds_with_timers_hold() {
    let counts = hold(0..SEEDS_PER_TEST, run_with_timers, "SIM_TIMERS=1 ");
    assert!(counts["timers fired"] > 10 * SEEDS_PER_TEST, "{counts:?}");
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in 0..6 {
        let [first, second] = [(); 2].map(|()| run(seed, Flaws::default(), false));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        let [first, second] = [(); 2].map(|()| run_with_timers(seed, Flaws::default(), false));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed} with timers");
    }
}

/// Each planted bug, and within how many seeds it must be noticed.
fn planted() -> Vec<(&'static str, u64, Flaws)> {
    let none = Flaws::default();
    vec![
        (
            "a write counts before its sync",
            20,
            Flaws {
                written_before_sync: true,
                ..none
            },
        ),
        (
            "a device that lies about its sync",
            20,
            Flaws {
                device_lies: true,
                ..none
            },
        ),
        (
            "a vote forgotten at a restart",
            2_500,
            Flaws {
                forgotten_vote: true,
                ..none
            },
        ),
        (
            "a checkpoint that counts before its sync",
            10,
            Flaws {
                checkpoint_without_sync: true,
                ..none
            },
        ),
        (
            "a log cut too far",
            10,
            Flaws {
                cut_too_far: true,
                ..none
            },
        ),
        (
            "requests decided again",
            10,
            Flaws {
                no_deduplication: true,
                ..none
            },
        ),
        (
            "an answer before the commit",
            20,
            Flaws {
                answer_before_commit: true,
                ..none
            },
        ),
        (
            "a read without the driver's word",
            1_500,
            Flaws {
                unconfirmed_reads: true,
                ..none
            },
        ),
        (
            "a read from any replica",
            20,
            Flaws {
                follower_reads: true,
                ..none
            },
        ),
        (
            "a read of what is not committed",
            20,
            Flaws {
                ungated_reads: true,
                ..none
            },
        ),
        (
            "a snapshot without the request ids",
            60,
            Flaws {
                snapshot_without_requests: true,
                ..none
            },
        ),
        (
            "a snapshot without its end",
            20,
            Flaws {
                snapshot_without_end: true,
                ..none
            },
        ),
        (
            "activations that outlive their leadership",
            60,
            Flaws {
                immortal_activations: true,
                ..none
            },
        ),
        (
            "a replica closed before it has left its group",
            60,
            Flaws {
                closes_early: true,
                ..none
            },
        ),
        (
            "a lost disk under its old name",
            20,
            Flaws {
                wiped_under_old_name: true,
                ..none
            },
        ),
    ]
}

/// Likewise, in runs with timers.
fn planted_among_timers() -> Vec<(&'static str, u64, Flaws)> {
    let none = Flaws::default();
    vec![
        (
            "a timer fired twice after a failover",
            20,
            Flaws {
                timers_fired_twice: true,
                ..none
            },
        ),
        (
            "a timer forgotten at a failover",
            20,
            Flaws {
                forgotten_timers: true,
                ..none
            },
        ),
        (
            "a cancelled timer that fires",
            20,
            Flaws {
                cancelled_timers: true,
                ..none
            },
        ),
    ]
}

#[test]
fn every_planted_bug_is_noticed() {
    notice(planted(), run);
}

#[test]
fn every_planted_bug_among_timers_is_noticed() {
    notice(planted_among_timers(), run_with_timers);
}

fn notice(planted: Vec<(&'static str, u64, Flaws)>, run: fn(u64, Flaws, bool) -> Report) {
    let mut missed = Vec::new();
    for (name, seeds_max, flaws) in planted {
        let noticed = (0..seeds_max).find_map(|seed| Some((seed, run(seed, flaws, false).violation?)));
        match noticed {
            Some((seed, violation)) => println!("{name}: seed {seed}, {}: {}", violation.invariant, violation.what),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
