//! The provider's own part of a trace: one span for each call that moves money and belongs to a recorded trace.
//!
//! They go over OTLP to the first of the given places that takes them, and are dropped if none does.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri};
use cluster::{SpanRecord, TraceContext, trace::SpanKind};
use tokio::sync::mpsc;

use crate::telemetry::traces::{
    collector::{Collector, CollectorError},
    otlp,
};

/// The provider's name in traces.
const SERVICE: &str = "payment-provider";
/// Spans that may wait.
const WAITING_MAX: usize = 4_096;
/// So many are sent at once, and so long they wait for each other.
const BATCH_LEN_MAX: usize = 256;
const BATCH_DELAY: Duration = Duration::from_millis(100);

/// Takes finished spans.
#[derive(Debug, Clone)]
pub(super) struct Spans(mpsc::Sender<SpanRecord>);

impl Spans {
    /// Sends spans to the first of these addresses that takes them, or where the environment says if there is none. Must be
    /// called inside of a tokio runtime.
    pub(super) fn start(addresses: &[String]) -> Result<Option<Self>, CollectorError> {
        let mut places = addresses
            .iter()
            .map(|address| Collector::at(address))
            .collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() {
            places.extend(Collector::from_environment()?);
        }
        if places.is_empty() {
            return Ok(None);
        }
        let (sender, mut queue) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            let mut batch: Vec<SpanRecord> = Vec::new();
            while queue.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
                tokio::time::sleep(BATCH_DELAY).await;
                while let (true, Ok(span)) = (batch.len() < BATCH_LEN_MAX, queue.try_recv()) {
                    batch.push(span);
                }
                let spans = batch.drain(..).map(otlp::span).collect();
                let request = otlp::request(SERVICE, &otlp::process(), spans);
                for place in &places {
                    if place.export(&request).await.is_ok() {
                        break;
                    }
                }
            }
        });
        Ok(Some(Self(sender)))
    }

    /// Begins the span of a call, if it belongs to a recorded trace.
    pub(super) fn begin(headers: &HeaderMap, uri: &Uri) -> Option<SpanRecord> {
        let parent = TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)?;
        parent.sampled.then(|| {
            SpanRecord::begin(format!("POST {}", uri.path()), &parent)
                .of_kind(SpanKind::Server)
                .with("http.request.method", "POST")
                .with("url.path", uri.path().to_owned())
        })
    }

    /// The call was answered like this.
    pub(super) fn end(&self, span: SpanRecord, status: StatusCode, failure: Option<&str>) {
        let span = span.with("http.response.status_code", i64::from(status.as_u16()));
        // Full, or the process ends: nothing rests on it.
        let _ = self.0.try_send(span.finish(failure.map(str::to_owned)));
    }
}
