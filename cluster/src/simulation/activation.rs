//! What the leader does for its entities: a model of `entity::activation` and of `shard::replica`, without actors.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{clients::Ask, tally::TallyState, world::World};
use crate::{
    codec,
    config::NodeId,
    entity::{Context, EntityKey, RequestId, kind::Live},
    journal::{
        Decided, Firing, Record, Reply, StoredEffect, TimerKey, TimerRow,
        keys::{Head, request_hash},
        timers,
    },
    replication::{Failure, Input, Role},
    shard::schedule::Schedule,
    trace::TraceContext,
};

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The reply to a command.
    Reply(Reply),
    /// What was read: the count.
    Read(u64),
    NotLeader(Option<NodeId>),
    Unknown,
}

impl Delivered {
    /// The count that it tells of, where it is one.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Reply(Ok(bytes) | Err(bytes)) => codec::decode(bytes).ok(),
            Self::Read(count) => Some(*count),
            Self::NotLeader(_) | Self::Unknown => None,
        }
    }
}

/// A client's attempt.
pub(super) type Caller = (u64, u32);

/// Records of an entity that are on their way.
#[derive(Default)]
pub(super) struct Gate {
    pending: VecDeque<Pending>,
    broken: bool,
}

struct Pending {
    key: EntityKey,
    seq: u64,
    request: RequestId,
    reply: Reply,
    callers: Vec<Caller>,
    readers: Vec<(Caller, u64)>,
    /// The timer that it fires, and where.
    firing: Option<(TimerKey, Firing, u32, u64)>,
}

/// A command to decide.
pub(super) struct Work {
    pub(super) request: RequestId,
    pub(super) command: Bytes,
    pub(super) caller: Option<Caller>,
    /// The timer that the leader fires with it.
    pub(super) firing: Option<(TimerKey, Firing)>,
    /// What the record says that it fires.
    pub(super) fires: Option<(Firing, Arc<TimerRow>)>,
}

/// What a node does for a group while it leads it.
pub(super) struct Leadership {
    pub(super) term: u64,
    /// When it began, by the node's clock.
    pub(super) began: u64,
    pub(super) schedule: Schedule,
    activations: BTreeMap<EntityKey, Activation>,
}

/// A live entity.
pub(super) struct Activation {
    gate: u64,
    name: u64,
    base: u64,
    live: Box<dyn Live>,
    head: Head,
    requests: BTreeMap<u64, u64>,
    pub(super) timers: BTreeMap<Arc<str>, Arc<TimerRow>>,
}

impl World {
    pub(super) fn set_role(&mut self, node: NodeId, role: Role) {
        let immortal = self.flaws.immortal_activations;
        let replica = self.replica(node, role.group);
        replica.leader = role.leader;
        let ends = |leadership: &Leadership| !role.serving || leadership.term != role.term;
        if immortal {
            if let Some(leadership) = &mut replica.leadership {
                leadership.term = role.term;
            }
        } else if replica.leadership.as_ref().is_some_and(ends) {
            replica.leadership = None;
        }
        if role.serving && replica.leadership.is_none() {
            let (began, schedule) = (self.clock(node), self.schedule(node, role.group));
            self.replica(node, role.group).leadership = Some(Leadership {
                term: role.term,
                began,
                schedule,
                activations: BTreeMap::new(),
            });
            self.count("leaderships", 1);
        }
    }

    /// Gives a command to its entity.
    pub(super) fn command(&mut self, node: NodeId, caller: Caller, key: &EntityKey, group: u32, ask: &Ask) {
        let (no_deduplication, early) = (self.flaws.no_deduplication, self.flaws.answer_before_commit);
        let request = ask.request();
        let Some((term, it)) = self.activation(node, group, key) else {
            return self.not_leader(node, group, caller);
        };
        let hash = request_hash(&request);
        let known = it.requests.get(&hash).copied().filter(|_| !no_deduplication);
        let run = self.node(node).running();
        if let Some(seq) = known {
            let gate = run.gates.get_mut(&it.gate).expect("gates are kept");
            let pending = gate.pending.iter_mut().find(|pending| pending.seq == seq);
            if let Some(pending) = pending.filter(|pending| pending.request == request) {
                pending.callers.push(caller);
                return self.put_back(node, group, key, it);
            }
            let record = self.replica(node, group).shard.record_of(key, seq, &request);
            if let Some(record) = record.expect("the rows can be read") {
                self.put_back(node, group, key, it);
                self.count("answered again", 1);
                return self.answer(node, caller, Delivered::Reply(record.reply.clone()));
            }
        }
        let work = Work {
            request,
            command: ask.command(),
            caller: Some(caller).filter(|_| !early),
            firing: None,
            fires: None,
        };
        let reply = self.decide(node, group, term, key, it, work);
        if early {
            self.answer(node, caller, Delivered::Reply(reply));
        }
    }

