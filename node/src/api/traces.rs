//! Traces over gRPC: find, show, compare, graph; each asks all members and puts together what they say. And the door
//! through which spans come in, over OTLP.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::post,
};
use cluster::config::NodeId;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::TraceService,
};
use prost::Message as _;
use proto::telemetry::v1::{self as pb, traces_client::TracesClient};
use tonic::{Request, Response, Status};

use super::{
    logs,
    members::{self, ask_all},
    request::Edge,
    status::Fault,
};
use crate::telemetry::traces::{assemble, compare, graph::Graph, members::FROM_MEMBER_KEY, path::Tree, summary};

/// Traces of one answer, if nobody says and at most.
const FOUND_DEFAULT: u32 = 50;
const FOUND_MAX: u32 = 1_000;
/// Traces of one graph.
const GRAPH_DEFAULT: u32 = 500;
const GRAPH_MAX: u32 = 2_000;
/// Of how long ago they are.
const GRAPH_MINUTES: u64 = 15;
/// The largest message with spans.
pub(crate) const SPANS_BYTES_MAX: usize = 16 << 20;
/// A whole trace in one message.
pub(super) const TRACE_BYTES_MAX: usize = 64 << 20;
/// Log lines of one trace.
const LINES_MAX: u32 = 1_000;
/// Between two attempts to reach a member that is to forget traces, and how many there are.
const PURGE_AGAIN_AFTER: Duration = Duration::from_secs(5);
const PURGE_ATTEMPTS_MAX: u32 = 120;

/// The traces service.
#[derive(Clone)]
pub(crate) struct Traces {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::traces_server::Traces for Traces {
    async fn search(
        &self,
        request: Request<pb::SearchTracesRequest>,
    ) -> Result<Response<pb::SearchTracesResponse>, Status> {
        let (call, request) = self.edge.receive("Traces/Search", request)?;
        call.answer(self.find(request).await)
    }

    async fn get(&self, request: Request<pb::GetTraceRequest>) -> Result<Response<pb::Trace>, Status> {
        let (call, request) = self.edge.receive("Traces/Get", request)?;
        call.answer(self.show(&request).await)
    }

    async fn compare(
        &self,
        request: Request<pb::CompareTracesRequest>,
    ) -> Result<Response<pb::CompareTracesResponse>, Status> {
        let (call, request) = self.edge.receive("Traces/Compare", request)?;
        call.answer(self.difference(&request).await)
    }

    async fn graph(&self, request: Request<pb::GraphRequest>) -> Result<Response<pb::GraphResponse>, Status> {
        let (call, request) = self.edge.receive("Traces/Graph", request)?;
        call.answer(self.who_calls_whom(&request).await)
    }

    async fn purge(
        &self,
        request: Request<pb::PurgeTracesRequest>,
    ) -> Result<Response<pb::PurgeTracesResponse>, Status> {
        let (call, request) = self.edge.receive("Traces/Purge", request)?;
        let purged = self.forget(&request).await;
        if !request.own_only {
            self.edge
                .did(&call, "purge traces", &request.entity, purged.as_ref().err())
                .await;
        }
        call.answer(purged)
    }

    async fn stores(&self, request: Request<pb::StoresRequest>) -> Result<Response<pb::StoresResponse>, Status> {
        let (call, request) = self.edge.receive("Traces/Stores", request)?;
        call.answer(self.sizes(&request).await)
    }
}

fn client(channel: tonic::transport::Channel) -> TracesClient<tonic::transport::Channel> {
    TracesClient::new(channel).max_decoding_message_size(TRACE_BYTES_MAX)
}

impl Traces {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn find(&self, request: pb::SearchTracesRequest) -> Result<pb::SearchTracesResponse, Fault> {
        if !["", "ok", "error"].contains(&request.status.as_str()) {
            return Err(Fault::invalid(
                "status",
                format!("is {:?}; there are ok and error", request.status),
            ));
        }
        let limit = match request.limit {
            0 => FOUND_DEFAULT,
            limit => limit.min(FOUND_MAX),
        };
        let request = pb::SearchTracesRequest { limit, ..request };
        let (lists, unavailable_nodes) = self.found(request).await;
        let lists = lists.into_iter().map(|(_, traces)| traces);
        Ok(pb::SearchTracesResponse {
            traces: summary::merged(lists, limit as usize),
            unavailable_nodes,
        })
    }

