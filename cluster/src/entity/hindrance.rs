//! Why a command is not decided here and now, or what was decided is not taken: it is late, or too much, or another build has
//! written it.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    activation::{Alive, CommandMessage, Ended, Undelivered, VOID},
    decision::EffectRequest,
    kind::{RawDecision, RawEffect},
};
use crate::{admission::Limit, schema::Part, supervision::contain::Fault};

impl Alive {
    /// Why a command that was not seen before is not to be decided, if there is a reason.
    pub(super) fn obstacle(&mut self, message: &CommandMessage) -> Option<Undelivered> {
        let envelope = &message.envelope;
        if envelope.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some(Undelivered::Expired);
        }
        if let Some(effect) = &message.acknowledges {
            // Its record has acknowledged the effect already: whoever brings it again does not know.
            let is_open = self.arguments.replica.state().outbox().contains_key(effect);
            return (!is_open).then_some(Undelivered::NotLeader);
        }
        if let Some(origin) = &envelope.origin {
            let taken = self.requests.taken();
            taken.learn(origin);
            if taken.is_settled(origin) {
                let reason = format!("{} was acknowledged before; this is an echo of it", envelope.request);
                return Some(Undelivered::Failed(reason));
            }
            // The oldest of those that are open are taken even then: nothing is settled before they are.
            let is_oldest = origin.born == origin.floor || origin.holes.contains(&origin.born);
            if taken.len() >= self.arguments.replica.limits().effect_requests_max && !is_oldest {
                return Some(Undelivered::Overloaded(Limit::EffectRequests));
            }
        }
        None
    }

    /// Whether a decision sets timers for which its shard has no room.
    pub(super) fn lacks_timers(&self, effects: &[RawEffect]) -> bool {
        let is_new = |effect: &RawEffect| match &effect.request {
            EffectRequest::SetTimer { name, .. } => !self.timers.contains_key(name),
            _ => false,
        };
        effects.iter().any(is_new) && self.arguments.replica.has_all_timers()
    }

    /// Why a command is not to be decided here: another build has written it, and this one would pass over a part of it.
    pub(super) fn foreign(&self, message: &CommandMessage) -> Option<Undelivered> {
        let replica = &self.arguments.replica;
        if !message.envelope.is_foreign && !replica.fleet().is_mixed() {
            return None;
        }
        let reason = replica.passes_over(&self.arguments.key, Part::Command, &message.command)?;
        Some(replica.give_to_newer(&reason))
    }

    /// The same for the token of a timer.
    pub(super) fn foreign_token(&self, token: &Bytes) -> Option<Undelivered> {
        let replica = &self.arguments.replica;
        if !replica.fleet().is_mixed() {
            return None;
        }
        let reason = replica.passes_over(&self.arguments.key, Part::Token, token)?;
        Some(replica.give_to_newer(&reason))
    }

    /// A decision in a form that every member of the cluster can read; or what its caller is told meanwhile.
    pub(super) fn restrained(&self, decision: RawDecision) -> Result<RawDecision, Undelivered> {
        let (replica, kind) = (&self.arguments.replica, &self.arguments.key.kind);
        let restrained = replica.fleet().restrain(replica.registry(), kind, decision);
        restrained.map_err(|reason| Undelivered::Restarting {
            after_ms: crate::shard::foreign::AGAIN_MS,
            reason,
        })
    }

    /// The activation ends: its state has taken in what does not count.
    pub(super) fn void(&self) -> Ended {
        self.arguments.gate.inner.lock().broken = true;
        VOID
    }

    /// What callers are told of a fault: where it is only about another build's writing, no code has failed.
    pub(super) fn excused(&self, fault: &Fault) -> Option<Undelivered> {
        self.arguments.replica.excuse(fault)
    }
}
