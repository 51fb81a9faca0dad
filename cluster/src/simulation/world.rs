//! One run: nodes, network, clients and faults under one seed, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::cluster::v1 as pb;

use super::{
    activation::{Caller, Delivered, Message},
    alarms::Alarms,
    author::{Author, outbox::CarriedEnd},
    clients::Clients,
    faults::{Fault, Shape},
    flaws::Flaws,
    glances::Glances,
    homes::Homes,
    invariants::Invariants,
    network::Network,
    node::Node,
    rng::Rng,
    tally::Tally,
    trace::Trace,
    weather::Weather,
};
use crate::{
    config::NodeId,
    entity::Registry,
    journal::{EffectId, OutboxRow},
    replication::Input,
};

/// Moments of virtual time in one tick.
pub(super) const TICK: u64 = 10;
/// For how long faults go on, in ticks.
const FAULTS_TICKS: u64 = 900;
/// Within what time everything must have converged once the faults have ended, in ticks. A replica that misses the
/// message of a snapshot is sent another only after 800.
const HEALING_TICKS_MAX: u64 = 4_000;
/// How often convergence is looked for, in ticks.
const LOOK_TICKS: u64 = 20;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Tick {
        life: u64,
    },
    Step {
        life: u64,
    },
    Deliver {
        messages: Vec<pb::GroupMessage>,
    },
    /// The log's sync has ended.
    Synced {
        life: u64,
    },
    /// The checkpointer takes its next step.
    Checkpoint {
        life: u64,
    },
    /// The next chunk of a snapshot is due.
    Fetch {
        life: u64,
        fetch: u64,
    },
    /// A generation can be dropped.
    Drop {
        life: u64,
        group: u32,
        generation: u64,
    },
    /// Something comes into the driver's mailbox.
    Arrives {
        life: u64,
        input: Input,
    },
    /// The node looks which timers are due.
    Alarms {
        life: u64,
    },
    /// The node looks at what should move.
    Plan {
        life: u64,
    },
    /// A node that was down starts.
    Start {
        life: u64,
    },
    /// A request arrives at a node.
    Call {
        op: u64,
    },
    /// A client hears from a node.
    Answer {
        op: u64,
        attempt: u32,
        answer: Delivered,
    },
    /// A client has waited long enough for an attempt.
    Attempt {
        op: u64,
        attempt: u32,
    },
    /// A client begins its next operation.
    Client {
        client: usize,
    },
    /// Somebody reads from any replica.
    Glance,
    /// A leader tries to carry an effect out.
    Carry {
        life: u64,
        group: u32,
        term: u64,
        id: EffectId,
        attempt: u32,
        hint: Option<NodeId>,
    },
    /// A leader has waited long enough for what it carries out under this number.
    CarriedTooLong {
        life: u64,
        number: u64,
    },
    /// A command of a leader's outbox arrives at a node.
    Tell {
        caller: Caller,
        message: Box<Message>,
    },
    /// A call of a leader's outbox arrives at a service.
    Serve {
        caller: Caller,
        id: EffectId,
        row: Arc<OutboxRow>,
    },
    /// A leader hears what became of it.
    Carried {
        life: u64,
        number: u64,
        end: CarriedEnd,
    },
    /// The next fault is due.
    Fault,
    /// Likewise, of those that only runs with weather have.
    Storm,
    /// A group gets another home.
    Move,
    /// A node sees a version of the map.
    Map {
        version: usize,
    },
    /// A partition ends.
    Heal,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise that was broken.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

/// A run of a seed that is made smaller, to see whether it breaks the same promise still. Nothing is smaller by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Faults and new operations end after so many ticks.
    pub ticks: Option<u64>,
    /// Clients begin so many operations at most.
    pub operations: Option<u64>,
    /// Kinds of faults that are left out.
    pub without: BTreeSet<Fault>,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) trace_hash: u64,
    pub(super) violation: Option<Violation>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// When it ended, in ticks.
    pub(super) ticks: u64,
    /// What happened, a line each, where that was to be kept.
    pub(super) story: Vec<String>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), (NodeId, Event)>,
    queued: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    pub(super) checks: Invariants,
    /// Reads of any replica, in runs that have them.
    pub(super) glances: Option<Glances>,
    /// More that goes wrong, in runs that have it.
    pub(super) weather: Option<Weather>,
    pub(super) limits: Limits,
    pub(super) flaws: Flaws,
    pub(super) shape: Shape,
    pub(super) homes: Homes,
    pub(super) trace: Trace,
    pub(super) registry: Registry,
    /// In runs with timers.
    pub(super) alarms: Option<Alarms>,
    /// In runs of authors.
    pub(super) author: Option<Box<Author>>,
    pub(super) calm: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
}

impl World {
    pub(super) fn new(seed: u64, flaws: Flaws, print: bool) -> Self {
        Self::limited(seed, flaws, Limits::default(), print)
    }

    pub(super) fn limited(seed: u64, flaws: Flaws, limits: Limits, print: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut shape = Shape::draw(seed, &mut rng);
        shape.without(&limits.without);
        let network = shape.network.clone();
        let clients = Clients::new(shape.groups, shape.clients);
        let mut world = Self {
            seed,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes: BTreeMap::new(),
            network,
            clients,
            checks: Invariants::default(),
            glances: None,
            weather: None,
            limits,
            flaws,
            homes: Homes::new(seed, &shape),
            shape,
            trace: Trace::new(print),
            registry: Registry::new().with::<Tally>(),
            alarms: None,
            author: None,
            calm: false,
            counts: BTreeMap::new(),
            violation: None,
        };
        for node in 1..=world.shape.nodes {
            world.nodes.insert(node, Node::new(node));
            world.node(node).disk.is_credulous = flaws.damage_served;
            world.begin_groups(node);
            world.start(node, true);
        }
        world.move_again();
        for client in 0..world.shape.clients {
            world.after(TICK * 20, 0, Event::Client { client });
        }
        world.after(TICK * 40, 0, Event::Fault);
        world
    }