    async fn found(&self, request: pb::SearchTracesRequest) -> (Vec<(NodeId, Vec<pb::TraceSummary>)>, Vec<u32>) {
        let own = request.clone();
        let here = async {
            let limit = own.limit as usize;
            Ok(self
                .store()
                .blocking(move |store| store.search(&own, limit))
                .await
                .unwrap_or_default())
        };
        if request.own_only {
            let found: Result<_, Status> = here.await;
            return (vec![(self.edge.cluster.node(), found.unwrap_or_default())], Vec::new());
        }
        let there = |_, channel| {
            let request = pb::SearchTracesRequest {
                own_only: true,
                ..request.clone()
            };
            async move {
                Ok(client(channel)
                    .search(members::request(request))
                    .await?
                    .into_inner()
                    .traces)
            }
        };
        let said = ask_all(&self.edge.cluster, here, there).await;
        let unavailable = said.unavailable();
        (said.answers, unavailable)
    }

    async fn show(&self, request: &pb::GetTraceRequest) -> Result<pb::Trace, Fault> {
        let trace_id = trace_id("trace_id", &request.trace_id)?;
        if request.own_only {
            return self.own(trace_id).await.ok_or_else(|| no_trace(&request.trace_id));
        }
        let (mut trace, unavailable) = self.whole(trace_id).await;
        if trace.spans.is_empty() {
            if let Some(node) = unavailable.first() {
                return Err(Fault::Engine(cluster::Error::Unavailable {
                    reason: format!(
                        "no member that answers has the trace {}; node {node} does not answer",
                        request.trace_id
                    ),
                    retry_after: members::ANSWER_MAX,
                }));
            }
            return Err(no_trace(&request.trace_id));
        }
        trace.critical_path = Tree::new(&trace.spans).critical_path();
        let mut critical: BTreeMap<&str, u64> = BTreeMap::new();
        for part in &trace.critical_path {
            *critical.entry(&part.span_id).or_default() += part.end_unix_ns - part.start_unix_ns;
        }
        for span in &mut trace.spans {
            span.critical_ns = critical.get(span.span_id.as_str()).copied().unwrap_or_default();
        }
        trace.events = assemble::events(&trace.spans);
        let filter = pb::LogFilter {
            trace_id: request.trace_id.clone(),
            ..pb::LogFilter::default()
        };
        trace.logs = logs::lines(&self.edge, filter, LINES_MAX)
            .await
            .0
            .into_iter()
            .map(logs::brief)
            .collect();
        trace.unavailable_nodes = unavailable;
        Ok(trace)
    }

    /// A trace as all members have it, in order; without spans where none has it.
    async fn whole(&self, trace_id: u128) -> (pb::Trace, Vec<u32>) {
        let text = format!("{trace_id:032x}");
        let here = async { Ok(self.own(trace_id).await) };
        let there = |_, channel| {
            let request = pb::GetTraceRequest {
                trace_id: text.clone(),
                own_only: true,
            };
            async move {
                match client(channel).get(members::request(request)).await {
                    Ok(answer) => Ok(Some(answer.into_inner())),
                    Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
                    Err(status) => Err(status),
                }
            }
        };
        let said = ask_all(&self.edge.cluster, here, there).await;
        let unavailable = said.unavailable();
        let parts: Vec<pb::Trace> = said.answers.into_iter().filter_map(|(_, trace)| trace).collect();
        let dropped_spans = parts.iter().map(|part| part.dropped_spans).max().unwrap_or_default();
        let trace = pb::Trace {
            trace_id: text,
            spans: assemble::assembled(parts.into_iter().flat_map(|part| part.spans)),
            dropped_spans,
            ..pb::Trace::default()
        };
        (trace, unavailable)
    }

