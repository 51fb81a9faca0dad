//! The live form of an entity on its shard's leader: a ractor actor that takes one command at a time.
//!
//! The output gate: a decision is evolved into the live state at once and proposed, and the activation goes on with the
//! next command. Replies, and reads that saw the new state, wait in the [`Gate`] until the record they rest on is committed.
//! Should a record fail, everything decided after it is void: the activation ends and is loaded anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

pub(crate) use super::gate::{Answered, Delivered, ReadState};
use super::{
    Context, EntityKey, Outcome,
    envelope::Envelope,
    gate::{Gate, Pending},
    kind::{Live, RawDecision},
    release::{ReleaseMessage, Releaser},
    requests::KeptRequests,
    timer,
};
use crate::{
    admission::Limit,
    codec,
    journal::{
        Decided, EffectId, Firing, Lift, LoadedEntity, Record, StoredEffect, TimerRow,
        keys::{Head, request_hash},
        quarantine::{QuarantineRow, Quarantined, Stage},
        timers,
    },
    shard::{mailbox::Event, replica::Replica, restart::Poison},
    supervision::contain::{self, Fault},
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
}

/// A command on its way to an activation.
pub(crate) struct CommandMessage {
    pub(crate) command: Bytes,
    pub(crate) envelope: Envelope,
    /// The effect whose outcome this is.
    pub(crate) acknowledges: Option<EffectId>,
    pub(crate) reply: oneshot::Sender<Delivered>,
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
    /// Or why it could not be brought back.
    pub(super) live: Result<Box<dyn Live>, Option<Fault>>,
    pub(super) head: Head,
    /// Its own name in its records, and the number of the last record it was loaded with.
    activation: u64,
    base: u64,
    pub(super) requests: KeptRequests,
    /// It is quarantined: it decides nothing until that is lifted.
    pub(super) poison: Option<Arc<QuarantineRow>>,
    /// Its timers, as of the last decision.
    pub(super) timers: BTreeMap<Arc<str>, Arc<TimerRow>>,
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
        let LoadedEntity {
            head,
            requests,
            taken,
            poison,
            timers,
            ..
        } = loaded;
        Ok(ActivationState::Alive(Box::new(Alive {
            arguments,
            live: live.map_err(Some),
            head,
            activation: rand::random(),
            base: head.seq,
            requests: KeptRequests::new(&requests, taken),
            poison,
            timers,
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

/// What is to be recorded.
pub(super) struct Proposal {
    pub(super) decision: RawDecision,
    pub(super) now_ms: u64,
    pub(super) envelope: Envelope,
    pub(super) command: Bytes,
    pub(super) acknowledges: Option<EffectId>,
    /// The firing that the command was, and the timer as it was before.
    pub(super) fires: Option<(Firing, Arc<TimerRow>)>,
    pub(super) callers: Vec<oneshot::Sender<Delivered>>,
    pub(super) lift: Option<(Lift, Releaser)>,
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
        let live = match &mut self.live {
            Ok(live) => live,
            Err(fault) => {
                let fault = fault
                    .take()
                    .expect("the activation ends with the first one who is told");
                if let Some(refused) = self.excused(&fault) {
                    drop(reader.send(Err(refused)));
                    return Err(self.void());
                }
                drop(reader.send(Err(Undelivered::Failed(fault.reason.clone()))));
                return Err(self.failed(fault, None));
            }
        };
        let state = ReadState {
            head: self.head,
            state: live.snapshot(),
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
        let hash = request_hash(&message.envelope.request);
        let Some(message) = self.answer_known(hash, message)? else {
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
        let Some(row) = self.timers.get(&firing.name).filter(|row| row.awaits(&firing)) else {
            drop(reply.send(Ok(Answered {
                reply: Ok(Bytes::new()),
                index: self.arguments.replica.applied(),
            })));
            return Ok(());
        };
        let row = Arc::clone(row);
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
        let resumed = contain::run(Stage::Resume, || kind.resume(&row.token, outcome.clone()));
        let command = match resumed {
            Ok(command) => command,
            Err(fault) => {
                drop(reply.send(Err(Undelivered::Failed(fault.reason.clone()))));
                let poison = Poison {
                    seq: self.head.seq + 1,
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
        match self.decide(&message.command, now_ms, &message.envelope.trace) {
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
                self.propose(Proposal {
                    decision,
                    now_ms,
                    envelope: message.envelope,
                    command: message.command,
                    acknowledges: message.acknowledges,
                    fires,
                    callers: vec![message.reply],
                    lift: None,
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
                    seq: self.head.seq + 1,
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
    pub(super) fn decide(&mut self, command: &[u8], now_ms: u64, trace: &TraceContext) -> Result<RawDecision, Fault> {
        let live = match &mut self.live {
            Ok(live) => live,
            Err(fault) => {
                return Err(fault
                    .take()
                    .expect("the activation ends with the first one who is told"));
            }
        };
        let context = Context {
            key: self.arguments.key.clone(),
            version: self.head.version,
            now_ms,
        };
        let mut span = self
            .arguments
            .replica
            .spans()
            .begin("decide", trace)
            .with("entity", || self.arguments.key.to_string());
        let decided = contain::run(Stage::Decide, || live.decide(command, &context)).and_then(|decision| {
            let requests = decision.effects.iter().map(|effect| &effect.request);
            timer::check(requests, &self.timers).map_err(|error| Fault::refused(Stage::Decide, &error))?;
            Ok(decision)
        });
        if let Err(fault) = &decided {
            span.fail(&fault.reason);
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
        let Proposal { decision, envelope, .. } = proposal;
        self.head = Head {
            seq: self.head.seq + 1,
            version: self.head.version + decision.events.len() as u64,
            activation: self.activation,
        };
        let hash = request_hash(&envelope.request);
        self.requests.insert(envelope.origin.as_deref(), hash, self.head.seq);
        let (lift, releaser) = proposal.lift.unzip();
        let answer = match lift.as_ref().and_then(|lift: &Lift| lift.skipped.clone()) {
            Some(reason) => Err(Undelivered::Skipped(reason)),
            None => Ok(decision.reply.clone()),
        };
        let (fires, fired) = proposal.fires.unzip();
        let decided = Decided {
            entity: self.arguments.key.clone(),
            seq: self.head.seq,
            activation: self.activation,
            base: self.base,
            request: envelope.request.clone(),
            at_ms: proposal.now_ms,
            trace: envelope.trace,
            command: proposal.command,
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
            acknowledges: proposal.acknowledges.into_iter().collect(),
            fires,
            lift: lift.map(Box::new),
            fingerprint: envelope.fingerprint,
            chain: envelope.chain.as_deref().cloned(),
            origin: envelope.origin.as_deref().cloned(),
        };
        for (name, row) in timers::changes(&decided, fired.as_deref()) {
            match row {
                Some(row) => drop(self.timers.insert(name, row)),
                None => drop(self.timers.remove(&name)),
            }
        }
        let record = Record::Decided(decided);
        self.arguments.gate.inner.lock().pending.push_back(Pending {
            seq: self.head.seq,
            request: envelope.request,
            fingerprint: envelope.fingerprint,
            answer,
            releaser,
            callers: proposal.callers,
            readers: Vec::new(),
        });
        let commit = self.arguments.replica.spans().begin("commit", &envelope.trace);
        let on_fate = self.arguments.gate.on_fate(self.head.seq, commit);
        self.arguments.replica.mailbox().send(Event::Propose {
            group: self.arguments.replica.shard(),
            term: self.arguments.term,
            record: record.encode(),
            on_fate,
        });
    }

    /// Answers a request that was taken before with what it was answered then.
    fn answer_known(&mut self, hash: u64, message: CommandMessage) -> Result<Option<CommandMessage>, Ended> {
        let envelope = &message.envelope;
        let Some(seq) = self.requests.get(envelope.origin.as_deref(), hash) else {
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
