//! The driver's surroundings: the mailbox, and carrying out what the driver says, in the order of `shard::runtime`.

use std::collections::BTreeMap;

use proto::cluster::v1 as pb;

use super::{
    failpoints::{Side, step_of},
    world::{Event, TICK, World},
};
use crate::{
    config::NodeId,
    journal::Shard,
    placement::{self, Move, View},
    replication::{Applied, Failure, Input, Output, Task, driver::Write},
};

impl World {
    /// Puts something into a node's mailbox; the driver takes a step soon.
    pub(super) fn arrives(&mut self, node: NodeId, input: Input) {
        let life = self.nodes[&node].life;
        let run = self.node(node).running();
        run.mailbox.push(input);
        if !std::mem::replace(&mut run.step_due, true) {
            let delay = self.rng.below(3);
            self.after(delay, node, Event::Step { life });
        }
    }

    pub(super) fn tick(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        // Ticks that were missed are dropped.
        if self.now >= self.nodes[&node].paused_until {
            self.arrives(node, Input::Tick);
        }
        self.after(TICK, node, Event::Tick { life });
    }

    pub(super) fn step(&mut self, node: NodeId) {
        let (now, life, paused_until) = (self.now, self.nodes[&node].life, self.nodes[&node].paused_until);
        if now < paused_until {
            return self.at(paused_until, node, Event::Step { life });
        }
        let run = self.node(node).running();
        run.step_due = false;
        let inputs = std::mem::take(&mut run.mailbox);
        let output = run.driver.step(inputs);
        self.carry_out(node, output);
    }

    fn carry_out(&mut self, node: NodeId, output: Output) {
        let mut by_node: BTreeMap<NodeId, Vec<pb::GroupMessage>> = BTreeMap::new();
        for (to, message) in output.send {
            by_node.entry(to).or_default().push(message);
        }
        for (to, messages) in by_node {
            self.count("messages", messages.len() as u64);
            for at in self.network.arrivals(&mut self.rng, self.now, node, to) {
                let messages = messages.clone();
                self.at(at, to, Event::Deliver { messages });
            }
        }
        if let Some(write) = output.write {
            self.write(node, write);
        }
        for applied in output.applied {
            self.apply(node, applied);
            // It may have found that it cannot.
            if self.nodes[&node].run.is_none() {
                return;
            }
        }
        for (ticket, failure) in output.failed {
            self.resolve(node, ticket, Err(failure));
        }
        for (ticket, may_read) in output.reads {
            self.confirmed(node, ticket, may_read);
        }
        for role in output.roles {
            self.trace.note(self.now, format_args!("node {node} {role:?}"));
            if role.serving {
                let verdict = self.checks.leaders.serves(role.group, role.term, node);
                self.verdict("leaders", verdict);
            }
            self.set_role(node, role);
        }
        for task in output.tasks {
            self.task(node, task);
        }
    }

    fn write(&mut self, node: NodeId, write: Write) {
        self.trace.note(
            self.now,
            format_args!("node {node} writes {} for {:?}", write.number, write.groups.keys()),
        );
        for (group, part) in &write.groups {
            if let Some((index, _)) = part.cut {
                let generation = self.nodes[&node]
                    .run
                    .as_ref()
                    .and_then(|run| run.replicas.get(group))
                    .map_or(0, |replica| replica.generation);
                let generation = part.install.map_or(generation, |(_, _, generation)| generation);
                if self.nodes[&node].disk.damage.is_there {
                    // What the device says of itself may not be so.
                    continue;
                }
                let synced = self.nodes[&node].disk.synced_position(*group, generation);
                let verdict = super::invariants::cut::is_behind(node, *group, index, synced);
                self.verdict("cut", verdict);
            }
        }
        let number = write.number;
        self.node(node).running().writes.push_back(write);
        if self.flaws.written_before_sync {
            self.arrives(node, Input::Written(number));
        }
        self.begin_sync(node);
    }

    fn begin_sync(&mut self, node: NodeId) {
        let life = self.nodes[&node].life;
        let run = self.node(node).running();
        if run.syncing.is_empty() && !run.writes.is_empty() {
            run.syncing = run.writes.drain(..).collect();
            let slower = self.nodes[&node].disk.slower(self.now);
            let delay = self.rng.between(1, self.shape.sync_max) * slower;
            self.after(delay, node, Event::Synced { life });
        }
    }

    pub(super) fn synced(&mut self, node: NodeId) {
        let step = step_of(&self.node(node).running().syncing);
        if self.device_fails(node) || self.crashes_at(node, step, Side::Before) {
            return;
        }
        let lies = self.flaws.device_lies && self.rng.chance(500);
        let it = self.node(node);
        let writes = std::mem::take(&mut it.running().syncing);
        let last = writes.last().map_or(0, |write| write.number);
        it.disk.cache.extend(writes);
        let mut verdict = Ok(());
        if !lies {
            let all = std::mem::take(&mut it.disk.cache);
            verdict = all.iter().try_for_each(|write| it.disk.persist(write));
        }
        self.verdict("log", verdict);
        if self.crashes_at(node, step, Side::After) {
            return;
        }
        self.arrives(node, Input::Written(last));
        self.begin_sync(node);
    }

    /// Whether a node has ended because its device refused what was to be written: it must not go on as if it was there.
    pub(super) fn device_fails(&mut self, node: NodeId) -> bool {
        let now = self.now;
        let disk = &mut self.node(node).disk;
        let is_full = now < disk.full_until;
        if !(std::mem::take(&mut disk.fails_next_sync) || is_full) || self.calm {
            return false;
        }
        self.tell(format!("the device of node {node} refuses"));
        self.count(
            if is_full {
                "writes refused by full disks"
            } else {
                "syncs failed"
            },
            1,
        );
        if self.flaws.failed_sync_ignored {
            // What was to be synced is gone, and nobody asks.
            for write in &mut self.node(node).running().syncing {
                write.groups.clear();
            }
            return false;
        }
        self.crash_losing_writes(node);
        self.come_back(node);
        true
    }

