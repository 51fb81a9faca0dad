//! A client of the whole cluster: it knows every node, asks the one that is likely to answer, and repeats a call with
//! the same request id until the answer is definite.
//!
//! Three things keep the wait short when a node dies or stands still. A failed attempt moves on to the next node at
//! once. An attempt without an answer after [`HEDGE_AFTER`] is joined by the same request on another node, and the
//! first answer counts: request ids make that safe. A node that lost such a race is asked last for a while.

mod calls;
mod hedge;
mod node;
mod reading;
pub(crate) mod streams;
mod target;
pub(super) mod trace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tonic::{
    Code, Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::Channel,
};
use tonic_types::StatusExt as _;

pub(crate) use self::{calls::MESSAGE_BYTES_MAX, reading::ReadArguments, target::Target};
use self::{hedge::HedgeBudget, node::Node};
use crate::api::{reading::VERSION_TOKEN_KEY, request::CALLER_KEY};

/// The metadata key of the idempotency key.
const REQUEST_ID: &str = "x-request-id";
/// The environment variable that says who asks.
const CALLER_VARIABLE: &str = "PLAYHOUSE_CALLER";
/// Without an answer for so long, another node is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(400);
/// Attempts of one call that may be under way at once.
const ATTEMPTS_IN_FLIGHT_MAX: usize = 3;
/// How long one attempt may take before the call is sent again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause after every node has failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two rounds over the nodes.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// One attempt on its way: which one of the call, and its result.
type Attempt<R> = BoxFuture<'static, (usize, Result<Response<R>, Status>)>;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// A definite no.
    #[error("{}", .0.message())]
    Refused(Status),
    /// No node could even be connected to.
    #[error("nothing listens on {}", addresses.join(", "))]
    Unreachable {
        /// What was tried.
        addresses: Vec<String>,
    },
    /// Time is up. It may have taken effect; the same request id is safe to repeat.
    #[error("no definite answer")]
    Unknown {
        /// How long it was tried.
        after: Duration,
        /// The last thing a node said.
        last: Option<Status>,
    },
}

impl CallError {
    /// The code of a definite refusal.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            Self::Unreachable { .. } | Self::Unknown { .. } => None,
        }
    }
}

/// A client of the whole cluster; a cheap handle.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
    reading: ReadArguments,
    /// A person's command, which has a trace of its own.
    is_traced: bool,
}

struct Inner {
    nodes: Vec<Node>,
    next: AtomicUsize,
    hedges: HedgeBudget,
    patience: Duration,
    /// Of the last answer that had one.
    token: Mutex<Option<String>>,
    /// Who asks, for the record.
    caller: Option<AsciiMetadataValue>,
}

