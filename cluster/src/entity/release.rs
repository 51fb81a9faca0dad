//! How people lift an entity's quarantine: by deciding its command once more, or by skipping it.
//!
//! Either is one record of the entity, so that its effect and the end of the quarantine are one; and either is idempotent
//! under the request id it was asked with: the row of the quarantine remembers what came of it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{
    Outcome, RequestId,
    activation::{Alive, Ended, Proposal, Undelivered, VOID},
    decider::Taken,
    envelope::Envelope,
    kind::RawDecision,
    traced::Traced,
};
use crate::{
    admission::Limit,
    codec,
    journal::{
        Lift, Quarantined, Record, Reply,
        quarantine::{AttemptEnd, LiftAttempt, Stage},
    },
    replication::Failure,
    shard::mailbox::Event,
    supervision::contain::{self, Fault},
    trace::TraceContext,
};

/// What is to become of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Release {
    /// It is decided once more.
    Retry,
    /// It is never decided.
    Skip,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Released {
    /// Decided, with this reply or rejection.
    Decided(Reply),
    Skipped,
    /// It has failed once more, for this reason; the entity stays quarantined.
    Failed(String),
    /// There is nothing to lift.
    NotQuarantined,
}

/// Asks an activation to lift its quarantine.
pub(crate) struct ReleaseMessage {
    pub(crate) how: Release,
    pub(crate) by: RequestId,
    pub(crate) trace: TraceContext,
    pub(crate) reply: oneshot::Sender<Result<Released, Undelivered>>,
}

/// Who has asked for a quarantine to be lifted.
pub(crate) struct Releaser(oneshot::Sender<Result<Released, Undelivered>>);

impl Releaser {
    /// The record's fate is known.
    pub(super) fn settle(self, answer: &Result<Reply, Undelivered>, failure: Option<Undelivered>) {
        let released = match (failure, answer) {
            (Some(failure), _) => Err(failure),
            (None, Ok(reply)) => Ok(Released::Decided(reply.clone())),
            (None, Err(_)) => Ok(Released::Skipped),
        };
        // Whoever asked may have gone.
        let _ = self.0.send(released);
    }
}

impl Alive {
    /// Takes a request to lift the quarantine.
    pub(super) fn release(&mut self, message: ReleaseMessage) -> Result<(), Ended> {
        let ReleaseMessage { how, by, trace, reply } = message;
        let row = self.arguments.replica.quarantine_row(&self.arguments.key);
        let attempts = row.as_ref().map_or(&[][..], |row| &row.attempts);
        if let Some(attempt) = attempts.iter().find(|attempt| attempt.by == by) {
            // Whoever asked may have gone; here and below.
            let _ = reply.send(self.said_then(attempt));
            return Ok(());
        }
        let Some(poison) = self.poison.as_ref().and_then(|row| row.poison.clone()) else {
            // One that was lifted just now is asked for again, and found among the attempts.
            let is_under_way = !self.arguments.gate.is_empty() || row.is_some_and(|row| row.poison.is_some());
            let _ = reply.send(if is_under_way {
                Err(Undelivered::Unknown)
            } else {
                Ok(Released::NotQuarantined)
            });
            return Ok(());
        };
        let now_ms = self.arguments.replica.now_ms();
        let (command, decision) = match how {
            Release::Skip => (poison.command.clone(), Ok(nothing())),
            Release::Retry => match self.command_of(&poison) {
                Ok(command) => {
                    let decision = self.decide(&command, now_ms, &Traced::again(trace, &poison.request));
                    (command, decision)
                }
                Err(fault) => (Bytes::new(), Err(fault)),
            },
        };
        let fires = poison.fires.clone().and_then(|firing| {
            let row = self.decider.timers().get(&firing.name).cloned()?;
            Some((firing, row))
        });
        match decision {
            Ok(decision) if self.lacks_timers(&decision.effects) => {
                let _ = reply.send(Err(Undelivered::Overloaded(Limit::Timers)));
                self.arguments.gate.inner.lock().broken = true;
                Err(VOID)
            }
            Ok(decision) => {
                let restrained = match how {
                    Release::Skip => Ok(decision),
                    Release::Retry => self.restrained(decision),
                };
                let decision = match restrained {
                    Ok(decision) => decision,
                    Err(refused) => {
                        let _ = reply.send(Err(refused));
                        return Err(self.void());
                    }
                };
                let skipped = (how == Release::Skip).then(|| poison.reason.clone());
                let lift = Lift {
                    by,
                    at_ms: now_ms,
                    skipped,
                };
                self.poison = None;
                let taken = Taken {
                    decision,
                    now_ms,
                    envelope: Envelope {
                        fingerprint: poison.fingerprint,
                        chain: poison.chain.map(Arc::new),
                        origin: poison.origin.map(Arc::new),
                        asked_by: poison.asked_by,
                        ..Envelope::new(poison.request, poison.trace)
                    },
                    command,
                    acknowledges: poison.acknowledges,
                    fires,
                    lift: Some(lift),
                };
                self.propose(Proposal {
                    taken,
                    callers: Vec::new(),
                    releaser: Some(Releaser(reply)),
                });
                Ok(())
            }
            Err(fault) => {
                self.failed_again(poison, &fault, by, now_ms, reply);
                // The state may be half evolved.
                self.arguments.gate.inner.lock().broken = true;
                Err(VOID)
            }
        }
    }

