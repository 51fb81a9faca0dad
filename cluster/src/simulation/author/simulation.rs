//! What an author writes: which entities, which workload, what must be true, how many seeds.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Invariant, Plan, Served, Step, World, service, story};
use crate::{
    entity::Registry,
    simulation::{
        flaws::Flaws,
        number,
        rng::Rng,
        world::{Report, World as Run},
    },
};

/// Seeds of a simulation that nobody says more of.
const SEEDS: Range<u64> = 0..100;
/// Steps of each of its runs.
const STEPS: u64 = 60;
/// Lines of a failing run that are shown, of those about the entities that the finding names.
const STORY_LEN_MAX: usize = 60;

/// A simulation of an author's entities: several nodes with the engine's own consensus, journal and storage in one process, in
/// virtual time, under one seed. Messages are lost, come twice and out of order; nodes crash, pause, and lose what was not synced
/// or their whole disk; links are cut; timers fire, effects are repeated. Then nothing goes wrong any more, and everything has to
/// come to its end.
///
/// Beside the author's own invariants it checks what the engine promises: each request and each effect is taken once, no
/// answer is lost or changed, all replicas come to one state, everything ends, and no entity panics.
///
/// ```
/// use cluster::simulation::{Simulation, Step};
/// # use cluster::{Context, Decision, Entity, NoToken, Outcome, Registry};
/// # struct Counter;
/// # impl Entity for Counter {
/// #     const KIND: &'static str = "counter";
/// #     type State = u64;
/// #     type Command = u64;
/// #     type Event = u64;
/// #     type Reply = u64;
/// #     type Rejection = ();
/// #     type Token = NoToken;
/// #     fn decide(sum: &u64, by: u64, _: &Context) -> Result<Decision<Self>, ()> { Ok(Decision::reply(sum + by).event(by)) }
/// #     fn evolve(sum: &mut u64, by: &u64) { *sum += by }
/// #     fn resume(token: NoToken, _: Outcome) -> u64 { match token {} }
/// # }
///
/// let summary = Simulation::new(Registry::new().with::<Counter>())
///     .seeds(0..3)
///     .workload(|rng, _step| Step::ask::<Counter>(rng.pick(&["a", "b"]), rng.between(1, 5)))
///     .invariant("every answer counts once", |world| {
///         let asked: u64 = world.answers::<Counter>().iter().map(|answered| answered.command).sum();
///         let counted: u64 = world.states::<Counter>().values().sum();
///         if asked == counted { Ok(()) } else { Err(format!("{asked} were asked for, {counted} were counted")) }
///     })
///     .run();
/// assert_eq!(summary.runs, 3);
/// ```
///
/// `PLAYHOUSE_SEED=17` in the environment runs that seed alone and prints all of it (with `-- --nocapture`).
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation {
    plan: Plan,
    seeds: Range<u64>,
    has_workload: bool,
    shrinks: bool,
}

/// A promise of the engine that is broken on purpose: an invariant that does not notice would not notice it in earnest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Effects are carried out when they are decided, not when they are committed: what is lost has had effects all the same.
    OutboxBeforeCommit,
    /// A leader carries out only the effects that came about while it led.
    OutboxForgotten,
    /// A request that was taken before is decided again.
    NoDeduplication,
    /// What was due before a leader came is fired by a record that does not name the firing.
    TimersFiredTwice,
}

/// What runs without a finding came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there were.
    pub runs: u64,
    /// How often what happened in them, by name: `operations`, `crashes`, `partitions`, `effects`, `effects repeated`, `calls`,
    /// `timers fired` and others.
    pub counts: BTreeMap<&'static str, u64>,
    /// The same for the same seeds and code: of everything that happened, in order.
    pub trace_hash: u64,
}

