//! The trace of a command that a person gives: its first span is this process's own, so that all attempts, at whichever
//! nodes, belong to one trace, and its root survives every node. The spans are handed to the cluster when the command ends.

use std::{sync::LazyLock, time::Duration};

use cluster::{SpanRecord, TraceContext, trace::SpanKind};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use parking_lot::Mutex;
use tonic::{Request, Status, transport::Channel};

use crate::{api::traced::edge_span, telemetry::traces::otlp};

/// The service of these spans.
const SERVICE: &str = "playhouse-cli";
/// How long handing them over may take.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);
/// Attempts that are told of.
const ATTEMPTS_MAX: usize = 64;

static COMMAND: LazyLock<Mutex<Command>> = LazyLock::new(Mutex::default);

/// The command of this process, as far as it is traced.
#[derive(Default)]
struct Command {
    root: Option<SpanRecord>,
    spans: Vec<SpanRecord>,
    /// Of a node that has answered.
    channel: Option<Channel>,
}

/// One attempt of a call; it ends when it is dropped.
pub(super) struct Attempt {
    span: Option<SpanRecord>,
    request: String,
}

impl Attempt {
    /// Begins the first or a further attempt of a call at a node, and the command's trace with the first.
    pub(super) fn begin(address: &str, request: &str, ordinal: usize) -> Self {
        let mut command = COMMAND.lock();
        let root = command.root.get_or_insert_with(|| {
            let none = TraceContext {
                span_id: 0,
                ..TraceContext::random(true)
            };
            SpanRecord::begin(words(), &none).of_kind(SpanKind::Client)
        });
        let mut span = SpanRecord::begin("attempt", &root.trace)
            .of_kind(SpanKind::Client)
            .with("server.address", address.to_owned())
            .with("request.id", request.to_owned());
        if ordinal > 0 {
            span = span.with("retry.attempt", ordinal as i64);
        }
        Self {
            // Should nobody wait for it any more, it is dropped as it is.
            span: (command.spans.len() < ATTEMPTS_MAX).then_some(span),
            request: request.to_owned(),
        }
    }

    /// For the node.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.span.as_ref().map(|span| span.trace.to_string())
    }

    /// The node has answered like this.
    pub(super) fn end<R>(mut self, result: &Result<R, Status>, may_be_gone: bool, channel: &Channel) {
        let Some(span) = self.span.take() else { return };
        let mut command = COMMAND.lock();
        match result {
            Ok(_) => {
                command.channel = Some(channel.clone());
                command.spans.push(span.finish(None));
            }
            Err(status) => {
                let reason = format!("{}: {}", status.code(), status.message());
                if may_be_gone {
                    give_up(&mut command, span, &self.request, reason);
                } else {
                    command.channel = Some(channel.clone());
                    command.spans.push(span.finish(Some(reason)));
                }
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            let reason = "another node answered first".to_owned();
            give_up(&mut COMMAND.lock(), span, &self.request, reason);
        }
    }
}

/// The node may have been killed before it could tell of its part, which others hang below: it is told of in its place.
/// Where it can tell itself, its own word counts.
fn give_up(command: &mut Command, span: SpanRecord, request: &str, reason: String) {
    let own = edge_span(&span.trace, request);
    let told = SpanRecord {
        start_unix_ns: span.start_unix_ns,
        ..SpanRecord::begin_as("edge", own, &span.trace).of_kind(SpanKind::Server)
    };
    let told = told
        .with(otlp::RECOVERED, "true")
        .with("request.id", request.to_owned());
    command
        .spans
        .push(told.finish(Some(format!("told by its caller: {reason}"))));
    command.spans.push(span.finish(Some(reason)));
}

/// Hands the spans of the command over to the cluster, if it was traced and somebody has answered.
pub(crate) async fn hand_over(failure: Option<String>) {
    let (request, channel) = {
        let mut command = COMMAND.lock();
        let (Some(root), Some(channel)) = (command.root.take(), command.channel.take()) else {
            return;
        };
        let mut spans = std::mem::take(&mut command.spans);
        spans.push(root.finish(failure));
        let spans = spans.into_iter().map(otlp::span).collect();
        (otlp::request(SERVICE, &otlp::process(), spans), channel)
    };
    // Nothing rests on it.
    let mut client = TraceServiceClient::new(channel);
    let _ = tokio::time::timeout(HAND_OVER_MAX, client.export(Request::new(request))).await;
}

/// `playhouse order place`: the words that say what is done.
fn words() -> String {
    let words = std::env::args()
        .skip(1)
        .take_while(|word| !word.starts_with('-'))
        .take(2);
    words.fold("playhouse".to_owned(), |text, word| {
        // An id is no part of the name.
        let is_plain = word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
        if is_plain { format!("{text} {word}") } else { text }
    })
}
