//! The outside, as entities reach it: by effects that the engine carries out and repeats.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    supervision::{Guard, Policy},
    trace::{SpanSink, TraceContext},
};

/// One call to the outside.
#[derive(Debug, Clone)]
pub struct ServiceCall {
    /// The same for every repetition of this call: the idempotency key for the other side.
    pub effect_id: String,
    /// How often it has been tried before, by this leader.
    pub attempt: u32,
    /// When the effect was recorded, in milliseconds since 1970.
    pub recorded_at_ms: u64,
    /// The request, as JSON.
    pub request: Bytes,
    /// What caused it.
    pub trace: TraceContext,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// Not now: the engine calls again after the delay.
    Later {
        /// After how long.
        after: Duration,
        /// Why not now.
        reason: String,
    },
    /// Given up, by the service's policy: the entity gets this as [`crate::Outcome::Failed`].
    GivenUp(String),
}

/// Something outside of the cluster. The engine keeps to its guard's bulkhead and shows its breaker; the service asks the
/// breaker for leave, since it alone knows which answers are the other side's failures. Rate limit, time-out and retry
/// budget are the service's own.
pub trait Service: Send + Sync + 'static {
    /// Carries out one call; the answer is JSON.
    fn call(&self, call: ServiceCall) -> BoxFuture<'_, Result<Bytes, CallError>>;
    /// Its breaker and bulkhead.
    fn guard(&self) -> &Guard;
}

/// What a node brings to the engine from outside: services by name, and who takes finished spans.
#[derive(Clone, Default)]
pub struct Services {
    by_name: BTreeMap<String, Arc<dyn Service>>,
    spans: Option<Arc<dyn SpanSink>>,
    http: Option<SocketAddr>,
}

impl Services {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    #[must_use]
    pub fn with(mut self, name: &str, service: impl Service) -> Self {
        self.by_name.insert(name.to_owned(), Arc::new(service));
        self
    }

    /// Adds a service that is a function: from a request of type `R` to its answer, or to why there is none. Its breaker and
    /// bulkhead are those of [`Policy::OUTSIDE`](crate::supervision::Policy::OUTSIDE): a call that is to be made later counts as
    /// a failure, and while the breaker is open the function is not asked.
    ///
    /// [`ServiceCall::effect_id`] is the idempotency key to hand on: the same call may come again, from this node or another.
    /// A request that cannot be read as `R` is given up.
    #[must_use]
    pub fn with_fn<R, A, F, W>(self, name: &str, serve: F) -> Self
    where
        R: DeserializeOwned + Send,
        A: Serialize,
        F: Fn(ServiceCall, R) -> W + Send + Sync + 'static,
        W: Future<Output = Result<A, CallError>> + Send + 'static,
    {
        self.with(
            name,
            Function {
                guard: Guard::new(name, Policy::OUTSIDE),
                serve: Box::new(move |call| {
                    let asked = serde_json::from_slice(&call.request)
                        .map(|request| serve(call, request))
                        .map_err(|error| CallError::GivenUp(format!("the request cannot be read: {error}")));
                    Box::pin(async move {
                        let answer = asked?.await?;
                        let json = serde_json::to_vec(&answer);
                        json.map(Bytes::from)
                            .map_err(|error| CallError::GivenUp(format!("the answer has no JSON form: {error}")))
                    })
                }),
            },
        )
    }

    /// Where finished spans of sampled traces go; `None`, as at first, for nowhere.
    #[must_use]
    pub fn with_spans(mut self, spans: Option<Arc<dyn SpanSink>>) -> Self {
        self.spans = spans;
        self
    }

    /// Where the node can be looked at over HTTP: told in its status, so that whoever looks at one finds the others.
    #[must_use]
    pub fn with_http(mut self, address: Option<SocketAddr>) -> Self {
        self.http = address;
        self
    }

    /// Where the node can be looked at over HTTP.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Who takes finished spans.
    pub(crate) fn spans(&self) -> Option<&Arc<dyn SpanSink>> {
        self.spans.as_ref()
    }

    /// The service of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Service>> {
        self.by_name.get(name).cloned()
    }

    /// All services.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<dyn Service>)> {
        self.by_name.iter().map(|(name, service)| (name.as_str(), service))
    }
}

/// A service that is a function.
struct Function {
    guard: Guard,
    serve: Box<Serve>,
}

type Serve = dyn Fn(ServiceCall) -> BoxFuture<'static, Result<Bytes, CallError>> + Send + Sync;

impl Service for Function {
    fn call(&self, call: ServiceCall) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            let permit = self.guard.admit().map_err(|refused| CallError::Later {
                after: refused.retry_after,
                reason: "its breaker is open".to_owned(),
            })?;
            let answer = (self.serve)(call).await;
            match &answer {
                Err(CallError::Later { .. }) => permit.failed(),
                Ok(_) | Err(CallError::GivenUp(_)) => permit.succeeded(),
            }
            answer
        })
    }

    fn guard(&self) -> &Guard {
        &self.guard
    }
}
