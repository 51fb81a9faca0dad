//! The live form of an entity on its shard's leader: a ractor actor that takes one command at a time.
//!
//! The output gate: a decision is evolved into the live state at once and proposed, and the activation goes on with the
//! next command. Replies, and reads that saw the new state, wait in the [`Gate`] until the record they rest on is committed.
//! Should a record fail, everything decided after it is void: the activation ends and is loaded anew.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Context, EntityKey, Outcome, RequestId,
    decision::EffectRequest,
    envelope::Envelope,
    kind::{Live, RawEffect},
    requests::KeptRequests,
    timer,
};
use crate::{
    admission::Limit,
    journal::{
        Decided, EffectId, Firing, LoadedEntity, Record, Reply, StoredEffect, TimerRow, keys::Head, keys::request_hash,
        timers,
    },
    replication::Failure,
    shard::{
        mailbox::{Event, OnFate},
        replica::Replica,
    },
    spans::Span,
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
}

/// The end of a command at the leader.
pub(crate) type Delivered = Result<Reply, Undelivered>;

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

/// A state that was read.
#[derive(Debug, Clone)]
pub(crate) struct ReadState {
    pub(crate) head: Head,
    pub(crate) state: Bytes,
}

/// What an activation is sent.
pub(crate) enum ActivationMessage {
    Command(CommandMessage),
    Fire(FireMessage),
    Read(oneshot::Sender<Result<ReadState, Undelivered>>),
}

/// What of an entity is on its way: messages to it, and records with those who wait for them.
#[derive(Default)]
pub(crate) struct Gate {
    /// Messages in its mailbox, the one it is working on included.
    waiting: AtomicUsize,
    inner: Mutex<GateInner>,
}

#[derive(Default)]
struct GateInner {
    pending: VecDeque<Pending>,
    /// A record failed: what was decided after it is void.
    broken: bool,
}

struct Pending {
    seq: u64,
    request: RequestId,
    fingerprint: u64,
    reply: Reply,
    callers: Vec<oneshot::Sender<Delivered>>,
    readers: Vec<(oneshot::Sender<Result<ReadState, Undelivered>>, ReadState)>,
}

impl Gate {
    /// Whether the entity has nothing to do and nothing under way, and so may be sent away. To be asked while nobody can send to it.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.inner.lock().pending.is_empty()
    }

    /// Counts a message in, unless so many wait already.
    pub(crate) fn enter(&self, max: usize) -> bool {
        let enters = self.waiting.fetch_add(1, Ordering::Relaxed) < max;
        if !enters {
            self.leave();
        }
        enters
    }

    fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// What is to happen when the fate of the record `seq` is known.
    fn on_fate(self: &Arc<Self>, seq: u64, mut commit: Span) -> OnFate {
        let gate = Arc::clone(self);
        Box::new(move |fate| {
            if let Err(failure) = fate {
                commit.fail(&format!("{failure:?}"));
            }
            drop(commit);
            gate.settle(seq, fate);
        })
    }

    fn settle(&self, seq: u64, fate: Result<(), Failure>) {
        let pending = {
            let mut inner = self.inner.lock();
            inner.broken |= fate.is_err();
            let place = inner.pending.iter().position(|pending| pending.seq == seq);
            place.and_then(|place| inner.pending.remove(place))
        };
        let Some(pending) = pending else { return };
        let failure = fate.err().map(|failure| match failure {
            Failure::NotLeader => Undelivered::NotLeader,
            Failure::Unknown => Undelivered::Unknown,
        });
        // Callers may have gone; what they asked for is done all the same.
        for caller in pending.callers {
            let _ = caller.send(match &failure {
                None => Ok(pending.reply.clone()),
                Some(failure) => Err(failure.clone()),
            });
        }
        for (reader, state) in pending.readers {
            let _ = reader.send(match &failure {
                None => Ok(state),
                Some(_) => Err(Undelivered::NotLeader),
            });
        }
    }
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
    /// The entity could not be brought back; whoever comes is told why.
    Stillborn {
        gate: Arc<Gate>,
        reason: String,
    },
}

/// Why an activation ends that is behind a broken gate.
const VOID: &str = "a record was refused; what was decided after it is void";

/// The live entity.
pub(crate) struct Alive {
    arguments: ActivationArguments,
    live: Box<dyn Live>,
    head: Head,
    /// Its own name in its records, and the number of the last record it was loaded with.
    activation: u64,
    base: u64,
    requests: KeptRequests,
    /// Its timers, as of the last decision.
    timers: BTreeMap<Arc<str>, Arc<TimerRow>>,
}

