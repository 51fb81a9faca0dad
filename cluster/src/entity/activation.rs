//! The live form of an entity on its shard's leader: a ractor actor that takes one command at a time.
//!
//! The output gate: a decision is evolved into the live state at once and proposed, and the activation goes on with the
//! next command. Replies, and reads that saw the new state, wait in the [`Gate`] until the record they rest on is committed.
//! Should a record fail, everything decided after it is void: the activation ends and is loaded anew.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

pub(crate) use super::gate::{Answered, Delivered, ReadState};
use super::{
    EntityKey, Outcome,
    decider::{self, Decider, Taken},
    envelope::Envelope,
    gate::{Gate, Pending},
    kind::RawDecision,
    release::{ReleaseMessage, Releaser},
    traced::{self, Traced},
};
use crate::{
    admission::Limit,
    codec,
    journal::{
        EffectId, Firing, Record, TimerRow,
        quarantine::{QuarantineRow, Quarantined},
    },
    shard::{mailbox::Event, replica::Replica, restart::Poison},
    supervision::contain::Fault,
    trace::TraceContext,
};

/// Why a shard's leader could not take a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Not done, for certain: ask the leader.
    NotLeader,
    /// Perhaps done; ask again under the same request id.
    Unknown,
    /// Not done: a limit was reached.
    Overloaded(Limit),
    /// Not done: nobody waits for it any more.
    Expired,
    /// Not done: the request id was used for another command.
    Reused,
    /// Not done: the entity's own code failed, or the command cannot be read.
    Failed(String),
    /// Not done: the entity is on its way back after a failure.
    Restarting { after_ms: u64, reason: String },
    /// Not done: the entity is quarantined, for this reason.
    Quarantined(String),
    /// Never to be done: the command was skipped while the entity was quarantined, for this reason.
    Skipped(String),
    /// Not done: the entity is forgotten.
    Forgotten(String),
}

/// A command on its way to an activation.
pub(crate) struct CommandMessage {
    pub(crate) command: Bytes,
    pub(crate) envelope: Envelope,
    /// The effect whose outcome this is.
    pub(crate) acknowledges: Option<EffectId>,
    pub(crate) reply: oneshot::Sender<Delivered>,
    /// When it was put into the mailbox.
    pub(crate) sent: Instant,
}

/// A timer on its way to the activation of its entity.
pub(crate) struct FireMessage {
    pub(crate) firing: Firing,
    pub(crate) trace: TraceContext,
    /// Answered with nothing if that firing is no longer to come.
    pub(crate) reply: oneshot::Sender<Delivered>,
}

/// What an activation is sent.
pub(crate) enum ActivationMessage {
    Command(CommandMessage),
    Fire(FireMessage),
    Read(oneshot::Sender<Result<ReadState, Undelivered>>),
    Release(ReleaseMessage),
}

/// An activation, for the replica that sends to it.
#[derive(Clone)]
pub(crate) struct ActivationHandle {
    pub(crate) actor: ActorRef<ActivationMessage>,
    pub(crate) gate: Arc<Gate>,
}

/// What an activation begins with.
pub(crate) struct ActivationArguments {
    pub(crate) key: EntityKey,
    pub(crate) replica: Arc<Replica>,
    /// The term of leadership it belongs to: its records are refused in any other.
    pub(crate) term: u64,
    pub(crate) gate: Arc<Gate>,
}

/// The actor.
pub(crate) struct Activation;

/// What the actor holds.
pub(crate) enum ActivationState {
    Alive(Box<Alive>),
    /// It ends; what still waits in its mailbox is told why, so that nobody waits in vain.
    Ending {
        gate: Arc<Gate>,
        reason: Undelivered,
    },
}

/// The activation ends: those behind this message are told why.
pub(super) struct Ended(pub(super) Undelivered);

/// A record was refused: what was decided after it is void, and the next activation knows better.
pub(super) const VOID: Ended = Ended(Undelivered::NotLeader);

/// The live entity.
pub(crate) struct Alive {
    pub(super) arguments: ActivationArguments,
    pub(super) decider: Decider,
    /// It is quarantined: it decides nothing until that is lifted.
    pub(super) poison: Option<Arc<QuarantineRow>>,
}

