//! Clients: they count on a few entities and read them, under request ids that stay the same until there is an answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    activation::{Caller, Delivered, Message},
    invariants::linearizable::What,
    tally::{Command, Tally},
    world::{Event, TICK, World},
};
use crate::{
    codec,
    config::NodeId,
    entity::{Entity, EntityKey, RequestId, envelope::Envelope},
    shard::shard_of,
    trace::TraceContext,
};

/// Entities of each group.
const ENTITIES_PER_GROUP: u32 = 2;
/// How long a client waits for one attempt.
const ATTEMPT_TICKS: u64 = 40;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Add {
        request: String,
        with_effect: bool,
    },
    Refuse {
        request: String,
    },
    Read,
    /// In runs with timers. The request is the timer's label.
    SetTimer {
        request: String,
        name: &'static str,
        due_ms: u64,
        every_ms: Option<u64>,
    },
    CancelTimer {
        request: String,
        name: &'static str,
    },
    /// In runs of authors.
    Own {
        request: String,
        command: Bytes,
    },
}

impl Ask {
    pub(super) fn request(&self) -> RequestId {
        let text = match self {
            Self::Add { request, .. }
            | Self::Refuse { request }
            | Self::SetTimer { request, .. }
            | Self::CancelTimer { request, .. }
            | Self::Own { request, .. } => request,
            Self::Read => "read",
        };
        RequestId::new(text).expect("short and plain")
    }

    /// What it is to a counter; nothing where entities are an author's.
    fn what(&self) -> Option<What> {
        match self {
            Self::Add { .. } => Some(What::Add),
            Self::Refuse { .. } | Self::SetTimer { .. } | Self::CancelTimer { .. } => Some(What::Tell),
            Self::Read => Some(What::Read),
            Self::Own { .. } => None,
        }
    }

    pub(super) fn command(&self) -> Bytes {
        codec::encode(&match self {
            Self::Own { command, .. } => return command.clone(),
            Self::Add { request, with_effect } => Command::Add {
                request: request.clone(),
                with_effect: *with_effect,
            },
            Self::Refuse { .. } | Self::Read => Command::Refuse,
            Self::SetTimer {
                request,
                name,
                due_ms,
                every_ms,
            } => Command::SetTimer {
                label: request.clone(),
                name: (*name).to_owned(),
                due_ms: *due_ms,
                every_ms: *every_ms,
            },
            Self::CancelTimer { name, .. } => Command::CancelTimer {
                name: (*name).to_owned(),
            },
        })
    }
}

/// An operation, from its beginning to its answer.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) key: EntityKey,
    pub(super) group: u32,
    pub(super) ask: Ask,
    /// Who goes on when it is answered; nobody for one of a burst.
    client: Option<usize>,
    attempt: u32,
    pub(super) answer: Option<Delivered>,
}

/// All clients and what they have done.
pub(super) struct Clients {
    groups: u32,
    /// Where the simulation's own entities are; all others are where their ids say.
    keys: Vec<(EntityKey, u32)>,
    pub(super) busy: Vec<bool>,
    pub(super) ops: BTreeMap<u64, Op>,
}

impl Clients {
    pub(super) fn new(groups: u32, clients: usize) -> Self {
        let keys = (0..groups * ENTITIES_PER_GROUP)
            .map(|n| {
                (
                    EntityKey::new(Tally::KIND, &format!("t{n}")).expect("a key"),
                    n % groups,
                )
            })
            .collect();
        Self {
            groups,
            keys,
            busy: vec![false; clients],
            ops: BTreeMap::new(),
        }
    }

    pub(super) fn group_of(&self, key: &EntityKey) -> u32 {
        let found = self.keys.iter().find(|(other, _)| other == key);
        found.map_or_else(|| shard_of(key, self.groups), |(_, group)| *group)
    }

    pub(super) fn keys(&self) -> &[(EntityKey, u32)] {
        &self.keys
    }

    /// Operations without an answer.
    pub(super) fn open(&self) -> usize {
        self.ops.values().filter(|op| op.answer.is_none()).count()
    }
}

impl World {
    pub(super) fn next_operation(&mut self, client: usize) {
        if self.calm || self.clients.busy[client] || self.is_done_asking() {
            return;
        }
        if self.author.is_some() {
            return self.next_step(client);
        }
        let place = self.rng.below(self.clients.keys.len() as u64) as usize;
        let place = self.warmed(place, self.clients.keys.len());
        let number = self.clients.ops.len();
        let request = format!("r{number}");
        let about_timers = self.alarm_ask(&request);
        let ask = match self.rng.below(10) {
            0..7 => Ask::Add {
                request,
                with_effect: self.rng.chance(200),
            },
            7 => Ask::Refuse { request },
            _ => Ask::Read,
        };
        let ask = about_timers.unwrap_or(ask);
        self.clients.busy[client] = true;
        let (key, group) = self.clients.keys[place].clone();
        self.begin_operation(Some(client), key, group, ask);
    }

    /// Whether clients have begun as many operations as they may.
    pub(super) fn is_done_asking(&self) -> bool {
        let max = self.limits.operations.unwrap_or(u64::MAX);
        self.clients.ops.len() as u64 >= max
    }

    /// One more command for every entity, to see that all groups work.
    pub(super) fn last_operations(&mut self) {
        for place in 0..self.clients.keys.len() {
            let request = format!("last{place}");
            let ask = Ask::Add {
                request,
                with_effect: false,
            };
            let (key, group) = self.clients.keys[place].clone();
            self.begin_operation(Some(0), key, group, ask);
        }
    }

