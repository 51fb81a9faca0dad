//! Spans as OTLP has them: made of the engine's records, and read into what the store keeps.

use std::collections::HashMap;

use cluster::{
    SpanRecord,
    config::NodeId,
    trace::{Attribute, SpanKind},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status::StatusCode},
};
use proto::telemetry::v1 as pb;

/// The service of the nodes, unless `OTEL_SERVICE_NAME` says otherwise.
pub(crate) const SERVICE: &str = "playhouse";
/// The attribute of a resource that says which process it is.
const INSTANCE: &str = "service.instance.id";
/// Of a span that is told of by another than who made it.
pub(crate) const RECOVERED: &str = "playhouse.recovered";
/// Attributes of one span that are kept, and bytes of each value.
const ATTRIBUTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1_024;

/// A span that was read, with its trace.
pub(crate) type Read = (u128, pb::Span);

/// Spans of one process.
pub(crate) fn request(service: &str, instance: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", service.to_owned()),
                    text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
                    text(INSTANCE, instance.to_owned()),
                ],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: SERVICE.to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// The name of this process among those of its service.
pub(crate) fn instance(node: NodeId) -> String {
    node.to_string()
}

/// The name of this process, which is no node.
pub(crate) fn process() -> String {
    format!("pid-{}", std::process::id())
}

/// A record as OTLP has it.
pub(crate) fn span(record: SpanRecord) -> Span {
    Span {
        trace_id: record.trace.trace_id.to_be_bytes().to_vec(),
        span_id: record.trace.span_id.to_be_bytes().to_vec(),
        parent_span_id: match record.parent_span_id {
            0 => Vec::new(),
            parent => parent.to_be_bytes().to_vec(),
        },
        flags: 1,
        name: record.name.into_owned(),
        kind: match record.kind {
            SpanKind::Internal => span::SpanKind::Internal,
            SpanKind::Server => span::SpanKind::Server,
            SpanKind::Client => span::SpanKind::Client,
            SpanKind::Producer => span::SpanKind::Producer,
        }
        .into(),
        start_time_unix_nano: record.start_unix_ns,
        end_time_unix_nano: record.end_unix_ns,
        attributes: record
            .attributes
            .into_iter()
            .map(|(name, value)| match value {
                Attribute::Text(value) => text(name, value.into_owned()),
                Attribute::Number(number) => key_value(name, Value::IntValue(number)),
            })
            .collect(),
        links: record
            .links
            .iter()
            .map(|link| span::Link {
                trace_id: link.trace_id.to_be_bytes().to_vec(),
                span_id: link.span_id.to_be_bytes().to_vec(),
                ..span::Link::default()
            })
            .collect(),
        status: Some(match record.error {
            Some(message) => Status {
                code: StatusCode::Error.into(),
                message,
            },
            None => Status::default(),
        }),
        ..Span::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    key_value(key, Value::StringValue(value))
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// The trace that a span belongs to; `None` where its id is none.
pub(crate) fn trace_id(span: &Span) -> Option<u128> {
    let id = <[u8; 16]>::try_from(span.trace_id.as_slice()).ok()?;
    Some(u128::from_be_bytes(id)).filter(|id| *id != 0)
}

/// All spans of a request, in the store's form; how many could not be read.
pub(crate) fn read(request: ExportTraceServiceRequest) -> (Vec<Read>, usize) {
    let mut spans = Vec::new();
    let mut unreadable = 0;
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let said = |key: &str| {
            let found = resource.attributes.iter().find(|attribute| attribute.key == key);
            found
                .and_then(|attribute| shown(attribute.value.as_ref()))
                .unwrap_or_default()
        };
        let service = bounded(said("service.name"));
        let scopes: Vec<ScopeSpans> = of_resource.scope_spans;
        // Only the nodes' own spans are of a node, whatever others call themselves.
        let is_node = scopes.iter().any(|scope| {
            let name = scope.scope.as_ref().map(|scope| scope.name.as_str());
            name == Some(SERVICE)
        });
        let node = if is_node {
            said(INSTANCE).parse().unwrap_or_default()
        } else {
            0
        };
        for span in scopes.into_iter().flat_map(|scope| scope.spans) {
            match one(span, &service, node) {
                Some(read) => spans.push(read),
                None => unreadable += 1,
            }
        }
    }
    (spans, unreadable)
}

fn one(span: Span, service: &str, node: u32) -> Option<Read> {
    let trace = trace_id(&span)?;
    let span_id = hex64(&span.span_id)?;
    let status = span.status.unwrap_or_default();
    let is_error = status.code == i32::from(StatusCode::Error);
    let attributes: HashMap<String, String> = span
        .attributes
        .into_iter()
        .take(ATTRIBUTES_MAX)
        .filter_map(|attribute| {
            let value = shown(attribute.value.as_ref())?;
            Some((bounded(attribute.key), bounded(value)))
        })
        .collect();
    Some((
        trace,
        pb::Span {
            span_id,
            parent_span_id: hex64(&span.parent_span_id).unwrap_or_default(),
            name: bounded(span.name),
            service: service.to_owned(),
            node,
            start_unix_ns: span.start_time_unix_nano,
            end_unix_ns: span.end_time_unix_nano.max(span.start_time_unix_nano),
            status: if is_error { "error" } else { "ok" }.to_owned(),
            error: match (is_error, status.message.is_empty()) {
                (true, true) => "failed".to_owned(),
                (true, false) => bounded(status.message),
                (false, _) => String::new(),
            },
            kind: match span::SpanKind::try_from(span.kind) {
                Ok(span::SpanKind::Server) => "server",
                Ok(span::SpanKind::Client) => "client",
                Ok(span::SpanKind::Producer) => "producer",
                Ok(span::SpanKind::Consumer) => "consumer",
                _ => "internal",
            }
            .to_owned(),
            attributes,
            links: span
                .links
                .iter()
                .take(ATTRIBUTES_MAX)
                .filter_map(|link| {
                    let trace = <[u8; 16]>::try_from(link.trace_id.as_slice()).ok()?;
                    Some(pb::SpanLink {
                        trace_id: format!("{:032x}", u128::from_be_bytes(trace)),
                        span_id: hex64(&link.span_id)?,
                    })
                })
                .collect(),
            ..pb::Span::default()
        },
    ))
}

fn hex64(id: &[u8]) -> Option<String> {
    let id = <[u8; 8]>::try_from(id).ok()?;
    let id = u64::from_be_bytes(id);
    (id != 0).then(|| format!("{id:016x}"))
}

fn shown(value: Option<&AnyValue>) -> Option<String> {
    Some(match value?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => value.to_string(),
        other => format!("{other:?}"),
    })
}