impl Actor for Activation {
    type Msg = ActivationMessage;
    type State = ActivationState;
    type Arguments = ActivationArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let recovered = Arc::clone(&arguments.replica).recover(arguments.key.clone()).await;
        let (loaded, live) = match recovered {
            Ok(recovered) => recovered,
            Err(reason) => {
                tracing::error!(entity = %arguments.key, reason, "an entity could not be loaded");
                myself.drain()?;
                return Ok(ActivationState::Ending {
                    gate: arguments.gate,
                    reason: Undelivered::Failed(reason),
                });
            }
        };
        if let Some(tombstone) = &loaded.forgotten {
            // It stays, and says so to everybody, until it has been idle for a while.
            return Ok(ActivationState::Ending {
                gate: arguments.gate,
                reason: Undelivered::Forgotten(tombstone.text()),
            });
        }
        let poison = loaded.poison.clone();
        let decider = Decider::new(arguments.key.clone(), rand::random(), loaded, live);
        Ok(ActivationState::Alive(Box::new(Alive {
            arguments,
            decider,
            poison,
        })))
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match state {
            ActivationState::Alive(alive) => {
                if let ActivationMessage::Command(_) = &message {
                    let max = alive.arguments.replica.gate_records_max();
                    alive.arguments.gate.has_room(max).await;
                }
                let handled = alive.handle(message);
                // Only now: one that waits for nothing may be sent away.
                alive.arguments.gate.leave();
                if let Err(Ended(reason)) = handled {
                    let gate = Arc::clone(&alive.arguments.gate);
                    *state = ActivationState::Ending { gate, reason };
                    // What waits in the mailbox is answered, and nothing more is taken.
                    myself.drain()?;
                }
            }
            ActivationState::Ending { gate, reason } => {
                refuse(message, reason.clone());
                gate.leave();
            }
        }
        Ok(())
    }
}

fn refuse(message: ActivationMessage, reason: Undelivered) {
    // Whoever asked may have gone.
    match message {
        ActivationMessage::Command(command) => drop(command.reply.send(Err(reason))),
        ActivationMessage::Fire(fire) => drop(fire.reply.send(Err(reason))),
        ActivationMessage::Read(reader) => drop(reader.send(Err(reason))),
        ActivationMessage::Release(release) => drop(release.reply.send(Err(reason))),
    }
}

/// What is to be recorded, and who waits for it.
pub(super) struct Proposal {
    pub(super) taken: Taken,
    pub(super) callers: Vec<oneshot::Sender<Delivered>>,
    /// Who has asked for the quarantine to be lifted, if it lifts one.
    pub(super) releaser: Option<Releaser>,
}

impl Alive {
    /// Takes a message.
    fn handle(&mut self, message: ActivationMessage) -> Result<(), Ended> {
        if self.arguments.gate.inner.lock().broken {
            refuse(message, Undelivered::NotLeader);
            return Err(VOID);
        }
        match message {
            ActivationMessage::Read(reader) => self.read(reader),
            ActivationMessage::Command(command) => self.command(command),
            ActivationMessage::Fire(fire) => self.fire(fire),
            ActivationMessage::Release(release) => self.release(release),
        }
    }

    fn read(&mut self, reader: oneshot::Sender<Result<ReadState, Undelivered>>) -> Result<(), Ended> {
        let state = match self.decider.snapshot() {
            Ok(state) => state,
            Err(fault) => {
                if let Some(refused) = self.excused(&fault) {
                    drop(reader.send(Err(refused)));
                    return Err(self.void());
                }
                drop(reader.send(Err(Undelivered::Failed(fault.reason.clone()))));
                return Err(self.failed(fault, None));
            }
        };
        let state = ReadState {
            head: self.decider.head(),
            state,
        };
        let mut gate = self.arguments.gate.inner.lock();
        // Looked at under the lock that settling takes: a gate that broke meanwhile is empty, and the state is void.
        if gate.broken {
            drop(reader.send(Err(Undelivered::NotLeader)));
            return Err(VOID);
        }
        match gate.pending.back_mut() {
            Some(last) => last.readers.push((reader, state)),
            None => drop(reader.send(Ok(state))),
        }
        Ok(())
    }

