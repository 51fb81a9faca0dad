//! The pure part of a live entity: decides commands, makes records of them, and knows which it has taken before. It is given the
//! time and everything else it works on, so that the same code runs in a node's [`activation`](super::activation) and in the
//! simulation.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    Context, EntityKey, Outcome,
    decision::EffectRequest,
    envelope::Envelope,
    kind::{Kind, Live, RawDecision, RawEffect},
    requests::KeptRequests,
    timer,
};
use crate::{
    journal::{
        Decided, EffectId, Firing, Lift, LoadedEntity, StoredEffect, TimerRow,
        keys::{Head, request_hash},
        quarantine::Stage,
        timers,
    },
    supervision::contain::{self, Fault},
};

/// A live entity.
pub(crate) struct Decider {
    key: EntityKey,
    /// Or why it could not be brought back; taken by the first one who is told.
    live: Result<Box<dyn Live>, Option<Fault>>,
    head: Head,
    /// Its own name in its records, and the number of the last record it was loaded with.
    activation: u64,
    base: u64,
    requests: KeptRequests,
    /// Its timers, as of the last decision.
    timers: BTreeMap<Arc<str>, Arc<TimerRow>>,
}

/// A command that was decided, with all that goes into its record.
pub(crate) struct Taken {
    pub(crate) decision: RawDecision,
    pub(crate) now_ms: u64,
    pub(crate) envelope: Envelope,
    pub(crate) command: Bytes,
    /// The effect whose outcome the command was.
    pub(crate) acknowledges: Option<EffectId>,
    /// The firing that the command was, and the timer as it was before.
    pub(crate) fires: Option<(Firing, Arc<TimerRow>)>,
    pub(crate) lift: Option<Lift>,
}

/// Why an effect of another entity is not taken.
pub(crate) enum Untaken {
    /// It was acknowledged before: this is an echo.
    Echo,
    /// So many others are kept in mind already.
    TooMany,
}

/// The live form of a loaded entity; or why its code cannot make one.
pub(crate) fn revive(kind: &dyn Kind, loaded: &LoadedEntity) -> Result<Box<dyn Live>, Fault> {
    contain::run(Stage::Revive, || {
        let mut live = kind.load(loaded.snapshot.as_deref())?;
        for event in &loaded.events {
            live.evolve(event)?;
        }
        Ok(live)
    })
}

impl Decider {
    /// A live entity, under a name that no other activation of it has.
    pub(crate) fn new(
        key: EntityKey,
        activation: u64,
        loaded: LoadedEntity,
        live: Result<Box<dyn Live>, Fault>,
    ) -> Self {
        Self {
            key,
            live: live.map_err(Some),
            activation,
            base: loaded.head.seq,
            head: loaded.head,
            requests: KeptRequests::new(&loaded.requests, loaded.taken),
            timers: loaded.timers,
        }
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    pub(crate) fn timers(&self) -> &BTreeMap<Arc<str>, Arc<TimerRow>> {
        &self.timers
    }

    /// The state, encoded; or why there is none.
    pub(crate) fn snapshot(&mut self) -> Result<Bytes, Fault> {
        Ok(self.live()?.snapshot())
    }

    fn live(&mut self) -> Result<&mut Box<dyn Live>, Fault> {
        self.live.as_mut().map_err(|fault| {
            fault
                .take()
                .expect("the activation ends with the first one who is told")
        })
    }

    /// The record that answered this request before, if there may be one: what it was is to be looked up.
    pub(crate) fn known(&self, envelope: &Envelope) -> Option<u64> {
        let hash = request_hash(&envelope.request);
        self.requests.get(envelope.origin.as_deref(), hash)
    }

    /// Takes note of what an effect says about its sender's others; says why it is not to be decided, if there is a reason.
    pub(crate) fn untaken(&mut self, envelope: &Envelope, effect_requests_max: usize) -> Option<Untaken> {
        let origin = envelope.origin.as_ref()?;
        let taken = self.requests.taken();
        taken.learn(origin);
        if taken.is_settled(origin) {
            return Some(Untaken::Echo);
        }
        // The oldest of those that are open are taken even then: nothing is settled before they are.
        let is_oldest = origin.born == origin.floor || origin.holes.contains(&origin.born);
        (taken.len() >= effect_requests_max && !is_oldest).then_some(Untaken::TooMany)
    }

    /// The timer whose firing is to come, if it is this one. One that was cancelled, replaced or fired by what was decided
    /// before is none.
    pub(crate) fn awaited(&self, firing: &Firing) -> Option<Arc<TimerRow>> {
        self.timers.get(&firing.name).filter(|row| row.awaits(firing)).cloned()
    }

    /// Whether a decision sets timers that the entity did not have before it.
    pub(crate) fn sets_new_timers(&self, effects: &[RawEffect]) -> bool {
        let is_new = |effect: &RawEffect| match &effect.request {
            EffectRequest::SetTimer { name, .. } => !self.timers.contains_key(name),
            _ => false,
        };
        effects.iter().any(is_new)
    }

    /// Decides a command and takes its events into the state. After a fault the state may be half evolved.
    pub(crate) fn decide(&mut self, command: &[u8], now_ms: u64) -> Result<RawDecision, Fault> {
        let context = Context {
            key: self.key.clone(),
            version: self.head.version,
            now_ms,
        };
        let live = self.live()?;
        let decision = contain::run(Stage::Decide, || live.decide(command, &context))?;
        let requests = decision.effects.iter().map(|effect| &effect.request);
        timer::check(requests, &self.timers).map_err(|error| Fault::refused(Stage::Decide, &error))?;
        Ok(decision)
    }

    /// The record of a decision, which is the entity's next: what it knows of itself goes on from there.
    pub(crate) fn record(&mut self, taken: Taken) -> Decided {
        let Taken { decision, envelope, .. } = taken;
        self.head = Head {
            seq: self.head.seq + 1,
            version: self.head.version + decision.events.len() as u64,
            activation: self.activation,
        };
        let hash = request_hash(&envelope.request);
        self.requests.insert(envelope.origin.as_deref(), hash, self.head.seq);
        let (fires, fired) = taken.fires.unzip();
        let decided = Decided {
            entity: self.key.clone(),
            seq: self.head.seq,
            activation: self.activation,
            base: self.base,
            request: envelope.request,
            at_ms: taken.now_ms,
            trace: envelope.trace,
            command: taken.command,
            reply: decision.reply,
            events: decision.events,
            effects: decision
                .effects
                .into_iter()
                .map(|effect| StoredEffect {
                    request: effect.request,
                    token: effect.token,
                })
                .collect(),
            acknowledges: taken.acknowledges.into_iter().collect(),
            fires,
            lift: taken.lift.map(Box::new),
            fingerprint: envelope.fingerprint,
            chain: envelope.chain.as_deref().cloned(),
            origin: envelope.origin.as_deref().cloned(),
            asked_by: envelope.asked_by.clone(),
            keeps_effects: false,
        };
        for (name, row) in timers::changes(&decided, fired.as_deref()) {
            match row {
                Some(row) => drop(self.timers.insert(name, row)),
                None => drop(self.timers.remove(&name)),
            }
        }
        decided
    }
}

/// The command that an entity makes of an outcome.
pub(crate) fn resume(kind: &dyn Kind, token: &[u8], outcome: &Outcome) -> Result<Bytes, Fault> {
    contain::run(Stage::Resume, || kind.resume(token, outcome.clone()))
}
