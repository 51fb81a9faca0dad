//! How a leader carries effects out, as `shard::outbox` does it: commands go to their entities over the network, calls to the
//! author's services, outcomes back to who asked; and all of it again until it is acknowledged.

use std::sync::Arc;

use super::{Served, service::CalledRaw};
use crate::{
    config::{Limits, NodeId},
    entity::{EntityKey, Outcome, RequestId, decider::resume, decision::EffectRequest, envelope::Envelope},
    journal::{Chain, Decided, EffectId, Origin, OutboxRow, Record},
    replication::Role,
    simulation::{
        activation::{Caller, Delivered, Message, Waits},
        world::{Event, TICK, World},
    },
    trace::TraceContext,
};

/// How long one attempt may take, and the longest time between two of them, in ticks.
const ATTEMPT_TICKS: u64 = 40;
const BACKOFF_TICKS_MAX: u64 = 32;

/// An effect that a leader carries out just now.
#[derive(Debug, Clone)]
pub(in crate::simulation) struct Carrying {
    group: u32,
    term: u64,
    id: EffectId,
    attempt: u32,
    /// It has its outcome, which is on its way to the entity that waits for it.
    is_outcome: bool,
}

/// What became of what was carried out.
#[derive(Debug)]
pub(in crate::simulation) enum CarriedEnd {
    Answered(Delivered),
    Served(Outcome),
}

impl World {
    /// A leadership has begun: whatever is open is carried out.
    pub(in crate::simulation) fn outbox_begins(&mut self, node: NodeId, role: &Role) {
        if self.author.is_some() && !self.flaws.outbox_forgotten {
            let open = self.replica(node, role.group).shard.outbox();
            let open = open.keys().cloned().collect();
            self.effects_came(node, role.group, open);
        }
    }

    /// Effects have come about in a group that a node may lead.
    pub(in crate::simulation) fn effects_came(&mut self, node: NodeId, group: u32, effects: Vec<EffectId>) {
        if self.author.is_none() {
            return;
        }
        let Some(leadership) = &self.replica(node, group).leadership else {
            return;
        };
        let term = leadership.term;
        for id in effects {
            let delay = self.rng.below(TICK);
            self.carry_after(delay, node, (group, term, id), 0, None);
        }
    }

    fn carry_after(
        &mut self,
        delay: u64,
        node: NodeId,
        (group, term, id): (u32, u64, EffectId),
        attempt: u32,
        hint: Option<NodeId>,
    ) {
        let life = self.nodes[&node].life;
        let event = Event::Carry {
            life,
            group,
            term,
            id,
            attempt,
            hint,
        };
        self.after(delay, node, event);
    }

    /// An effect that is still open in the term in which its leader took it up, and what goes with it.
    fn open_effect(
        &mut self,
        node: NodeId,
        group: u32,
        term: u64,
        id: &EffectId,
    ) -> Option<(Arc<OutboxRow>, Option<Origin>)> {
        let replica = self.node(node).running().replicas.get(&group)?;
        replica
            .leadership
            .as_ref()
            .filter(|leadership| leadership.term == term)?;
        let row = Arc::clone(replica.shard.outbox().get(id)?);
        let origin = replica.shard.origin_of(group, &row);
        Some((row, origin))
    }

