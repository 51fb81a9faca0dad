//! The task that feeds the models of one replica: from the shard's feed, in bounded batches, on threads that nobody waits for.
//!
//! It never runs on the driver's thread or in an activation's way. A commit wakes it and does not wait for it; how far it is behind
//! is seen in the status. A rebuild works half of the time at most, and never holds up the model that answers.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    carried::All,
    line::{Stop, Which, remove_all},
    models::{Model, Models},
};
use crate::{
    feed::{FeedPage, PageMax},
    shard::replica::Replica,
    store::{StoreError, state::StateDb},
};

/// Records and bytes of one batch, at most.
const BATCH_MAX: PageMax = PageMax {
    records: 1_024,
    bytes: 1 << 20,
};
/// Batches that are worked on at one time on a node.
const BATCHES_MAX: usize = 2;
/// Questions that read the models of a node at one time,
const QUESTIONS_MAX: usize = 4;
/// and those that may wait for that.
const QUESTIONS_WAITING_MAX: usize = 256;
/// After a commit it waits so long for more, unless somebody asks.
const GATHER: Duration = Duration::from_secs(1);
/// It looks for news after so long even when nothing woke it.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What could not be taken in is tried again after so long.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause of a rebuild after a batch.
const REST_MAX: Duration = Duration::from_millis(200);

/// The models of one replica, and the task that feeds them.
type Fed = (Arc<Models>, JoinHandle<()>);

/// The models of all replicas of a node.
pub(crate) struct Projections {
    shards: RwLock<BTreeMap<u32, Fed>>,
    batches: Arc<Semaphore>,
    pub(crate) questions: Semaphore,
    pub(crate) questions_waiting: Semaphore,
}

impl Default for Projections {
    fn default() -> Self {
        Self {
            shards: RwLock::default(),
            batches: Arc::new(Semaphore::new(BATCHES_MAX)),
            questions: Semaphore::new(QUESTIONS_MAX),
            questions_waiting: Semaphore::new(QUESTIONS_WAITING_MAX),
        }
    }
}

impl Projections {
    /// Opens the models of a replica and begins to feed them.
    pub(crate) fn begin(&self, replica: &Arc<Replica>, all: &All, db: &StateDb) -> Result<(), StoreError> {
        let shard = replica.shard();
        let models = Arc::new(Models::open(shard, all, db.models(shard)?)?);
        let projector = Projector {
            models: Arc::clone(&models),
            replica: Arc::clone(replica),
            batches: Arc::clone(&self.batches),
        };
        let task = tokio::spawn(projector.run());
        if let Some((_, before)) = self.shards.write().insert(shard, (models, task)) {
            before.abort();
        }
        Ok(())
    }

    /// Ends the work for a replica that goes.
    pub(crate) fn end(&self, shard: u32) {
        if let Some((_, task)) = self.shards.write().remove(&shard) {
            task.abort();
        }
    }

    /// Ends all work.
    pub(crate) fn stop(&self) {
        for (_, task) in std::mem::take(&mut *self.shards.write()).into_values() {
            task.abort();
        }
    }

    pub(crate) fn get(&self, shard: u32) -> Option<Arc<Models>> {
        self.shards.read().get(&shard).map(|(models, _)| Arc::clone(models))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Models>> {
        let shards = self.shards.read();
        shards.values().map(|(models, _)| Arc::clone(models)).collect()
    }
}

struct Projector {
    models: Arc<Models>,
    replica: Arc<Replica>,
    batches: Arc<Semaphore>,
}

impl Projector {
    async fn run(self) {
        let mut newer = self.replica.feed.newer();
        let mut paused: Vec<Option<Instant>> = vec![None; self.models.each.len()];
        loop {
            newer.borrow_and_update();
            let mut is_busy = self.remove_stranger().await;
            for (model, paused) in self.models.each.iter().zip(&mut paused) {
                if paused.is_some_and(|until| Instant::now() < until) && model.is_faulty() {
                    continue;
                }
                *paused = None;
                for which in [Which::Serving, Which::Building] {
                    match self.feed(model, which).await {
                        Ok(goes_on) => is_busy |= goes_on,
                        Err(reason) => {
                            model.set_fault(reason);
                            *paused = Some(Instant::now() + RETRY_INTERVAL);
                        }
                    }
                }
                is_busy |= self.remove(model).await;
            }
            if !is_busy {
                tokio::select! {
                    // The sender lives as long as the replica.
                    _ = newer.changed() => gather(&self.models.nudge).await,
                    () = self.models.nudge.notified() => {}
                    () = sleep(LOOK_INTERVAL) => {}
                }
            }
        }
    }

