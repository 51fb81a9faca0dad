//! One shard on this node: its state, and, while this node leads it, its live entities.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use ractor::{ActorId, ActorRef, ActorRuntime};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    freshness::Freshness,
    live::LiveEntities,
    mailbox::{Event, Mailbox},
    outbox,
    population::Population,
    restart::Watched,
    supervisor::{Supervisor, SupervisorArguments, SupervisorMessage},
    timers,
    timings::CommitTimes,
};
use crate::{
    admission::Limit,
    clock::Clock,
    config::{Limits, NodeId},
    engine::Engine,
    entity::{
        EntityKey, Registry, RequestId,
        activation::{
            Activation, ActivationArguments, ActivationHandle, ActivationMessage, Answered, CommandMessage, Undelivered,
        },
        envelope::Envelope,
        gate::Gate,
        kind::Live,
    },
    feed::FeedSource,
    journal::{Decided, EffectId, LoadedEntity, Record, Reply, Shard},
    metrics::{Meters, shard::ShardMeter},
    replication::{Members, Role},
    schema::fleet::Fleet,
    spans::Spans,
    store::{StoreError, state::StateDb},
    supervision::{breaker::Pass, contain::Fault, failures::Failures},
    token::VersionToken,
};

/// A shard takes no more commands once its tail is so many times as large as what makes a checkpoint due.
const TAIL_OVER_LIMIT_MAX: usize = 8;
/// In front of an entity whose mailbox is full of clients' commands there is still room for effects, and more for outcomes: they
/// end what is under way. In quarters of `mailbox_len_max`.
pub(super) const MAILBOX_QUARTERS: usize = 4;
pub(super) const MAILBOX_QUARTERS_EFFECTS: usize = 5;
const MAILBOX_QUARTERS_OUTCOMES: usize = 6;

/// Who leads a shard, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Route {
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: u64,
}

/// What all replicas of a node share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: NodeId,
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) db: Arc<StateDb>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spans: Spans,
    pub(crate) live: Arc<LiveEntities>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) meters: Meters,
}

/// One shard on this node.
pub(crate) struct Replica {
    pub(super) shard: u32,
    pub(super) surroundings: Surroundings,
    engine: OnceLock<Weak<Engine>>,
    state: Mutex<Shard>,
    /// Bytes of the tail, as of the last applied entry.
    tail_bytes: AtomicUsize,
    /// The number of timers, as of the last applied entry that changed it.
    timers: AtomicUsize,
    /// Open effects, as of the last applied entry.
    outbox_len: AtomicUsize,
    /// Live entities that it has room for.
    room: AtomicUsize,
    /// The position of the last applied entry, and the journal's mark.
    pub(super) applied: AtomicU64,
    pub(super) mark: AtomicU64,
    pub(super) freshness: Freshness,
    pub(crate) feed: FeedSource,
    pub(super) leadership: Mutex<Option<Leadership>>,
    pub(super) watchers: Mutex<HashMap<EntityKey, Vec<oneshot::Sender<()>>>>,
    route: watch::Sender<Route>,
    commit_times: CommitTimes,
    meter: ShardMeter,
}

/// What this node does for a shard while it leads it.
pub(super) struct Leadership {
    pub(super) term: u64,
    supervisor: ActorRef<SupervisorMessage>,
    pub(super) population: Population,
    /// Entities that have failed in this term.
    pub(super) failures: Failures,
    /// Effects that have been tried in vain: how often, and why.
    pub(super) waiting_effects: HashMap<EffectId, (u32, String)>,
    effects: mpsc::UnboundedSender<EffectId>,
    outbox: tokio::task::JoinHandle<()>,
    timers: mpsc::UnboundedSender<timers::Changes>,
    timer_task: tokio::task::JoinHandle<()>,
}