    /// Makes one attempt to carry an effect out.
    pub(in crate::simulation) fn carry(
        &mut self,
        node: NodeId,
        group: u32,
        term: u64,
        id: EffectId,
        attempt: u32,
        hint: Option<NodeId>,
    ) {
        let paused_until = self.nodes[&node].paused_until;
        if self.now < paused_until {
            return self.carry_after(paused_until - self.now, node, (group, term, id), attempt, hint);
        }
        let Some((row, origin)) = self.open_effect(node, group, term, &id) else {
            return;
        };
        if attempt > 0 {
            self.count("effects repeated", 1);
        }
        let carrying = Carrying {
            group,
            term,
            id: id.clone(),
            attempt,
            is_outcome: false,
        };
        match &row.effect.request {
            EffectRequest::Command { to, command } => {
                let chain = Chain::after(row.chain.as_ref(), &id.entity, Limits::default().effect_depth_max);
                if let Err(reason) = self.can_be_sent(&chain, to) {
                    return self.has_outcome(node, carrying, &Outcome::Failed(reason));
                }
                let message = Message {
                    key: to.clone(),
                    group: self.clients.group_of(to),
                    envelope: Envelope {
                        chain: Some(Arc::new(chain)),
                        origin: origin.map(Arc::new).filter(|_| !self.flaws.outbox_before_commit),
                        ..Envelope::new(request_of(&id.to_string()), TraceContext::default())
                    },
                    command: command.clone(),
                    acknowledges: None,
                };
                let caller = self.begins(node, carrying);
                self.send_effect(node, caller, message, hint);
            }
            EffectRequest::Call { .. } => {
                let caller = self.begins(node, carrying);
                if self.calm || !self.rng.chance(50) {
                    let delay = self.rng.between(1, 4 * TICK);
                    self.after(delay, 0, Event::Serve { caller, id, row });
                }
            }
            EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => {}
        }
    }

    /// With a planted bug: effects go out as soon as they are decided.
    pub(in crate::simulation) fn carry_early(&mut self, node: NodeId, group: u32, term: u64, decided: &Decided) {
        for (place, effect) in (0..).zip(&decided.effects) {
            let id = EffectId {
                entity: decided.entity.clone(),
                seq: decided.seq,
                place,
            };
            let carrying = Carrying {
                group,
                term,
                id: id.clone(),
                attempt: 0,
                is_outcome: false,
            };
            match &effect.request {
                EffectRequest::Command { to, command } => {
                    let chain = Chain::after(decided.chain.as_ref(), &id.entity, Limits::default().effect_depth_max);
                    if self.can_be_sent(&chain, to).is_err() {
                        continue;
                    }
                    let message = Message {
                        key: to.clone(),
                        group: self.clients.group_of(to),
                        envelope: Envelope {
                            chain: Some(Arc::new(chain)),
                            ..Envelope::new(request_of(&id.to_string()), TraceContext::default())
                        },
                        command: command.clone(),
                        acknowledges: None,
                    };
                    let caller = self.begins(node, carrying);
                    self.send_effect(node, caller, message, None);
                }
                EffectRequest::Call { .. } => {
                    let row = Arc::new(OutboxRow {
                        effect: effect.clone(),
                        at_ms: decided.at_ms,
                        trace: decided.trace,
                        born: 0,
                        chain: decided.chain.clone(),
                    });
                    let caller = self.begins(node, carrying);
                    self.after(TICK, 0, Event::Serve { caller, id, row });
                }
                EffectRequest::SetTimer { .. } | EffectRequest::CancelTimer { .. } => {}
            }
        }
    }

    /// Why no command can be sent to this entity, if there is a reason.
    fn can_be_sent(&self, chain: &Chain, to: &EntityKey) -> Result<(), String> {
        let depth_max = Limits::default().effect_depth_max;
        if chain.depth > depth_max {
            return Err(format!(
                "a chain of effects is deeper than {depth_max}: {}",
                chain.to(to)
            ));
        }
        if self.registry.get(&to.kind).is_none() {
            return Err(format!(
                "kind {:?} is not a kind of entity this cluster carries",
                to.kind
            ));
        }
        let valid = EntityKey::new(&to.kind, &to.id);
        valid.map(drop).map_err(|error| format!("id {error}"))
    }

    /// Takes note of an attempt, which ends one way or another.
    fn begins(&mut self, node: NodeId, carrying: Carrying) -> Caller {
        let life = self.nodes[&node].life;
        let run = self.node(node).running();
        let number = run.number();
        run.carrying.insert(number, carrying);
        self.after(ATTEMPT_TICKS * TICK, node, Event::CarriedTooLong { life, number });
        Caller::Outbox { node, life, number }
    }

