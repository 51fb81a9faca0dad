//! What the leader does for its entities: a model of `entity::activation` and of `shard::replica`, without actors.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{tally::TallyState, world::World};
use crate::{
    codec,
    config::NodeId,
    entity::{
        EntityKey, RequestId,
        decider::{Decider, Taken, revive},
        envelope::Envelope,
    },
    journal::{EffectId, Firing, Record, Reply, TimerKey, TimerRow},
    replication::{Failure, Input, Role},
    shard::schedule::Schedule,
};

/// What whoever asked hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The reply to a command.
    Reply(Reply),
    /// What was read: the count.
    Read(u64),
    NotLeader(Option<NodeId>),
    Unknown,
    /// Not taken, for this reason: try again.
    Refused(&'static str),
}

impl Delivered {
    /// The count that it tells of, where it is one.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Reply(Ok(bytes) | Err(bytes)) => codec::decode(bytes).ok(),
            Self::Read(count) => Some(*count),
            Self::NotLeader(_) | Self::Unknown | Self::Refused(_) => None,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A client, with an attempt of an operation.
    Client { op: u64, attempt: u32 },
    /// A node in one of its lives, which carries an effect out under this number.
    Outbox { node: NodeId, life: u64, number: u64 },
}

/// Who waits for the fate of a proposal.
pub(super) enum Waits {
    Nobody,
    /// A gate, for this record.
    Gate(u64, u64),
    /// The outbox of a leader, in this group and term, for the acknowledgement of an effect.
    Outbox(u32, u64, EffectId),
}

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
    pub(super) envelope: Envelope,
    pub(super) command: Bytes,
    pub(super) caller: Option<Caller>,
    /// The effect whose outcome it is.
    pub(super) acknowledges: Option<EffectId>,
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
    pub(super) decider: Decider,
}

