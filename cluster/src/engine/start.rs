//! How an engine comes to life, and how it ends.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{Engine, SNAPSHOTS};
use crate::{
    clock::SystemClock,
    cluster::StartError,
    config::Config,
    entity::Registry,
    journal::{
        Shard,
        keys::{self, Meta},
    },
    membership,
    replication::{Boot, Driver, HardState, Input, Members, Settings, node_of, raft_id},
    service::Services,
    shard::{
        checkpointer, end_node, flusher,
        mailbox::{Event, Mailbox},
        replica::{Replica, Route, Surroundings},
        runtime,
    },
    spans::Spans,
    store::{
        Batch, StateStore, StoreError,
        identity::Identity,
        log::{Log, StoredGroup},
        state::StateDb,
    },
    transport::links::Links,
};

/// Index and term at which the log of every group begins. Not zero, so that a replica that begins with nothing is sent a
/// snapshot and learns the members from it.
const BEGIN: (u64, u64) = (1, 1);
/// How long an ending node waits for others to take its leaderships.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

impl Engine {
    /// Opens the data folder and begins to take part, in the background.
    pub(crate) async fn start(config: Config, registry: Registry, services: Services) -> Result<Arc<Self>, StartError> {
        check(&config)?;
        let (node, shards, folder) = (config.node, config.shards, config.data.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let identity = Identity::open(&folder, node, shards)?;
            // Snapshots are made for those who need them now; what is left of an earlier run is of no use.
            match std::fs::remove_dir_all(folder.join(SNAPSHOTS)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
                _ => {}
            }
            let log = Log::open(&folder.join("log")).map_err(|error| error.to_string())?;
            let db = StateDb::open(&folder.join("state")).map_err(|error| error.to_string())?;
            Ok::<_, String>((identity, log, db))
        });
        let (identity, log, db) = opened
            .await
            .map_err(|error| StartError::Data(error.to_string()))?
            .map_err(StartError::Data)?;
        let mailbox = Arc::new(Mailbox::default());
        let links = Arc::new(Links::connect(&config, &mailbox));
        let engine = Arc::new(Self {
            routes: (0..config.shards)
                .map(|_| watch::Sender::new(Route::default()))
                .collect(),
            spans: Spans(services.spans().cloned()),
            config,
            registry,
            services,
            identity: Arc::new(identity),
            mailbox,
            links,
            log: Arc::new(log),
            db: Arc::new(db),
            replicas: OnceLock::new(),
            next_generation: AtomicU64::new(1),
            in_flight: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
            started: Instant::now(),
            checkpoints: OnceLock::new(),
            threads: Mutex::default(),
            tasks: Mutex::default(),
        });
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
        let is_first = if self.identity.is_begun() {
            false
        } else {
            let is_first = membership::introduce_first(&self.identity, &self.links).await?;
            if !is_first {
                tracing::warn!("the data folder was lost: this node comes back as a new replica of its shards");
            }
            self.begin_groups(is_first).map_err(|error| error.to_string())?;
            self.identity.set_begun()?;
            is_first
        };
        let (boots, replicas, generations) = self.open_groups(is_first).map_err(|error| error.to_string())?;
        let newest = generations.values().copied().max().unwrap_or_default();
        self.next_generation.store(newest + 1, Ordering::Relaxed);
        for replica in replicas.values() {
            replica.set_engine(Arc::downgrade(self));
        }
        assert!(self.replicas.set(replicas.clone()).is_ok(), "an engine begins once");
        self.run(boots, replicas, generations)
            .map_err(|error| format!("a thread cannot be started: {error}"))
    }

    /// Writes the beginning of every group of this node: with its first members, or with nothing if the rest is to come
    /// from peers.
    fn begin_groups(&self, is_first: bool) -> Result<(), StoreError> {
        for shard in self.own_shards() {
            let meta = if is_first {
                let voters = self
                    .config
                    .home_of(shard)
                    .into_iter()
                    .map(|node| raft_id(node, 0))
                    .collect();
                Meta {
                    applied: BEGIN,
                    members: Members::of_voters(voters),
                    ..Meta::default()
                }
            } else {
                Meta::default()
            };
            self.db.keep_only(shard, 0)?;
            let mut batch = Batch::default();
            batch.put(keys::META.to_vec(), keys::encode(&meta));
            self.db.shard(shard, 0)?.write(batch)?;
        }
        self.db.sync()?;
        for shard in self.own_shards() {
            let stored = if is_first {
                StoredGroup {
                    hard_state: HardState {
                        term: BEGIN.1,
                        vote: 0,
                        commit: BEGIN.0,
                    },
                    cut: BEGIN,
                    ..StoredGroup::default()
                }
            } else {
                StoredGroup::default()
            };
            self.log.begin(shard, &stored)?;
        }
        Ok(())
    }

    fn own_shards(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.config.shards).filter(|shard| self.config.home_of(*shard).contains(&self.config.node))
    }

    #[allow(clippy::type_complexity)] // Three things that belong together only here.
    fn open_groups(
        &self,
        is_first: bool,
    ) -> Result<(Vec<Boot>, BTreeMap<u32, Arc<Replica>>, HashMap<u32, u64>), StoreError> {
        let surroundings = Surroundings {
            registry: self.registry.clone(),
            limits: self.config.limits.clone(),
            mailbox: Arc::clone(&self.mailbox),
            db: Arc::clone(&self.db),
            clock: Arc::new(SystemClock),
            spans: self.spans.clone(),
        };
        let (mut boots, mut replicas, mut generations) = (Vec::new(), BTreeMap::new(), HashMap::new());
        for shard in self.own_shards() {
            let stored = self
                .log
                .group(shard)?
                .ok_or_else(|| StoreError::Failed(format!("the log knows nothing of shard {shard}; {REBUILD}")))?;
            self.db.keep_only(shard, stored.generation)?;
            let state = Shard::open(self.db.shard(shard, stored.generation)?)?;
            let meta = state.meta().clone();
            if meta.applied.0 < stored.cut.0 {
                return Err(StoreError::Failed(format!(
                    "the state of shard {shard} ends at {}, and the log begins after {}; {REBUILD}",
                    meta.applied.0, stored.cut.0
                )));
            }
            let mut hard_state = stored.hard_state;
            // The commit position is written along with other things; the state store may know better.
            hard_state.commit = hard_state.commit.max(meta.applied.0);
            boots.push(Boot {
                group: shard,
                id: self.identity.raft_id(),
                hard_state,
                cut: stored.cut,
                entries: stored.entries,
                applied: meta.applied.0,
                members: meta.members,
                generation: stored.generation,
                campaign: is_first && self.config.home_of(shard).first() == Some(&self.config.node),
            });
            generations.insert(shard, stored.generation);
            let route = self.routes[shard as usize].clone();
            replicas.insert(shard, Arc::new(Replica::new(shard, state, surroundings.clone(), route)));
        }
        Ok((boots, replicas, generations))
    }

    fn run(
        self: &Arc<Self>,
        boots: Vec<Boot>,
        replicas: BTreeMap<u32, Arc<Replica>>,
        generations: HashMap<u32, u64>,
    ) -> std::io::Result<()> {
        let limits = &self.config.limits;
        let settings = Settings {
            heartbeat_ticks: limits.heartbeat_ticks,
            election_ticks: limits.election_ticks,
            append_records_max: limits.append_records_max,
            append_bytes_max: limits.append_bytes_max,
            seed: self.identity.nonce(),
        };
        let writes = flusher::spawn(Arc::clone(&self.log), Arc::clone(&self.mailbox), generations)?;
        let (checkpoints, checkpointer) = checkpointer::spawn(checkpointer::Parts {
            replicas: replicas.clone(),
            registry: self.registry.clone(),
            limits: limits.clone(),
            db: Arc::clone(&self.db),
            log: Arc::clone(&self.log),
            mailbox: Arc::clone(&self.mailbox),
            snapshots: self.snapshot_folder(),
        })?;
        let (tasks, queue) = mpsc::unbounded_channel();
        let driver = runtime::spawn(runtime::Parts {
            driver: Driver::new(self.config.node, &settings, boots),
            mailbox: Arc::clone(&self.mailbox),
            replicas,
            writes,
            outgoing: Arc::clone(&self.links),
            tasks,
            tick: self.config.tick(),
        })?;
        assert!(self.checkpoints.set(checkpoints).is_ok(), "an engine begins once");
        self.threads.lock().extend([driver, checkpointer]);
        self.tasks.lock().extend([
            tokio::spawn(Arc::clone(self).do_tasks(queue)),
            tokio::spawn(Arc::clone(self).keep_planning()),
            tokio::spawn(membership::keep_introducing(
                Arc::clone(&self.identity),
                Arc::clone(&self.links),
            )),
        ]);
        Ok(())
    }

    /// Gives leaderships away, makes a last checkpoint, closes.
    pub(crate) async fn shutdown(self: &Arc<Self>) {
        if self.leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        self.hand_over().await;
        self.stopping.send_replace(true);
        self.mailbox.send(Event::Stop);
        if let Some(checkpoints) = self.checkpoints.get() {
            // It ends by itself only when the node does.
            let _ = checkpoints.send(checkpointer::Request::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        // A thread that panicked has ended the process already.
        let _ = joined.await;
        for replica in self.replicas.get().into_iter().flat_map(BTreeMap::values) {
            replica.close();
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.links.close();
    }

    async fn hand_over(&self) {
        let deadline = Instant::now() + HAND_OVER_MAX;
        while let Some(groups) = self.group_status().await {
            let led: Vec<_> = groups.into_iter().filter(|group| group.is_leader).collect();
            let mut moving = false;
            for group in led.iter().filter(|group| !group.transferring) {
                let best = group
                    .matched
                    .iter()
                    .filter(|(id, _)| group.members.voters.contains(id))
                    .filter(|(id, _)| self.links.peer(node_of(*id)).is_some_and(|peer| peer.forward.is_up()))
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

/// What to do about a folder whose parts do not fit together.
const REBUILD: &str = "delete this node's data folder and start it: it is rebuilt from its peers";

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
    if limits.idle_ms < 4 || limits.append_records_max == 0 || limits.mailbox_len_max == 0 {
        return wrong("limits: idle_ms must be at least 4, the other limits at least 1".to_owned());
    }
    Ok(())
}
