//! A cluster in one thread: it carries effects between entities in an order drawn from a seed.
//!
//! Messages that are under way are a bag from which the seed draws, so nothing may rest on one arriving before another. Time is
//! virtual: timers fire when nothing is under way any more, and, where a test wants it, at any moment before.

use std::{collections::BTreeMap, fmt::Debug};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::deciding::{Decided, Deciding, describe};
use crate::{
    entity::{
        Effect, Entity, EntityKey, Outcome, Registry,
        decision::EffectRequest,
        kind::{Kind, RawEffect},
    },
    schema::{Part, versioned},
};

/// More steps than any scenario takes: what goes round in circles ends here.
const STEPS_MAX: usize = 200_000;
/// For how long timers are let fire once nothing else is under way: some are set again and again.
const TIMERS_MS: u64 = 6 * 3_600_000;
/// Lines of what happened that are shown when there is no end to it.
const TOLD_LEN: usize = 50;

/// What is done to one of the effects, counted in the order in which they are carried out. Only one that somebody waits for
/// can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command is not taken, and its sender is told that it was given up.
    Fail,
    /// The command is taken, and its sender is told that it was given up.
    FailUnheard,
    /// The command arrives a second time; its sender hears of the first.
    RepeatCommand,
    /// The outcome arrives a second time, at any later moment.
    RepeatOutcome,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fail, Self::FailUnheard, Self::RepeatCommand, Self::RepeatOutcome];
}

/// Stands in for the services outside.
pub trait Outside {
    /// Answers a call; `effect` is the key that repeats of one call share. `None`: there is no answer, ever.
    fn call(&mut self, effect: usize, service: &str, request: &[u8]) -> Option<Outcome>;

    /// Whether the policy of the service gives such a call up when it fails, or tries it for ever.
    fn is_given_up(&self, _service: &str, _request: &[u8]) -> bool {
        true
    }

    /// Whether a command that arrives twice is harmless by what it says, and not only because the engine knows its id. It is
    /// described as `KIND/ID NAME {…}`.
    fn may_repeat(&self, _command: &str) -> bool {
        true
    }
}

/// There are no services outside.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOutside;

impl Outside for NoOutside {
    fn call(&mut self, _: usize, service: &str, _: &[u8]) -> Option<Outcome> {
        panic!(
            "the service {service} is called, but this world has none: give World::new an Outside that answers for it"
        )
    }
}

/// Entities, what is under way between them, and the services outside.
pub struct World<O: Outside> {
    kinds: Registry,
    entities: BTreeMap<EntityKey, Deciding>,
    under_way: Vec<Message>,
    /// The services outside.
    pub outside: O,
    rng: StdRng,
    fault: Option<(usize, Fault)>,
    /// Every outcome arrives a second time with this probability.
    pub repeat_outcomes: f64,
    /// In each step a timer of this kind of entity fires with this probability, as if everything else had taken so long.
    pub early_timers: Option<(&'static str, f64)>,
    /// In milliseconds since 1970.
    pub now_ms: u64,
    /// The effects carried out so far.
    effects: usize,
    /// What the fault was done to, as `KIND/ID NAME {…}`; none while it was not.
    pub hit: Option<String>,
    /// What happened, a line each.
    pub trace: Vec<String>,
}

enum Message {
    Effect {
        /// The key that repeats of it share.
        id: usize,
        from: EntityKey,
        effect: RawEffect,
    },
    Outcome {
        to: EntityKey,
        token: Bytes,
        outcome: Outcome,
        is_repeat: bool,
    },
}

impl<O: Outside> World<O> {
    /// A world without entities, which draws from this seed, with a fault at the so-manieth effect.
    pub fn new(kinds: &Registry, outside: O, seed: u64, fault: Option<(usize, Fault)>) -> Self {
        Self {
            kinds: kinds.clone(),
            entities: BTreeMap::new(),
            under_way: Vec::new(),
            outside,
            rng: StdRng::seed_from_u64(seed),
            fault,
            repeat_outcomes: 0.0,
            early_timers: None,
            now_ms: 1_000,
            effects: 0,
            hit: None,
            trace: Vec::new(),
        }
    }