    /// Decides a command and proposes the record of it; gives the reply.
    pub(super) fn decide(
        &mut self,
        node: NodeId,
        group: u32,
        term: u64,
        key: &EntityKey,
        mut it: Activation,
        work: Work,
    ) -> Reply {
        let now_ms = self.clock(node);
        let Work {
            request,
            command,
            caller,
            firing,
            fires,
        } = work;
        let context = Context {
            key: key.clone(),
            version: it.head.version,
            now_ms,
        };
        let decision = it.live.decide(&command, &context).expect("the command can be read");
        it.head = Head {
            seq: it.head.seq + 1,
            version: it.head.version + decision.events.len() as u64,
            activation: it.name,
        };
        it.requests.insert(request_hash(&request), it.head.seq);
        let (fires, fired) = fires.unzip();
        let decided = Decided {
            entity: key.clone(),
            seq: it.head.seq,
            activation: it.name,
            base: it.base,
            request: request.clone(),
            at_ms: now_ms,
            trace: TraceContext::default(),
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
            lift: None,
            acknowledges: Vec::new(),
            fires,
            fingerprint: 0,
            chain: None,
            origin: None,
            asked_by: None,
            keeps_effects: false,
        };
        for (name, row) in timers::changes(&decided, fired.as_deref()) {
            match row {
                Some(row) => drop(it.timers.insert(name, row)),
                None => drop(it.timers.remove(&name)),
            }
        }
        let record = Record::Decided(decided);
        let run = self.node(node).running();
        run.gates
            .get_mut(&it.gate)
            .expect("gates are kept")
            .pending
            .push_back(Pending {
                key: key.clone(),
                seq: it.head.seq,
                request,
                reply: decision.reply.clone(),
                callers: caller.into_iter().collect(),
                readers: Vec::new(),
                firing: firing.map(|(key, firing)| (key, firing, group, term)),
            });
        let waits = Some((it.gate, it.head.seq));
        self.put_back(node, group, key, it);
        self.propose(node, group, term, record.encode(), waits);
        decision.reply
    }

    fn propose(&mut self, node: NodeId, group: u32, term: u64, record: Bytes, waits: Option<(u64, u64)>) {
        let run = self.node(node).running();
        let ticket = run.number();
        run.waiting.insert(ticket, waits);
        let input = Input::Propose {
            group,
            term,
            record,
            ticket,
        };
        self.arrives(node, input);
    }

    /// Acknowledges the oldest open effect, as the outbox of a leader would.
    pub(super) fn acknowledge(&mut self, node: NodeId, group: u32) {
        let replica = self.replica(node, group);
        let Some(term) = replica.leadership.as_ref().map(|leadership| leadership.term) else {
            return;
        };
        if let Some(id) = replica.shard.outbox().keys().next().cloned() {
            let record = Record::Acknowledged(vec![id]).encode();
            self.propose(node, group, term, record, None);
        }
    }

    /// Begins a read: first the driver must say that this node leads and has everything.
    pub(super) fn read(&mut self, node: NodeId, caller: Caller, key: &EntityKey, group: u32) {
        if self.flaws.follower_reads {
            let version = self
                .replica(node, group)
                .shard
                .head(key)
                .expect("the rows can be read")
                .version;
            return self.answer(node, caller, Delivered::Read(version));
        }
        let run = self.node(node).running();
        let ticket = run.number();
        run.reading.insert(ticket, (caller.0, caller.1, key.clone()));
        if self.flaws.unconfirmed_reads {
            return self.confirmed(node, ticket, true);
        }
        self.arrives(node, Input::Read { group, ticket });
    }