    /// What this node has of a trace, as it came.
    async fn own(&self, trace_id: u128) -> Option<pb::Trace> {
        let (spans, dropped_spans) = self.store().blocking(move |store| store.get(trace_id)).await??;
        Some(pb::Trace {
            trace_id: format!("{trace_id:032x}"),
            spans,
            dropped_spans,
            ..pb::Trace::default()
        })
    }

    async fn difference(&self, request: &pb::CompareTracesRequest) -> Result<pb::CompareTracesResponse, Fault> {
        let ids = (
            trace_id("before_trace_id", &request.before_trace_id)?,
            trace_id("after_trace_id", &request.after_trace_id)?,
        );
        let ((before, unavailable), (after, _)) = tokio::join!(self.whole(ids.0), self.whole(ids.1));
        for (trace, id) in [(&before, &request.before_trace_id), (&after, &request.after_trace_id)] {
            if trace.spans.is_empty() {
                return Err(no_trace(id));
            }
        }
        let told = |trace: &pb::Trace, id| {
            let mut summary = summary::Summary::new(id);
            trace.spans.iter().for_each(|span| summary.add(span));
            Some(summary.told)
        };
        Ok(pb::CompareTracesResponse {
            before: told(&before, ids.0),
            after: told(&after, ids.1),
            names: compare::differences(&before.spans, &after.spans),
            unavailable_nodes: unavailable,
        })
    }

    async fn who_calls_whom(&self, request: &pb::GraphRequest) -> Result<pb::GraphResponse, Fault> {
        if !request.own_trace_ids.is_empty() {
            if request.own_trace_ids.len() > GRAPH_MAX as usize {
                return Err(Fault::invalid("own_trace_ids", format!("has more than {GRAPH_MAX}")));
            }
            return Ok(self.own_graph(request.own_trace_ids.clone()).await.raw());
        }
        let limit = match request.limit {
            0 => GRAPH_DEFAULT,
            limit => limit.min(GRAPH_MAX),
        };
        let since_unix_ms = match request.since_unix_ms {
            0 => crate::telemetry::logs::ring::now_ns() / 1_000_000 - GRAPH_MINUTES * 60_000,
            since => since,
        };
        let search = pb::SearchTracesRequest {
            limit,
            since_unix_ms,
            ..pb::SearchTracesRequest::default()
        };
        let (lists, mut unavailable_nodes) = self.found(search).await;
        // Each trace is read by one of those that have it.
        let wanted = summary::merged(lists.iter().map(|(_, list)| list.clone()), limit as usize);
        let mut has: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (node, list) in &lists {
            for trace in list {
                has.entry(&trace.trace_id).or_default().push(*node);
            }
        }
        let mut parts: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for (number, trace) in wanted.iter().enumerate() {
            if let Some(nodes) = has.get(trace.trace_id.as_str()) {
                parts
                    .entry(nodes[number % nodes.len()])
                    .or_default()
                    .push(trace.trace_id.clone());
            }
        }
        let own_ids = parts.remove(&self.edge.cluster.node()).unwrap_or_default();
        let here = async { Ok(self.own_graph(own_ids).await.raw()) };
        let there = |node, channel| {
            let own_trace_ids = parts.get(&node).cloned().unwrap_or_default();
            async move {
                if own_trace_ids.is_empty() {
                    return Ok(pb::GraphResponse::default());
                }
                let request = pb::GraphRequest {
                    own_trace_ids,
                    ..pb::GraphRequest::default()
                };
                Ok(client(channel).graph(members::request(request)).await?.into_inner())
            }
        };
        let said = ask_all(&self.edge.cluster, here, there).await;
        unavailable_nodes.extend(said.unavailable());
        let mut graph = Graph::default();
        for (_, part) in said.answers {
            graph.merge(part);
        }
        unavailable_nodes.sort_unstable();
        unavailable_nodes.dedup();
        Ok(pb::GraphResponse {
            traces: wanted.len() as u32,
            unavailable_nodes,
            ..graph.told()
        })
    }