impl Replica {
    pub(crate) fn new(shard: u32, state: Shard, surroundings: Surroundings, route: watch::Sender<Route>) -> Self {
        let timers = AtomicUsize::new(state.timers().len());
        Self {
            shard,
            timers,
            engine: OnceLock::new(),
            outbox_len: AtomicUsize::new(state.outbox().len()),
            applied: AtomicU64::new(state.meta().applied.0),
            mark: AtomicU64::new(state.meta().mark),
            freshness: Freshness::default(),
            feed: FeedSource::default(),
            state: Mutex::new(state),
            tail_bytes: AtomicUsize::new(0),
            // Until the node has divided its room anew.
            room: AtomicUsize::new(surroundings.live.max),
            surroundings,
            leadership: Mutex::new(None),
            watchers: Mutex::default(),
            route,
            commit_times: CommitTimes::default(),
            meter: ShardMeter::default(),
        }
    }

    /// Says where effects are carried out; before the first leadership.
    pub(crate) fn set_engine(&self, engine: Weak<Engine>) {
        assert!(self.engine.set(engine).is_ok(), "a replica belongs to one engine");
    }

    pub(crate) fn node(&self) -> NodeId {
        self.surroundings.node
    }

    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    /// Records of one entity that may be on their way.
    pub(crate) fn gate_records_max(&self) -> usize {
        self.surroundings.limits.gate_records_max
    }

    /// How long commits of this node's own proposals take.
    pub(crate) fn commit_times(&self) -> &CommitTimes {
        &self.commit_times
    }

    /// What is counted of this replica.
    pub(crate) fn meter(&self) -> &ShardMeter {
        &self.meter
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.surroundings.meters
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.surroundings.mailbox
    }

    pub(crate) fn spans(&self) -> &Spans {
        &self.surroundings.spans
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.surroundings.limits
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.surroundings.clock.now_ms()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.surroundings.registry
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.surroundings.clock
    }

