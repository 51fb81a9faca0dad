//! Finished spans on their way to an OTLP collector, with exactly the ids that travelled.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cluster::{SpanRecord, SpanSink, TraceContext, config::NodeId, trace::Attribute};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _},
};

/// Spans that may wait for the collector; over it they are dropped.
const QUEUE_LEN_MAX: usize = 16_384;
/// Spans of one export.
const BATCH_LEN_MAX: usize = 1024;
/// A span waits at most this long before it is sent.
const BATCH_DELAY_MS: u64 = 1000;

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported to {endpoint}: {reason}; mend or unset OTEL_EXPORTER_OTLP_ENDPOINT")]
pub(crate) struct BridgeError {
    endpoint: String,
    reason: String,
}

/// Takes finished spans and exports them in batches from a thread of its own.
pub(crate) struct SpanExporterBridge {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl SpanExporterBridge {
    /// Starts exporting to a collector's gRPC endpoint. Connects when the first batch is sent, so that a collector that is
    /// away delays nobody. Must be called inside of a tokio runtime.
    pub(crate) fn start(endpoint: &str, node: NodeId) -> Result<Self, BridgeError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| BridgeError {
                endpoint: endpoint.to_owned(),
                reason: error.to_string(),
            })?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_LEN_MAX)
            .with_max_export_batch_size(BATCH_LEN_MAX)
            .with_scheduled_delay(Duration::from_millis(BATCH_DELAY_MS))
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(&resource(node));
        Ok(Self {
            processor,
            scope: InstrumentationScope::builder("playhouse")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })
    }

    /// Sends what has not been sent yet and ends.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.processor.shutdown() {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

impl SpanSink for SpanExporterBridge {
    fn record(&self, span: SpanRecord) {
        if span.trace.sampled {
            self.processor.on_end(span_data(span, self.scope.clone()));
        }
    }
}

fn resource(node: NodeId) -> Resource {
    let builder = Resource::builder().with_attribute(KeyValue::new("service.instance.id", node.to_string()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(_) => builder.build(),
        Err(_) => builder.with_service_name("playhouse").build(),
    }
}

fn span_data(span: SpanRecord, instrumentation_scope: InstrumentationScope) -> SpanData {
    let mut links = SpanLinks::default();
    links.links = span
        .links
        .iter()
        .map(|link| Link::with_context(context(link)))
        .collect();
    SpanData {
        span_context: context(&span.trace),
        parent_span_id: SpanId::from(span.parent_span_id),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name,
        start_time: time(span.start_unix_ns),
        end_time: time(span.end_unix_ns),
        attributes: span
            .attributes
            .into_iter()
            .map(|(name, value)| match value {
                Attribute::Text(text) => KeyValue::new(name, text.into_owned()),
                Attribute::Number(number) => KeyValue::new(name, number),
            })
            .collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope,
    }
}

fn context(trace: &TraceContext) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(trace.sampled);
    SpanContext::new(
        TraceId::from(trace.trace_id),
        SpanId::from(trace.span_id),
        flags,
        false,
        TraceState::default(),
    )
}

fn time(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::{
        collector::trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
        trace::v1::Span,
    };
    use tokio::{net::TcpListener, sync::mpsc};
    use tonic::{Request, Response, Status, transport::server::TcpIncoming};

    use super::*;

    struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.send(request.into_inner()).expect("the test waits");
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_reach_a_collector_with_their_own_ids_and_parents() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let (sender, mut requests) = mpsc::unbounded_channel();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(Collector(sender)))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );

        let bridge = Arc::new(SpanExporterBridge::start(&endpoint, 3).expect("a good endpoint"));
        let caller = TraceContext::random(true);
        let timer = TraceContext::random(true);
        let edge = SpanRecord::begin("Orders/PlaceOrder", &caller).with("rpc.system", "grpc");
        let mut inner = SpanRecord::begin("decide", &edge.trace).with("wait_ns", 42_i64);
        inner.links.push(timer);
        let unsampled = SpanRecord::begin("unseen", &TraceContext::random(false));
        let (edge_id, inner_id) = (edge.trace.span_id, inner.trace.span_id);
        bridge.record(inner.finish(Some("out of stock".to_owned())));
        bridge.record(edge.finish(None));
        bridge.record(unsampled.finish(None));
        let stopping = Arc::clone(&bridge);
        tokio::task::spawn_blocking(move || stopping.stop())
            .await
            .expect("no panic");

        let request = requests.recv().await.expect("an export");
        let resource = request.resource_spans[0].resource.clone().expect("a resource");
        let name_of = |key: &str| resource.attributes.iter().any(|attribute| attribute.key == key);
        assert!(name_of("service.name") && name_of("service.instance.id"));
        let spans: Vec<Span> = request
            .resource_spans
            .into_iter()
            .flat_map(|of_resource| of_resource.scope_spans)
            .flat_map(|of_scope| of_scope.spans)
            .collect();
        assert_eq!(spans.len(), 2, "what is not sampled is not sent");
        for span in &spans {
            assert_eq!(span.trace_id, caller.trace_id.to_be_bytes());
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        }
        let (inner, edge) = (&spans[0], &spans[1]);
        assert_eq!(edge.span_id, edge_id.to_be_bytes());
        assert_eq!(edge.parent_span_id, caller.span_id.to_be_bytes());
        assert_eq!(inner.span_id, inner_id.to_be_bytes());
        assert_eq!(inner.parent_span_id, edge_id.to_be_bytes());
        assert_eq!(inner.links[0].trace_id, timer.trace_id.to_be_bytes());
        assert_eq!(inner.status.as_ref().expect("failed").message, "out of stock");
    }
}