    pub(super) fn confirmed(&mut self, node: NodeId, ticket: u64, may_read: bool) {
        if self.caught_up(node, ticket, may_read) {
            return;
        }
        let Some((op, attempt, key)) = self.node(node).running().reading.remove(&ticket) else {
            return self.violated("fates", format!("node {node} answers the read {ticket} twice"));
        };
        let (caller, group) = ((op, attempt), self.clients.group_of(&key));
        let ungated = self.flaws.ungated_reads;
        let it = if may_read {
            self.activation(node, group, &key)
        } else {
            None
        };
        let Some((_, it)) = it else {
            return self.not_leader(node, group, caller);
        };
        let state: TallyState = codec::decode(&it.live.snapshot()).expect("it was encoded just now");
        let gate = self
            .node(node)
            .running()
            .gates
            .get_mut(&it.gate)
            .expect("gates are kept");
        let waits = gate
            .pending
            .back_mut()
            .filter(|_| !ungated)
            .map(|last| last.readers.push((caller, state.count)));
        self.put_back(node, group, &key, it);
        if waits.is_none() {
            self.answer(node, caller, Delivered::Read(state.count));
        }
    }

    /// Takes the entity's activation out of its leadership, or loads it anew.
    pub(super) fn activation(&mut self, node: NodeId, group: u32, key: &EntityKey) -> Option<(u64, Activation)> {
        let leaves = self.rng.chance(20);
        let registry = self.registry.clone();
        let life = self.nodes[&node].life;
        let run = self.node(node).running();
        let replica = run.replicas.get_mut(&group)?;
        let leadership = replica.leadership.as_mut()?;
        if let Some(it) = leadership.activations.remove(key) {
            let gate = &run.gates[&it.gate];
            if gate.broken {
                // It refuses this message and ends; the next one finds a new one.
                return None;
            }
            if !leaves || !gate.pending.is_empty() {
                return Some((leadership.term, it));
            }
        }
        let term = leadership.term;
        let loaded = replica.shard.load(key).expect("the rows can be read");
        let kind = registry.get(&key.kind).expect("there is one kind");
        let mut live = kind.load(loaded.snapshot.as_deref()).expect("the snapshot can be read");
        for event in &loaded.events {
            live.evolve(event).expect("events can be read");
        }
        let gate = run.number();
        run.gates.insert(gate, Gate::default());
        let activation = Activation {
            gate,
            // Unique without drawing from the seed, so that what a seed does stays the same.
            name: u64::from(node) << 56 | life << 32 | gate,
            base: loaded.head.seq,
            live,
            head: loaded.head,
            timers: loaded.timers,
            requests: loaded
                .requests
                .iter()
                .map(|request| (request.hash, request.seq))
                .collect(),
        };
        Some((term, activation))
    }

    pub(super) fn put_back(&mut self, node: NodeId, group: u32, key: &EntityKey, it: Activation) {
        if let Some(leadership) = &mut self.replica(node, group).leadership {
            leadership.activations.insert(key.clone(), it);
        }
    }

    /// The fate of a proposal is known.
    pub(super) fn resolve(&mut self, node: NodeId, ticket: u64, fate: Result<(), Failure>) {
        let run = self.node(node).running();
        let Some(waits) = run.waiting.remove(&ticket) else {
            return self.violated("fates", format!("node {node} hears twice of the proposal {ticket}"));
        };
        let Some((gate, seq)) = waits else { return };
        let gate = run.gates.get_mut(&gate).expect("gates are kept");
        gate.broken |= fate.is_err();
        let place = gate.pending.iter().position(|pending| pending.seq == seq);
        let Some(pending) = place.and_then(|place| gate.pending.remove(place)) else {
            return;
        };
        if let Some((key, firing, group, term)) = &pending.firing {
            self.firing_ended(node, *group, Some(*term), key, firing);
        }
        if let (Ok(()), Some(count)) = (fate, Delivered::Reply(pending.reply.clone()).count()) {
            let group = self.clients.group_of(&pending.key);
            let index = self.replica(node, group).shard.meta().applied.0;
            if let Some(glances) = &mut self.glances {
                glances.token(&pending.key, index, count);
            }
        }
        for caller in pending.callers {
            let answer = match fate {
                Ok(()) => Delivered::Reply(pending.reply.clone()),
                Err(Failure::NotLeader) => Delivered::NotLeader(None),
                Err(Failure::Unknown) => Delivered::Unknown,
            };
            self.answer(node, caller, answer);
        }
        for (caller, count) in pending.readers {
            let answer = match fate {
                Ok(()) => Delivered::Read(count),
                Err(_) => Delivered::NotLeader(None),
            };
            self.answer(node, caller, answer);
        }
    }

    fn not_leader(&mut self, node: NodeId, group: u32, caller: Caller) {
        let leader = self.replica(node, group).leader.filter(|leader| *leader != node);
        self.answer(node, caller, Delivered::NotLeader(leader));
    }
}