/// A command on its way to an entity.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) key: EntityKey,
    pub(super) group: u32,
    pub(super) envelope: Envelope,
    pub(super) command: Bytes,
    pub(super) acknowledges: Option<EffectId>,
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
            self.outbox_begins(node, &role);
        }
    }

    /// Gives a command to its entity.
    pub(super) fn command(&mut self, node: NodeId, caller: Caller, message: Message) {
        let (no_deduplication, early) = (self.flaws.no_deduplication, self.flaws.answer_before_commit);
        let Message { key, group, .. } = &message;
        let (key, group) = (key.clone(), *group);
        let Some((term, mut it)) = self.activation(node, group, &key) else {
            return self.not_leader(node, group, caller);
        };
        let request = &message.envelope.request;
        let known = it.decider.known(&message.envelope).filter(|_| !no_deduplication);
        let run = self.node(node).running();
        if let Some(seq) = known {
            let gate = run.gates.get_mut(&it.gate).expect("gates are kept");
            let pending = gate.pending.iter_mut().find(|pending| pending.seq == seq);
            if let Some(pending) = pending.filter(|pending| pending.request == *request) {
                pending.callers.push(caller);
                return self.put_back(node, group, &key, it);
            }
            let record = self.replica(node, group).shard.record_of(&key, seq, request);
            let Some(record) = self.sound(node, record) else {
                self.put_back(node, group, &key, it);
                return self.answer(node, caller, Delivered::Refused("damaged"));
            };
            if let Some(record) = record {
                self.put_back(node, group, &key, it);
                self.count("answered again", 1);
                return self.answer(node, caller, Delivered::Reply(record.reply.clone()));
            }
        }
        if let Some(reason) = self.obstacle(node, &message, &mut it) {
            self.put_back(node, group, &key, it);
            return self.answer(node, caller, Delivered::Refused(reason));
        }
        let work = Work {
            envelope: message.envelope,
            command: message.command,
            caller: Some(caller).filter(|_| !early),
            acknowledges: message.acknowledges,
            firing: None,
            fires: None,
        };
        let reply = self.decide(node, group, term, &key, it, work);
        if let (true, Some(reply)) = (early, reply) {
            self.answer(node, caller, Delivered::Reply(reply));
        }
    }

    /// Why a command that was not seen before is not to be decided, if there is a reason.
    fn obstacle(&mut self, node: NodeId, message: &Message, it: &mut Activation) -> Option<&'static str> {
        if let Some(effect) = &message.acknowledges {
            let is_open = self.replica(node, message.group).shard.outbox().contains_key(effect);
            return (!is_open).then_some("acknowledged already");
        }
        let untaken = it.decider.untaken(&message.envelope, usize::MAX);
        untaken.map(|_| "an echo of what was acknowledged before")
    }

    /// Decides a command and proposes the record of it; gives the reply. `None` where the entity's own code fails.
    pub(super) fn decide(
        &mut self,
        node: NodeId,
        group: u32,
        term: u64,
        key: &EntityKey,
        mut it: Activation,
        work: Work,
    ) -> Option<Reply> {
        let now_ms = self.clock(node);
        let decision = match it.decider.decide(&work.command, now_ms) {
            Ok(decision) => decision,
            Err(fault) => {
                let what = format!("{key}, at the request {}: {}", work.envelope.request, fault.reason);
                self.violated("panics", what);
                return None;
            }
        };
        let decided = it.decider.record(Taken {
            decision,
            now_ms,
            envelope: work.envelope,
            command: work.command,
            acknowledges: work.acknowledges,
            fires: work.fires,
            lift: None,
        });
        let (seq, reply) = (decided.seq, decided.reply.clone());
        let run = self.node(node).running();
        let gate = run.gates.get_mut(&it.gate).expect("gates are kept");
        gate.pending.push_back(Pending {
            key: key.clone(),
            seq,
            request: decided.request.clone(),
            reply: reply.clone(),
            callers: work.caller.into_iter().collect(),
            readers: Vec::new(),
            firing: work.firing.map(|(key, firing)| (key, firing, group, term)),
        });
        let waits = Waits::Gate(it.gate, seq);
        let is_early = self.flaws.outbox_before_commit && self.author.is_some();
        let early = is_early.then(|| decided.clone());
        self.put_back(node, group, key, it);
        self.propose(node, group, term, Record::Decided(decided).encode(), waits);
        if let Some(decided) = early {
            self.carry_early(node, group, term, &decided);
        }
        Some(reply)
    }

    pub(super) fn propose(&mut self, node: NodeId, group: u32, term: u64, record: Bytes, waits: Waits) {
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
            self.propose(node, group, term, record, Waits::Nobody);
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
        run.reading.insert(ticket, (caller, key.clone()));
        if self.flaws.unconfirmed_reads {
            return self.confirmed(node, ticket, true);
        }
        self.arrives(node, Input::Read { group, ticket });
    }

    pub(super) fn confirmed(&mut self, node: NodeId, ticket: u64, may_read: bool) {
        if self.caught_up(node, ticket, may_read) {
            return;
        }
        let Some((caller, key)) = self.node(node).running().reading.remove(&ticket) else {
            return self.violated("fates", format!("node {node} answers the read {ticket} twice"));
        };
        let group = self.clients.group_of(&key);
        let ungated = self.flaws.ungated_reads;
        let it = if may_read {
            self.activation(node, group, &key)
        } else {
            None
        };
        let Some((_, mut it)) = it else {
            return self.not_leader(node, group, caller);
        };
        let snapshot = it.decider.snapshot().expect("it was brought back");
        let state: TallyState = codec::decode(&snapshot).expect("it was encoded just now");
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
        let loaded = replica.shard.load(key);
        let loaded = self.sound(node, loaded)?;
        let run = self.node(node).running();
        let kind = registry
            .get(&key.kind)
            .expect("only kinds of the registry are asked for");
        let live = revive(&**kind, &loaded);
        let gate = run.number();
        run.gates.insert(gate, Gate::default());
        // Unique without drawing from the seed, so that what a seed does stays the same.
        let name = u64::from(node) << 56 | life << 32 | gate;
        let decider = Decider::new(key.clone(), name, loaded, live);
        let activation = Activation { gate, decider };
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
        let (gate, seq) = match waits {
            Waits::Nobody => return,
            Waits::Gate(gate, seq) => (gate, seq),
            Waits::Outbox(group, term, id) => return self.acknowledgement_ended(node, group, term, id, fate.is_ok()),
        };
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
