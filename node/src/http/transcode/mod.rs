//! Every call of every service as JSON over HTTP: `POST /api/SERVICE/METHOD` with the request as its body.
//!
//! One answer comes as an object; a stream as lines (`application/x-ndjson`), each `{"result": …}`, the last one perhaps
//! `{"error": …}`; a stream asked for with GET and `?request=JSON` as server-sent events `result` and `error`. `GET /api` tells all
//! services with their messages and comments. JSON is protobuf's own mapping. Whoever may only read may call what is marked
//! `NO_SIDE_EFFECTS` in the contracts.
//!
//! [`codec`] carries messages that are known by their descriptors only, [`catalog`] tells them, [`fault`] what went wrong.

mod catalog;
mod codec;
mod fault;

use std::{collections::HashMap, convert::Infallible, sync::LazyLock};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
    middleware::Next,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{Stream, StreamExt as _, stream};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tonic::{Status, Streaming, client::Grpc, metadata::MetadataMap, service::Routes};

use super::{
    access::{Access, Rights, refusal},
    caller::Caller,
};
use codec::DynamicCodec;
use fault::Refused;

/// The contracts.
static CONTRACTS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("the contracts were compiled by our own build"));

/// What of a call's metadata goes in, and what comes out.
const PASSED_ON: [&str; 7] = [
    "x-request-id",
    "x-tenant",
    "x-caller",
    "x-read",
    "x-read-after",
    "traceparent",
    "grpc-timeout",
];
const ECHOED: [&str; 4] = ["x-request-id", "x-trace-id", "x-version-token", "x-staleness-ms"];
/// Who calls, where the caller does not say.
const CALLER: HeaderValue = HeaderValue::from_static("console");
const CALLER_KEY: &str = "x-caller";
/// A browser may ask again after so many seconds whether it may ask.
const PREFLIGHT_KEPT_S: HeaderValue = HeaderValue::from_static("3600");

#[derive(Clone)]
struct Api {
    services: Router,
    access: Access,
}

pub(super) fn router(services: Routes, access: Access) -> Router {
    let api = Api {
        services: services.into_axum_router(),
        access,
    };
    Router::new()
        .route("/", get(tell_catalog))
        .route("/{service}/{method}", post(call).get(listen))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "POST /api/SERVICE/METHOD calls; GET /api tells what there is",
            )
        })
        .layer(axum::middleware::from_fn(across_nodes))
        .with_state(api)
}

/// The page of one node asks the others when that one is gone: any page may ask, because it has to bring the token itself.
async fn across_nodes(request: Request<Body>, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = if is_preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        );
        let allowed = format!("authorization, content-type, {}", PASSED_ON.join(", "));
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_KEPT_S);
    }
    response
}

async fn tell_catalog(State(api): State<Api>, caller: Caller) -> Response {
    match api.access.admit(&caller) {
        Ok(_) => Json(catalog::of(&CONTRACTS)).into_response(),
        Err(answer) => *answer,
    }
}

/// A call under way: one answer, or a stream of them.
enum Answer {
    One(DynamicMessage, MetadataMap),
    Many(Streaming<DynamicMessage>, MetadataMap),
}

impl Api {
    /// Finds the method, sees to the rights, reads the request, calls.
    async fn call(
        &self,
        service: &str,
        method: &str,
        (caller, headers): (&Caller, &HeaderMap),
        body: &[u8],
    ) -> Result<Answer, Box<Response>> {
        let admitted = self.access.admit(caller)?;
        let descriptor = method_of(service, method).ok_or_else(|| {
            refusal(
                StatusCode::NOT_FOUND,
                &format!("there is no method {service}/{method}; GET /api tells what there is"),
            )
        })?;
        if admitted.rights < Rights::Operator && !is_read(&descriptor) {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                &format!("{service}/{method} changes something: that takes the rights of an operator"),
            )
            .into());
        }
        if descriptor.is_client_streaming() {
            return Err(refusal(
                StatusCode::NOT_IMPLEMENTED,
                &format!("{service}/{method} takes a stream of requests: that takes gRPC"),
            )
            .into());
        }
        let message = read(&descriptor, body).map_err(|reason| refusal(StatusCode::BAD_REQUEST, &reason))?;
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(passed_on(headers, admitted.name.as_deref()));
        self.send(&descriptor, request)
            .await
            .map_err(|status| Refused::of(&status).answer().into())
    }

    async fn send(&self, method: &MethodDescriptor, request: tonic::Request<DynamicMessage>) -> Result<Answer, Status> {
        let mut client = Grpc::new(self.services.clone());
        let Ok(()) = client.ready().await;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = path
            .parse()
            .map_err(|_| Status::internal("a method's name makes no path"))?;
        let codec = DynamicCodec::new(method.output());
        if method.is_server_streaming() {
            let answer = client.server_streaming(request, path, codec).await?;
            let (metadata, stream, _) = answer.into_parts();
            return Ok(Answer::Many(stream, metadata));
        }
        let (metadata, message, _) = client.unary(request, path, codec).await?.into_parts();
        Ok(Answer::One(message, metadata))
    }
}

