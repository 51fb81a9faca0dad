//! How an engine comes to life, and how it ends.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Engine, audit::Auditor, detour::Detours, folder, folder::Folder, groups::Opened};
use crate::{
    admission::Admission,
    cluster::StartError,
    codec,
    config::{Config, NodeId},
    entity::Registry,
    faults::Faults,
    feed::group::{self, Group},
    history::audit::{Audit, RETENTION},
    membership::{
        Map, Roster,
        hello::{self, First},
        join,
    },
    projection::projector::Projections,
    replication::{Driver, Input, Settings, node_of},
    schema::{
        card::{CARD_BYTES_MAX, Card},
        fleet::Fleet,
    },
    service::Services,
    shard::{
        checkpointer, end_node, flusher,
        live::LiveEntities,
        mailbox::{Event, Mailbox},
        replica::Route,
        runtime,
        slots::Slots,
    },
    spans::Spans,
    store::identity::Identity,
    supervision::dependency::Dependency,
    transport::links::Links,
};

/// How long an ending node waits for others to take its leaderships.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

impl Engine {
    /// Opens the data folder and begins to take part, in the background.
    pub(crate) async fn start(
        mut config: Config,
        registry: Registry,
        services: Services,
    ) -> Result<Arc<Self>, StartError> {
        check(&config)?;
        let faults = Arc::new(Faults::default());
        let opened = tokio::task::spawn_blocking({
            let (config, faults) = (config.clone(), Arc::clone(&faults));
            move || folder::open(&config, &faults)
        });
        let Folder {
            identity,
            erasure,
            log,
            db,
            held,
        } = opened
            .await
            .map_err(|error| StartError::Data(error.to_string()))?
            .map_err(StartError::Data)?;
        let fleet = Fleet::new(&registry);
        let card_bytes = codec::encode(&**fleet.own()).len();
        if card_bytes > CARD_BYTES_MAX {
            return Err(StartError::Config(format!(
                "the schemas of all kinds have {card_bytes} bytes together; at most {CARD_BYTES_MAX} are allowed"
            )));
        }
        if let Some(reason) = fleet.own().obstacle(identity.map().1.floor.as_ref()) {
            return Err(StartError::Schema(reason));
        }
        let (version, map) = first_map(&config, &identity, fleet.own()).await?;
        (config.shards, config.replicas) = (map.shards, map.copies);
        let mailbox = Arc::new(Mailbox::default());
        let links = Arc::new(Links::new(&config, &mailbox, &faults));
        // Where the config file says that a peer listens is newer than what was last heard of it: it was given at this start.
        for (peer, member) in &map.members {
            links.connect(*peer, config.address_of(*peer).unwrap_or(member.address));
        }
        let engine = Arc::new(Self {
            admission: Arc::new(Admission::new(&config.limits, &registry)),
            live: Arc::new(LiveEntities::new(&config.limits)),
            projections: Projections::default(),
            subscriptions: Arc::new(Semaphore::new(config.limits.subscriptions_max)),
            erasure: Arc::new(erasure),
            auditor: Auditor::default(),
            histories: Semaphore::new(super::history::HISTORIES_IN_FLIGHT_MAX),
            fleet: Arc::new(fleet),
            routes: (0..=config.shards)
                .map(|_| watch::Sender::new(Route::default()))
                .collect(),
            detours: Detours::default(),
            replicas: Arc::new(Slots::new(config.shards + 1)),
            map: watch::Sender::new(Arc::new((version, map))),
            spans: Spans(services.spans().cloned()),
            meters: services.meters(),
            config,
            registry: (registry
                .with::<Roster>()
                .with::<Dependency>()
                .with::<Group>()
                .with::<Audit>())
            .with_retention::<Audit>(RETENTION)
            .with_retention::<Group>(group::RETENTION),
            services,
            identity: Arc::new(identity),
            mailbox,
            links,
            log: Arc::new(log),
            db: Arc::new(db),
            found: Mutex::new(held),
            faults,
            has_begun: AtomicBool::new(false),
            next_generation: AtomicU64::new(1),
            chains_ended: AtomicU64::new(0),
            last_chain: Mutex::default(),
            leaving: AtomicBool::new(false),
            unwell: Mutex::default(),
            stopping: watch::Sender::new(false),
            started: Instant::now(),
            checkpoints: OnceLock::new(),
            threads: Mutex::default(),
            tasks: Mutex::default(),
        });
        engine.learn_builds(&engine.map());
        let beginning = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move {
                match AssertUnwindSafe(engine.begin()).catch_unwind().await {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => end_node(&reason),
                    Err(_) => end_node("its data does not fit together; the panic above says where"),
                }
            }
        });
        engine.tasks.lock().push(beginning);
        Ok(engine)
    }

    async fn begin(self: &Arc<Self>) -> Result<(), String> {
        let mut is_first = false;
        let card = self.fleet.own();
        if self.identity.is_begun() {
            let said = self.map().members.get(&self.node()).and_then(|member| member.schema);
            if said.is_some_and(|build| build != self.fleet.fingerprint()) {
                hello::introduce_build(&self.identity, &self.links, card).await?;
            }
        } else if !self.identity.is_lost()
            && let First::Yes { cards } = hello::introduce_first(&self.identity, &self.links, card).await?
        {
            is_first = true;
            self.begin_with(cards)?;
            let held = self.begin_first_groups().map_err(|error| error.to_string())?;
            self.identity.begin((0, self.map().as_ref().clone()), held)?;
        } else {
            tracing::warn!("the data folder was lost: this node comes back with new replicas of its shards");
            let seeds: Vec<SocketAddr> = self.config.members.iter().map(|member| member.address).collect();
            let (version, map) = join::join(&self.identity, self.own_address(), &seeds, true, card).await?;
            self.identity.begin((version, map.clone()), BTreeMap::new())?;
            self.learn_builds(&map);
            self.map.send_replace(Arc::new((version, map)));
        }
        let opened = self.open_held(is_first).map_err(|error| error.to_string())?;
        let newest = opened.generations.values().copied().max().unwrap_or_default();
        self.next_generation.store(newest + 1, Ordering::Relaxed);
        self.run(opened)
            .map_err(|error| format!("a thread cannot be started: {error}"))
    }

    /// All nodes of a new cluster know from the start what each of them can read.
    fn begin_with(&self, cards: BTreeMap<NodeId, Arc<Card>>) -> Result<(), String> {
        let own = self.fleet.own();
        for (node, card) in &cards {
            let (reads, is_read) = (own.obstacle_of(card), card.obstacle_of(own));
            if let (Some(reason), Some(_)) = (reads, is_read) {
                return Err(format!(
                    "node {node} runs a build that cannot begin a cluster with this one: {reason}"
                ));
            }
        }
        let (version, mut map) = (self.map().version(), self.map().as_ref().clone());
        map.announce(self.node(), own);
        for (node, card) in cards {
            map.announce(node, &card);
        }
        self.learn_builds(&map);
        self.map.send_replace(Arc::new((version, map)));
        Ok(())
    }

    fn run(self: &Arc<Self>, opened: Opened) -> std::io::Result<()> {
        let limits = &self.config.limits;
        let settings = Settings {
            heartbeat_ticks: limits.heartbeat_ticks,
            election_ticks: limits.election_ticks,
            append_records_max: limits.append_records_max,
            append_bytes_max: limits.append_bytes_max,
            seed: self.identity.nonce(),
            life: rand::random(),
        };
        let (writes, flusher) = flusher::spawn(Arc::clone(&self.log), Arc::clone(&self.mailbox), opened.generations)?;
        let (checkpoints, checkpointer) = checkpointer::spawn(checkpointer::Parts {
            replicas: Arc::clone(&self.replicas),
            registry: self.registry.clone(),
            limits: limits.clone(),
            db: Arc::clone(&self.db),
            log: Arc::clone(&self.log),
            data: self.config.data.clone(),
            erasure: Arc::clone(&self.erasure),
            mailbox: Arc::clone(&self.mailbox),
            snapshots: self.snapshot_folder(),
        })?;
        let (tasks, queue) = mpsc::unbounded_channel();
        let driver = runtime::spawn(runtime::Parts {
            driver: Driver::new(self.config.node, &settings, opened.boots),
            mailbox: Arc::clone(&self.mailbox),
            replicas: Arc::clone(&self.replicas),
            writes,
            outgoing: Arc::clone(&self.links),
            data: self.config.data.clone(),
            tasks,
            tick: self.config.tick(),
        })?;
        assert!(self.checkpoints.set(checkpoints).is_ok(), "an engine begins once");
        // The flusher ends with the driver.
        self.threads.lock().extend([driver, flusher, checkpointer]);
        self.has_begun.store(true, Ordering::Release);
        self.tasks.lock().extend([
            tokio::spawn(Arc::clone(self).do_tasks(queue)),
            tokio::spawn(Arc::clone(self).keep_planning()),
            tokio::spawn(Arc::clone(self).keep_following()),
            tokio::spawn(Arc::clone(self).keep_placing()),
            tokio::spawn(Arc::clone(self).keep_closing()),
            tokio::spawn(Arc::clone(self).keep_watching_itself()),
            tokio::spawn(Arc::clone(self).keep_retention()),
            tokio::spawn(Arc::clone(self).keep_audit()),
            tokio::spawn(Self::keep_looking(Arc::downgrade(self))),
            tokio::spawn(Self::keep_witnessing(Arc::downgrade(self), self.meters.clone())),
            tokio::spawn(hello::keep_introducing(
                Arc::clone(&self.identity),
                Arc::clone(&self.links),
            )),
        ]);
        let guards = self.services.iter().map(|(_, service)| service.guard().clone());
        let following = guards.map(|guard| tokio::spawn(Arc::clone(self).keep_breaker(guard)));
        self.tasks.lock().extend(following);
        Ok(())
    }

    /// Gives leaderships away, makes a last checkpoint, closes.
    pub(crate) async fn shutdown(self: &Arc<Self>) {
        self.hand_over().await;
        let engine = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || engine.close(checkpointer::Request::Stop));
        // A thread that panicked has ended the process already.
        let _ = closed.await;
    }

    /// Ends at once and says nothing to anybody. Waits for its threads.
    pub(crate) fn halt(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.close(checkpointer::Request::Halt);
    }

    fn close(&self, last: checkpointer::Request) {
        if self.stopping.send_replace(true) {
            return;
        }
        self.mailbox.send(Event::Stop);
        if let Some(checkpoints) = self.checkpoints.get() {
            // It ends by itself only when the node does.
            let _ = checkpoints.send(last);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // One that panicked has ended the process already.
            drop(thread.join());
        }
        self.projections.stop();
        self.replicas.iter().for_each(|replica| replica.close());
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.links.close();
    }

    /// Gives leaderships away and takes none from now on.
    pub(crate) async fn hand_over(&self) {
        if self.leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        let deadline = Instant::now() + HAND_OVER_MAX;
        while let Some(groups) = self.group_status().await {
            let led: Vec<_> = groups.into_iter().filter(|group| group.is_leader).collect();
            let mut moving = false;
            for group in led.iter().filter(|group| !group.transferring) {
                let best = group
                    .matched
                    .iter()
                    .filter(|(id, _)| group.members.voters.contains(id))
                    .filter(|(id, _)| self.links.peer(node_of(*id)).is_some_and(|peer| peer.can_lead()))
                    .max_by_key(|(_, matched)| *matched);
                if let Some((id, _)) = best {
                    moving = true;
                    self.mailbox.input(Input::Transfer {
                        group: group.group,
                        to: node_of(*id),
                    });
                }
            }
            let pending = moving || led.iter().any(|group| group.transferring);
            if !pending || Instant::now() > deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The map that a node begins with: what it last saw, what a new cluster has, or what a running one tells who joins it.
async fn first_map(config: &Config, identity: &Identity, card: &Card) -> Result<(u64, Map), StartError> {
    if identity.is_begun() {
        let (version, map) = identity.map();
        if config.join.is_empty() && map.shards != config.shards {
            return Err(StartError::Data(format!(
                "{} was begun with {} shards, and the configuration says {}; the number cannot change",
                config.data.display(),
                map.shards,
                config.shards
            )));
        }
        return Ok((version, map));
    }
    if config.join.is_empty() {
        return Ok((0, Map::first(config)));
    }
    let own = config.address_of(config.node).expect("the configuration was checked");
    let map = join::join(identity, own, &config.join, identity.is_lost(), card)
        .await
        .map_err(StartError::Join)?;
    identity.begin(map.clone(), BTreeMap::new()).map_err(StartError::Data)?;
    Ok(map)
}

fn check(config: &Config) -> Result<(), StartError> {
    let wrong = |reason: String| Err(StartError::Config(reason));
    if config.address_of(config.node).is_none() {
        return wrong(format!("members: node {} itself is not among them", config.node));
    }
    if config.members.iter().any(|member| member.id == 0) {
        return wrong("members: numbers begin with 1".to_owned());
    }
    let mut ids: Vec<_> = config.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != config.members.len() {
        return wrong("members: two nodes have the same number".to_owned());
    }
    if config.shards == 0 || config.shards > 4096 {
        return wrong("shards: must be between 1 and 4096".to_owned());
    }
    if config.replicas == 0 {
        return wrong("replicas: must be at least 1".to_owned());
    }
    let limits = &config.limits;
    if limits.tick_ms == 0 || limits.heartbeat_ticks == 0 || limits.election_ticks <= limits.heartbeat_ticks {
        return wrong("limits: ticks must be above 0, and election_ticks above heartbeat_ticks".to_owned());
    }
    if limits.live_entities_max == 0
        || limits.recoveries_in_flight_max == 0
        || limits.outbox_len_max == 0
        || limits.gate_records_max == 0
    {
        return wrong(
            "limits: live_entities_max, recoveries_in_flight_max, outbox_len_max, gate_records_max must be at least 1"
                .to_owned(),
        );
    }
    if limits.idle_ms < 4 || limits.append_records_max == 0 || limits.mailbox_len_max == 0 {
        return wrong("limits: idle_ms must be at least 4, the other limits at least 1".to_owned());
    }
    Ok(())
}
