//! What a shard's leader does when an entity's own code fails: counts it, lets the entity come back after a pause, and
//! quarantines one that fails again and again.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    mailbox::Event,
    replica::{MAILBOX_QUARTERS, Replica},
};
use crate::{
    entity::{
        EntityKey, RequestId,
        activation::{ActivationMessage, Undelivered},
        envelope::Envelope,
        release::{Release, ReleaseMessage, Released},
    },
    journal::{
        EffectId, Firing, Quarantined, Record,
        quarantine::{QuarantineRow, Stage},
    },
    supervision::{
        breaker::Pass,
        contain::Fault,
        failures::{FailingView, Failure, Failures, Hold, Verdict},
    },
    trace::TraceContext,
    transport::outcome::OutboxView,
};

/// The command that an entity failed at.
pub(crate) struct Poison {
    pub(crate) seq: u64,
    pub(crate) envelope: Envelope,
    pub(crate) command: Bytes,
    pub(crate) acknowledges: Option<EffectId>,
    /// The firing of a timer that the command was.
    pub(crate) fires: Option<Firing>,
}

/// A command of an entity that has failed before, on its way; should nobody hear its end, it counts as nothing.
pub(super) struct Watched<'a> {
    replica: &'a Replica,
    key: &'a EntityKey,
    pass: Option<Pass>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(replica: &'a Replica, key: &'a EntityKey, pass: Pass) -> Self {
        Self {
            replica,
            key,
            pass: Some(pass),
        }
    }

    /// The command was decided.
    pub(super) fn succeeded(mut self) {
        if let Some(pass) = self.pass.take() {
            let now_ms = self.replica.clock().now_ms();
            self.replica
                .with_failures(|failures| failures.succeeded(self.key, pass, now_ms));
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.replica.with_failures(|failures| failures.released(self.key, pass));
        }
    }
}

impl From<Hold> for Undelivered {
    fn from(Hold { after_ms, reason }: Hold) -> Self {
        Self::Restarting { after_ms, reason }
    }
}

impl Replica {
    /// An entity's own code has failed in a term of leadership. Says after how long it comes back.
    pub(crate) fn failed(self: &Arc<Self>, key: &EntityKey, term: u64, fault: Fault, poison: Option<Poison>) -> u64 {
        let policy = self.registry().policy(&key.kind);
        let now_ms = self.clock().now_ms();
        let is_quarantined = self.state().quarantined().poison(key).is_some();
        let verdict = {
            let mut leadership = self.leadership();
            let Some(leadership) = leadership.as_mut().filter(|leadership| leadership.term == term) else {
                return 0;
            };
            if fault.stage != Stage::Resume {
                leadership.population.remove(key);
            }
            let failure = Failure {
                key,
                place: &fault.place,
                reason: &fault.reason,
                holds_reads: fault.stage == Stage::Revive,
                may_quarantine: poison.is_some() && !is_quarantined,
            };
            leadership.failures.failed(&failure, policy, now_ms, rand::random())
        };
        let told = poison.as_ref().map(|poison| {
            let envelope = &poison.envelope;
            (envelope.request.to_string(), envelope.trace.trace_hex())
        });
        let (request_id, trace_id) = told.unwrap_or_default();
        tracing::warn!(
            entity = %key, request_id, trace_id, stage = fault.stage.as_str(), place = %fault.place, reason = %fault.reason,
            ?verdict, "an entity failed"
        );
        match (verdict, poison) {
            (Verdict::Restart { after_ms }, _) => after_ms,
            (Verdict::Quarantine { count, since_ms }, Some(poison)) => {
                let replica = Arc::clone(self);
                let key = key.clone();
                // Naming the frames of a backtrace takes milliseconds, which nobody else should wait for.
                tokio::task::spawn_blocking(move || {
                    let Envelope {
                        request,
                        trace,
                        fingerprint,
                        chain,
                        origin,
                        asked_by,
                        ..
                    } = poison.envelope;
                    let record = Quarantined {
                        backtrace: fault.frames(),
                        entity: key,
                        seq: poison.seq,
                        request,
                        command: poison.command,
                        acknowledges: poison.acknowledges,
                        stage: fault.stage,
                        reason: fault.reason,
                        place: fault.place,
                        count,
                        since_ms,
                        at_ms: now_ms,
                        trace,
                        retry: None,
                        fires: poison.fires,
                        fingerprint,
                        chain: chain.as_deref().cloned(),
                        origin: origin.as_deref().cloned(),
                        asked_by,
                    };
                    replica.quarantine(term, record);
                });
                0
            }
            (Verdict::Quarantine { .. }, None) => unreachable!("only what has a command is quarantined"),
        }
    }