fn method_of(service: &str, method: &str) -> Option<MethodDescriptor> {
    let service = CONTRACTS.get_service_by_name(service)?;
    // What nodes say to each other is not served here.
    let found = service.methods().find(|found| found.name() == method);
    found.filter(|_| !catalog::is_hidden(&service))
}

/// Whether a method is marked as one that changes nothing.
fn is_read(method: &MethodDescriptor) -> bool {
    use prost_reflect::prost_types::method_options::IdempotencyLevel;

    let descriptor = method.method_descriptor_proto();
    let level = descriptor
        .options
        .as_ref()
        .map(prost_reflect::prost_types::MethodOptions::idempotency_level);
    level == Some(IdempotencyLevel::NoSideEffects)
}

fn read(method: &MethodDescriptor, body: &[u8]) -> Result<DynamicMessage, String> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    let mut json = serde_json::Deserializer::from_slice(body);
    let message = DynamicMessage::deserialize(method.input(), &mut json)
        .map_err(|error| format!("this is no {}: {error}", method.input().name()))?;
    json.end()
        .map_err(|error| format!("there is more than one request: {error}"))?;
    Ok(message)
}

fn passed_on(headers: &HeaderMap, name: Option<&str>) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            passed.insert(HeaderName::from_static(name), value.clone());
        }
    }
    // Not every name that a certificate can have can be a caller's.
    let name = name.filter(|name| cluster::Caller::new(name).is_ok());
    let name = name.and_then(|name| HeaderValue::from_str(name).ok());
    passed.entry(CALLER_KEY).or_insert(name.unwrap_or(CALLER));
    passed
}

fn echoed(metadata: MetadataMap) -> HeaderMap {
    let mut all = metadata.into_headers();
    let mut echoed = HeaderMap::new();
    for name in ECHOED {
        if let Some(value) = all.remove(name) {
            echoed.insert(HeaderName::from_static(name), value);
        }
    }
    echoed
}

/// Protobuf's JSON, with fields that have their default: a page should not have to know which there are.
fn json_of(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().skip_default_fields(false);
    let said = message.serialize_with_options(serde_json::value::Serializer, &options);
    said.unwrap_or_else(|error| json!({ "unreadable": error.to_string() }))
}

async fn call(
    State(api): State<Api>,
    Path((service, method)): Path<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match api.call(&service, &method, (&caller, &headers), &body).await {
        Ok(Answer::One(message, metadata)) => (echoed(metadata), Json(json_of(&message))).into_response(),
        Ok(Answer::Many(messages, metadata)) => {
            let lines = said(messages).map(|said| {
                let (name, value) = said;
                Ok::<_, Infallible>(format!("{}\n", json!({ name: value })))
            });
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (echoed(metadata), kind, Body::from_stream(lines)).into_response()
        }
        Err(answer) => *answer,
    }
}

async fn listen(
    State(api): State<Api>,
    Path((service, method)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    caller: Caller,
    headers: HeaderMap,
) -> Response {
    let request = query.get("request").map_or("", String::as_str);
    match api
        .call(&service, &method, (&caller, &headers), request.as_bytes())
        .await
    {
        Ok(Answer::One(message, metadata)) => (echoed(metadata), Json(json_of(&message))).into_response(),
        Ok(Answer::Many(messages, metadata)) => {
            let events = said(messages).map(|(name, value)| Event::default().event(name).json_data(value));
            (echoed(metadata), Sse::new(events).keep_alive(KeepAlive::default())).into_response()
        }
        Err(answer) => *answer,
    }
}

/// What a stream says, and why it ended if not by itself.
fn said(messages: Streaming<DynamicMessage>) -> impl Stream<Item = (&'static str, Value)> + Send {
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        match messages.message().await {
            Ok(Some(message)) => Some((("result", json_of(&message)), Some(messages))),
            Ok(None) => None,
            Err(status) => Some((("error", Refused::of(&status).json()), None)),
        }
    })
}