    pub(super) fn begin_operation(&mut self, client: Option<usize>, key: EntityKey, group: u32, ask: Ask) {
        let id = self.clients.ops.len() as u64;
        self.trace.note(self.now, format_args!("op {id}: {key} {ask:?}"));
        self.checks.replies.begins(id, &key, &ask);
        let op = Op {
            key,
            group,
            ask,
            client,
            attempt: 0,
            answer: None,
        };
        self.clients.ops.insert(id, op);
        self.send(id, None);
    }

    /// Sends an operation's current attempt to whoever may lead.
    fn send(&mut self, id: u64, hint: Option<NodeId>) {
        let (group, attempt, is_read) = {
            let op = &self.clients.ops[&id];
            if let Some(what) = op.ask.what() {
                let request = op.ask.request().to_string();
                self.checks.linearizable.begins(id, &op.key, what, &request, self.now);
            }
            (op.group, op.attempt, op.ask == Ask::Read)
        };
        let home = self.home_of(group);
        let asked = self.rng.pick(&home);
        let known = self.nodes[&asked]
            .run
            .as_ref()
            .and_then(|run| run.replicas.get(&group)?.leader);
        let target = hint.or(known).filter(|_| !self.rng.chance(150)).unwrap_or(asked);
        let delay = self.rng.between(1, TICK);
        self.after(delay, target, Event::Call { op: id });
        // Some commands arrive twice, not at the same place, and perhaps long after.
        if !is_read && self.rng.chance(80) {
            let longest = self.rng.pick(&[10, 400]);
            let (other, delay) = (self.rng.pick(&home), self.rng.between(1, longest * TICK));
            self.after(delay, other, Event::Call { op: id });
        }
        self.after(ATTEMPT_TICKS * TICK, 0, Event::Attempt { op: id, attempt });
    }

    /// A request arrives at a node.
    pub(super) fn call(&mut self, node: NodeId, id: u64) {
        if self.nodes[&node].run.is_none() {
            return;
        }
        let op = self.clients.ops[&id].clone();
        let caller = Caller::Client {
            op: id,
            attempt: op.attempt,
        };
        let holds = |run: &super::node::Running| run.replicas.contains_key(&op.group);
        if !self.nodes[&node].run.as_ref().is_some_and(holds) {
            return self.answer(node, caller, Delivered::NotLeader(None));
        }
        if op.ask == Ask::Read {
            self.read(node, caller, &op.key, op.group);
        } else {
            let message = Message {
                envelope: Envelope::new(op.ask.request(), TraceContext::default()),
                command: op.ask.command(),
                key: op.key,
                group: op.group,
                acknowledges: None,
            };
            self.command(node, caller, message);
        }
        if self.author.is_none() && self.rng.chance(100) {
            self.acknowledge(node, op.group);
        }
    }

    /// A node answers an attempt.
    pub(super) fn answer(&mut self, node: NodeId, caller: Caller, answer: Delivered) {
        match caller {
            Caller::Client { op, attempt } => {
                let delay = self.rng.between(1, TICK);
                self.after(delay, 0, Event::Answer { op, attempt, answer });
            }
            Caller::Outbox { .. } => self.answer_outbox(node, caller, &answer),
        }
    }

    pub(super) fn answered(&mut self, id: u64, attempt: u32, answer: Delivered) {
        self.trace.note(self.now, format_args!("op {id}: {answer:?}"));
        let op = self.clients.ops[&id].clone();
        if let Delivered::NotLeader(_) | Delivered::Unknown | Delivered::Refused(_) = answer {
            if op.answer.is_none() && op.attempt == attempt {
                self.again(
                    id,
                    if let Delivered::NotLeader(hint) = answer {
                        hint
                    } else {
                        None
                    },
                );
            }
            return;
        }
        // An answer to a read counts for the attempt that was made last; to a command any answer is as good.
        if op.ask == Ask::Read && (op.answer.is_some() || op.attempt != attempt) {
            return;
        }
        let verdict = match &mut self.author {
            Some(author) => author.answered(id, &op, &answer),
            None => self.checks.replies.answered(id, &op.key, &op.ask, &answer),
        };
        self.verdict("replies", verdict);
        if let Some(count) = answer.count().filter(|_| self.author.is_none()) {
            self.checks.linearizable.ends(id, count, self.now);
            if let Some(glances) = &mut self.glances {
                glances.told(self.now, &op.key, count);
            }
        }
        if op.answer.is_none() {
            self.clients.ops.get_mut(&id).expect("it was just there").answer = Some(answer);
            self.count("operations", 1);
            if let Some(client) = op.client {
                self.clients.busy[client] = false;
                let delay = self.rng.between(1, self.shape.think_max);
                self.after(delay, 0, Event::Client { client });
            }
        }
    }

    /// An attempt has lasted long enough.
    pub(super) fn attempt(&mut self, id: u64, attempt: u32) {
        let op = &self.clients.ops[&id];
        if op.answer.is_none() && op.attempt == attempt {
            self.again(id, None);
        }
    }

    fn again(&mut self, id: u64, hint: Option<NodeId>) {
        self.count("attempts repeated", 1);
        self.clients.ops.get_mut(&id).expect("operations are kept").attempt += 1;
        let op = &self.clients.ops[&id];
        if hint.is_some() || op.attempt.is_multiple_of(2) {
            return self.send(id, hint);
        }
        // Wait a little first: the attempt's end sends it again.
        let attempt = op.attempt;
        let delay = self.rng.between(TICK, 4 * TICK);
        self.after(delay, 0, Event::Attempt { op: id, attempt });
    }
}
