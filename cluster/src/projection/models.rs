//! The models of one replica, for the task that feeds them and for those who ask beside it.
//!
//! A question holds the view of a model for as long as it reads the rows, and each step takes it to write: so an answer is of one
//! position, and a step waits for the questions before it, never the other way for longer than one batch takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{
    carried::{All, Carried},
    keys::{self, Place},
    line::{Generation, Line, Standing, Step, stored_lines},
    question::{GenerationView, PART_BYTES_MAX, ReplicaModel},
    rows::{Rows, RowsFault, Source as _, Stored},
};
use crate::{
    clock::steady_ns,
    feed::FeedFilter,
    store::{StateStore, StoreError},
    supervision::contain::contain,
};

/// All rows of a model, in the order of their keys, and how far it has come with them.
pub(crate) type RowsAt = (Place, Vec<(Vec<u8>, Bytes)>);

/// All models of one replica.
pub(crate) struct Models {
    pub(crate) shard: u32,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) each: Vec<Arc<Model>>,
    /// Versions and names that this build does not carry.
    pub(crate) strangers: Mutex<Vec<(String, u32)>>,
    /// Wakes the task that feeds them.
    pub(crate) nudge: Notify,
}

/// One model of one replica.
pub(crate) struct Model {
    pub(crate) carried: Arc<dyn Carried>,
    pub(crate) filter: Arc<FeedFilter>,
    store: Arc<dyn StateStore>,
    line: Mutex<Line>,
    view: RwLock<Standing>,
    /// All entries up to this one are in what answers; `None` where nothing answers yet.
    reached: watch::Sender<Option<u64>>,
    /// Why it does not go on, if so.
    fault: Mutex<String>,
    /// Everything that was acknowledged before this time of the steady clock is in it; 0 where that is not known.
    proven_ns: AtomicU64,
    /// A question found a row that is not what was written.
    is_damaged: AtomicBool,
}

/// A part of an answer.
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    pub(crate) place: Place,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPart {
    /// It is still being built.
    NotBuilt,
    /// The question itself is wrong.
    Invalid(String),
    /// The rows or the author's code failed.
    Failed(String),
}

impl Models {
    /// Opens the models of a shard.
    pub(crate) fn open(shard: u32, all: &All, store: Arc<dyn StateStore>) -> Result<Self, StoreError> {
        let mut strangers = stored_lines(&*store)?;
        strangers.retain(|(name, version)| !all.contains_key(&(name.as_str(), *version)));
        let each: Result<Vec<_>, _> = all
            .values()
            .map(|carried| Model::open(Arc::clone(carried), Arc::clone(&store)).map(Arc::new))
            .collect();
        Ok(Self {
            shard,
            each: each?,
            store,
            strangers: Mutex::new(strangers),
            nudge: Notify::new(),
        })
    }

    pub(crate) fn get(&self, name: &str, version: u32) -> Option<&Arc<Model>> {
        self.each
            .iter()
            .find(|model| (model.carried.name(), model.carried.version()) == (name, version))
    }

