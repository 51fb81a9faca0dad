//! Reads that any replica may answer: a model of `shard::behind` and `shard::freshness`, and what must hold of them. Only in
//! runs that have them, so that all other runs of a seed stay what they are.

use std::collections::BTreeMap;

use super::{
    rng::Rng,
    world::{Event, TICK, World},
};
use crate::{config::NodeId, entity::EntityKey, replication::Input};

/// The longest time between two of them.
const GLANCE_MAX: u64 = 2 * TICK;
/// Bounds that are asked for, in moments.
const BOUNDS: [u64; 4] = [2, 2 * TICK, 20 * TICK, 200 * TICK];

/// What a reader wants.
#[derive(Debug, Clone)]
struct Glance {
    key: EntityKey,
    /// How old it may be.
    bound: Option<u64>,
    /// A position, and what was counted there.
    after: Option<(u64, u64)>,
}

/// What one replica knows of its own age, and who waits for it; lost with its process.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// When the question was asked whose answer is applied, by the node's own clock.
    proven: Option<u64>,
    /// The ticket of the question that is under way, and when it was asked.
    asking: Option<(u64, u64)>,
    waiting: Vec<Glance>,
}

/// What clients were told, and when.
#[derive(Debug)]
pub(super) struct Glances {
    rng: Rng,
    told: BTreeMap<EntityKey, Vec<(u64, u64)>>,
    tokens: BTreeMap<EntityKey, (u64, u64)>,
}

impl Glances {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0x676c_616e_6365),
            told: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// A client was told this count.
    pub(super) fn told(&mut self, now: u64, key: &EntityKey, count: u64) {
        let told = self.told.entry(key.clone()).or_default();
        let most = told.last().map_or(0, |(_, count)| *count);
        told.push((now, count.max(most)));
    }

    /// An answer was given with a token of this position.
    pub(super) fn token(&mut self, key: &EntityKey, index: u64, count: u64) {
        let token = self.tokens.entry(key.clone()).or_default();
        *token = (*token).max((index, count));
    }

    /// The most that anyone had been told by then.
    fn known(&self, key: &EntityKey, by: u64) -> u64 {
        let told = self.told.get(key).map(Vec::as_slice).unwrap_or_default();
        let before = told.partition_point(|(at, _)| *at <= by);
        before.checked_sub(1).map_or(0, |place| told[place].1)
    }
}

impl World {
    /// A node's own steady clock: no two of them agree.
    fn steady(&self, node: NodeId) -> u64 {
        self.now + u64::from(node) * 1_000_000
    }

    /// From now on there are glances.
    pub(super) fn with_glances(mut self) -> Self {
        self.glances = Some(Glances::new(self.seed));
        self.after(TICK * 20, 0, Event::Glance);
        self
    }

    /// Somebody looks at an entity, and somebody will again.
    pub(super) fn glance(&mut self) {
        if self.calm {
            return;
        }
        let keys = self.clients.keys().to_vec();
        let Some(glances) = &mut self.glances else { return };
        let rng = &mut glances.rng;
        let (key, group) = keys[rng.below(keys.len() as u64) as usize].clone();
        let bound = rng.chance(700).then(|| rng.pick(&BOUNDS));
        let (place, delay) = (rng.next(), rng.between(1, GLANCE_MAX));
        let after = match bound {
            Some(_) => None,
            None => glances.tokens.get(&key).copied(),
        };
        self.after(delay, 0, Event::Glance);
        let home = self.home_of(group);
        let node = home[place as usize % home.len()];
        let holds = |run: &super::node::Running| run.replicas.contains_key(&group);
        if self.nodes[&node].run.as_ref().is_some_and(holds) && self.nodes[&node].paused_until <= self.now {
            self.see(node, group, Glance { key, bound, after });
        }
    }

    /// Answers a glance from what a replica has applied, or asks for more first.
    fn see(&mut self, node: NodeId, group: u32, glance: Glance) {
        let steady = self.steady(node);
        let replica = self.replica(node, group);
        let age = replica.fresh.proven.map(|proven| steady - proven);
        let has_come = glance
            .after
            .is_none_or(|(index, _)| replica.shard.meta().applied.0 >= index);
        let is_new = glance.bound.is_none_or(|bound| age.is_some_and(|age| age <= bound));
        if !(has_come && is_new) {
            replica.fresh.waiting.push(glance);
            return self.ask_for_all(node, group);
        }
        let loading = replica.shard.begin_load(&glance.key);
        let seen = loading.look().map(|seen| seen.head.version);
        let Some(count) = self.sound(node, seen) else { return };
        self.trace.note(
            self.now,
            format_args!("node {node} sees {count} of {glance:?}, at most {age:?} old"),
        );
        self.count("glances", 1);
        let least = glance.after.map_or(0, |(_, count)| count);
        if count < least {
            self.violated("glances", format!("node {node}: {count} of {glance:?}"));
        }
        let (now, glances) = (self.now, self.glances.as_ref().expect("somebody glanced"));
        if let Some(age) = age {
            let known = glances.known(&glance.key, now.saturating_sub(age));
            if count < known {
                let what =
                    format!("node {node} says that {count} is at most {age} old; {known} were known then: {glance:?}");
                self.violated("glances", what);
            }
        }
    }

    fn ask_for_all(&mut self, node: NodeId, group: u32) {
        let steady = self.steady(node);
        let claims = self.flaws.claimed_freshness;
        let run = self.node(node).running();
        if run.replicas[&group].fresh.asking.is_some() {
            return;
        }
        let ticket = run.number();
        let fresh = &mut self.replica(node, group).fresh;
        fresh.asking = Some((ticket, steady));
        if claims {
            fresh.proven = Some(steady);
        }
        self.arrives(node, Input::Catch { group, ticket });
    }

    /// The driver's word on a question; false if it is none.
    pub(super) fn caught_up(&mut self, node: NodeId, ticket: u64, is_caught_up: bool) -> bool {
        let steady = self.steady(node);
        let from_answer = self.flaws.age_from_answer;
        let run = self.node(node).running();
        let found = (run.replicas.iter_mut()).find_map(|(group, replica)| {
            let (_, asked) = replica.fresh.asking.take_if(|(asking, _)| *asking == ticket)?;
            Some((*group, asked, &mut replica.fresh))
        });
        let Some((group, asked, fresh)) = found else {
            return false;
        };
        let waiting = std::mem::take(&mut fresh.waiting);
        if !is_caught_up {
            // They ask others.
            self.count("glances turned away", waiting.len() as u64);
            return true;
        }
        fresh.proven = Some(if from_answer { steady } else { asked });
        for glance in waiting {
            self.see(node, group, glance);
        }
        true
    }
}