impl Actor for Activation {
    type Msg = ActivationMessage;
    type State = ActivationState;
    type Arguments = ActivationArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let recovered = Arc::clone(&arguments.replica).recover(arguments.key.clone()).await;
        Ok(match recovered {
            Ok((
                live,
                LoadedEntity {
                    head,
                    requests,
                    taken,
                    timers,
                    ..
                },
            )) => ActivationState::Alive(Box::new(Alive {
                arguments,
                live,
                head,
                activation: rand::random(),
                base: head.seq,
                requests: KeptRequests::new(&requests, taken),
                timers,
            })),
            Err(reason) => ActivationState::Stillborn {
                gate: arguments.gate,
                reason,
            },
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match state {
            ActivationState::Alive(alive) => {
                let handled = alive.handle(message);
                // Only now: one that waits for nothing may be sent away.
                alive.arguments.gate.leave();
                handled.map_err(ActorProcessingErr::from)
            }
            ActivationState::Stillborn { gate, reason } => {
                refuse(message, Undelivered::Failed(reason.clone()));
                gate.leave();
                // Ended, so that the next command tries again.
                Err(reason.clone().into())
            }
        }
    }
}

fn refuse(message: ActivationMessage, reason: Undelivered) {
    // Whoever asked may have gone.
    match message {
        ActivationMessage::Command(command) => drop(command.reply.send(Err(reason))),
        ActivationMessage::Fire(fire) => drop(fire.reply.send(Err(reason))),
        ActivationMessage::Read(reader) => drop(reader.send(Err(reason))),
    }
}

impl Alive {
    /// Takes a message. An error ends the activation; it is loaded anew when the next message comes.
    fn handle(&mut self, message: ActivationMessage) -> Result<(), String> {
        if self.arguments.gate.inner.lock().broken {
            refuse(message, Undelivered::NotLeader);
            return Err(VOID.to_owned());
        }
        match message {
            ActivationMessage::Read(reader) => self.read(reader),
            ActivationMessage::Command(command) => self.command(command),
            ActivationMessage::Fire(fire) => self.fire(fire),
        }
    }

    fn read(&mut self, reader: oneshot::Sender<Result<ReadState, Undelivered>>) -> Result<(), String> {
        let state = ReadState {
            head: self.head,
            state: self.live.snapshot(),
        };
        let mut gate = self.arguments.gate.inner.lock();
        // Looked at under the lock that settling takes: a gate that broke meanwhile is empty, and the state is void.
        if gate.broken {
            drop(reader.send(Err(Undelivered::NotLeader)));
            return Err(VOID.to_owned());
        }
        match gate.pending.back_mut() {
            Some(last) => last.readers.push((reader, state)),
            None => drop(reader.send(Ok(state))),
        }
        Ok(())
    }

    /// Takes a command. An error ends the activation; it is loaded anew when the next command comes.
    fn command(&mut self, message: CommandMessage) -> Result<(), String> {
        let hash = request_hash(&message.envelope.request);
        let Some(message) = self.answer_known(hash, message)? else {
            return Ok(());
        };
        if let Some(reason) = self.obstacle(&message) {
            drop(message.reply.send(Err(reason)));
            return Ok(());
        }
        let now_ms = self.arguments.replica.now_ms();
        self.decide(hash, message, now_ms, None)
    }

    /// Lets a timer fire. One that was cancelled, replaced or fired by what was decided before this is passed over: should
    /// that decision fail, the timer is tried again.
    fn fire(&mut self, message: FireMessage) -> Result<(), String> {
        let FireMessage { firing, trace, reply } = message;
        let Some(row) = self.timers.get(&firing.name).filter(|row| row.awaits(&firing)) else {
            drop(reply.send(Ok(Ok(Bytes::new()))));
            return Ok(());
        };
        let row = Arc::clone(row);
        let now_ms = self.arguments.replica.now_ms();
        let outcome = Outcome::Fired {
            due_ms: row.due_ms,
            missed: row.missed(now_ms),
        };
        let kind = self.arguments.replica.registry().get(&self.arguments.key.kind);
        let kind = kind.expect("the entity was brought back by its kind");
        let resumed = catch_unwind(AssertUnwindSafe(|| kind.resume(&row.token, outcome)));
        let command = match resumed {
            Ok(Ok(command)) => command,
            Ok(Err(error)) => {
                let reason = format!("the token of its timer {:?} cannot be read: {error}", firing.name);
                tracing::error!(entity = %self.arguments.key, reason, "a timer cannot fire");
                drop(reply.send(Err(Undelivered::Failed(reason))));
                return Ok(());
            }
            Err(panic) => {
                let reason = format!("it panicked over its timer {:?}: {}", firing.name, panic_text(&*panic));
                tracing::error!(entity = %self.arguments.key, reason, "a timer cannot fire");
                drop(reply.send(Err(Undelivered::Failed(reason))));
                return Ok(());
            }
        };
        let message = CommandMessage {
            command,
            // What a timer causes begins a chain of effects anew.
            envelope: Envelope::new(firing.request(), trace),
            acknowledges: None,
            reply,
        };
        let hash = request_hash(&message.envelope.request);
        self.decide(hash, message, now_ms, Some((firing, row)))
    }

