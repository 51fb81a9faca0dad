//! Runs of an author's own entities: the same nodes, disks, network and faults, with the author's workload in front, the
//! author's services behind, and the author's invariants at the end.
//!
//! Reading order: [`simulation`] (what an author writes), [`step`] and [`service`] (what the world outside does), [`view`] (what
//! an invariant may look at), this file (what a run remembers), [`course`] (its steps, its clock and its end), [`outbox`] (how a
//! leader carries effects out), [`story`] (what is told of a run that fails).

mod course;
pub(super) mod outbox;
mod service;
mod simulation;
mod step;
mod story;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    activation::Delivered,
    clients::{Ask, Op},
    flaws::Flaws,
    rng::Rng,
};
use crate::{
    entity::{Entity, EntityKey, Registry},
    journal::Reply,
};

pub use self::{
    service::Served,
    simulation::{Bug, Found, Simulation, Summary},
    step::Step,
    view::{Answered, Called, World},
};

/// What an author has said of all runs.
#[derive(Clone)]
struct Plan {
    registry: Registry,
    workload: Arc<Workload>,
    services: BTreeMap<String, Arc<service::Raw>>,
    /// Looked at when everything has ended.
    invariants: Vec<Invariant>,
    /// Looked at after every record.
    always: Vec<Invariant>,
    steps: u64,
    faults: bool,
    storms: bool,
    flaws: Flaws,
}

type Workload = dyn Fn(&mut Rng, u64) -> Step + Send + Sync;
type Check = dyn Fn(&World<'_>) -> Result<(), String> + Send + Sync;

#[derive(Clone)]
struct Invariant {
    name: &'static str,
    holds: Arc<Check>,
}

/// What a run of an author's entities remembers.
pub(super) struct Author {
    plan: Plan,
    /// For the workload, and for services: the one does not change what the other draws.
    steps_rng: Rng,
    services_rng: Rng,
    /// The steps that have begun.
    begun: u64,
    view: view::View,
    answers: Vec<AnsweredRaw>,
    calls: Vec<service::CalledRaw>,
    story: story::Story,
    /// By how much time was moved on, because there was nothing to do before a timer was due.
    ahead_ms: u64,
    jumps: u64,
    jumped_at: u64,
}

/// What a client was answered, encoded.
struct AnsweredRaw {
    op: u64,
    key: EntityKey,
    command: Bytes,
    reply: Reply,
}

/// The time at which runs begin, in milliseconds since 1970: some day in 2025.
const BEGIN_MS: u64 = 1_750_000_000_000;

impl Author {
    fn new(plan: Plan, seed: u64) -> Self {
        Self {
            view: view::View::new(plan.registry.clone()),
            plan,
            steps_rng: Rng::new(seed ^ 0x0073_7465_7073),
            services_rng: Rng::new(seed ^ 0x006f_7574_7369_6465),
            begun: 0,
            answers: Vec::new(),
            calls: Vec::new(),
            story: story::Story::default(),
            ahead_ms: 0,
            jumps: 0,
            jumped_at: 0,
        }
    }

    /// What all clocks show at the beginning of the run, and as much more as time was moved on since.
    pub(super) fn base_ms(&self) -> u64 {
        BEGIN_MS + self.ahead_ms
    }

    /// A client has an answer. However often one comes to the same step, it is the same.
    pub(super) fn answered(&mut self, op: u64, of: &Op, answer: &Delivered) -> Result<(), String> {
        let (Delivered::Reply(reply), Ask::Own { command, .. }) = (answer, &of.ask) else {
            return Err(format!("{}: step {op} was answered with {answer:?}", of.key));
        };
        if let Some(first) = self.answers.iter().find(|first| first.op == op) {
            if first.reply == *reply {
                return Ok(());
            }
            return Err(format!(
                "{}: step {op} was answered {:?}, and then {reply:?}",
                of.key, first.reply
            ));
        }
        self.story.answered(op, &of.key, reply.clone());
        self.answers.push(AnsweredRaw {
            op,
            key: of.key.clone(),
            command: command.clone(),
            reply: reply.clone(),
        });
        Ok(())
    }

    /// What an invariant may look at.
    fn world(&self, is_over: bool) -> World<'_> {
        World::new(self, is_over)
    }
}

/// Whether a key is of this kind.
fn is_of<E: Entity>(key: &EntityKey) -> bool {
    *key.kind == *E::KIND
}