    fn command(&mut self, message: CommandMessage) -> Result<(), Ended> {
        let meters = self.arguments.replica.meters();
        meters.tell(|meter| meter.waited(message.sent.elapsed()));
        let Some(message) = self.answer_known(message)? else {
            return Ok(());
        };
        let refused = self.quarantined().or_else(|| self.obstacle(&message));
        if let Some(refused) = refused.or_else(|| self.foreign(&message)) {
            drop(message.reply.send(Err(refused)));
            return Ok(());
        }
        let now_ms = self.arguments.replica.now_ms();
        self.take(message, now_ms, None)
    }

    /// What callers are told while it is quarantined.
    fn quarantined(&self) -> Option<Undelivered> {
        let poison = self.poison.as_ref()?.poison.as_ref()?;
        Some(Undelivered::Quarantined(quarantined_text(poison)))
    }

    /// Lets a timer fire. One that was cancelled, replaced or fired by what was decided before this is passed over: should
    /// that decision fail, the timer is tried again.
    fn fire(&mut self, message: FireMessage) -> Result<(), Ended> {
        let FireMessage { firing, trace, reply } = message;
        if let Some(refused) = self.quarantined() {
            drop(reply.send(Err(refused)));
            return Ok(());
        }
        let Some(row) = self.decider.awaited(&firing) else {
            drop(reply.send(Ok(Answered {
                reply: Ok(Bytes::new()),
                index: self.arguments.replica.applied(),
            })));
            return Ok(());
        };
        if let Some(refused) = self.foreign_token(&row.token) {
            drop(reply.send(Err(refused)));
            return Ok(());
        }
        let now_ms = self.arguments.replica.now_ms();
        let outcome = Outcome::Fired {
            due_ms: row.due_ms,
            missed: row.missed(now_ms),
        };
        let kind = self.arguments.replica.registry().get(&self.arguments.key.kind);
        let kind = kind.expect("a timer's kind is known where its entity is brought back");
        let command = match decider::resume(&**kind, &row.token, &outcome) {
            Ok(command) => command,
            Err(fault) => {
                drop(reply.send(Err(Undelivered::Failed(fault.reason.clone()))));
                let poison = Poison {
                    seq: self.decider.head().seq + 1,
                    envelope: Envelope::new(firing.request(), trace),
                    command: codec::encode(&outcome),
                    acknowledges: None,
                    fires: Some(firing),
                };
                return Err(self.failed(fault, Some(poison)));
            }
        };
        let message = CommandMessage {
            command,
            // What a timer causes begins a chain of effects anew.
            envelope: Envelope::new(firing.request(), trace),
            acknowledges: None,
            reply,
            sent: Instant::now(),
        };
        self.take(message, now_ms, Some((firing, row)))
    }

    /// Decides a command and proposes the record of it.
    fn take(
        &mut self,
        message: CommandMessage,
        now_ms: u64,
        fires: Option<(Firing, Arc<TimerRow>)>,
    ) -> Result<(), Ended> {
        // A timer's firing has not waited in the mailbox as a command.
        let sent = fires.is_none().then_some(message.sent);
        let traced = Traced::of(&message.envelope, sent);
        match self.decide(&message.command, now_ms, &traced) {
            Ok(decision) if self.lacks_timers(&decision.effects) => {
                drop(message.reply.send(Err(Undelivered::Overloaded(Limit::Timers))));
                // The state has taken in the events of a decision that does not count.
                self.arguments.gate.inner.lock().broken = true;
                Err(VOID)
            }
            Ok(decision) => {
                let decision = match self.restrained(decision) {
                    Ok(decision) => decision,
                    Err(refused) => {
                        drop(message.reply.send(Err(refused)));
                        return Err(self.void());
                    }
                };
                let taken = Taken {
                    decision,
                    now_ms,
                    envelope: message.envelope,
                    command: message.command,
                    acknowledges: message.acknowledges,
                    fires,
                    lift: None,
                };
                self.propose(Proposal {
                    taken,
                    callers: vec![message.reply],
                    releaser: None,
                });
                Ok(())
            }
            Err(fault) => {
                if let Some(refused) = self.excused(&fault) {
                    drop(message.reply.send(Err(refused)));
                    return Err(self.void());
                }
                drop(message.reply.send(Err(Undelivered::Failed(fault.reason.clone()))));
                let poison = Poison {
                    seq: self.decider.head().seq + 1,
                    envelope: message.envelope,
                    command: message.command,
                    acknowledges: message.acknowledges,
                    fires: fires.map(|(firing, _)| firing),
                };
                Err(self.failed(fault, Some(poison)))
            }
        }
    }