    /// Runs to the end: faults, then calm until everything has converged.
    pub(super) fn run(&mut self) {
        self.run_faults();
        self.calm_down();
        let calm_since = self.now;
        while self.violation.is_none() {
            self.repair();
            self.author_goes_on();
            let deadline = self.waits_since(calm_since) + HEALING_TICKS_MAX * TICK;
            let Err(waits_for) = self.converged() else {
                self.count("ticks to converge", (self.now - calm_since) / TICK);
                return self.check_the_end();
            };
            if self.now >= deadline {
                self.violated(
                    "convergence",
                    format!("not within {HEALING_TICKS_MAX} ticks: {waits_for}"),
                );
            }
            self.run_until(self.now + LOOK_TICKS * TICK);
        }
    }

    fn run_faults(&mut self) {
        let end = self.limits.ticks.unwrap_or(FAULTS_TICKS) * TICK;
        while self.now < end && self.violation.is_none() && !self.has_done_its_steps() {
            // Only an author's run may end before.
            let until = if self.author.is_some() {
                self.now + LOOK_TICKS * TICK
            } else {
                end
            };
            self.run_until(until);
        }
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
                break;
            };
            let ((at, _), (node, event)) = entry.remove_entry();
            self.now = at;
            self.happen(node, event);
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    pub(super) fn report(&mut self) -> Report {
        Report {
            trace_hash: self.trace.hash(),
            violation: self.violation.take(),
            counts: std::mem::take(&mut self.counts),
            ticks: self.now / TICK,
            story: self.trace.take_kept(),
        }
    }

    fn happen(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Deliver { messages } => {
                if self.nodes[&node].run.is_some() {
                    self.arrives(node, Input::Messages(messages));
                }
            }
            Event::Start { life } => {
                if self.nodes[&node].life == life && self.nodes[&node].run.is_none() {
                    self.start(node, false);
                }
            }
            Event::Call { op } => self.call(node, op),
            Event::Answer { op, attempt, answer } => self.answered(op, attempt, answer),
            Event::Attempt { op, attempt } => self.attempt(op, attempt),
            Event::Client { client } => self.next_operation(client),
            Event::Glance => self.glance(),
            Event::Tell { caller, message } => self.told(node, caller, *message),
            Event::Serve { caller, id, row } => self.serve(caller, &id, &row),
            Event::Fault => self.fault(),
            Event::Storm => self.storm(),
            Event::Move => self.move_a_group(),
            Event::Map { version } => self.see_map(node, version),
            Event::Heal => {
                self.tell("links heal".to_owned());
                self.network.cut.clear();
            }
            Event::Tick { life }
            | Event::Step { life }
            | Event::Synced { life }
            | Event::Checkpoint { life }
            | Event::Fetch { life, .. }
            | Event::Drop { life, .. }
            | Event::Arrives { life, .. }
            | Event::Alarms { life }
            | Event::Carry { life, .. }
            | Event::CarriedTooLong { life, .. }
            | Event::Carried { life, .. }
            | Event::Plan { life }
                if self.nodes[&node].run.is_none() || self.nodes[&node].life != life => {}
            Event::Tick { .. } => self.tick(node),
            Event::Step { .. } => self.step(node),
            Event::Synced { .. } => self.synced(node),
            Event::Checkpoint { .. } => self.checkpoint(node),
            Event::Fetch { fetch, .. } => self.fetch(node, fetch),
            Event::Drop { group, generation, .. } => self.drop_generation(node, group, generation),
            Event::Arrives { input, .. } => self.arrives(node, input),
            Event::Plan { .. } => self.plan(node),
            Event::Alarms { .. } => self.alarms(node),
            Event::Carry {
                group,
                term,
                id,
                attempt,
                hint,
                ..
            } => self.carry(node, group, term, id, attempt, hint),
            Event::CarriedTooLong { number, .. } => self.carried_too_long(node, number),
            Event::Carried { number, end, .. } => self.carried(node, number, end),
        }
    }

    /// Lets something happen at a node (0 for none) after a while.
    pub(super) fn after(&mut self, delay: u64, node: NodeId, event: Event) {
        self.at(self.now + delay, node, event);
    }

    pub(super) fn at(&mut self, at: u64, node: NodeId, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), (node, event));
    }

    pub(super) fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.get_mut(&node).expect("nodes never leave")
    }

    /// Something that people want to know of a run.
    pub(super) fn tell(&mut self, what: String) {
        self.trace.note(self.now, format_args!("{what}"));
        self.author_hears(what);
    }

    /// Takes note of a verdict; the first that fails ends the run.
    pub(super) fn verdict(&mut self, invariant: &'static str, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.violated(invariant, what);
        }
    }

    pub(super) fn violated(&mut self, invariant: &'static str, what: String) {
        self.trace.note(self.now, format_args!("VIOLATED {invariant}: {what}"));
        self.violation.get_or_insert(Violation { invariant, what });
    }

    pub(super) fn count(&mut self, what: &'static str, number: u64) {
        *self.counts.entry(what).or_default() += number;
    }
}