    fn apply(&mut self, node: NodeId, applied: Applied) {
        match applied {
            Applied::Install { group, generation } => {
                self.trace.note(
                    self.now,
                    format_args!("node {node} group {group} installs {generation}"),
                );
                self.count("snapshots installed", 1);
                let store = super::boot::store_of(self, node, group, generation);
                let shard = match Shard::open(store) {
                    Ok(shard) => shard,
                    Err(error) => return self.ends_for_damage(node, &error),
                };
                let (applied, digest) = (shard.meta().applied.0, shard.meta().digest);
                let replica = self.replica(node, group);
                replica.shard = shard;
                replica.generation = generation;
                let verdict = self.checks.digests.at(group, applied, digest, node);
                self.verdict("digests", verdict);
            }
            Applied::Entry {
                group,
                index,
                term,
                data,
                tickets,
                members,
            } => {
                let verdict = self.checks.agreement.committed(group, index, term, &data, node);
                let is_first = verdict.as_ref().is_ok_and(|is_first| *is_first);
                self.verdict("agreement", verdict.map(|_| ()));
                if let Some(members) = &members {
                    self.trace.note(
                        self.now,
                        format_args!("node {node} group {group} at {index}: {members:?}"),
                    );
                }
                let shard = &mut self.replica(node, group).shard;
                let done = match shard.apply(index, term, data.clone(), members) {
                    Ok(done) => done,
                    Err(error) => {
                        if is_first {
                            self.checks.agreement.withdraw(group, index);
                        }
                        return self.ends_for_damage(node, &error);
                    }
                };
                let digest = shard.meta().digest;
                self.trace.note(
                    self.now,
                    format_args!("node {node} group {group} applies {index} of {term}: {digest:x}"),
                );
                let verdict = self.checks.digests.at(group, index, digest, node);
                self.verdict("digests", verdict);
                if is_first {
                    self.count("entries", 1);
                    if self.author.is_none() {
                        let verdict = self.checks.timers.committed(data.clone(), &done.taken);
                        self.verdict("timers", verdict);
                    }
                    let verdict = self.checks.effects.committed(data.clone(), &done.taken);
                    self.verdict("effects", verdict);
                    self.author_sees(&data, &done.taken);
                }
                // Whichever replica has just applied something is as good as any other.
                if index % 3 == u64::from(node) % 3
                    && !self.nodes[&node].disk.damage.is_there
                    && let Some(run) = &self.nodes[&node].run
                    && let Some(replica) = run.replicas.get(&group)
                {
                    let verdict = self.checks.feed.read(group, &replica.shard);
                    self.verdict("feed", verdict);
                }
                self.timers_changed(node, group, done.timers);
                self.effects_came(node, group, done.effects);
                for (ticket, taken) in tickets.into_iter().zip(done.taken) {
                    self.resolve(node, ticket, if taken { Ok(()) } else { Err(Failure::NotLeader) });
                }
            }
        }
    }

    fn task(&mut self, node: NodeId, task: Task) {
        let life = self.nodes[&node].life;
        match task {
            Task::BuildSnapshot { group } => self.node(node).running().snapshots_due.push_back(group),
            Task::FetchSnapshot {
                group,
                source,
                index,
                message,
            } => self.begin_fetch(node, group, source, index, message),
            Task::Closed { group } => {
                let it = self.node(node);
                it.running().replicas.remove(&group);
                it.disk.stores.retain(|(of, _), _| *of != group);
                it.disk.snapshots.remove(&group);
            }
            Task::DropGeneration { group, generation } => {
                let delay = self.rng.below(20);
                self.after(
                    delay,
                    node,
                    Event::Drop {
                        life,
                        group,
                        generation,
                    },
                );
            }
        }
    }

    /// Tells a node that its connection to another broke.
    pub(super) fn link_down(&mut self, node: NodeId, to: NodeId, delay: u64) {
        let life = self.nodes[&node].life;
        let input = Input::LinkDown(to);
        self.after(delay, node, Event::Arrives { life, input });
    }

    /// Begins the next move of each group that a node leads.
    pub(super) fn plan(&mut self, node: NodeId) {
        self.close_replicas(node);
        if self.nodes[&node].run.is_none() {
            return;
        }
        let view = View {
            is_unwell: self.nodes[&node].disk.damage.is_found,
            can_lead: self
                .nodes
                .values()
                .filter(|other| other.run.is_some() && self.network.connects(self.now, node, other.id))
                .filter(|other| !other.disk.damage.is_found)
                .map(|other| other.id)
                .collect(),
            reads_less: std::collections::BTreeSet::new(),
        };
        for status in self.node(node).running().driver.status() {
            let home = self.seen_home(node, status.group);
            match placement::next_move(&status, node, &home, &view) {
                Some(Move::Transfer { group, to }) => self.arrives(node, Input::Transfer { group, to }),
                Some(Move::Change { group, changes }) => {
                    self.trace
                        .note(self.now, format_args!("node {node} group {group}: {changes:?}"));
                    self.count("changes of members", 1);
                    self.arrives(node, Input::ChangeMembers { group, changes });
                }
                None => {}
            }
        }
        self.plan_again(node);
    }

    pub(super) fn replica(&mut self, node: NodeId, group: u32) -> &mut super::node::Replica {
        let run = self.node(node).running();
        run.replicas
            .get_mut(&group)
            .expect("the driver speaks of own groups only")
    }
}