    async fn own_graph(&self, ids: Vec<String>) -> Graph {
        let built = self.store().blocking(move |store| {
            let mut graph = Graph::default();
            for id in ids {
                let found = u128::from_str_radix(&id, 16).ok().and_then(|id| store.get(id));
                if let Some((spans, _)) = found {
                    graph.add(&assemble::assembled(spans));
                }
            }
            graph
        });
        built.await.unwrap_or_default()
    }

    async fn forget(&self, request: &pb::PurgeTracesRequest) -> Result<pb::PurgeTracesResponse, Fault> {
        let entity = request.entity.clone();
        cluster::EntityKey::parse(&entity).map_err(|error| Fault::invalid("entity", error))?;
        let here = async {
            let own = entity.clone();
            let purged = self.store().blocking(move |store| store.purge(&own)).await;
            match purged {
                Some(Ok(traces)) => Ok(traces as u64),
                Some(Err(error)) => Err(Status::data_loss(error.to_string())),
                None => Err(Status::unavailable("the node is stopping")),
            }
        };
        if request.own_only {
            let traces = here.await.map_err(|status| {
                Fault::Engine(cluster::Error::Unavailable {
                    reason: format!("the files of traces cannot be written anew: {}", status.message()),
                    retry_after: PURGE_AGAIN_AFTER,
                })
            })?;
            return Ok(pb::PurgeTracesResponse {
                traces,
                unavailable_nodes: Vec::new(),
            });
        }
        let there = |_, channel| {
            let request = pb::PurgeTracesRequest {
                entity: entity.clone(),
                own_only: true,
            };
            async move {
                Ok(client(channel)
                    .purge(members::request(request))
                    .await?
                    .into_inner()
                    .traces)
            }
        };
        let said = ask_all(&self.edge.cluster, here, there).await;
        Ok(pb::PurgeTracesResponse {
            traces: said.answers.iter().map(|(_, traces)| traces).sum(),
            unavailable_nodes: said.unavailable(),
        })
    }

    /// Has all members forget the traces of an entity; those that are away now, once they are back.
    pub(super) async fn forget_everywhere(&self, entity: String) {
        let request = pb::PurgeTracesRequest {
            entity,
            own_only: false,
        };
        let is_done =
            |purged: Result<pb::PurgeTracesResponse, Fault>| purged.is_ok_and(|done| done.unavailable_nodes.is_empty());
        if is_done(self.forget(&request).await) {
            return;
        }
        let traces = self.clone();
        tokio::spawn(async move {
            for _ in 0..PURGE_ATTEMPTS_MAX {
                tokio::time::sleep(PURGE_AGAIN_AFTER).await;
                if is_done(traces.forget(&request).await) {
                    return;
                }
            }
            tracing::warn!(
                entity = request.entity,
                "a member still holds traces of a forgotten entity; `playhouse trace purge` tries again"
            );
        });
    }

    async fn sizes(&self, request: &pb::StoresRequest) -> Result<pb::StoresResponse, Fault> {
        let here = async { Ok(vec![self.size().await]) };
        if request.own_only {
            let own: Result<_, Status> = here.await;
            return Ok(pb::StoresResponse {
                nodes: own.unwrap_or_default(),
                unavailable_nodes: Vec::new(),
            });
        }
        let there = |_, channel| async move {
            let request = pb::StoresRequest { own_only: true };
            Ok(client(channel)
                .stores(members::request(request))
                .await?
                .into_inner()
                .nodes)
        };
        let said = ask_all(&self.edge.cluster, here, there).await;
        Ok(pb::StoresResponse {
            unavailable_nodes: said.unavailable(),
            nodes: said.answers.into_iter().flat_map(|(_, nodes)| nodes).collect(),
        })
    }