    /// Waits until a model has taken in everything up to an entry that this replica has applied; says whether it has.
    pub(crate) async fn reaches(&self, model: &Model, index: u64, until: Instant) -> bool {
        let mut reached = model.reached.subscribe();
        loop {
            if reached.borrow_and_update().is_some_and(|reached| reached >= index) {
                return true;
            }
            // Entries without events do not wake it by themselves.
            self.nudge.notify_one();
            // The sender lives as long as the model.
            if timeout_at(until, reached.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// How the models stand, for people.
    pub(crate) fn views(&self, node: u16, applied: u64) -> Vec<(String, u32, ReplicaModel)> {
        let views = self.each.iter().map(|model| {
            let standing = model.view.read();
            let generation = |generation: Generation| GenerationView::of(generation.number, &generation.place);
            let view = ReplicaModel {
                shard: self.shard,
                node,
                applied,
                serving: standing.serving.map(generation),
                building: standing.building.map(generation),
                removing: standing.head.removing.len() as u32,
                compared: standing.head.compared,
                fault: model.fault.lock().clone(),
            };
            (model.carried.name().to_owned(), model.carried.version(), view)
        });
        views.collect()
    }
}

impl Model {
    fn open(carried: Arc<dyn Carried>, store: Arc<dyn StateStore>) -> Result<Self, StoreError> {
        let line = Line::open(Arc::clone(&carried), Arc::clone(&store))?;
        let reached = reached(&line.standing);
        Ok(Self {
            filter: Arc::new(FeedFilter::of_kinds(carried.kinds().iter().copied())),
            carried,
            store,
            view: RwLock::new(line.standing.clone()),
            line: Mutex::new(line),
            reached: watch::Sender::new(reached),
            fault: Mutex::default(),
            proven_ns: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
        })
    }

    pub(crate) fn standing(&self) -> Standing {
        self.view.read().clone()
    }

    /// Makes a step and writes it, so that nobody sees half of it.
    pub(crate) fn step<E: From<StoreError>>(&self, make: impl FnOnce(&Line) -> Result<Step, E>) -> Result<(), E> {
        let mut line = self.line.lock();
        let step = make(&line)?;
        self.write(&mut line, step).map_err(E::from)
    }

    fn write(&self, line: &mut Line, step: Step) -> Result<(), StoreError> {
        let mut view = self.view.write();
        line.write(step)?;
        *view = line.standing.clone();
        drop(view);
        let next = reached(&line.standing);
        self.reached
            .send_if_modified(|reached| std::mem::replace(reached, next) != next);
        Ok(())
    }

    /// Writes a step that was made already.
    pub(crate) fn put(&self, step: Step) -> Result<(), StoreError> {
        self.step(|_| Ok(step))
    }

    /// Takes note of why it does not go on; an empty text where it does.
    pub(crate) fn set_fault(&self, reason: String) {
        let mut fault = self.fault.lock();
        if *fault != reason {
            if !reason.is_empty() {
                tracing::error!(
                    projection = self.carried.name(),
                    reason,
                    "a projection stands still on this node"
                );
            }
            *fault = reason;
        }
    }

    pub(crate) fn is_faulty(&self) -> bool {
        !self.fault.lock().is_empty()
    }

    /// Whether what is built may answer now.
    pub(crate) fn may_take_over(&self, at_end: bool) -> bool {
        self.line.lock().may_take_over(at_end)
    }

    /// Removes some rows of what has been replaced; says whether there were any.
    pub(crate) fn remove_some(&self) -> Result<bool, StoreError> {
        let mut line = self.line.lock();
        match line.remove_some()? {
            Some(step) => self.write(&mut line, step).map(|()| true),
            None => Ok(false),
        }
    }

    /// A row is not what was written: all is to be built anew.
    pub(crate) fn note_damage(&self) {
        self.is_damaged.store(true, Ordering::SeqCst);
    }

    /// Begins a rebuild unless one is under way, and says which generation it is.
    pub(crate) fn rebuild(&self) -> Result<Option<u64>, StoreError> {
        self.set_fault(String::new());
        self.step(|line| Ok::<_, StoreError>(line.rebuild()))?;
        Ok(self.view.read().head.building)
    }

    /// Everything that was acknowledged so long ago is in what answers.
    pub(crate) fn prove(&self, age: Duration) {
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.proven_ns
            .fetch_max(steady_ns().saturating_sub(age_ns).max(1), Ordering::SeqCst);
    }

    /// How old what answers is at most; `None` where that is not known.
    pub(crate) fn age(&self) -> Option<Duration> {
        let proven_ns = self.proven_ns.load(Ordering::SeqCst);
        (proven_ns != 0).then(|| Duration::from_nanos(steady_ns().saturating_sub(proven_ns)))
    }

    /// All entries up to this one are in what answers.
    pub(crate) fn reached(&self) -> Option<u64> {
        *self.reached.borrow()
    }

    /// Whether a question has found a damaged row since this was last asked.
    pub(crate) fn take_damage(&self) -> bool {
        self.is_damaged.swap(false, Ordering::SeqCst)
    }

    /// This shard's part of an answer. Reads the store: not for a thread that others wait for.
    pub(crate) fn part(&self, query: &[u8]) -> Result<Part, NoPart> {
        self.carried.check(query).map_err(NoPart::Invalid)?;
        let view = self.view.read();
        let serving = view.serving.ok_or(NoPart::NotBuilt)?;
        let source = self.source(serving.number);
        let rows = Rows::new(&source);
        let part = contain(|| self.carried.query(&rows, query));
        match rows.check() {
            Err(RowsFault::Store(error)) => {
                self.is_damaged
                    .fetch_or(matches!(error, StoreError::Damaged { .. }), Ordering::SeqCst);
                return Err(NoPart::Failed(error.to_string()));
            }
            Err(RowsFault::Author(reason)) => return Err(NoPart::Failed(reason)),
            Ok(()) => {}
        }
        let bytes = part
            .map_err(|panic| {
                let name = self.carried.name();
                NoPart::Failed(format!(
                    "the code of {name} panicked at {}: {}",
                    panic.place, panic.text
                ))
            })?
            .map_err(NoPart::Invalid)?;
        if bytes.len() > PART_BYTES_MAX {
            return Err(NoPart::Invalid(format!(
                "is answered with {} bytes by one shard; at most {PART_BYTES_MAX} are allowed: ask for less at a time",
                bytes.len()
            )));
        }
        Ok(Part {
            bytes,
            place: serving.place,
        })
    }

    /// All rows of what answers, and how far it has come.
    pub(crate) fn rows(&self) -> Result<Option<RowsAt>, StoreError> {
        let view = self.view.read();
        let Some(serving) = view.serving else {
            return Ok(None);
        };
        let mut rows = Vec::new();
        self.source(serving.number).scan(&[], &[], &mut |key, value| {
            rows.push((key.to_vec(), value));
            Ok(true)
        })?;
        Ok(Some((serving.place, rows)))
    }

    fn source(&self, generation: u64) -> Stored {
        Stored {
            store: Arc::clone(&self.store),
            prefix: keys::rows(self.carried.name(), self.carried.version(), generation),
        }
    }
}

fn reached(standing: &Standing) -> Option<u64> {
    standing.serving.map(|serving| serving.place.reached())
}
