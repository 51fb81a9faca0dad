//! The thread that owns the driver: collects what has happened, steps, carries out what the driver says.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use proto::cluster::v1 as pb;
use tokio::sync::oneshot;

use super::{
    end_node, end_with,
    mailbox::{Committed, Event, Fate, Mailbox, OnFate},
    replica::Replica,
    slots::Slots,
    timings::Stages,
};
use crate::{
    config::NodeId,
    replication::{Applied, Driver, Failure, Input, Output, Task, driver::Write},
};

/// Where messages to peers go.
pub(crate) trait Outgoing: Send + 'static {
    /// Sends messages to a node, or drops them: consensus repeats what matters.
    fn send(&self, node: NodeId, messages: Vec<pb::GroupMessage>);
}

/// What the driver's thread works with.
pub(crate) struct Parts<O> {
    pub(crate) driver: Driver,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) replicas: Arc<Slots>,
    pub(crate) writes: mpsc::Sender<Write>,
    pub(crate) outgoing: O,
    pub(crate) tasks: tokio::sync::mpsc::UnboundedSender<Task>,
    pub(crate) tick: Duration,
    /// This node's data folder.
    pub(crate) data: PathBuf,
}

/// Begins the thread. It ends with [`Event::Stop`]; should it panic, the node ends.
pub(crate) fn spawn<O: Outgoing>(parts: Parts<O>) -> std::io::Result<thread::JoinHandle<()>> {
    let handle = tokio::runtime::Handle::current();
    thread::Builder::new().name("driver".into()).spawn(move || {
        let _entered = handle.enter();
        let runtime = Runtime {
            parts,
            waiting: HashMap::new(),
            reading: HashMap::new(),
            on_the_way: HashMap::new(),
            next_ticket: 0,
        };
        if catch_unwind(AssertUnwindSafe(|| runtime.run())).is_err() {
            end_node("consensus met a state that cannot be; the panic above says which");
        }
    })
}

struct Runtime<O> {
    parts: Parts<O>,
    /// Who is told of each proposal, and when it came.
    waiting: HashMap<u64, (OnFate, Instant)>,
    reading: HashMap<u64, oneshot::Sender<bool>>,
    /// Entries of each group that proposals were put into and that are not applied yet.
    on_the_way: HashMap<u32, VecDeque<OnTheWay>>,
    next_ticket: u64,
}

/// An entry on its way, for its times.
struct OnTheWay {
    index: u64,
    /// The write that holds it.
    write: u64,
    appended: Instant,
    written: Option<Instant>,
}