/// A run that broke an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// The invariant: one of the author's, or of the engine's (`convergence`: something does not end; `panics`; `effects`:
    /// something was done twice; and others).
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
    /// With how few steps this seed breaks it.
    pub steps: u64,
    /// Whether it does so only where something goes wrong with nodes, disks or links.
    pub needs_faults: bool,
    /// What happened, a line each, from the beginning on.
    pub story: Vec<String>,
}

impl Simulation {
    /// A simulation of these kinds of entities.
    pub fn new(registry: Registry) -> Self {
        Self {
            plan: Plan {
                registry,
                workload: Arc::new(|_, _| unreachable!("a run has a workload")),
                services: BTreeMap::new(),
                invariants: Vec::new(),
                always: Vec::new(),
                steps: STEPS,
                faults: true,
                storms: false,
                flaws: Flaws::default(),
            },
            seeds: SEEDS,
            has_workload: false,
            shrinks: true,
        }
    }

    /// Which seeds are run; 0 to 99 if nobody says.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How many steps each run has; 60 if nobody says.
    pub fn steps(mut self, steps: u64) -> Self {
        self.plan.steps = steps;
        self
    }

    /// Whether anything goes wrong with nodes, disks and links; `true` if nobody says.
    pub fn faults(mut self, faults: bool) -> Self {
        self.plan.faults = faults;
        self
    }

    /// Whether clocks jump, links flap and clog, disks are slow or full or fail a sync, bits flip, and nodes crash at single steps
    /// beside what goes wrong otherwise; `false` if nobody says. Nothing of it happens where [`Simulation::faults`] is `false`.
    pub fn storms(mut self, storms: bool) -> Self {
        self.plan.storms = storms;
        self
    }

    /// Whether a finding is made as small as it gets, which takes more runs; `true` if nobody says.
    pub fn shrink(mut self, shrink: bool) -> Self {
        self.shrinks = shrink;
        self
    }

    /// Breaks a promise of the engine on purpose, to see whether the invariants notice.
    pub fn plant(mut self, bug: Bug) -> Self {
        let flaws = &mut self.plan.flaws;
        let flaw = match bug {
            Bug::OutboxBeforeCommit => &mut flaws.outbox_before_commit,
            Bug::OutboxForgotten => &mut flaws.outbox_forgotten,
            Bug::NoDeduplication => &mut flaws.no_deduplication,
            Bug::TimersFiredTwice => &mut flaws.timers_fired_twice,
        };
        *flaw = true;
        self
    }

    /// What clients do: the next step, drawn from the run's seed, by its number from 0. Several clients take steps at a time.
    pub fn workload(mut self, workload: impl Fn(&mut Rng, u64) -> Step + Send + Sync + 'static) -> Self {
        self.plan.workload = Arc::new(workload);
        self.has_workload = true;
        self
    }