    /// A number below `end`, from the seed.
    pub fn draw(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    /// A client's command, carried out at once; what follows from it is under way.
    pub fn command<E: Entity>(&mut self, id: &str, command: &E::Command) -> Outcome {
        self.deliver(&Effect::<E>::tell::<E>(id, command).request)
    }

    /// Carries out one message, drawn from those under way. False when there is none.
    pub fn step(&mut self) -> bool {
        self.now_ms += 1;
        if self.fire_early() {
            return true;
        }
        if self.under_way.is_empty() {
            return false;
        }
        let at = self.rng.random_range(0..self.under_way.len());
        match self.under_way.swap_remove(at) {
            Message::Effect { id, from, effect } => self.carry_out(id, &from, effect),
            Message::Outcome {
                to,
                token,
                outcome,
                is_repeat,
            } => {
                if !is_repeat && self.rng.random_bool(self.repeat_outcomes) {
                    let (to, token, outcome) = (to.clone(), token.clone(), outcome.clone());
                    self.outcome_under_way(to, token, outcome, true);
                }
                self.take_outcome(&to, &token, outcome);
            }
        }
        true
    }

    /// Carries out everything that is under way and that follows from it, then lets time pass.
    ///
    /// # Panics
    /// When there is no end to it.
    pub fn settle(&mut self) {
        let until_ms = self.now_ms + TIMERS_MS;
        for _ in 0..STEPS_MAX {
            if !self.step() && !self.fire_next(until_ms) {
                return;
            }
        }
        let from = self.trace.len().saturating_sub(TOLD_LEN);
        panic!("there is no end to it:\n{}", self.trace[from..].join("\n"));
    }

    /// The state of one entity.
    pub fn state<E: Entity>(&self, id: &str) -> E::State {
        let key = EntityKey::new(E::KIND, id).expect("an id");
        self.entities
            .get(&key)
            .map_or_else(E::State::default, |entity| read::<E>(&entity.state()))
    }

    /// All entities of a kind.
    pub fn all<E: Entity>(&self) -> Vec<(String, E::State)> {
        let entities = self.entities.iter().filter(|(key, _)| *key.kind == *E::KIND);
        entities
            .map(|(key, entity)| (key.id.to_string(), read::<E>(&entity.state())))
            .collect()
    }

    /// Every saga that was started has ended.
    ///
    /// # Panics
    /// When one has not.
    pub fn all_sagas_ended(&self) {
        for (key, entity) in &self.entities {
            let state = entity.state();
            let brief = entity.kind().saga_brief(&state).expect("a state can be read back");
            if let Some(brief) = brief.filter(|brief| brief.phase != crate::saga::Phase::New) {
                let shown = entity.kind().state_json(&state).expect("a state can be read back");
                assert!(brief.phase.end().is_some(), "the saga {key} has not ended: {shown}");
            }
        }
    }

    /// Fails the test with everything that happened.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&self, message: &dyn Debug) -> ! {
        panic!("{message:?}\n{}", self.told())
    }

    /// Everything that happened.
    pub fn told(&self) -> String {
        let fault = match (self.fault, &self.hit) {
            (Some((at, fault)), Some(hit)) => format!("{fault:?} at effect {at}: {hit}\n"),
            _ => String::new(),
        };
        format!("{fault}{}", self.trace.join("\n"))
    }

    /// Lets the timer fire that is due next, up to a time.
    fn fire_next(&mut self, until_ms: u64) -> bool {
        match self.timers().into_iter().min_by_key(|(_, _, due_ms)| *due_ms) {
            Some((key, name, due_ms)) if due_ms <= until_ms => {
                self.fire(&key, &name, due_ms);
                true
            }
            _ => false,
        }
    }

    fn fire_early(&mut self) -> bool {
        let Some((kind, probability)) = self.early_timers else {
            return false;
        };
        let mut timers = self.timers();
        timers.retain(|(key, ..)| *key.kind == *kind);
        // Not for ever: what is left fires when everything else is done.
        if timers.is_empty() || self.under_way.is_empty() || !self.rng.random_bool(probability) {
            return false;
        }
        let (key, name, due_ms) = timers.swap_remove(self.rng.random_range(0..timers.len()));
        self.fire(&key, &name, due_ms);
        true
    }

    fn timers(&self) -> Vec<(EntityKey, String, u64)> {
        let entities = self.entities.iter();
        entities
            .flat_map(|(key, entity)| {
                let timers = entity.timers.iter();
                timers.map(|(name, row)| (key.clone(), name.to_string(), row.due_ms))
            })
            .collect()
    }

    fn fire(&mut self, key: &EntityKey, name: &str, due_ms: u64) {
        self.now_ms = self.now_ms.max(due_ms);
        let entity = self.entities.get_mut(key).expect("it has a timer");
        let command = entity.fire(name, self.now_ms);
        let decided = entity.decide(&command, self.now_ms);
        self.trace.push(format!("timer {key} {name}: {}", decided.shown));
        assert!(
            matches!(decided.outcome, Outcome::Replied(_)),
            "{key} refused its timer {name}"
        );
        self.send(key, decided);
    }