    pub(super) fn leadership(&self) -> MutexGuard<'_, Option<Leadership>> {
        self.leadership.lock()
    }

    /// What all shards of the node share about live entities.
    pub(super) fn live(&self) -> &LiveEntities {
        &self.surroundings.live
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Shard> {
        self.state.lock()
    }

    // What the driver's thread does.

    /// Applies a committed entry; says for each record whether it was taken.
    pub(crate) fn apply(
        &self,
        index: u64,
        term: u64,
        data: Bytes,
        members: Option<Members>,
    ) -> Result<Vec<bool>, StoreError> {
        let applied = {
            let mut state = self.state.lock();
            let applied = state.apply(index, term, data, members)?;
            self.tail_bytes.store(state.tail_bytes(), Ordering::Relaxed);
            if !applied.timers.is_empty() {
                self.timers.store(state.timers().len(), Ordering::Relaxed);
            }
            self.outbox_len.store(state.outbox().len(), Ordering::Relaxed);
            self.reached(&state);
            applied
        };
        self.meter.applied(index, term);
        self.freshness.applied(index);
        if !applied.changed.is_empty() {
            self.feed.applied(index);
            let mut watchers = self.watchers.lock();
            if !watchers.is_empty() {
                for watcher in applied.changed.iter().filter_map(|key| watchers.remove(key)).flatten() {
                    // Whoever waited may have gone.
                    let _ = watcher.send(());
                }
            }
        }
        if let Some(leadership) = &mut *self.leadership.lock() {
            // What is live of a forgotten entity must answer nobody any more.
            for handle in applied
                .forgotten
                .iter()
                .filter_map(|key| leadership.population.remove(key))
            {
                handle.actor.stop(Some("forgotten".to_owned()));
            }
            for effect in applied.effects {
                // The receiver ends only with the leadership; its successor finds the effect in the outbox.
                let _ = leadership.effects.send(effect);
            }
            if !applied.timers.is_empty() {
                // Likewise: its successor finds the timers in the state.
                let _ = leadership.timers.send(applied.timers);
            }
        }
        Ok(applied.taken)
    }

    /// Goes on from a fetched snapshot.
    pub(crate) fn install(&self, generation: u64) -> Result<(), StoreError> {
        let store = self.surroundings.db.shard(self.shard, generation)?;
        let state = Shard::open(store)?;
        self.meter.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        self.timers.store(state.timers().len(), Ordering::Relaxed);
        self.outbox_len.store(state.outbox().len(), Ordering::Relaxed);
        let applied = state.meta().applied.0;
        {
            let mut guard = self.state.lock();
            *guard = state;
            self.reached(&guard);
        }
        self.freshness.applied(applied);
        self.feed.applied(applied);
        Ok(())
    }

    /// Takes note of who leads, and begins or ends this node's own leadership.
    pub(crate) fn set_role(self: &Arc<Self>, role: Role) {
        {
            let mut leadership = self.leadership.lock();
            if leadership
                .as_ref()
                .is_some_and(|leadership| !role.serving || leadership.term != role.term)
            {
                end(&mut leadership);
            }
            if role.serving && leadership.is_none() {
                *leadership = Some(self.begin_leadership(role.term));
            }
        }
        self.route.send_if_modified(|route| {
            let next = Route {
                leader: role.leader,
                term: role.term,
            };
            std::mem::replace(route, next) != next
        });
    }

    /// Ends this node's leadership for good; when the node stops.
    pub(crate) fn close(&self) {
        end(&mut self.leadership.lock());
    }

    fn begin_leadership(self: &Arc<Self>, term: u64) -> Leadership {
        let arguments = SupervisorArguments {
            replica: Arc::downgrade(self),
            idle: Duration::from_millis(self.surroundings.limits.idle_ms),
        };
        self.meter.elections_won.fetch_add(1, Ordering::Relaxed);
        let (supervisor, _) = ActorRuntime::spawn_instant(None, Supervisor, arguments)
            .expect("actors without a name can always be spawned");
        if self.mark() == 0 {
            // Before anything else that this leader proposes, so that every answer's token carries it.
            let mark = rand::random::<u64>().max(1);
            self.surroundings.mailbox.send(Event::Propose {
                group: self.shard,
                term,
                record: Record::Marked(mark).encode(),
                // Should it be lost, the next leader draws another one.
                on_fate: Box::new(drop),
            });
        }
        let (effects, queue) = mpsc::unbounded_channel();
        for effect in self.state.lock().outbox().keys() {
            // The receiver stands right below.
            let _ = effects.send(effect.clone());
        }
        let engine = self.engine.get().expect("set before the driver runs").clone();
        let outbox = tokio::spawn(outbox::run(engine, Arc::clone(self), term, effects.clone(), queue));
        let (timers, changes) = mpsc::unbounded_channel();
        let timer_task = tokio::spawn(timers::run(Arc::clone(self), changes));
        Leadership {
            term,
            supervisor,
            population: Population::new(self.room.load(Ordering::Relaxed), self.surroundings.live.max),
            failures: Failures::default(),
            waiting_effects: HashMap::new(),
            effects,
            outbox,
            timers,
            timer_task,
        }
    }

    // What commands and reads do.

    /// Gives a command to its entity; resolves when the output gate lets the answer through.
    pub(crate) async fn command(
        self: &Arc<Self>,
        key: &EntityKey,
        command: Bytes,
        envelope: Envelope,
        acknowledges: Option<EffectId>,
    ) -> Result<(Reply, VersionToken), Undelivered> {
        // Outcomes are let in all the same, and effects while there is memory: they end what is under way.
        let is_effect = envelope.origin.is_some();
        if acknowledges.is_none() && self.is_behind() {
            return Err(Undelivered::Overloaded(Limit::Tail));
        }
        if acknowledges.is_none()
            && !is_effect
            && self.outbox_len.load(Ordering::Relaxed) >= self.limits().outbox_len_max
        {
            return Err(Undelivered::Overloaded(Limit::Outbox));
        }
        let quarters = match (&acknowledges, is_effect) {
            (Some(_), _) => MAILBOX_QUARTERS_OUTCOMES,
            (None, true) => MAILBOX_QUARTERS_EFFECTS,
            (None, false) => MAILBOX_QUARTERS,
        };
        let (reply, answer) = oneshot::channel();
        let message = CommandMessage {
            command,
            envelope,
            acknowledges,
            reply,
            sent: Instant::now(),
        };
        let pass = self.deliver(key, ActivationMessage::Command(message), quarters)?;
        let watched = pass.map(|pass| Watched::new(self, key, pass));
        // The sender is dropped only with an activation whose leadership has ended.
        let delivered = answer.await.unwrap_or(Err(Undelivered::Unknown));
        if let (Some(watched), Ok(_)) = (watched, &delivered) {
            watched.succeeded();
        }
        let Answered { reply, index } = delivered?;
        Ok((reply, self.token_of(index)))
    }

    /// Whether checkpoints have fallen so far behind that memory would grow without a bound.
    pub(super) fn is_behind(&self) -> bool {
        let max = self.surroundings.limits.tail_bytes_max * TAIL_OVER_LIMIT_MAX;
        self.tail_bytes.load(Ordering::Relaxed) > max && self.state.lock().tail_bytes() > max
    }

    /// Sends to an entity, unless so many quarters of the mailbox's limit wait for it already. Where the entity has failed
    /// before, it says how the message was let in.
    pub(super) fn deliver(
        self: &Arc<Self>,
        key: &EntityKey,
        message: ActivationMessage,
        quarters: usize,
    ) -> Result<Option<Pass>, Undelivered> {
        let Surroundings { limits, registry, .. } = &self.surroundings;
        let max = limits.mailbox_len_max.min(registry.policy(&key.kind).in_flight_max) * quarters / MAILBOX_QUARTERS;
        let mut guard = self.leadership.lock();
        let leadership = guard.as_mut().ok_or(Undelivered::NotLeader)?;
        let now_ms = self.surroundings.clock.now_ms();
        let pass = match &message {
            _ if leadership.failures.is_empty() => None,
            ActivationMessage::Command(_) | ActivationMessage::Fire(_) => leadership.failures.admit(key, now_ms)?,
            ActivationMessage::Read(_) => leadership.failures.admit_read(key, now_ms).map(|()| None)?,
            ActivationMessage::Release(_) => None,
        };
        if let Some(handle) = leadership.population.touch(key, now_ms) {
            let refused = if !handle.gate.enter(max.max(1)) {
                Some(Undelivered::Overloaded(Limit::Mailbox))
            } else if handle.actor.send_message(message).is_err() {
                // It has just ended; the caller comes again and finds a new one.
                leadership.population.remove(key);
                Some(Undelivered::NotLeader)
            } else {
                None
            };
            return match refused {
                None => Ok(pass),
                Some(refused) => {
                    release(&mut leadership.failures, key, pass);
                    Err(refused)
                }
            };
        }
        let handle = self.activate(leadership, key);
        // One that has something to do is not the one that leaves to make room for it.
        handle.gate.enter(usize::MAX);
        if handle.actor.send_message(message).is_err() {
            release(&mut leadership.failures, key, pass);
            return Err(Undelivered::NotLeader);
        }
        leadership.population.insert(key, handle, now_ms);
        leadership.population.make_room(&self.surroundings.live);
        Ok(pass)
    }

    fn activate(self: &Arc<Self>, leadership: &Leadership, key: &EntityKey) -> ActivationHandle {
        self.surroundings.live.activated.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::new(Gate::default());
        let arguments = ActivationArguments {
            key: key.clone(),
            replica: Arc::clone(self),
            term: leadership.term,
            gate: Arc::clone(&gate),
        };
        let supervisor = leadership.supervisor.get_cell();
        let (actor, _) = ActorRuntime::spawn_linked_instant(None, Activation, arguments, supervisor)
            .expect("actors without a name can always be spawned");
        ActivationHandle { actor, gate }
    }

    // What activations and their supervisor do.

    /// Whether the shard has as many timers as it may have.
    pub(crate) fn has_all_timers(&self) -> bool {
        self.timers.load(Ordering::Relaxed) >= self.surroundings.limits.timers_per_shard_max
    }

    /// An entity as it is in the journal: its live form and what it was made from. So many at once as the node allows, and
    /// never on a thread that others wait for.
    pub(crate) async fn recover(
        self: Arc<Self>,
        key: EntityKey,
    ) -> Result<(LoadedEntity, Result<Box<dyn Live>, Fault>), String> {
        let (replica, id) = (Arc::clone(&self), key.clone());
        let _permit = self.surroundings.live.begin_recovery().await;
        let loading = replica.state().begin_load(&key);
        let is_in_memory = loading.is_in_memory();
        let finish = move || {
            let loaded = loading.finish().map_err(|error| {
                replica.note_damage(&error);
                error.to_string()
            })?;
            let live = replica.revive(&key, &loaded);
            Ok((loaded, live))
        };
        let finished = if is_in_memory {
            finish()
        } else {
            let reading = tokio::task::spawn_blocking(finish).await;
            reading.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
        };
        finished.map(|(mut loaded, live)| {
            let state = self.state.lock();
            loaded.timers = state.timers_of(&id);
            loaded.poison = state.poison_of(&id);
            (loaded, live)
        })
    }

    /// What is needed to bring an entity to life.
    pub(crate) fn load(&self, key: &EntityKey) -> Result<LoadedEntity, StoreError> {
        let loading = self.state.lock().begin_load(key);
        loading.finish().inspect_err(|error| self.note_damage(error))
    }

    /// If it is damage: others should lead.
    fn note_damage(&self, error: &StoreError) {
        if error.is_damage() {
            tracing::error!(shard = self.shard, %error, "this node's state is damaged");
            self.mailbox().found_damage(error);
        }
    }

    /// The record that answered a request.
    pub(crate) fn record_of(
        &self,
        key: &EntityKey,
        seq: u64,
        request: &RequestId,
    ) -> Result<Option<Arc<Decided>>, StoreError> {
        self.state.lock().record_of(key, seq, request)
    }

    /// Sends away activations that nothing has reached for a while.
    pub(crate) fn passivate_idle(&self, idle: Duration) {
        loop {
            let now_ms = self.surroundings.clock.now_ms();
            let before_ms = now_ms.saturating_sub(idle.as_millis() as u64);
            let mut guard = self.leadership.lock();
            let Some(leadership) = guard.as_mut() else { return };
            if !leadership.population.sweep(before_ms, now_ms, &self.surroundings.live) {
                return;
            }
        }
    }

    /// How many entities this shard would have live if it could; none while another node leads it.
    pub(crate) fn room_wanted(&self) -> Option<usize> {
        self.leadership
            .lock()
            .as_mut()
            .map(|leadership| leadership.population.wanted())
    }

    /// Has room for so many live entities from now on.
    pub(crate) fn set_room(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
        if let Some(leadership) = self.leadership.lock().as_mut() {
            leadership.population.set_room(room, &self.surroundings.live);
        }
    }

    /// An activation has ended; says which, if it was not sent away.
    pub(crate) fn forget_activation(&self, actor: ActorId) -> Option<EntityKey> {
        self.leadership.lock().as_mut()?.population.ended(actor)
    }

    /// The number of live entities.
    pub(crate) fn activations(&self) -> usize {
        self.leadership
            .lock()
            .as_ref()
            .map_or(0, |leadership| leadership.population.len())
    }
}

/// Frees what was let in for a message that could not be handed on.
fn release(failures: &mut Failures, key: &EntityKey, pass: Option<Pass>) {
    if let Some(pass) = pass {
        failures.released(key, pass);
    }
}

fn end(leadership: &mut Option<Leadership>) {
    if let Some(ended) = leadership.take() {
        ended.supervisor.stop(Some("leadership has ended".to_owned()));
        ended.outbox.abort();
        ended.timer_task.abort();
    }
}