impl<O: Outgoing> Runtime<O> {
    fn run(mut self) {
        let tick = self.parts.tick;
        let mut next_tick = Instant::now() + tick;
        let mut events = Vec::new();
        let mut inputs = Vec::new();
        loop {
            let since = self.parts.mailbox.take(&mut events, next_tick);
            let taken = Instant::now();
            for event in events.drain(..) {
                match event {
                    Event::Input(input) => {
                        if let Input::Written(number) = input {
                            self.written(number, taken);
                        }
                        inputs.push(input);
                    }
                    Event::Propose {
                        group,
                        term,
                        record,
                        on_fate,
                    } => {
                        let ticket = self.ticket();
                        self.waiting.insert(ticket, (on_fate, since.unwrap_or(taken)));
                        inputs.push(Input::Propose {
                            group,
                            term,
                            record,
                            ticket,
                        });
                    }
                    Event::Read { group, done } => {
                        let ticket = self.ticket();
                        self.reading.insert(ticket, done);
                        inputs.push(Input::Read { group, ticket });
                    }
                    Event::Catch { group, done } => {
                        let ticket = self.ticket();
                        self.reading.insert(ticket, done);
                        inputs.push(Input::Catch { group, ticket });
                    }
                    Event::Status(reply) => {
                        // Whoever asked may have gone.
                        let _ = reply.send(self.parts.driver.status());
                    }
                    Event::Stop => {
                        // Nobody shall wait for what this thread will not tell any more.
                        for (_, (on_fate, _)) in self.waiting.drain() {
                            on_fate(Err(Failure::Unknown));
                        }
                        return;
                    }
                }
            }
            if taken >= next_tick {
                inputs.push(Input::Tick);
                // Ticks that were missed are dropped: a node that was held up must not believe its peers dead.
                next_tick = (next_tick + tick).max(taken);
            }
            let output = self.parts.driver.step(inputs.drain(..));
            self.carry_out(output);
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The write of this number has reached the device.
    fn written(&mut self, number: u64, at: Instant) {
        let open = self.on_the_way.values_mut().flatten();
        for entry in open.filter(|entry| entry.write <= number) {
            entry.written.get_or_insert(at);
        }
    }

    /// Takes note of entries that proposals were put into.
    fn appended(&mut self, entries: &[(u32, u64)], write: u64, at: Instant) {
        for (group, index) in entries {
            let on_the_way = self.on_the_way.entry(*group).or_default();
            // What stood there was replaced: another leader came in between.
            on_the_way.retain(|other| other.index < *index);
            on_the_way.push_back(OnTheWay {
                index: *index,
                write,
                appended: at,
                written: None,
            });
        }
    }

    /// The times of an entry that is applied; those before it are forgotten.
    fn stages(&mut self, group: u32, index: u64, committed: Instant) -> Option<Stages> {
        let on_the_way = self.on_the_way.get_mut(&group)?;
        while let Some(entry) = on_the_way.pop_front_if(|entry| entry.index <= index) {
            if entry.index == index {
                return Some(Stages {
                    appended: entry.appended,
                    written: entry.written.unwrap_or(committed).min(committed),
                    committed,
                });
            }
        }
        None
    }

    fn carry_out(&mut self, output: Output) {
        let stepped = Instant::now();
        let mut by_node: BTreeMap<NodeId, Vec<pb::GroupMessage>> = BTreeMap::new();
        for (node, message) in output.send {
            by_node.entry(node).or_default().push(message);
        }
        for (node, messages) in by_node {
            self.parts.outgoing.send(node, messages);
        }
        if let Some(write) = &output.write {
            self.appended(&output.appended, write.number, stepped);
        }
        if let Some(write) = output.write
            && self.parts.writes.send(write).is_err()
        {
            end_node("the log's thread has ended");
        }
        for applied in output.applied {
            self.apply(applied, stepped);
        }
        for (ticket, failure) in output.failed {
            self.resolve(ticket, Err(failure));
        }
        for (ticket, may_read) in output.reads {
            if let Some(done) = self.reading.remove(&ticket) {
                // Whoever asked may have gone.
                let _ = done.send(may_read);
            }
        }
        for role in output.roles {
            if let Some(replica) = self.parts.replicas.get(role.group) {
                replica.set_role(role);
            }
        }
        for task in output.tasks {
            // The receiver goes only when the node stops.
            let _ = self.parts.tasks.send(task);
        }
    }

    fn apply(&mut self, applied: Applied, committed: Instant) {
        match applied {
            Applied::Install { group, generation } => {
                if let Err(error) = self.replica(group).install(generation) {
                    end_node(&format!("the snapshot of shard {group} cannot be taken: {error}"));
                }
            }
            Applied::Entry {
                group,
                index,
                term,
                data,
                tickets,
                members,
            } => match self.replica(group).apply(index, term, data, members) {
                Ok(taken) => {
                    let stages = self.stages(group, index, committed);
                    let proposed = tickets.first().and_then(|ticket| self.waiting.get(ticket));
                    if let (Some((_, proposed)), Some(stages)) = (proposed, &stages) {
                        self.replica(group).committed(*proposed, stages);
                    }
                    let done = Committed { index, stages };
                    for (ticket, taken) in tickets.into_iter().zip(taken) {
                        // Refused means that the author did not know all that had happened: its decision does not count.
                        self.resolve(ticket, if taken { Ok(done) } else { Err(Failure::NotLeader) });
                    }
                }
                Err(error) => end_with(&self.parts.data, &format!("shard {group} cannot be carried on"), &error),
            },
        }
    }

    fn replica(&self, group: u32) -> Arc<Replica> {
        let found = self.parts.replicas.get(group);
        found.expect("a replica has its place before the driver knows of it, and until the driver has closed it")
    }

    fn resolve(&mut self, ticket: u64, fate: Fate) {
        if let Some((on_fate, _)) = self.waiting.remove(&ticket) {
            on_fate(fate);
        }
    }
}
