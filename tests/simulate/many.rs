//! Many runs, on all cores: each thread takes the next seed of the next world.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    arguments::Arguments,
    worlds::{Finding, Ran, World},
};

/// Findings after which no more seeds are taken: the next ones say the same.
const FINDINGS_MAX: usize = 10;

/// What the runs came to.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) worlds: BTreeMap<World, Ended>,
    /// In order of worlds and seeds.
    pub(crate) found: Vec<Finding>,
    pub(crate) elapsed: Duration,
}

/// What one world's runs came to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) runs: u64,
    /// Processor time, roughly: what the threads took for its runs.
    pub(crate) took: Duration,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Makes all runs that were asked for.
pub(crate) fn run(arguments: &Arguments) -> Done {
    let begun = Instant::now();
    let deadline = arguments.minutes.map(|minutes| begun + Duration::from_mins(minutes));
    let worlds = arguments.worlds();
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let done = Mutex::new(Done::default());
    let total = arguments.seeds().saturating_mul(worlds.len() as u64);
    let work = || {
        while !is_over.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return;
            }
            // The worlds take turns, so that a run that is cut short has seen all of them.
            let world = worlds[(number % worlds.len() as u64) as usize];
            let seed = arguments.seed + number / worlds.len() as u64;
            let run_begun = Instant::now();
            let ran = world.run(seed, arguments);
            let mut done = done.lock();
            done.take(world, ran, run_begun.elapsed());
            if done.found.len() >= FINDINGS_MAX {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..arguments.threads() {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner();
    done.found.sort_by_key(|found| (found.world, found.seed));
    done.elapsed = begun.elapsed();
    done
}

impl Done {
    fn take(&mut self, world: World, ran: Ran, took: Duration) {
        let ended = self.worlds.entry(world).or_default();
        ended.runs += 1;
        ended.took += took;
        for (what, number) in ran.counts {
            *ended.counts.entry(what).or_default() += number;
        }
        self.found.extend(ran.found);
    }

    pub(crate) fn runs(&self) -> u64 {
        self.worlds.values().map(|ended| ended.runs).sum()
    }
}