/// What others send may be long; what is kept is bounded.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > VALUE_BYTES_MAX {
        let end = (0..=VALUE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use cluster::TraceContext;

    use super::*;

    #[test]
    fn a_record_keeps_its_ids_and_its_failure_through_otlp() {
        let caller = TraceContext::random(true);
        let timer = TraceContext::random(true);
        let mut record = SpanRecord::begin("decide", &caller)
            .with("entity", "order/1")
            .with("shard", 3_i64);
        record.links.push(timer);
        let own = record.trace;
        let sent = request(
            "playhouse",
            "2",
            vec![span(record.finish(Some("out of stock".to_owned())))],
        );
        let (read, unreadable) = read(sent);
        assert_eq!(unreadable, 0);
        let (trace, span) = &read[0];
        assert_eq!(*trace, caller.trace_id);
        assert_eq!(span.span_id, format!("{:016x}", own.span_id));
        assert_eq!(span.parent_span_id, format!("{:016x}", caller.span_id));
        assert_eq!(
            (span.node, span.status.as_str(), span.error.as_str()),
            (2, "error", "out of stock")
        );
        assert_eq!(span.attributes["shard"], "3");
        assert_eq!(span.links[0].trace_id, timer.trace_hex());
    }

    #[test]
    fn what_is_no_span_is_counted_and_long_texts_are_cut() {
        let good = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "ä".repeat(VALUE_BYTES_MAX),
            ..Span::default()
        };
        let bad = Span {
            trace_id: vec![1; 3],
            ..good.clone()
        };
        let (read, unreadable) = read(request("x", "", vec![good, bad]));
        assert_eq!((read.len(), unreadable), (1, 1));
        assert_eq!(read[0].1.name.len(), VALUE_BYTES_MAX);
    }
}