    /// Sends a command to whoever may lead its group.
    fn send_effect(&mut self, node: NodeId, caller: Caller, message: Message, hint: Option<NodeId>) {
        let home = self.home_of(message.group);
        let replica = self.node(node).running().replicas.get(&message.group);
        let known = replica.and_then(|replica| replica.leader);
        let target = hint.or(known).unwrap_or_else(|| self.rng.pick(&home));
        let arrivals = if target == node {
            vec![self.now + self.rng.between(1, 3)]
        } else {
            self.network.arrivals(&mut self.rng, self.now, node, target)
        };
        for at in arrivals {
            let message = Box::new(message.clone());
            self.at(at, target, Event::Tell { caller, message });
        }
        // Some arrive once more, not at the same place, and perhaps long after.
        if !self.calm && self.rng.chance(60) {
            let longest = self.rng.pick(&[10, 400]);
            let (other, delay) = (self.rng.pick(&home), self.rng.between(1, longest * TICK));
            let message = Box::new(message);
            self.after(delay, other, Event::Tell { caller, message });
        }
    }

    /// A command of an outbox arrives at a node.
    pub(in crate::simulation) fn told(&mut self, node: NodeId, caller: Caller, message: Message) {
        let Some(run) = &self.nodes[&node].run else { return };
        if !run.replicas.contains_key(&message.group) {
            return self.answer(node, caller, Delivered::NotLeader(None));
        }
        self.command(node, caller, message);
    }

    /// A node answers the outbox of another, or its own.
    pub(in crate::simulation) fn answer_outbox(&mut self, from: NodeId, caller: Caller, answer: &Delivered) {
        let Caller::Outbox { node, life, number } = caller else {
            return;
        };
        let arrivals = if node == from {
            vec![self.now + self.rng.between(1, 3)]
        } else {
            self.network.arrivals(&mut self.rng, self.now, from, node)
        };
        for at in arrivals {
            let end = CarriedEnd::Answered(answer.clone());
            self.at(at, node, Event::Carried { life, number, end });
        }
    }

    /// A call arrives at its service, which does it once, and says what came of it each time.
    pub(in crate::simulation) fn serve(&mut self, caller: Caller, id: &EffectId, row: &OutboxRow) {
        let Caller::Outbox { node, life, number } = caller else {
            return;
        };
        let EffectRequest::Call { service, request } = &row.effect.request else {
            return;
        };
        let Some(author) = &mut self.author else { return };
        let place = if let Some(place) = author.calls.iter().position(|call| call.id == *id) {
            author.calls[place].times += 1;
            place
        } else {
            let serve = author.plan.services.get(service).cloned();
            let served = match serve {
                Some(serve) => serve(request, &mut author.services_rng),
                None => Err(format!(
                    "the simulation has none of this name; add it with .service({service:?}, ...)"
                )),
            };
            let served = match served {
                Ok(served) => served,
                Err(reason) => return self.violated("services", format!("{service}, called by {id}: {reason}")),
            };
            author.story.called(self.now, id, service, request, &served);
            author.calls.push(CalledRaw {
                service: service.clone(),
                id: id.clone(),
                request: request.clone(),
                served,
                times: 1,
            });
            author.calls.len() - 1
        };
        let outcome = match &author.calls[place].served {
            Served::Done(answer) => Outcome::Replied(answer.clone()),
            Served::GivenUp(reason) | Served::DoneButGivenUp(_, reason) => Outcome::Failed(reason.clone()),
        };
        self.count("calls", 1);
        // The answer may be lost on its way.
        if self.calm || !self.rng.chance(80) {
            let mut delay = self.rng.between(1, 4 * TICK);
            // Some services answer long after anyone has waited for it.
            if let Some(weather) = self.weather.as_mut().filter(|_| !self.calm)
                && weather.rng.chance(150)
            {
                delay = weather.rng.between(10 * TICK, 300 * TICK);
                self.count("services that answer late", 1);
            }
            let end = CarriedEnd::Served(outcome);
            self.after(delay, node, Event::Carried { life, number, end });
        }
    }

