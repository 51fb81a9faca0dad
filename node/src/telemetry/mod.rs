//! What a node tells of itself: log lines on standard error, and spans over OTLP where an endpoint is named.
//!
//! Spans are plain records ([`cluster::SpanRecord`]) with the ids that travelled in metadata, envelope, record and
//! outbox, handed over when they end. Without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing is recorded at all.
//!
//! [`metrics`] counts and measures. [`log`] sets up log lines, [`sampler`] decides which new traces are recorded, [`bridge`] exports spans.

pub(crate) mod bridge;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod sampler;

use std::{env, sync::Arc};

use cluster::{SpanSink, TraceContext, config::NodeId};

use bridge::SpanExporterBridge;
use sampler::Sampler;

/// Names the collector; see the OpenTelemetry specification of OTLP exporters.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Where the spans of this process go and which traces are recorded.
#[derive(Clone, Default)]
pub(crate) struct Telemetry {
    export: Option<(Arc<SpanExporterBridge>, Sampler)>,
}

impl Telemetry {
    /// Starts exporting if the environment names an endpoint. Must be called inside of a tokio runtime.
    pub(crate) fn from_environment(node: NodeId) -> Result<Self, bridge::BridgeError> {
        let Some(endpoint) = ENDPOINT_VARIABLES.iter().find_map(|name| {
            let value = env::var(name).ok()?;
            (!value.is_empty()).then_some(value)
        }) else {
            return Ok(Self::default());
        };
        let bridge = SpanExporterBridge::start(&endpoint, node)?;
        tracing::info!(%endpoint, "spans are exported");
        Ok(Self {
            export: Some((Arc::new(bridge), Sampler::from_environment())),
        })
    }

    /// Who takes finished spans.
    pub(crate) fn spans(&self) -> Option<Arc<dyn SpanSink>> {
        let (bridge, _) = self.export.as_ref()?;
        Some(Arc::clone(bridge) as Arc<dyn SpanSink>)
    }

    /// The trace that a call belongs to: its caller's, or a new one, so that a trace id always exists.
    pub(crate) fn trace_of(&self, traceparent: Option<&str>) -> TraceContext {
        let parent = traceparent.and_then(TraceContext::parse);
        match (&self.export, parent) {
            (Some((_, sampler)), parent) => sampler.decide(parent),
            (None, Some(parent)) => TraceContext {
                sampled: false,
                ..parent
            },
            (None, None) => TraceContext::random(false),
        }
    }

    /// Sends what has not been sent yet. Blocks for at most a few seconds.
    pub(crate) fn stop(&self) {
        if let Some((bridge, _)) = &self.export {
            bridge.stop();
        }
    }
}