    /// Puts an entity aside, by a record of the journal.
    fn quarantine(self: &Arc<Self>, term: u64, record: Quarantined) {
        let replica = Arc::clone(self);
        let key = record.entity.clone();
        self.mailbox().send(Event::Propose {
            group: self.shard(),
            term,
            record: Record::Quarantined(Box::new(record)).encode(),
            on_fate: Box::new(move |fate| {
                if fate.is_ok() {
                    tracing::error!(
                        entity = %key,
                        "quarantined: it refuses commands until `playhouse quarantine retry` or `skip`"
                    );
                }
                let mut leadership = replica.leadership();
                let Some(leadership) = leadership.as_mut().filter(|leadership| leadership.term == term) else {
                    return;
                };
                leadership.failures.quarantine_ended(&key, fate.is_ok());
                // One that a reader has brought back meanwhile does not know of it.
                if fate.is_ok()
                    && let Some(unaware) = leadership.population.remove(&key)
                {
                    // It may have ended already.
                    let _ = unaware.actor.drain();
                }
            }),
        });
    }

    /// Asks an entity's activation to lift its quarantine.
    pub(crate) async fn release(
        self: &Arc<Self>,
        key: &EntityKey,
        how: Release,
        by: RequestId,
        trace: TraceContext,
    ) -> Result<Released, Undelivered> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let message = ReleaseMessage { how, by, trace, reply };
        self.deliver(key, ActivationMessage::Release(message), MAILBOX_QUARTERS)?;
        answer.await.unwrap_or(Err(Undelivered::Unknown))
    }

    /// What is known of an entity that is or was quarantined.
    pub(crate) fn quarantine_row(&self, key: &EntityKey) -> Option<Arc<QuarantineRow>> {
        self.state().quarantined().row(key).cloned()
    }

    /// Whether an entity is quarantined.
    pub(crate) fn is_quarantined(&self, key: &EntityKey) -> bool {
        self.state().quarantined().poison(key).is_some()
    }

    /// The term that this node leads the shard in; none while another one leads it.
    pub(crate) fn leads_term(&self) -> Option<u64> {
        self.leadership().as_ref().map(|leadership| leadership.term)
    }

    /// How many entities fail just now.
    pub(crate) fn failing_len(&self) -> usize {
        self.leadership()
            .as_ref()
            .map_or(0, |leadership| leadership.failures.len())
    }

    /// The entities that fail just now, where this node leads.
    pub(crate) fn failing(&self) -> Vec<FailingView> {
        let now_ms = self.clock().now_ms();
        let leadership = self.leadership();
        leadership
            .as_ref()
            .map_or_else(Vec::new, |leadership| leadership.failures.views(now_ms))
    }

    /// Takes note of an effect that waits for its next attempt: how often it was tried, and why in vain; or of its end.
    pub(super) fn note_waiting(&self, id: &EffectId, waiting: Option<(u32, String)>) {
        if let Some(leadership) = self.leadership().as_mut() {
            match waiting {
                Some(waiting) => drop(leadership.waiting_effects.insert(id.clone(), waiting)),
                None => drop(leadership.waiting_effects.remove(id)),
            }
        }
    }

    /// The open effects of an entity, with what is known of their attempts.
    pub(crate) fn outbox_views(&self, key: &EntityKey) -> Vec<OutboxView> {
        let mut views: Vec<(EffectId, OutboxView)> = {
            let state = self.state();
            let rows = state.outbox_of(key);
            rows.map(|(id, row)| (id.clone(), OutboxView::new(id, row))).collect()
        };
        if let Some(leadership) = self.leadership().as_ref() {
            for (id, view) in &mut views {
                if let Some((attempts, reason)) = leadership.waiting_effects.get(id) {
                    view.attempts = *attempts;
                    view.waits_for.clone_from(reason);
                }
            }
        }
        views.into_iter().map(|(_, view)| view).collect()
    }

    fn with_failures(&self, change: impl FnOnce(&mut Failures)) {
        if let Some(leadership) = self.leadership().as_mut() {
            change(&mut leadership.failures);
        }
    }
}
