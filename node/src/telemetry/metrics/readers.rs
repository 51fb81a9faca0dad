//! Who reads the metrics: Prometheus, when it asks, and an OTLP collector, where the environment names one.

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::config::NodeId;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{Meter, MeterProvider as _},
};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_prometheus_text_exporter::PrometheusExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};

/// Names the collector; see the OpenTelemetry specification of OTLP exporters.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Time between two exports in milliseconds, where the environment does not say.
const INTERVAL_VARIABLE: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const INTERVAL_MS: u64 = 10_000;
/// How long one export may take.
const EXPORT_MAX: Duration = Duration::from_secs(3);

/// Why metrics cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be exported to {endpoint}: {reason}; mend or unset OTEL_EXPORTER_OTLP_ENDPOINT")]
pub(crate) struct ReaderError {
    endpoint: String,
    reason: String,
}

/// The collector that the environment names.
pub(super) fn endpoint() -> Option<String> {
    let mut values = ENDPOINT_VARIABLES.iter().filter_map(|name| env::var(name).ok());
    values.find(|value| !value.is_empty())
}

/// The readers, and what they read.
pub(super) struct Readers {
    provider: SdkMeterProvider,
    text: PrometheusExporter,
    exports: Arc<Exports>,
}

impl Readers {
    /// Connects when the first export is due, so that a collector that is away delays nobody: what cannot be exported is dropped
    /// and counted. Must be called inside of a tokio runtime.
    pub(super) fn begin(node: NodeId, endpoint: Option<&str>) -> Result<Self, ReaderError> {
        // One node is one target; what a scope would tell is the same on all lines.
        let text = PrometheusExporter::builder().without_scope_info().build();
        let mut builder = SdkMeterProvider::builder()
            .with_resource(resource(node))
            .with_reader(text.clone());
        let exports = Arc::new(Exports::default());
        if let Some(endpoint) = endpoint {
            let exporter = MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_MAX)
                .with_temporality(Temporality::Cumulative)
                .build()
                .map_err(|error| ReaderError {
                    endpoint: endpoint.to_owned(),
                    reason: error.to_string(),
                })?;
            let counted = Counted {
                exporter,
                exports: Arc::clone(&exports),
            };
            builder = builder.with_reader(PeriodicReader::builder(counted).with_interval(interval()).build());
            tracing::info!(%endpoint, "metrics are exported");
        }
        let readers = Self {
            provider: builder.build(),
            text,
            exports,
        };
        Arc::clone(&readers.exports).observe(&readers.meter());
        Ok(readers)
    }

    /// Makes instruments.
    pub(super) fn meter(&self) -> Meter {
        let scope = InstrumentationScope::builder("playhouse").with_version(env!("CARGO_PKG_VERSION"));
        self.provider.meter_with_scope(scope.build())
    }

    /// Everything, in Prometheus' text format.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.text.export(&mut text)?;
        Ok(text)
    }

    /// Exports to the collector so far: those that were taken, and those that failed.
    #[cfg(test)]
    pub(super) fn exports(&self) -> (u64, u64) {
        let Exports { done, failed } = &*self.exports;
        (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Exports once more, and ends.
    pub(super) fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last metrics were not exported");
        }
    }
}

fn interval() -> Duration {
    let said = env::var(INTERVAL_VARIABLE).ok().and_then(|value| value.parse().ok());
    Duration::from_millis(said.filter(|ms| *ms > 0).unwrap_or(INTERVAL_MS))
}

fn resource(node: NodeId) -> Resource {
    let builder = Resource::builder().with_attribute(KeyValue::new("service.instance.id", node.to_string()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(_) => builder.build(),
        Err(_) => builder.with_service_name("playhouse").build(),
    }
}

/// Exports to the collector, by how they ended.
#[derive(Debug, Default)]
struct Exports {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Exports {
    fn observe(self: Arc<Self>, meter: &Meter) {
        let outcomes = ["exported", "failed"].map(|outcome| [KeyValue::new("outcome", outcome)]);
        meter
            .u64_observable_counter("playhouse.telemetry.metric.exports")
            .with_description("Exports of metrics to the OTLP collector, by outcome; a failed one is dropped.")
            .with_callback(move |observer| {
                observer.observe(self.done.load(Ordering::Relaxed), &outcomes[0]);
                observer.observe(self.failed.load(Ordering::Relaxed), &outcomes[1]);
            })
            .build();
    }
}

/// Counts what becomes of exports. A failure is said at the level of debugging only: it would be said every few seconds.
#[derive(Debug)]
struct Counted {
    exporter: MetricExporter,
    exports: Arc<Exports>,
}

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let exported = self.exporter.export(metrics).await;
        match &exported {
            Ok(()) => self.exports.done.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "metrics were not exported");
                self.exports.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        // The library would say each failure at the level of errors.
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
