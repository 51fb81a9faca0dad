//! A collector of OTLP spans in this process: it keeps them all until they are asked for.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, async_trait,
    transport::{Server, server::TcpIncoming},
};

/// Spans by their trace.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    traces: Arc<Mutex<HashMap<u128, Vec<Span>>>>,
}

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        let mut traces = self.traces.lock();
        for span in spans {
            if let Ok(trace) = <[u8; 16]>::try_from(span.trace_id.as_slice()) {
                traces.entry(u128::from_be_bytes(trace)).or_default().push(span);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a port of its own; gives where.
    pub(crate) async fn listen() -> std::io::Result<(Self, SocketAddr)> {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        Ok((collector, address))
    }

    /// Everything that has arrived.
    pub(crate) fn take(&self) -> HashMap<u128, Vec<Span>> {
        std::mem::take(&mut *self.traces.lock())
    }
}
