//! Finished spans on their way: to the members that keep their traces, and to a collector outside.
//!
//! What waits is bounded, and nobody waits for it: a span that finds no room is counted and gone. One task sends what has
//! come together in a short while. A collector that does not answer has a task and a short queue of its own, so that it holds
//! nothing up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{Cluster, SpanRecord, SpanSink, config::NodeId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use super::{
    TraceStore,
    budget::{Budget, Counts},
    collector::Collector,
    members::Members,
    otlp,
};

/// Spans that may wait to be sent.
const WAITING_MAX: usize = 16_384;
/// So many are sent at once.
const BATCH_LEN_MAX: usize = 512;
/// A span waits at most this long: what a killed node has not sent is lost.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// Batches that may wait for the collector.
const COLLECTOR_BATCHES_MAX: usize = 32;
/// Batches of others that may wait to be passed on.
const FOREIGN_BATCHES_MAX: usize = 64;
/// Failures that are kept a second of traces that are not recorded.
const LATE_PER_S: u32 = 20;
/// How long the last spans may take when the node stops.
const STOP_MAX: Duration = Duration::from_secs(2);

/// What became of the spans of this node since it started.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    pub(crate) made: AtomicU64,
    /// Too many waited, or their trace had too many.
    pub(crate) dropped: AtomicU64,
    /// No member took them.
    pub(crate) unstored: AtomicU64,
    pub(crate) collected: AtomicU64,
    /// The collector did not take them.
    pub(crate) uncollected: AtomicU64,
}

/// Takes finished spans and sends them.
pub(crate) struct Exporter {
    node: NodeId,
    service: String,
    waiting: Mutex<Vec<SpanRecord>>,
    counts: Mutex<Counts>,
    wake: Notify,
    stopping: Notify,
    budget: Arc<Budget>,
    late: Budget,
    foreign: mpsc::Sender<ExportTraceServiceRequest>,
    exported: Exported,
}

/// What the task works with.
pub(crate) struct Task {
    exporter: Arc<Exporter>,
    foreign: mpsc::Receiver<ExportTraceServiceRequest>,
    collector: Option<Collector>,
}

impl Exporter {
    /// Nothing is sent before the task runs. `budget` is what the sampler looks at.
    pub(crate) fn new(
        node: NodeId,
        service: String,
        budget: Arc<Budget>,
        collector: Option<Collector>,
    ) -> (Arc<Self>, Task) {
        let (sender, foreign) = mpsc::channel(FOREIGN_BATCHES_MAX);
        let exporter = Arc::new(Self {
            node,
            service,
            waiting: Mutex::default(),
            counts: Mutex::default(),
            wake: Notify::new(),
            stopping: Notify::new(),
            budget,
            late: Budget::per_second(LATE_PER_S),
            foreign: sender,
            exported: Exported::default(),
        });
        let task = Task {
            exporter: Arc::clone(&exporter),
            foreign,
            collector,
        };
        (exporter, task)
    }

    /// What became of the spans so far.
    pub(crate) fn exported(&self) -> &Exported {
        &self.exported
    }

    /// Takes spans that another process has sent to this node; says whether there was room for them.
    pub(crate) fn pass_on(&self, spans: ExportTraceServiceRequest) -> bool {
        self.foreign.try_send(spans).is_ok()
    }

    /// Takes a span of a trace that is not recorded, unless there are too many of these; says whether it did.
    pub(crate) fn take_late(&self, mut span: SpanRecord) -> bool {
        let has_room = self.late.take();
        if has_room {
            span.trace.sampled = true;
            self.push(span.with("sampled.late", "true"));
        }
        has_room
    }

    fn push(&self, span: SpanRecord) {
        self.exported.made.fetch_add(1, Ordering::Relaxed);
        self.budget.take();
        let has_room = self.counts.lock().enter(span.trace.trace_id);
        let mut waiting = self.waiting.lock();
        if !has_room || waiting.len() >= WAITING_MAX {
            drop(waiting);
            self.exported.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(span);
        if waiting.len() == BATCH_LEN_MAX {
            self.wake.notify_one();
        }
    }

    /// Sends what has not been sent yet, within a short while.
    pub(crate) async fn stop(&self, ended: impl Future<Output = ()>) {
        self.stopping.notify_one();
        if timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

impl SpanSink for Exporter {
    fn record(&self, span: SpanRecord) {
        if span.trace.sampled {
            self.push(span);
        }
    }

    fn record_late(&self, span: SpanRecord) {
        self.take_late(span);
    }
}

impl Task {
    /// Sends until the exporter is told to stop.
    pub(crate) async fn run(mut self, cluster: Cluster, store: Arc<TraceStore>) {
        let exporter = Arc::clone(&self.exporter);
        let (batches, queue) = mpsc::channel(COLLECTOR_BATCHES_MAX);
        let collecting = self
            .collector
            .take()
            .map(|collector| (batches, tokio::spawn(collect(Arc::clone(&exporter), collector, queue))));
        let members = Members::new(cluster, store);
        let mut is_stopping = false;
        while !is_stopping {
            let mut requests = Vec::new();
            tokio::select! {
                () = sleep(BATCH_DELAY) => {}
                () = exporter.wake.notified() => {}
                () = exporter.stopping.notified() => is_stopping = true,
                Some(foreign) = self.foreign.recv() => requests.push(foreign),
            }
            while let Ok(foreign) = self.foreign.try_recv() {
                requests.push(foreign);
            }
            let mut records = std::mem::take(&mut *exporter.waiting.lock());
            while !records.is_empty() {
                let rest = records.split_off(records.len().min(BATCH_LEN_MAX));
                let spans = records.into_iter().map(otlp::span).collect();
                requests.push(otlp::request(&exporter.service, &otlp::instance(exporter.node), spans));
                records = rest;
            }
            for request in requests {
                let count = spans_of(&request);
                if let Some((batches, _)) = &collecting
                    && batches.try_send(request.clone()).is_err()
                {
                    exporter.exported.uncollected.fetch_add(count, Ordering::Relaxed);
                }
                let unstored = members.keep(request).await;
                exporter.exported.unstored.fetch_add(unstored, Ordering::Relaxed);
            }
        }
        if let Some((batches, collecting)) = collecting {
            drop(batches);
            // It ends with the queue.
            let _ = collecting.await;
        }
    }
}

/// Sends to the collector what it has room for.
async fn collect(exporter: Arc<Exporter>, collector: Collector, mut queue: mpsc::Receiver<ExportTraceServiceRequest>) {
    let mut was_lost = false;
    while let Some(request) = queue.recv().await {
        let count = spans_of(&request);
        match collector.export(&request).await {
            Ok(()) => {
                exporter.exported.collected.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut was_lost) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(reason) => {
                exporter.exported.uncollected.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut was_lost, true) {
                    tracing::warn!(%reason, "the collector takes no spans; they are counted and dropped");
                }
            }
        }
    }
}

fn spans_of(request: &ExportTraceServiceRequest) -> u64 {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}
