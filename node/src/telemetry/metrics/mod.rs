//! What a node measures: OpenTelemetry metrics behind two readers, and a short history for people.
//!
//! One API ([`opentelemetry::metrics`]); [`readers`] says who reads it: Prometheus, as text, and an OTLP collector where the
//! environment names one. Nothing that happens often pays for being measured: durations go into instruments that were bound to
//! their attributes before, and all other figures are counted where they happen and looked at once a second.
//!
//! Reading order: this file (the handle, and the look once a second), [`readers`], [`recorder`] (what is measured as it happens),
//! [`durations`] (times in few buckets), [`engine`] (the engine's own figures), [`grpc`] (calls), [`process`] and [`disk`], [`domain`]
//! and [`levels`] (what the shop does and holds), [`series`] (the last ten minutes, second by second), [`objectives`] (whether commands are good
//! enough), [`exemplars`] (traces that stand for durations) and [`openmetrics`] (where they join the figures).
//!
//! No id is ever an attribute. What values an attribute can have is fixed here, or by the configuration: see `docs/metrics.md`.

mod disk;
mod domain;
mod durations;
mod engine;
pub(crate) mod exemplars;
pub(crate) mod grpc;
mod levels;
pub(crate) mod objectives;
mod openmetrics;
mod process;
mod readers;
mod recorder;
pub(crate) mod series;
#[cfg(test)]
mod tests;

use std::{
    env, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cluster::{Cluster, config::NodeId, metrics::Meter};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use disk::Disk;
use domain::Domain;
use engine::Engine;
use exemplars::Exemplars;
use grpc::Grpc;
use levels::Levels;
use objectives::Objectives;
use readers::Readers;
use recorder::Recorder;
use series::Series;

pub(crate) use readers::ReaderError;

/// Turns all of it off where it is `off`.
const SWITCH_VARIABLE: &str = "PLAYHOUSE_METRICS";
/// Time between two looks at all figures.
pub(crate) const STEP: Duration = Duration::from_secs(1);
/// What durations are sorted into, in seconds. Among them are the thresholds of [`objectives`].
const SECONDS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A node's metrics; a cheap handle. Without any, where they are turned off, everything here does nothing.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Option<Arc<Inner>>);

struct Inner {
    readers: Readers,
    recorder: Arc<Recorder>,
    engine: Engine,
    levels: Levels,
    disk: Disk,
    grpc: Grpc,
    series: Series,
    objectives: Objectives,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Metrics {
    /// Begins to measure, unless the environment says not to. Must be called inside of a tokio runtime.
    pub(crate) fn from_environment(node: NodeId, data: &Path) -> Result<Self, ReaderError> {
        if env::var(SWITCH_VARIABLE).is_ok_and(|value| value == "off") {
            tracing::info!("metrics are turned off");
            return Ok(Self::default());
        }
        Self::begin(node, data, readers::endpoint().as_deref())
    }

    /// Begins to measure, and to export to a collector where one is named.
    fn begin(node: NodeId, data: &Path, endpoint: Option<&str>) -> Result<Self, ReaderError> {
        let readers = Readers::begin(node, endpoint)?;
        let meter = readers.meter();
        process::observe(&meter);
        let objectives = Objectives::default();
        Ok(Self(Some(Arc::new(Inner {
            recorder: Arc::new(Recorder::new(&meter, Domain::new(&meter))),
            engine: Engine::new(&meter),
            levels: Levels::new(&meter),
            disk: Disk::new(&meter, data),
            grpc: Grpc::new(&meter),
            series: Series::default(),
            objectives,
            tasks: Mutex::default(),
            readers,
        }))))
    }

    /// Who takes in what the engine measures.
    pub(crate) fn meter(&self) -> Option<Arc<dyn Meter>> {
        let inner = self.0.as_ref()?;
        Some(Arc::clone(&inner.recorder) as Arc<dyn Meter>)
    }

    /// Looks at everything once a second from now on, for as long as the node runs.
    pub(crate) fn watch(&self, cluster: &Cluster) {
        let Some(inner) = &self.0 else { return };
        inner.tasks.lock().extend([
            tokio::spawn(keep_looking(Arc::clone(inner), cluster.clone())),
            tokio::spawn(domain::keep_looking_up(
                Arc::downgrade(&inner.recorder),
                cluster.clone(),
            )),
        ]);
    }

    /// Tells from now on when the certificate of the HTTP port ends, in seconds since 1970.
    pub(crate) fn watch_certificate(&self, until_s: impl Fn() -> i64 + Send + Sync + 'static) {
        let Some(inner) = &self.0 else { return };
        (inner.readers.meter())
            .i64_observable_gauge("playhouse.http.certificate.expiry.timestamp")
            .with_unit("s")
            .with_description("When the certificate of the HTTP port ends, in seconds since 1970.")
            .with_callback(move |observer| observer.observe(until_s(), &[]))
            .build();
    }

    /// What gRPC calls are counted by; none where metrics are turned off.
    pub(crate) fn grpc(&self) -> Option<&Grpc> {
        self.0.as_ref().map(|inner| &inner.grpc)
    }

    /// The last ten minutes.
    pub(crate) fn series(&self) -> Option<&Series> {
        self.0.as_ref().map(|inner| &inner.series)
    }

    /// How good commands were.
    pub(crate) fn objectives(&self) -> Option<&Objectives> {
        self.0.as_ref().map(|inner| &inner.objectives)
    }

    /// All metrics in Prometheus' text format; none where they are turned off.
    pub(crate) fn text(&self) -> Option<io::Result<Vec<u8>>> {
        self.0.as_ref().map(|inner| inner.readers.text())
    }

    /// The same as OpenMetrics, with exemplars.
    pub(crate) fn open_metrics(&self, exemplars: &Exemplars) -> Option<io::Result<Vec<u8>>> {
        let told = self.text()?.and_then(|text| {
            let text = String::from_utf8(text).map_err(io::Error::other)?;
            Ok(openmetrics::with_exemplars(&text, &exemplars.all()).into_bytes())
        });
        Some(told)
    }

    /// Exports what has not been exported yet, and ends. Blocks for at most a few seconds.
    pub(crate) fn stop(&self) {
        if let Some(inner) = &self.0 {
            for task in inner.tasks.lock().drain(..) {
                task.abort();
            }
            inner.readers.stop();
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The points of all nodes stand at full seconds, so that they can be put together.
async fn keep_looking(inner: Arc<Inner>, cluster: Cluster) {
    let step_ms = STEP.as_millis() as u64;
    let mut sample = series::Sampler::default();
    loop {
        let at_ms = (unix_ms() / step_ms + 1) * step_ms;
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(unix_ms()))).await;
        let figures = Arc::new(cluster.figures().await);
        inner.engine.set(Arc::clone(&figures));
        inner.levels.look(&cluster).await;
        inner.disk.look().await;
        let counts = inner.recorder.counts();
        inner.objectives.take(at_ms, &counts);
        inner.series.push(at_ms, sample.point(&counts, &figures));
    }
}