    /// Decides a command and proposes the record of it.
    fn decide(
        &mut self,
        hash: u64,
        message: CommandMessage,
        now_ms: u64,
        fires: Option<(Firing, Arc<TimerRow>)>,
    ) -> Result<(), String> {
        let CommandMessage {
            command,
            envelope,
            acknowledges,
            reply,
        } = message;
        let context = Context {
            key: self.arguments.key.clone(),
            version: self.head.version,
            now_ms,
        };
        let spans = self.arguments.replica.spans();
        let span = spans
            .begin("decide", &envelope.trace)
            .with("entity", || self.arguments.key.to_string());
        let decided = catch_unwind(AssertUnwindSafe(|| self.live.decide(&command, &context)));
        drop(span);
        let decision = match decided {
            Ok(Ok(decision)) => decision,
            Ok(Err(error)) => {
                let reason = format!("{} does not understand the command: {error}", self.arguments.key);
                drop(reply.send(Err(Undelivered::Failed(reason))));
                return Ok(());
            }
            Err(panic) => {
                let reason = panic_text(&*panic);
                drop(reply.send(Err(Undelivered::Failed(format!("its code panicked: {reason}")))));
                // The state may be half evolved.
                self.arguments.gate.inner.lock().broken = true;
                return Err(format!("panicked: {reason}"));
            }
        };
        if let Err(refused) = self.admit_timers(&decision.effects) {
            let reason = format!("{refused:?}");
            drop(reply.send(Err(refused)));
            // The state has taken in the events of a decision that does not count.
            self.arguments.gate.inner.lock().broken = true;
            return Err(reason);
        }
        self.head = Head {
            seq: self.head.seq + 1,
            version: self.head.version + decision.events.len() as u64,
            activation: self.activation,
        };
        self.requests.insert(envelope.origin.as_deref(), hash, self.head.seq);
        let (fires, fired) = fires.unzip();
        let decided = Decided {
            entity: self.arguments.key.clone(),
            seq: self.head.seq,
            activation: self.activation,
            base: self.base,
            request: envelope.request.clone(),
            at_ms: now_ms,
            trace: envelope.trace,
            command,
            reply: decision.reply.clone(),
            events: decision.events,
            effects: decision
                .effects
                .into_iter()
                .map(|effect| StoredEffect {
                    request: effect.request,
                    token: effect.token,
                })
                .collect(),
            acknowledges: acknowledges.into_iter().collect(),
            fires,
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
            reply: decision.reply,
            callers: vec![reply],
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
        Ok(())
    }

    /// Whether the timers that a decision sets are within the limits of the entity and of its shard.
    fn admit_timers(&self, effects: &[RawEffect]) -> Result<(), Undelivered> {
        let requests = effects.iter().map(|effect| &effect.request);
        timer::check(requests, &self.timers).map_err(|error| Undelivered::Failed(error.to_string()))?;
        let is_new = |effect: &RawEffect| match &effect.request {
            EffectRequest::SetTimer { name, .. } => !self.timers.contains_key(name),
            _ => false,
        };
        if effects.iter().any(is_new) && self.arguments.replica.has_all_timers() {
            return Err(Undelivered::Overloaded(Limit::Timers));
        }
        Ok(())
    }

    /// Why a command that was not seen before is not to be decided, if there is a reason.
    fn obstacle(&mut self, message: &CommandMessage) -> Option<Undelivered> {
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

    /// Answers a request that was taken before with what it was answered then.
    fn answer_known(&mut self, hash: u64, message: CommandMessage) -> Result<Option<CommandMessage>, String> {
        let envelope = &message.envelope;
        let Some(seq) = self.requests.get(envelope.origin.as_deref(), hash) else {
            return Ok(Some(message));
        };
        let is_other = |known: u64| known != 0 && envelope.fingerprint != 0 && known != envelope.fingerprint;
        {
            let mut gate = self.arguments.gate.inner.lock();
            if gate.broken {
                drop(message.reply.send(Err(Undelivered::NotLeader)));
                return Err(VOID.to_owned());
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
                drop(message.reply.send(if is_other(record.fingerprint) {
                    Err(Undelivered::Reused)
                } else {
                    Ok(record.reply.clone())
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

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
