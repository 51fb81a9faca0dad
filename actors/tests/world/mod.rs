//! A cluster in one thread, for the domain's tests: it carries effects between entities in an order drawn from a seed.
//!
//! Messages that are under way are a bag from which the seed draws, so nothing may rest on one arriving before another.
//! Time is virtual: timers fire when nothing is under way any more, and, where a test wants it, at any moment before.
//! [`Fault`] makes one step fail or repeats one; [`invariants`] says what must hold once the bag is empty.

pub(crate) mod invariants;
pub(crate) mod provider;

use std::{any::Any, collections::BTreeMap, fmt::Debug, rc::Rc};

use actors::{
    checkout::Checkout, customer::Customer, order::Order, payment::Payment, product::Product, returns::Return,
    stock::StockItem,
};
use cluster::{
    Effect, Entity, EntityKey, Outcome,
    entity::{
        decision::EffectRequest,
        script::{Script, command_of},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub(crate) use provider::Provider;

/// More steps than any scenario takes: a saga that goes round in circles ends here.
const STEPS_MAX: usize = 200_000;

/// For how long timers are let fire once nothing else is under way: some are set again and again.
const TIMERS_MS: u64 = 6 * 3_600_000;

/// What is done to one of the effects, counted in the order in which they are carried out. Only one that somebody waits
/// for can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The command is not taken, and its sender is told that it was given up.
    Fail,
    /// The command is taken, and its sender is told that it was given up.
    FailUnheard,
    /// The command arrives a second time; its sender hears of the first.
    RepeatCommand,
    /// The outcome arrives a second time, at any later moment.
    RepeatOutcome,
}

/// The world: entities, what is under way between them, and the payment provider.
pub(crate) struct World {
    entities: BTreeMap<EntityKey, Box<dyn Live>>,
    under_way: Vec<Message>,
    pub(crate) provider: Provider,
    rng: StdRng,
    fault: Option<(usize, Fault)>,
    /// Every outcome arrives a second time with this probability.
    pub(crate) repeat_outcomes: f64,
    /// In each step a timer of this kind of entity fires with this probability, as if everything else had taken so long.
    pub(crate) early_timers: Option<(&'static str, f64)>,
    now_ms: u64,
    /// The effects carried out so far.
    effects: usize,
    /// What the fault was done to.
    pub(crate) hit: Option<String>,
    /// What happened, for the message of a failed test.
    pub(crate) trace: Vec<String>,
}

type Token = Rc<dyn Any>;

enum Message {
    Effect {
        /// Its place among all effects: the key by which the provider knows it.
        id: usize,
        from: Option<EntityKey>,
        request: EffectRequest,
        token: Option<Token>,
    },
    Outcome {
        to: EntityKey,
        token: Token,
        outcome: Outcome,
        is_repeat: bool,
    },
}

/// An entity of any kind.
trait Live {
    fn take(&mut self, request: &EffectRequest) -> (Outcome, Vec<Wanted>);
    fn resume(&mut self, token: &Token, outcome: Outcome) -> Vec<Wanted>;
    fn describe(&self, request: &EffectRequest) -> String;
    fn last_events(&self) -> String;
    fn set_clock(&mut self, now_ms: u64);
    fn timers(&self) -> Vec<(String, u64)>;
    fn fire(&mut self, timer: &str) -> Vec<Wanted>;
    fn as_any(&self) -> &dyn Any;
}

struct Wanted {
    request: EffectRequest,
    token: Option<Token>,
}

impl<E: Entity> Live for Script<E> {
    fn take(&mut self, request: &EffectRequest) -> (Outcome, Vec<Wanted>) {
        let (_, command) = command_of::<E>(request).expect("the message is for this kind and can be read");
        (self.run(command), wanted(self))
    }

    fn resume(&mut self, token: &Token, outcome: Outcome) -> Vec<Wanted> {
        let token = token
            .downcast_ref::<E::Token>()
            .expect("the token is this entity's")
            .clone();
        let command = E::resume(token, outcome);
        let shown = format!("{command:?}");
        let answer = self.run(command);
        assert!(
            matches!(answer, Outcome::Replied(_)),
            "{} refused an outcome: {shown}",
            E::KIND
        );
        wanted(self)
    }

    fn describe(&self, request: &EffectRequest) -> String {
        let (id, command) = command_of::<E>(request).expect("the message is for this kind and can be read");
        format!("{}/{id} {command:?}", E::KIND)
    }

    fn last_events(&self) -> String {
        format!("{:?}", self.events())
    }

    fn set_clock(&mut self, now_ms: u64) {
        Script::set_clock(self, now_ms);
    }

    fn timers(&self) -> Vec<(String, u64)> {
        Script::timers(self)
            .map(|(name, due_ms)| (name.to_owned(), due_ms))
            .collect()
    }

    fn fire(&mut self, timer: &str) -> Vec<Wanted> {
        let answer = Script::fire(self, timer).expect("the timer is set");
        assert!(
            matches!(answer, Outcome::Replied(_)),
            "{} refused its timer {timer}",
            E::KIND
        );
        wanted(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn wanted<E: Entity>(script: &Script<E>) -> Vec<Wanted> {
    (script.effects().iter())
        .map(|sent| Wanted {
            request: sent.request.clone(),
            token: sent.token.clone().map(|token| Rc::new(token) as Token),
        })
        .collect()
}

fn activate(key: &EntityKey) -> Box<dyn Live> {
    fn live<E: Entity>(key: &EntityKey) -> Option<Box<dyn Live>> {
        (*key.kind == *E::KIND).then(|| Box::new(Script::<E>::new(&key.id)) as Box<dyn Live>)
    }
    None.or_else(|| live::<Product>(key))
        .or_else(|| live::<StockItem>(key))
        .or_else(|| live::<Customer>(key))
        .or_else(|| live::<Payment>(key))
        .or_else(|| live::<Order>(key))
        .or_else(|| live::<Checkout>(key))
        .or_else(|| live::<Return>(key))
        .unwrap_or_else(|| panic!("no kind is named {}", key.kind))
}

impl World {
    pub(crate) fn new(seed: u64, fault: Option<(usize, Fault)>) -> Self {
        Self {
            entities: BTreeMap::new(),
            under_way: Vec::new(),
            provider: Provider::default(),
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
    pub(crate) fn draw(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    /// A client's command, carried out at once; what follows from it is under way.
    pub(crate) fn command<E: Entity>(&mut self, id: &str, command: &E::Command) -> Outcome {
        let request = Effect::<E>::tell::<E>(id, command).request;
        self.deliver_command(&request)
    }

    /// Carries out one message, drawn from those under way. False when there is none.
    pub(crate) fn step(&mut self) -> bool {
        self.now_ms += 1;
        if self.fire_early() {
            return true;
        }
        if self.under_way.is_empty() {
            return false;
        }
        let at = self.rng.random_range(0..self.under_way.len());
        match self.under_way.swap_remove(at) {
            Message::Effect {
                id,
                from,
                request,
                token,
            } => self.carry_out(id, from, &request, token),
            Message::Outcome {
                to,
                token,
                outcome,
                is_repeat,
            } => {
                if !is_repeat && self.rng.random_bool(self.repeat_outcomes) {
                    self.under_way.push(Message::Outcome {
                        to: to.clone(),
                        token: token.clone(),
                        outcome: outcome.clone(),
                        is_repeat: true,
                    });
                }
                let entity = self
                    .entities
                    .get_mut(&to)
                    .expect("whoever waits for an outcome is there");
                entity.set_clock(self.now_ms);
                let wanted = entity.resume(&token, outcome);
                self.trace.push(format!("outcome -> {to}: {}", entity.last_events()));
                self.send(&to, wanted);
            }
        }
        true
    }

    /// Carries out everything that is under way and that follows from it, then lets time pass.
    pub(crate) fn settle(&mut self) {
        let until_ms = self.now_ms + TIMERS_MS;
        for _ in 0..STEPS_MAX {
            if !self.step() && !self.fire_next(until_ms) {
                return;
            }
        }
        panic!(
            "there is no end to it:\n{}",
            self.trace[self.trace.len() - 50..].join("\n")
        );
    }

    /// Lets the timer fire that is due next, up to a time.
    fn fire_next(&mut self, until_ms: u64) -> bool {
        let timers = self.timers();
        let Some((key, name, due_ms)) = timers.into_iter().min_by_key(|(_, _, due_ms)| *due_ms) else {
            return false;
        };
        if due_ms > until_ms {
            return false;
        }
        self.fire(&key, &name, due_ms);
        true
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
        (self.entities.iter())
            .flat_map(|(key, live)| {
                live.timers()
                    .into_iter()
                    .map(|(name, due_ms)| (key.clone(), name, due_ms))
            })
            .collect()
    }

    fn fire(&mut self, key: &EntityKey, name: &str, due_ms: u64) {
        self.now_ms = self.now_ms.max(due_ms);
        let entity = self.entities.get_mut(key).expect("it has a timer");
        entity.set_clock(self.now_ms);
        let wanted = entity.fire(name);
        self.trace.push(format!("timer {key} {name}: {}", entity.last_events()));
        self.send(key, wanted);
    }

    fn carry_out(&mut self, id: usize, from: Option<EntityKey>, request: &EffectRequest, token: Option<Token>) {
        let fault = self.fault.filter(|(at, _)| *at == self.effects).map(|(_, fault)| fault);
        self.effects += 1;
        if fault.is_some() {
            self.hit = Some(Self::describe(request));
            self.trace.push(format!("fault {fault:?}"));
        }
        let outcome = match request {
            EffectRequest::Call { request, .. } => {
                self.trace.push(format!("call {}", String::from_utf8_lossy(request)));
                match fault {
                    Some(Fault::Fail) if is_given_up(request) => Outcome::Failed("provider down".to_owned()),
                    Some(Fault::FailUnheard) if is_given_up(request) => {
                        self.provider.call(id, request);
                        Outcome::Failed("no answer".to_owned())
                    }
                    Some(Fault::RepeatCommand) => {
                        self.provider.call(id, request);
                        self.provider.call(id, request)
                    }
                    _ => self.provider.call(id, request),
                }
            }
            EffectRequest::Command { .. } if fault == Some(Fault::Fail) && token.is_some() => {
                Outcome::Failed("it panics".to_owned())
            }
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => panic!("scripts keep their timers"),
            EffectRequest::Command { .. } => {
                let outcome = self.deliver_command(request);
                // The engine knows a repeated command by its id; these know it by what it says.
                if fault == Some(Fault::RepeatCommand) && !Self::describe(request).contains(" Restock") {
                    self.deliver_command(request);
                }
                match fault {
                    Some(Fault::FailUnheard) => Outcome::Failed("it panics".to_owned()),
                    _ => outcome,
                }
            }
        };
        if is_silent(request) {
            return;
        }
        if let (Some(to), Some(token)) = (from, token) {
            let repeats = 1 + usize::from(fault == Some(Fault::RepeatOutcome));
            for repeat in 0..repeats {
                self.under_way.push(Message::Outcome {
                    to: to.clone(),
                    token: token.clone(),
                    outcome: outcome.clone(),
                    is_repeat: repeat > 0,
                });
            }
        }
    }

    fn deliver_command(&mut self, request: &EffectRequest) -> Outcome {
        let EffectRequest::Command { to, .. } = request else {
            panic!("a call to a service is no command")
        };
        let entity = self.entities.entry(to.clone()).or_insert_with(|| activate(to));
        entity.set_clock(self.now_ms);
        let (outcome, wanted) = entity.take(request);
        let came = match &outcome {
            Outcome::Replied(_) => entity.last_events(),
            _ => "rejected".to_owned(),
        };
        self.trace.push(format!("{} -> {came}", entity.describe(request)));
        self.send(&to.clone(), wanted);
        outcome
    }

    fn send(&mut self, from: &EntityKey, wanted: Vec<Wanted>) {
        for Wanted { request, token } in wanted {
            self.under_way.push(Message::Effect {
                id: self.trace.len() * 10_000 + self.under_way.len(),
                from: Some(from.clone()),
                request,
                token,
            });
        }
    }

    fn describe(request: &EffectRequest) -> String {
        match request {
            EffectRequest::Command { to, .. } => activate(to).describe(request),
            EffectRequest::Call { request, .. } => String::from_utf8_lossy(request).into_owned(),
            EffectRequest::SetTimer { name, .. } | EffectRequest::CancelTimer { name } => name.to_string(),
        }
    }

    /// The state of one entity.
    pub(crate) fn state<E: Entity>(&self, id: &str) -> E::State {
        let key = EntityKey::new(E::KIND, id).expect("an id");
        match self.entities.get(&key) {
            Some(live) => script::<E>(live.as_ref()).state().clone(),
            None => E::State::default(),
        }
    }

    /// All entities of a kind.
    pub(crate) fn all<E: Entity>(&self) -> Vec<(String, E::State)> {
        (self.entities.iter())
            .filter(|(key, _)| *key.kind == *E::KIND)
            .map(|(key, live)| (key.id.to_string(), script::<E>(live.as_ref()).state().clone()))
            .collect()
    }

    /// Fails the test with everything that happened.
    pub(crate) fn fail(&self, message: &dyn Debug) -> ! {
        panic!("{message:?}\nhit: {:?}\n{}", self.hit, self.trace.join("\n"))
    }
}

fn script<E: Entity>(live: &dyn Live) -> &Script<E> {
    live.as_any()
        .downcast_ref()
        .expect("the entity is of the kind that its key says")
}

/// Whether it is about a card of which the provider never answers, whatever it has done.
fn is_silent(request: &EffectRequest) -> bool {
    match request {
        EffectRequest::Call { request, .. } => String::from_utf8_lossy(request).contains(r#""card":"silent""#),
        _ => false,
    }
}

/// The policy of the service: an authorisation may be given up, everything else is tried for ever.
fn is_given_up(request: &[u8]) -> bool {
    String::from_utf8_lossy(request).contains(r#""operation":"authorise""#)
}
