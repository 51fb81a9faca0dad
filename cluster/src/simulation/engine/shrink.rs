//! Making a run that failed smaller: fewer kinds of faults, a shorter time, fewer operations, as long as the same seed breaks the
//! same promise.

use super::{Kind, Outcome, Planted, run_with};
use crate::simulation::{
    faults::Fault,
    flaws::Flaws,
    world::{Limits, Violation},
};

/// Runs that are made for it, at most.
const RUNS_MAX: u32 = 400;

/// The smallest run that was found.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// How it is smaller.
    pub limits: Limits,
    /// What it breaks.
    pub violation: Violation,
    /// What happened in it, a line each: what people want to know, without what every replica writes and applies.
    pub story: Vec<String>,
    /// Runs that were made to find it.
    pub runs: u32,
}

/// Makes a run smaller that broke a promise; a planted bug stays planted. None if it breaks none.
pub fn shrink(seed: u64, kind: Kind, planted: Option<&Planted>, limits: &Limits) -> Option<Shrunk> {
    let flaws = planted.map_or_else(Flaws::default, |planted| planted.flaws);
    let mut attempt = Attempt {
        seed,
        kind,
        flaws,
        runs: 0,
        invariant: "",
    };
    let outcome = attempt.run(limits);
    let violation = outcome.violation.clone()?;
    attempt.invariant = violation.invariant;
    let mut best = (limits.clone(), outcome);
    loop {
        let before = best.0.clone();
        attempt.leave_out(&mut best);
        attempt.shorten(&mut best);
        attempt.ask_less(&mut best);
        if best.0 == before || attempt.runs >= RUNS_MAX {
            break;
        }
    }
    let told = run_with(seed, kind, flaws, &best.0, true);
    Some(Shrunk {
        limits: best.0,
        violation: told.violation.unwrap_or(violation),
        story: until_violated(told.story),
        runs: attempt.runs,
    })
}

struct Attempt {
    seed: u64,
    kind: Kind,
    flaws: Flaws,
    runs: u32,
    invariant: &'static str,
}

impl Attempt {
    fn run(&mut self, limits: &Limits) -> Outcome {
        self.runs += 1;
        run_with(self.seed, self.kind, self.flaws, limits, false)
    }

    /// Takes a smaller run if it breaks the same promise.
    fn take(&mut self, best: &mut (Limits, Outcome), limits: Limits) -> bool {
        if self.runs >= RUNS_MAX || limits == best.0 {
            return false;
        }
        let outcome = self.run(&limits);
        let breaks = (outcome.violation.as_ref()).is_some_and(|violation| violation.invariant == self.invariant);
        if breaks {
            *best = (limits, outcome);
        }
        breaks
    }

    fn leave_out(&mut self, best: &mut (Limits, Outcome)) {
        for (fault, _) in Fault::ALL {
            let mut limits = best.0.clone();
            if limits.without.insert(fault) {
                self.take(best, limits);
            }
        }
    }

    /// Nothing that comes after the violation matters; and then by halves.
    fn shorten(&mut self, best: &mut (Limits, Outcome)) {
        let mut ticks = best.0.ticks.unwrap_or(u64::MAX).min(best.1.ticks + 1);
        loop {
            let limits = Limits {
                ticks: Some(ticks),
                ..best.0.clone()
            };
            if !self.take(best, limits) || ticks == 0 {
                break;
            }
            ticks /= 2;
        }
        // The half was too much: a little at a time.
        while let Some(now) = best.0.ticks {
            let limits = Limits {
                ticks: Some(now - now.div_ceil(8).min(now)),
                ..best.0.clone()
            };
            if now == 0 || !self.take(best, limits) {
                break;
            }
        }
    }

    fn ask_less(&mut self, best: &mut (Limits, Outcome)) {
        let begun = best.1.counts.get("operations").copied().unwrap_or(64) + 16;
        let mut most = best.0.operations.unwrap_or(begun).min(begun);
        loop {
            let limits = Limits {
                operations: Some(most),
                ..best.0.clone()
            };
            let is_smaller = self.take(best, limits);
            if most == 0 || !is_smaller && most != begun {
                break;
            }
            most = most * 2 / 3;
        }
    }
}

/// The lines that people want to know, up to where the promise is broken.
fn until_violated(story: Vec<String>) -> Vec<String> {
    let mut is_over = false;
    let lines = story.into_iter().take_while(|line| {
        let goes_on = !is_over;
        is_over |= line.contains("VIOLATED");
        goes_on
    });
    lines.filter(|line| is_news(line)).collect()
}

/// Whether a line tells something that people want to know.
fn is_news(line: &str) -> bool {
    let routine = [" writes ", " applies ", " has a checkpoint at ", " Role "];
    !routine.iter().any(|word| line.contains(word)) || line.contains("VIOLATED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::engine::planted;

    #[test]
    fn a_run_that_breaks_a_promise_gets_smaller_and_breaks_it_still() {
        let planted = planted();
        let planted = planted
            .iter()
            .find(|planted| planted.name == "an answer before the commit");
        let planted = planted.expect("it is in the table");
        let (seed, violation) = planted.notice(0).expect("it is noticed");
        let shrunk = shrink(seed, planted.kind, Some(planted), &Limits::default()).expect("it fails");
        assert_eq!(shrunk.violation.invariant, violation.invariant);
        assert!(
            shrunk.limits.ticks.is_some_and(|ticks| ticks < 900),
            "{:?}",
            shrunk.limits
        );
        assert!(shrunk.limits.without.len() > 5, "{:?}", shrunk.limits);
        let last = shrunk.story.last().expect("something happened");
        assert!(last.contains("VIOLATED"), "{last}");
        let again = run_with(seed, planted.kind, planted.flaws, &shrunk.limits, false);
        assert_eq!(again.violation, Some(shrunk.violation));
    }

    #[test]
    fn a_run_that_holds_cannot_be_made_smaller() {
        assert!(shrink(0, Kind::Engine, None, &Limits::default()).is_none());
    }
}