impl Client {
    /// A client of these nodes, each `HOST:PORT`. Connects with the first call. `patience` limits the whole of one
    /// call, repetitions included.
    pub(crate) fn new(addresses: &[String], patience: Duration) -> Result<Self, tonic::transport::Error> {
        let nodes = addresses
            .iter()
            .map(|address| Node::new(address))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                nodes,
                next: AtomicUsize::new(0),
                hedges: HedgeBudget::default(),
                patience,
                token: Mutex::default(),
                caller: caller(),
            }),
            reading: ReadArguments::default(),
            is_traced: false,
        })
    }

    /// The same client, whose reads are as new as this.
    #[must_use]
    pub(crate) fn reading(self, reading: ReadArguments) -> Self {
        Self { reading, ..self }
    }

    /// The same client, whose commands that change something belong to a trace of this process.
    #[must_use]
    pub(crate) fn traced(self) -> Self {
        Self {
            is_traced: true,
            ..self
        }
    }

    /// The version token of the last answer; for commands that make one call after the other.
    pub(crate) fn version_token(&self) -> Option<String> {
        self.inner.token.lock().clone()
    }

    /// Where the nodes listen.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.inner.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// A channel to the node that is most likely to answer; for streams, which the caller resumes itself.
    pub(crate) fn channel(&self) -> Channel {
        let first = self.rotation()[0];
        self.inner.nodes[first].channel.clone()
    }

    /// Puts who asks into a call's metadata.
    pub(crate) fn tell_caller(&self, metadata: &mut MetadataMap) {
        if let Some(caller) = &self.inner.caller {
            metadata.insert(CALLER_KEY, caller.clone());
        }
    }

    /// One call, repeated until its answer is definite or patience ends.
    async fn call<M, R, F>(&self, request_id: Option<&str>, message: M, method: F) -> Result<R, CallError>
    where
        M: Clone,
        R: Send + 'static,
        F: Fn(Channel, Request<M>) -> BoxFuture<'static, Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let deadline = started + self.inner.patience;
        let given_id = request_id;
        let request_id: Option<AsciiMetadataValue> = match request_id.map(str::parse).transpose() {
            Ok(id) => id,
            Err(_) => {
                return Err(CallError::Refused(Status::invalid_argument(
                    "the request id is not plain ASCII",
                )));
            }
        };
        let order = self.rotation();
        let mut progress = Progress::default();
        let mut attempts: FuturesUnordered<Attempt<R>> = FuturesUnordered::new();
        let mut start_next = Some(started);
        loop {
            tokio::select! {
                biased;
                Some((ordinal, result)) = attempts.next(), if !attempts.is_empty() => {
                    let node = &self.inner.nodes[order[ordinal % order.len()]];
                    progress.in_flight.retain(|o| *o != ordinal);
                    let status = match result {
                        Ok(response) => {
                            self.inner.hedges.call_ended();
                            node.answered();
                            self.note_losers(&order, &progress, ordinal);
                            let token = response.metadata().get(VERSION_TOKEN_KEY);
                            if let Some(token) = token.and_then(|token| token.to_str().ok()) {
                                *self.inner.token.lock() = Some(token.to_owned());
                            }
                            return Ok(response.into_inner());
                        }
                        Err(status) => status,
                    };
                    if !is_retryable(&status) {
                        node.answered();
                        return Err(CallError::Refused(status));
                    }
                    if is_transport(&status) {
                        node.failed();
                    } else {
                        progress.reached = true;
                    }
                    let pause = progress.pause_after(&status, order.len());
                    let at = Instant::now() + pause;
                    start_next = Some(start_next.map_or(at, |planned| planned.min(at)));
                    progress.last = Some(status);
                }
                () = sleep_until(start_next.unwrap_or(deadline)), if start_next.is_some() => {
                    let is_hedge = !attempts.is_empty();
                    start_next = None;
                    if !is_hedge || (attempts.len() < ATTEMPTS_IN_FLIGHT_MAX && self.inner.hedges.take()) {
                        let ordinal = progress.started;
                        progress.started += 1;
                        progress.in_flight.push(ordinal);
                        let node = &self.inner.nodes[order[ordinal % order.len()]];
                        let channel = node.channel.clone();
                        let traced = given_id.filter(|_| self.is_traced);
                        let traced = traced.map(|id| trace::Attempt::begin(&node.address, id, ordinal));
                        let timeout = ATTEMPT_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
                        let mut request = Request::new(message.clone());
                        request.set_timeout(timeout);
                        self.tell_caller(request.metadata_mut());
                        if let Some(id) = &request_id {
                            request.metadata_mut().insert(REQUEST_ID, id.clone());
                        } else {
                            self.reading.tell(request.metadata_mut());
                        }
                        let traceparent = traced.as_ref().and_then(trace::Attempt::traceparent);
                        if let Some(Ok(traceparent)) = traceparent.map(|text| text.parse::<AsciiMetadataValue>()) {
                            request.metadata_mut().insert("traceparent", traceparent);
                        }
                        let reply = method(channel.clone(), request);
                        attempts.push(Box::pin(async move {
                            let in_time = tokio::time::timeout(timeout, reply).await;
                            let silent = |_| Err(Status::deadline_exceeded("the node did not answer in time"));
                            let result = in_time.unwrap_or_else(silent);
                            if let Some(traced) = traced {
                                let may_be_gone = result.as_ref().is_err_and(|status| {
                                    is_transport(status) || status.code() == Code::DeadlineExceeded
                                });
                                traced.end(&result, may_be_gone, &channel);
                            }
                            (ordinal, result)
                        }));
                        if order.len() > 1 {
                            start_next = Some(Instant::now() + HEDGE_AFTER);
                        }
                    }
                }
                () = sleep_until(deadline) => {
                    return Err(self.out_of_time(started, progress));
                }
            }
        }
    }

    fn out_of_time(&self, started: Instant, progress: Progress) -> CallError {
        let only_refused_connections = !progress.reached && progress.in_flight.is_empty();
        if only_refused_connections && progress.last.as_ref().is_some_and(is_transport) {
            return CallError::Unreachable {
                addresses: self.addresses(),
            };
        }
        CallError::Unknown {
            after: started.elapsed(),
            last: progress.last,
        }
    }

    /// Attempts that began before the one that won and still have no answer: their nodes are asked last for a while.
    fn note_losers(&self, order: &[usize], progress: &Progress, winner: usize) {
        for ordinal in progress.in_flight.iter().filter(|ordinal| **ordinal < winner) {
            let loser = order[ordinal % order.len()];
            if loser != order[winner % order.len()] {
                self.inner.nodes[loser].failed();
            }
        }
    }

    /// The nodes in the order in which a call tries them: in turn, those under suspicion last.
    fn rotation(&self) -> Vec<usize> {
        let count = self.inner.nodes.len();
        let first = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..count).map(|k| (first + k) % count).collect();
        order.sort_by_key(|index| self.inner.nodes[*index].is_suspect());
        order
    }
}

/// Who asks: what `PLAYHOUSE_CALLER` says, or the user of this process. A name that no node would take is nobody's.
fn caller() -> Option<AsciiMetadataValue> {
    let name = std::env::var(CALLER_VARIABLE).or_else(|_| std::env::var("USER")).ok()?;
    cluster::Caller::new(&name).ok()?;
    name.parse().ok().filter(|_| !name.is_empty())
}

/// What has happened to one call so far.
#[derive(Default)]
struct Progress {
    started: usize,
    failed: usize,
    in_flight: Vec<usize>,
    reached: bool,
    last: Option<Status>,
}

impl Progress {
    /// How long to wait before the next attempt: what the node asked for; else nothing until every node has had its
    /// turn, and then a pause that grows.
    fn pause_after(&mut self, status: &Status, nodes: usize) -> Duration {
        self.failed += 1;
        if let Some(delay) = retry_delay(status) {
            return delay;
        }
        if !self.failed.is_multiple_of(nodes) {
            return Duration::ZERO;
        }
        let rounds = u32::try_from(self.failed / nodes - 1).unwrap_or(u32::MAX).min(8);
        let pause = (PAUSE_MIN * 2_u32.pow(rounds)).min(PAUSE_MAX);
        pause.mul_f64(rand::random_range(0.5..1.0))
    }
}

/// The delay that a node asks for.
fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Whether the same request may bring another answer.
fn is_retryable(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Cancelled => true,
        Code::Internal => is_transport(status),
        _ => false,
    }
}

/// Whether the connection failed, rather than the node answered or was silent. Only statuses made on this side have a
/// source.
fn is_transport(status: &Status) -> bool {
    let is_silence = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    !is_silence && std::error::Error::source(status).is_some()
}

#[cfg(test)]
mod tests;