    /// A service that effects call under this name.
    pub fn service<R, A>(mut self, name: &str, serve: impl Fn(R, &mut Rng) -> Served<A> + Send + Sync + 'static) -> Self
    where
        R: DeserializeOwned + 'static,
        A: Serialize + 'static,
    {
        self.plan
            .services
            .insert(name.to_owned(), Arc::new(service::raw(serve)));
        self
    }

    /// What must be true once everything has ended; the error says what is wrong.
    pub fn invariant(
        mut self,
        name: &'static str,
        holds: impl Fn(&World<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let holds = Arc::new(holds);
        self.plan.invariants.push(Invariant { name, holds });
        self
    }

    /// What must be true after every record, while effects are still on their way; the error says what is wrong.
    pub fn always(
        mut self,
        name: &'static str,
        holds: impl Fn(&World<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let holds = Arc::new(holds);
        self.plan.always.push(Invariant { name, holds });
        self
    }

    /// Runs all seeds.
    ///
    /// # Panics
    /// When a run breaks an invariant: with its seed, what is wrong, and what led there. Or when there is no workload.
    #[allow(clippy::must_use_candidate, reason = "that it ends is the answer")]
    pub fn run(self) -> Summary {
        match self.try_run() {
            Ok(summary) => summary,
            Err(found) => panic!("{found}"),
        }
    }

    /// Runs all seeds; gives the first that breaks an invariant.
    ///
    /// # Panics
    /// When there is no workload.
    pub fn try_run(self) -> Result<Summary, Box<Found>> {
        assert!(
            self.has_workload,
            "a simulation needs a workload: add .workload(|rng, step| ...)"
        );
        let mut plan = self.plan;
        if let Some(steps) = number("PLAYHOUSE_STEPS") {
            plan.steps = steps;
        }
        plan.faults &= number("PLAYHOUSE_FAULTS") != Some(0);
        let mut summary = Summary::default();
        let chosen = number("PLAYHOUSE_SEED");
        let seeds = chosen.map_or(self.seeds, |seed| seed..seed + 1);
        for seed in seeds {
            let (report, story) = run(&plan, seed);
            if chosen.is_some() {
                for line in &story {
                    println!("{line}");
                }
            }
            if let Some(violation) = report.violation {
                let found = Found {
                    seed,
                    invariant: violation.invariant,
                    what: violation.what,
                    steps: plan.steps,
                    needs_faults: plan.faults,
                    story,
                };
                let is_whole = chosen.is_some() || !self.shrinks;
                return Err(Box::new(if is_whole { found } else { shorter(&plan, found) }));
            }
            summary.runs += 1;
            summary.trace_hash = summary.trace_hash.rotate_left(7) ^ report.trace_hash;
            for (what, number) in report.counts {
                *summary.counts.entry(what).or_default() += number;
            }
        }
        Ok(summary)
    }
}

/// One run. A panic is a violation like others.
fn run(plan: &Plan, seed: u64) -> (Report, Vec<String>) {
    // For whoever works on the engine itself: what its groups did, in between the author's steps.
    let print = number("SIM_TRACE").is_some();
    let mut world = Run::of_author(plan.clone(), seed, print);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violated("panics", text.unwrap_or_default());
    }
    let story = world.story();
    (world.report(), story)
}

/// The same finding with fewer steps, or where nothing goes wrong with the nodes.
fn shorter(plan: &Plan, mut found: Found) -> Found {
    let mut steps = 1;
    while steps < plan.steps {
        for faults in [false, plan.faults] {
            let smaller = Plan {
                steps,
                faults,
                ..plan.clone()
            };
            let (report, story) = run(&smaller, found.seed);
            if let Some(violation) = report
                .violation
                .filter(|violation| violation.invariant == found.invariant)
            {
                (found.steps, found.needs_faults, found.what, found.story) = (steps, faults, violation.what, story);
                return found;
            }
        }
        steps += steps.div_ceil(4);
    }
    found
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps, .. } = self;
        writeln!(f, "seed {seed} breaks {:?}: {}", self.invariant, self.what)?;
        let (with, faults) = if self.needs_faults {
            ("with", "")
        } else {
            ("without", "PLAYHOUSE_FAULTS=0 ")
        };
        writeln!(f, "after {steps} steps, {with} faults of nodes, disks and links:")?;
        // Cargo says whose tests these are.
        let package = std::env::var("CARGO_PKG_NAME").map_or_else(|_| String::new(), |name| format!(" -p {name}"));
        let lines = story::about(&self.story, &self.what);
        let shown = &lines[lines.len().saturating_sub(STORY_LEN_MAX)..];
        for line in shown {
            writeln!(f, "{line}")?;
        }
        let left_out = self.story.len() - shown.len();
        if left_out > 0 {
            writeln!(f, "({left_out} more lines are about others, or earlier)")?;
        }
        write!(
            f,
            "run it again, with all of its lines: {faults}PLAYHOUSE_SEED={seed} PLAYHOUSE_STEPS={steps} cargo test{package} -- --nocapture"
        )
    }
}

impl std::error::Error for Found {}
