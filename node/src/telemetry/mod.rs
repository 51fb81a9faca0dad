//! What a node tells of itself: traces and log lines.
//!
//! Spans are plain records ([`cluster::SpanRecord`]) with the ids that travelled in metadata, envelope, record and
//! outbox, handed over when they end. Log lines go to standard error and are kept for a while.
//!
//! [`traces`] is all about spans, [`sampler`] decides which new traces are recorded, [`logs`] is all about log lines, [`metrics`] counts and measures.

pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod sampler;
pub(crate) mod traces;

use std::{env, path::Path, sync::Arc, time::Duration};

use cluster::{Cluster, SpanRecord, SpanSink, TraceContext, config::NodeId};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config::TelemetryConfig;
use metrics::exemplars::Exemplars;
use sampler::Sampler;
use traces::{
    TraceStore,
    budget::Budget,
    collector::{Collector, CollectorError},
    export::{Exporter, Task},
    otlp,
};

/// The folder of the traces, in a node's own.
const FOLDER: &str = "traces";

/// What a node tells of itself; a cheap handle.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    sampler: Sampler,
    exporter: Arc<Exporter>,
    store: Arc<TraceStore>,
    exemplars: Arc<Exemplars>,
    slow: Duration,
    /// Until it runs.
    task: Mutex<Option<Task>>,
    running: Mutex<Option<Running>>,
}

struct Running {
    exporting: JoinHandle<()>,
    writing: JoinHandle<()>,
}

impl Telemetry {
    /// Opens what is kept of traces in this folder. Spans wait until it [runs](Telemetry::run). Must be called inside of a
    /// tokio runtime.
    pub(crate) fn start(node: NodeId, data: &Path, config: &TelemetryConfig) -> Result<Self, CollectorError> {
        let collector = Collector::from_environment()?;
        let budget = Arc::new(Budget::per_second(config.spans_per_s_max));
        let service = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let service = service.unwrap_or_else(|| otlp::SERVICE.to_owned());
        let (exporter, task) = Exporter::new(node, service, Arc::clone(&budget), collector);
        Ok(Self(Arc::new(Inner {
            sampler: Sampler::from_environment(config.sample_ratio, budget),
            exporter,
            store: TraceStore::open(
                data.join(FOLDER),
                (config.traces_memory_mib as usize) << 20,
                u64::from(config.traces_disk_mib) << 20,
            ),
            exemplars: Arc::default(),
            slow: Duration::from_millis(config.slow_ms),
            task: Mutex::new(Some(task)),
            running: Mutex::default(),
        })))
    }

    /// Begins to send spans to the members.
    pub(crate) fn run(&self, cluster: Cluster) {
        if let Some(task) = self.0.task.lock().take() {
            *self.0.running.lock() = Some(Running {
                exporting: tokio::spawn(task.run(cluster, Arc::clone(&self.0.store))),
                writing: tokio::spawn(Arc::clone(&self.0.store).keep_written()),
            });
        }
    }

    /// Who takes finished spans.
    pub(crate) fn spans(&self) -> Arc<dyn SpanSink> {
        Arc::clone(&self.0.exporter) as Arc<dyn SpanSink>
    }

    /// The spans of this node, and what became of them.
    pub(crate) fn exporter(&self) -> &Arc<Exporter> {
        &self.0.exporter
    }

    /// The traces that this node keeps.
    pub(crate) fn store(&self) -> &Arc<TraceStore> {
        &self.0.store
    }

    /// The part of new traces that are recorded.
    pub(crate) fn sample_ratio(&self) -> f64 {
        self.0.sampler.ratio()
    }

    /// The trace that a call of this name belongs to: its caller's, or a new one, so that a trace id always exists.
    pub(crate) fn trace_of(&self, name: &str, traceparent: Option<&str>) -> TraceContext {
        self.0.sampler.decide(name, traceparent.and_then(TraceContext::parse))
    }

    /// Whether a call that took so long is told of in any case.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took >= self.0.slow
    }

    /// A call has ended, and its span with it. One of a trace that is not recorded has failed, or was slow.
    pub(crate) fn record_call(&self, method: &'static str, span: SpanRecord, took: Duration) {
        let trace = span.trace;
        let is_kept = if trace.sampled {
            self.0.exporter.record(span);
            true
        } else {
            self.0.exporter.take_late(span)
        };
        if is_kept {
            self.0.exemplars.take(method, trace, took);
        }
    }

    /// Calls that stand for others, by how long they took.
    pub(crate) fn exemplars(&self) -> &Arc<Exemplars> {
        &self.0.exemplars
    }

    /// Sends and writes what has not been yet, within a few seconds.
    pub(crate) async fn stop(&self) {
        let running = self.0.running.lock().take();
        let Some(Running { exporting, writing }) = running else {
            return;
        };
        // Either way nothing more is to be done for it.
        self.0.exporter.stop(async { drop(exporting.await) }).await;
        writing.abort();
        self.0.store.flush().await;
    }
}