    /// Decides a command and takes its events into the state. After a fault the state may be half evolved.
    pub(super) fn decide(&mut self, command: &[u8], now_ms: u64, traced: &Traced<'_>) -> Result<RawDecision, Fault> {
        let ActivationArguments { key, replica, .. } = &self.arguments;
        let mut span = traced.decide(replica, key);
        let decided = self.decider.decide(command, now_ms);
        match &decided {
            Err(fault) => span.fail(&fault.reason),
            Ok(decision) if decision.reply.is_err() => span.note("outcome", || "rejected"),
            Ok(_) => {}
        }
        decided
    }

    /// The entity's own code has failed: this activation ends, and the next one begins after a pause.
    fn failed(&mut self, fault: Fault, poison: Option<Poison>) -> Ended {
        self.arguments.gate.inner.lock().broken = true;
        let reason = fault.reason.clone();
        let ActivationArguments { key, replica, term, .. } = &self.arguments;
        let after_ms = replica.failed(key, *term, fault, poison);
        Ended(Undelivered::Restarting { after_ms, reason })
    }

    /// Hands a decision to the shard; whoever waits for it hears of it when it is committed.
    pub(super) fn propose(&mut self, proposal: Proposal) {
        let Proposal {
            taken,
            callers,
            releaser,
        } = proposal;
        let skipped = taken.lift.as_ref().and_then(|lift| lift.skipped.clone());
        let before = self.decider.head().version;
        let decided = self.decider.record(taken);
        let seq = decided.seq;
        let commit = traced::commit(&self.arguments.replica, &decided, before);
        self.arguments.gate.inner.lock().pending.push_back(Pending {
            seq,
            request: decided.request.clone(),
            fingerprint: decided.fingerprint,
            answer: match skipped {
                Some(reason) => Err(Undelivered::Skipped(reason)),
                None => Ok(decided.reply.clone()),
            },
            releaser,
            callers,
            readers: Vec::new(),
        });
        let record = Record::Decided(decided);
        let on_fate = self.arguments.gate.on_fate(seq, commit);
        self.arguments.replica.mailbox().send(Event::Propose {
            group: self.arguments.replica.shard(),
            term: self.arguments.term,
            record: record.encode(),
            on_fate,
        });
    }

    /// Answers a request that was taken before with what it was answered then.
    fn answer_known(&mut self, message: CommandMessage) -> Result<Option<CommandMessage>, Ended> {
        let envelope = &message.envelope;
        let Some(seq) = self.decider.known(envelope) else {
            return Ok(Some(message));
        };
        let is_other = |known: u64| known != 0 && envelope.fingerprint != 0 && known != envelope.fingerprint;
        {
            let mut gate = self.arguments.gate.inner.lock();
            if gate.broken {
                drop(message.reply.send(Err(Undelivered::NotLeader)));
                return Err(VOID);
            }
            if let Some(pending) = gate.pending.iter_mut().find(|pending| pending.seq == seq)
                && pending.request == envelope.request
            {
                if is_other(pending.fingerprint) {
                    drop(message.reply.send(Err(Undelivered::Reused)));
                } else {
                    pending.callers.push(message.reply);
                }
                return Ok(None);
            }
        }
        match self
            .arguments
            .replica
            .record_of(&self.arguments.key, seq, &envelope.request)
        {
            Ok(Some(record)) => {
                let skipped = record.lift.as_ref().and_then(|lift| lift.skipped.clone());
                drop(message.reply.send(match skipped {
                    _ if is_other(record.fingerprint) => Err(Undelivered::Reused),
                    Some(reason) => Err(Undelivered::Skipped(reason)),
                    None => Ok(Answered {
                        reply: record.reply.clone(),
                        // At or behind the record's own, which is applied.
                        index: self.arguments.replica.applied(),
                    }),
                }));
                Ok(None)
            }
            // Another request with the same hash.
            Ok(None) => Ok(Some(message)),
            Err(error) => {
                drop(message.reply.send(Err(Undelivered::Failed(error.to_string()))));
                Ok(None)
            }
        }
    }
}

/// What callers of a quarantined entity are told.
pub(crate) fn quarantined_text(poison: &Quarantined) -> String {
    format!(
        "it failed {} times at the request {}, last: {}",
        poison.count, poison.request, poison.reason
    )
}
