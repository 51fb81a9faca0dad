//! Traces: spans as they are made, sent, kept and read.
//!
//! [`budget`] bounds what is recorded, [`otlp`] is the form in which spans travel, [`export`] sends them to the [`members`] that
//! [`owners`] names and to a [`collector`] outside. [`store`] keeps them, with [`spill`] as its files and [`summary`] for
//! searches. [`assemble`] makes a tree of what was kept, [`path`] finds what its duration is made of, [`compare`] and
//! [`graph`] look at several.

pub(crate) mod assemble;
pub(crate) mod budget;
pub(crate) mod collector;
pub(crate) mod compare;
pub(crate) mod export;
pub(crate) mod graph;
pub(crate) mod members;
pub(crate) mod otlp;
pub(crate) mod owners;
pub(crate) mod path;
pub(crate) mod spill;
pub(crate) mod store;
pub(crate) mod summary;

use std::{path::PathBuf, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parking_lot::Mutex;

use store::{Bounds, Store, TRACES_MAX};

/// What is new is written to the files this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The traces that this node keeps; shared by all that take and read them.
#[derive(Debug)]
pub(crate) struct TraceStore(Mutex<Store>);

impl TraceStore {
    /// One that goes on with what is in the folder, once that is read: it takes and tells from the beginning. Where the
    /// folder cannot be used, traces are kept in memory only. Must be called inside of a tokio runtime.
    pub(crate) fn open(folder: PathBuf, memory_bytes_max: usize, disk_bytes_max: u64) -> Arc<Self> {
        let bounds = Bounds {
            traces_max: TRACES_MAX,
            memory_bytes_max,
        };
        let store = Arc::new(Self(Mutex::new(Store::in_memory(bounds))));
        let opening = Arc::clone(&store);
        tokio::task::spawn_blocking(move || match Store::open(bounds, &folder, disk_bytes_max) {
            Ok(mut opened) => {
                let mut store = opening.0.lock();
                opened.absorb(&store);
                *store = opened;
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "traces are kept in memory only");
            }
        });
        store
    }

    /// Takes spans in; says how many of them could not be read.
    pub(crate) async fn take(self: &Arc<Self>, request: ExportTraceServiceRequest) -> usize {
        let taken = self.blocking(move |store| {
            let (spans, unreadable) = otlp::read(request);
            store.take(spans);
            unreadable
        });
        taken.await.unwrap_or_default()
    }

    /// Writes what is new to the files until it is aborted.
    pub(crate) async fn keep_written(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush().await;
        }
    }

    /// Writes what is new to the files.
    pub(crate) async fn flush(self: &Arc<Self>) {
        self.blocking(|store| {
            if let Err(error) = store.flush() {
                tracing::warn!(%error, "traces cannot be written to their files");
            }
        })
        .await;
    }

    /// Does something that may read or write files.
    pub(crate) async fn blocking<R: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Store) -> R + Send + 'static,
    ) -> Option<R> {
        let store = Arc::clone(self);
        // None only while the node stops.
        tokio::task::spawn_blocking(move || what(&mut store.0.lock()))
            .await
            .ok()
    }
}