    /// The command to decide: what was quarantined, or what the entity makes of the outcome that was.
    fn command_of(&self, poison: &Quarantined) -> Result<Bytes, Fault> {
        if poison.stage != Stage::Resume {
            return Ok(poison.command.clone());
        }
        let replica = &self.arguments.replica;
        let row = poison
            .acknowledges
            .as_ref()
            .and_then(|id| replica.state().outbox().get(id).cloned());
        let timer = poison
            .fires
            .as_ref()
            .and_then(|firing| self.decider.timers().get(&firing.name));
        let token = row
            .and_then(|row| row.effect.token.clone())
            .or_else(|| timer.map(|row| row.token.clone()))
            .unwrap_or_default();
        let kind = replica.registry().get(&self.arguments.key.kind).cloned();
        contain::run(Stage::Resume, || {
            let outcome = codec::decode::<Outcome>(&poison.command)?;
            kind.expect("an entity is only activated by a build that knows its kind")
                .resume(&token, outcome)
        })
    }

    /// What was answered to the same request before.
    fn said_then(&self, attempt: &LiftAttempt) -> Result<Released, Undelivered> {
        Ok(match &attempt.end {
            AttemptEnd::Skipped => Released::Skipped,
            AttemptEnd::Failed(reason) => Released::Failed(reason.clone()),
            AttemptEnd::Decided(seq) => {
                let record = self
                    .arguments
                    .replica
                    .record_of(&self.arguments.key, *seq, &attempt.request)
                    .map_err(|error| Undelivered::Failed(error.to_string()))?;
                let record = record.ok_or_else(|| Undelivered::Failed("its record is no longer kept".to_owned()))?;
                Released::Decided(record.reply.clone())
            }
        })
    }

    /// Records that a retry has failed.
    fn failed_again(
        &self,
        poison: Quarantined,
        fault: &Fault,
        by: RequestId,
        now_ms: u64,
        reply: oneshot::Sender<Result<Released, Undelivered>>,
    ) {
        let reason = fault.reason.clone();
        let record = Record::Quarantined(Box::new(Quarantined {
            seq: self.decider.head().seq + 1,
            reason: reason.clone(),
            at_ms: now_ms,
            retry: Some(by),
            // The row has them already.
            command: Bytes::new(),
            backtrace: String::new(),
            ..poison
        }));
        let replica = &self.arguments.replica;
        replica.mailbox().send(Event::Propose {
            group: replica.shard(),
            term: self.arguments.term,
            record: record.encode(),
            on_fate: Box::new(move |fate| {
                let _ = reply.send(match fate {
                    Ok(_) => Ok(Released::Failed(reason)),
                    Err(Failure::NotLeader) => Err(Undelivered::NotLeader),
                    Err(Failure::Unknown) => Err(Undelivered::Unknown),
                });
            }),
        });
    }
}

/// What a skipped command decides.
fn nothing() -> RawDecision {
    RawDecision {
        events: Vec::new(),
        reply: Err(Bytes::new()),
        effects: Vec::new(),
    }
}