    async fn size(&self) -> pb::TraceStore {
        let kept = self.store().blocking(|store| (store.size(), store.tally())).await;
        let ((traces, memory, disk), tally) = kept.unwrap_or_default();
        let exported = self.edge.telemetry.exporter().exported();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        pb::TraceStore {
            node: u32::from(self.edge.cluster.node()),
            traces: traces as u64,
            bytes_in_memory: memory as u64,
            bytes_on_disk: disk,
            spans_taken: tally.spans_taken,
            spans_over_limit: tally.spans_over_limit,
            traces_dropped: tally.traces_dropped,
            spans_made: count(&exported.made),
            spans_dropped: count(&exported.dropped),
            spans_unstored: count(&exported.unstored),
            collector_spans: count(&exported.collected),
            collector_spans_lost: count(&exported.uncollected),
            sample_ratio: self.edge.telemetry.sample_ratio(),
        }
    }

    fn store(&self) -> &std::sync::Arc<crate::telemetry::traces::TraceStore> {
        self.edge.telemetry.store()
    }
}

fn no_trace(id: &str) -> Fault {
    Fault::NotFound {
        kind: "trace",
        id: id.to_owned(),
    }
}

/// 32 hexadecimal digits.
fn trace_id(field: &str, text: &str) -> Result<u128, Fault> {
    let id = if text.len() == 32 {
        u128::from_str_radix(text, 16).ok()
    } else {
        None
    };
    id.ok_or_else(|| Fault::invalid(field, format!("is {text:?}; a trace's id has 32 hexadecimal digits")))
}

/// The door through which spans come in.
#[derive(Clone)]
pub(crate) struct Receiver {
    edge: Edge,
}

impl Receiver {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    /// Takes spans: those of a member for this node's own store, those of others for whoever is to keep them.
    pub(crate) async fn take(
        &self,
        spans: ExportTraceServiceRequest,
        is_from_member: bool,
    ) -> Result<ExportTraceServiceResponse, Status> {
        if is_from_member {
            let rejected = self.edge.telemetry.store().take(spans).await;
            let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
                rejected_spans: rejected as i64,
                error_message: "a span needs a trace id of 16 bytes and a span id of 8".to_owned(),
            });
            return Ok(ExportTraceServiceResponse { partial_success });
        }
        if !self.edge.telemetry.exporter().pass_on(spans) {
            return Err(Status::resource_exhausted(
                "too many spans wait to be kept; send them later",
            ));
        }
        Ok(ExportTraceServiceResponse::default())
    }
}

/// The same door over HTTP, `POST /v1/traces` with protobuf.
pub(crate) fn http(edge: Edge) -> Router {
    Router::new()
        .route("/v1/traces", post(take_http))
        .layer(DefaultBodyLimit::max(SPANS_BYTES_MAX))
        .with_state(Receiver::new(edge))
}

async fn take_http(receiver: State<Receiver>, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap, Vec<u8>) {
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    let refused = |code, text: String| (code, HeaderMap::new(), text.into_bytes());
    if headers.get(header::CONTENT_TYPE) != Some(&protobuf) {
        let reason = "send application/x-protobuf; JSON is not taken here".to_owned();
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
    }
    let spans = match ExportTraceServiceRequest::decode(body) {
        Ok(spans) => spans,
        Err(error) => return refused(StatusCode::BAD_REQUEST, format!("these are no spans: {error}")),
    };
    match receiver.take(spans, false).await {
        Ok(taken) => (
            StatusCode::OK,
            HeaderMap::from_iter([(header::CONTENT_TYPE, protobuf)]),
            taken.encode_to_vec(),
        ),
        Err(status) => refused(StatusCode::TOO_MANY_REQUESTS, status.message().to_owned()),
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let is_from_member = request.metadata().contains_key(FROM_MEMBER_KEY);
        self.take(request.into_inner(), is_from_member).await.map(Response::new)
    }
}