    /// A leader has waited long enough.
    pub(in crate::simulation) fn carried_too_long(&mut self, node: NodeId, number: u64) {
        if let Some(carrying) = self.node(node).running().carrying.remove(&number) {
            self.carry_again(node, carrying, None);
        }
    }

    fn carry_again(&mut self, node: NodeId, carrying: Carrying, hint: Option<NodeId>) {
        let Carrying {
            group,
            term,
            id,
            attempt,
            ..
        } = carrying;
        let longest = (1 << attempt.min(5)).min(BACKOFF_TICKS_MAX);
        let delay = if hint.is_some() {
            self.rng.between(1, TICK)
        } else {
            self.rng.between(TICK, (1 + longest) * TICK)
        };
        self.carry_after(delay, node, (group, term, id), attempt + 1, hint);
    }

    /// A leader hears what became of an attempt.
    pub(in crate::simulation) fn carried(&mut self, node: NodeId, number: u64, end: CarriedEnd) {
        let Some(carrying) = self.node(node).running().carrying.remove(&number) else {
            return;
        };
        let outcome = match end {
            // The record of the outcome has acknowledged the effect.
            CarriedEnd::Answered(Delivered::Reply(_)) if carrying.is_outcome => return,
            CarriedEnd::Answered(Delivered::Reply(Ok(reply))) => Outcome::Replied(reply),
            CarriedEnd::Answered(Delivered::Reply(Err(rejection))) => Outcome::Rejected(rejection),
            CarriedEnd::Answered(Delivered::NotLeader(hint)) => {
                return self.carry_again(node, carrying, hint);
            }
            CarriedEnd::Answered(_) => return self.carry_again(node, carrying, None),
            CarriedEnd::Served(outcome) => outcome,
        };
        self.has_outcome(node, carrying, &outcome);
    }

    /// Hands an outcome to the entity that waits for it, or acknowledges the effect if none does.
    fn has_outcome(&mut self, node: NodeId, carrying: Carrying, outcome: &Outcome) {
        let (group, term, id) = (carrying.group, carrying.term, carrying.id.clone());
        let Some((row, _)) = self.open_effect(node, group, term, &id) else {
            return;
        };
        self.count("effects", 1);
        let Some(token) = &row.effect.token else {
            let record = Record::Acknowledged(vec![id.clone()]).encode();
            return self.propose(node, group, term, record, Waits::Outbox(group, term, id));
        };
        let kind = self.registry.get(&id.entity.kind).cloned();
        let kind = kind.expect("what has an outbox is of a known kind");
        let command = match resume(&*kind, token, outcome) {
            Ok(command) => command,
            Err(fault) => {
                return self.violated("panics", format!("{id}, of its outcome {outcome:?}: {}", fault.reason));
            }
        };
        let message = Message {
            key: id.entity.clone(),
            group,
            // An outcome comes back to where it was asked for: no deeper.
            envelope: Envelope {
                chain: row.chain.clone().map(Arc::new),
                ..Envelope::new(request_of(&format!("{id}!")), TraceContext::default())
            },
            command,
            acknowledges: Some(id),
        };
        let is_outcome = true;
        let caller = self.begins(node, Carrying { is_outcome, ..carrying });
        self.command(node, caller, message);
    }

    /// The record that was to acknowledge an effect is committed, or lost.
    pub(in crate::simulation) fn acknowledgement_ended(
        &mut self,
        node: NodeId,
        group: u32,
        term: u64,
        id: EffectId,
        is_done: bool,
    ) {
        if !is_done {
            self.carry_after(TICK, node, (group, term, id), 1, None);
        }
    }
}

fn request_of(text: &str) -> RequestId {
    RequestId::new(text).expect("an effect's id is far below the limit")
}
