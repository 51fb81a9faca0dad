//! The course of an author's run: its steps, its clock, and whether it has come to its end.

use bytes::Bytes;

use super::{Author, Plan};
use crate::{
    journal::{EffectId, TimerKey, TimerRow},
    simulation::{
        alarms::Alarms,
        clients::Ask,
        node::Replica,
        world::{TICK, World},
    },
    supervision::contain::contain,
};

/// How often time is moved on at the end of a run before its timers count as without an end.
const JUMPS_MAX: u64 = 1_000;
/// How often it is before that, of a thousand steps.
const JUMP_PERMILLE: u64 = 40;

impl World {
    /// A run of an author's entities.
    pub(super) fn of_author(plan: Plan, seed: u64, print: bool) -> Self {
        let mut world = Self::new(seed, plan.flaws, print);
        if !plan.faults {
            world.shape.without_faults();
            world.network.calm();
        }
        let has_weather = plan.faults && plan.storms;
        world.registry = plan.registry.clone();
        world.alarms = Some(Alarms::new(seed));
        world.author = Some(Box::new(Author::new(plan, seed)));
        let nodes: Vec<_> = world.nodes.keys().copied().collect();
        for node in nodes {
            world.alarms_start(node);
        }
        if has_weather {
            world.begin_weather();
        }
        world
    }

    /// A client takes the next step, if there is one.
    pub(in crate::simulation) fn next_step(&mut self, client: usize) {
        let Some(author) = &mut self.author else { return };
        if author.begun == author.plan.steps {
            return;
        }
        let step = (author.plan.workload)(&mut author.steps_rng, author.begun);
        author.begun += 1;
        let number = self.clients.ops.len() as u64;
        let jumps = author.steps_rng.chance(JUMP_PERMILLE);
        author.story.asked(self.now, number, &step.key, step.command.clone());
        self.clients.busy[client] = true;
        let group = self.clients.group_of(&step.key);
        let ask = Ask::Own {
            request: format!("step-{number}"),
            command: step.command,
        };
        if jumps {
            self.move_time_on();
        }
        self.begin_operation(Some(client), step.key, group, ask);
    }

    /// Whether an author's run has no more steps to take.
    pub(in crate::simulation) fn has_done_its_steps(&self) -> bool {
        let Some(author) = &self.author else { return false };
        author.begun == author.plan.steps && self.clients.open() == 0
    }

    /// When the author's run last had something to wait for.
    pub(in crate::simulation) fn waits_since(&self, calm_since: u64) -> u64 {
        let jumped_at = self.author.as_ref().map_or(0, |author| author.jumped_at);
        jumped_at.max(calm_since)
    }

    /// The first replica of each group that has applied the most.
    fn newest(&self) -> impl Iterator<Item = &Replica> {
        (0..self.shape.groups).filter_map(|group| {
            let runs = self.nodes.values().filter_map(|node| node.run.as_ref());
            let replicas = runs.filter_map(|run| run.replicas.get(&group));
            replicas.max_by_key(|replica| replica.shard.meta().applied.0)
        })
    }

    fn open_effect_of_any(&self) -> Option<&EffectId> {
        self.newest().find_map(|replica| replica.shard.outbox().keys().next())
    }

    /// The timer that is due first. Those that repeat go on for ever: `once` leaves them out.
    fn first_timer(&self, once: bool) -> Option<(&TimerKey, &TimerRow)> {
        let timers = self.newest().flat_map(|replica| replica.shard.timers().all());
        let wanted = timers.filter(|(_, row)| !(once && row.every_ms.is_some()));
        wanted.map(|(key, row)| (key, &**row)).min_by_key(|(_, row)| row.due_ms)
    }

    /// What keeps an author's run from its end.
    pub(in crate::simulation) fn author_waits_for(&self) -> Result<(), String> {
        if self.author.is_none() {
            return Ok(());
        }
        if let Some(id) = self.open_effect_of_any() {
            return Err(format!("the effect {id} has no outcome"));
        }
        match self.first_timer(true) {
            Some((key, _)) => Err(format!("the timer {} of {} has not fired", key.name, key.entity)),
            None => Ok(()),
        }
    }

    /// Lets an author's run go on where nothing is left to do before a timer is due.
    pub(in crate::simulation) fn author_goes_on(&mut self) {
        let Some(author) = &self.author else { return };
        let (jumps, waits) = (
            author.jumps,
            self.clients.open() > 0 || self.open_effect_of_any().is_some(),
        );
        if !waits && jumps < JUMPS_MAX && self.first_timer(true).is_some() {
            self.move_time_on();
        }
    }

    /// Moves time on to when the next timer is due.
    fn move_time_on(&mut self) {
        let due_ms = self.first_timer(self.calm).map(|(_, row)| row.due_ms);
        let now = self.now;
        let Some(author) = &mut self.author else { return };
        let now_ms = author.base_ms() + now;
        if let Some(due_ms) = due_ms.filter(|due_ms| *due_ms > now_ms) {
            author.ahead_ms += due_ms - now_ms;
            author.jumps += 1;
            author.jumped_at = now;
            let what = format!("{} ms pass", due_ms - now_ms);
            self.tell(what);
        }
    }

    /// The first replica has applied an entry, and says which of its records it took.
    pub(in crate::simulation) fn author_sees(&mut self, data: &Bytes, taken: &[bool]) {
        let Some(author) = &mut self.author else { return };
        let decided = author.view.committed(data, taken);
        match decided {
            Ok(decided) => {
                let is_news = !decided.is_empty();
                for decided in decided {
                    author.story.took(self.now, decided);
                }
                if is_news {
                    self.check_what_the_author_says(false);
                }
            }
            Err(what) => self.violated("panics", what),
        }
    }

    /// Looks at the author's invariants.
    pub(in crate::simulation) fn check_what_the_author_says(&mut self, is_over: bool) {
        let Some(author) = self.author.take() else { return };
        let at_end = author.plan.invariants.iter().filter(|_| is_over);
        for invariant in author.plan.always.iter().chain(at_end) {
            // An assertion that does not hold says as much as an error.
            let verdict = contain(|| (invariant.holds)(&author.world(is_over)));
            self.verdict(invariant.name, verdict.unwrap_or_else(|panic| Err(panic.text)));
        }
        self.author = Some(author);
    }

    pub(in crate::simulation) fn author_hears(&mut self, what: String) {
        if let Some(author) = &mut self.author {
            author.story.told(self.now, what);
        }
    }

    /// What has happened in an author's run, a line each.
    pub(super) fn story(&self) -> Vec<String> {
        let author = self.author.as_ref();
        author.map_or_else(Vec::new, |author| author.story.lines(&self.registry, TICK))
    }
}