    /// Takes the next batch in; says whether there is more.
    async fn feed(&self, model: &Arc<Model>, which: Which) -> Result<bool, String> {
        if self.replica.applied() == 0 {
            // Its shard has not come yet: nothing is known, not even that there is nothing.
            return Ok(false);
        }
        let standing = model.standing();
        let Some(generation) = standing.generation(which) else {
            return Ok(false);
        };
        let (from, mark) = (generation.place.read, self.replica.mark());
        if model.take_damage() || (generation.place.mark != 0 && mark != 0 && generation.place.mark != mark) {
            let name = model.carried.name();
            tracing::error!(
                projection = name,
                shard = self.models.shard,
                "a model is of no use and is built anew"
            );
            self.write(model, |model| model.step(|line| Ok::<_, StoreError>(line.start_over())))
                .await?
                .map_err(|error| error.to_string())?;
            return Ok(true);
        }
        // What is built never overtakes what answers: so both are at one position when it takes over.
        let bound = standing
            .serving
            .filter(|_| which == Which::Building)
            .map(|serving| serving.place.read);
        let read = self.replica.read_feed(from, &model.filter, BATCH_MAX).await;
        let read_at = Instant::now();
        let FeedPage {
            mut records,
            mut next,
            is_end,
            age_us,
            ..
        } = read.map_err(|error| error.to_string())?;
        if let Some(bound) = bound {
            records.retain(|record| record.position <= bound);
            next = next.min(bound);
        }
        let is_new = !records.is_empty() || next > from;
        if is_new {
            let taken = self
                .write(model, move |model| {
                    model.step(|line| line.take(which, &records, next, mark))
                })
                .await?;
            match taken {
                Ok(()) => {}
                Err(Stop::Event { before, reason }) => {
                    if let Some(step) = before {
                        self.write(model, |model| model.put(*step))
                            .await?
                            .map_err(|error| error.to_string())?;
                    }
                    return Err(reason);
                }
                Err(Stop::Store(StoreError::Damaged { .. })) => {
                    model.note_damage();
                    return Ok(true);
                }
                Err(Stop::Store(error)) => return Err(error.to_string()),
            }
        }
        model.set_fault(String::new());
        if let (Which::Serving, true, Some(age_us)) = (which, is_end, age_us) {
            model.prove(Duration::from_micros(age_us) + read_at.elapsed());
        }
        if which == Which::Building {
            if self.take_over(model, is_end).await? {
                return Ok(true);
            }
            sleep(read_at.elapsed().min(REST_MAX)).await;
            return Ok(is_new);
        }
        Ok(is_new && !is_end)
    }

    async fn take_over(&self, model: &Arc<Model>, is_end: bool) -> Result<bool, String> {
        if !model.may_take_over(is_end) {
            return Ok(false);
        }
        self.write(model, |model| model.step(|line| Ok::<_, StoreError>(line.take_over())))
            .await?
            .map_err(|error| error.to_string())?;
        let (name, version, shard) = (model.carried.name(), model.carried.version(), self.models.shard);
        let head = model.standing().head;
        match head.compared {
            Some(false) => tracing::error!(
                projection = name,
                version,
                shard,
                "a model was built anew and is not the same as before: what makes it is not pure, or the old one was damaged"
            ),
            compared => tracing::info!(
                projection = name,
                version,
                shard,
                ?compared,
                "a model was built and answers now"
            ),
        }
        Ok(true)
    }

    /// Removes some rows of what has been replaced; says whether there were any.
    async fn remove(&self, model: &Arc<Model>) -> bool {
        if model.standing().head.removing.is_empty() {
            return false;
        }
        let removed = self.write(model, Model::remove_some).await;
        matches!(removed, Ok(Ok(true)))
    }

    /// Removes some rows of a model that this build does not carry, once a later version of it answers.
    async fn remove_stranger(&self) -> bool {
        let is_replaced = |name: &str| {
            let newest = self.models.each.iter().rfind(|model| model.carried.name() == name);
            newest.is_none_or(|model| model.reached().is_some())
        };
        let mut strangers = self.models.strangers.lock().clone();
        strangers.retain(|(name, _)| is_replaced(name));
        let Some((name, version)) = strangers.pop() else {
            return false;
        };
        let store = Arc::clone(&self.models.store);
        let stranger = (name.clone(), version);
        let removing = tokio::task::spawn_blocking(move || remove_all(&*store, &name, version)).await;
        match removing {
            Ok(Ok(is_all)) => {
                if is_all {
                    self.models.strangers.lock().retain(|other| *other != stranger);
                }
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Works on a thread that nobody waits for.
    async fn write<T: Send + 'static>(
        &self,
        model: &Arc<Model>,
        work: impl FnOnce(&Model) -> T + Send + 'static,
    ) -> Result<T, String> {
        let _permit = self.batches.acquire().await;
        let model = Arc::clone(model);
        tokio::task::spawn_blocking(move || work(&model))
            .await
            .map_err(|error| format!("the work on a batch ended: {error}"))
    }
}

/// Waits for more to come, unless somebody asks.
async fn gather(nudge: &Notify) {
    // Either way it is time to look.
    let _ = timeout(GATHER, nudge.notified()).await;
}