    fn take_outcome(&mut self, to: &EntityKey, token: &[u8], outcome: Outcome) {
        let entity = self
            .entities
            .get_mut(to)
            .expect("whoever waits for an outcome is there");
        let command = entity.resume(token, outcome);
        let decided = entity.decide(&command, self.now_ms);
        self.trace.push(format!("outcome -> {to}: {}", decided.shown));
        assert!(
            matches!(decided.outcome, Outcome::Replied(_)),
            "{to} refused an outcome: {}",
            decided.shown
        );
        self.send(to, decided);
    }

    fn carry_out(&mut self, id: usize, from: &EntityKey, effect: RawEffect) {
        let RawEffect { request, token } = effect;
        let fault = self.fault.filter(|(at, _)| *at == self.effects).map(|(_, fault)| fault);
        self.effects += 1;
        if fault.is_some() {
            self.hit = Some(self.describe(&request));
            self.trace.push(format!("fault {fault:?}"));
        }
        let outcome = match &request {
            EffectRequest::Call { service, request } => self.call(id, service, request, fault),
            EffectRequest::Command { .. } => Some(self.carry_command(&request, fault, token.is_some())),
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => panic!("entities keep their timers"),
        };
        if let (Some(outcome), Some(token)) = (outcome, token) {
            if fault == Some(Fault::RepeatOutcome) {
                self.outcome_under_way(from.clone(), token.clone(), outcome.clone(), true);
            }
            self.outcome_under_way(from.clone(), token, outcome, false);
        }
    }

    fn carry_command(&mut self, request: &EffectRequest, fault: Option<Fault>, somebody_waits: bool) -> Outcome {
        let given_up = Outcome::Failed("it panics".to_owned());
        if fault == Some(Fault::Fail) && somebody_waits {
            return given_up;
        }
        let outcome = self.deliver(request);
        if fault == Some(Fault::RepeatCommand) && self.outside.may_repeat(&self.describe(request)) {
            self.deliver(request);
        }
        match fault {
            Some(Fault::FailUnheard) => given_up,
            _ => outcome,
        }
    }

    fn call(&mut self, id: usize, service: &str, request: &[u8], fault: Option<Fault>) -> Option<Outcome> {
        self.trace
            .push(format!("call {service} {}", String::from_utf8_lossy(request)));
        let is_given_up = self.outside.is_given_up(service, request);
        match fault {
            Some(Fault::Fail) if is_given_up => Some(Outcome::Failed("the service is down".to_owned())),
            Some(Fault::FailUnheard) if is_given_up => {
                self.outside.call(id, service, request)?;
                Some(Outcome::Failed("no answer".to_owned()))
            }
            Some(Fault::RepeatCommand) => {
                self.outside.call(id, service, request);
                self.outside.call(id, service, request)
            }
            _ => self.outside.call(id, service, request),
        }
    }

    fn deliver(&mut self, request: &EffectRequest) -> Outcome {
        let EffectRequest::Command { to, command } = request else {
            panic!("a call to a service is no command")
        };
        let described = self.describe(request);
        let Some(kind) = self.kinds.get(&to.kind) else {
            panic!("{described}: no kind is named {}; register it for this test", to.kind)
        };
        let entity = self
            .entities
            .entry(to.clone())
            .or_insert_with(|| Deciding::new(to, kind));
        let decided = entity.decide(command, self.now_ms);
        self.trace.push(format!("{described} -> {}", decided.shown));
        let outcome = decided.outcome.clone();
        self.send(to, decided);
        outcome
    }

    fn send(&mut self, from: &EntityKey, decided: Decided) {
        for effect in decided.effects {
            let id = self.trace.len() * 10_000 + self.under_way.len();
            let from = from.clone();
            self.under_way.push(Message::Effect { id, from, effect });
        }
    }

    fn outcome_under_way(&mut self, to: EntityKey, token: Bytes, outcome: Outcome, is_repeat: bool) {
        self.under_way.push(Message::Outcome {
            to,
            token,
            outcome,
            is_repeat,
        });
    }

    fn describe(&self, request: &EffectRequest) -> String {
        let kind = match request {
            EffectRequest::Command { to, .. } => self.kinds.get(&to.kind),
            _ => None,
        };
        describe(kind.map(|kind| &**kind as &dyn Kind), request)
    }
}

fn read<E: Entity>(state: &[u8]) -> E::State {
    versioned::decode::<E, _>(Part::State, state)
        .unwrap_or_else(|error| panic!("a state of {} cannot be read back: {error}", E::KIND))
}
