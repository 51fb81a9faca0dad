//! The payment provider, as effects reach it.
//!
//! The engine lets a call through its bulkhead. Then it passes, in this order: the breaker, the retry budget (repetitions
//! only), the rate limit, the network with a time-out. Whatever stops it, the engine is told when to call again, under the same idempotency key.
//! Only an authorisation is ever given up, and only by [`WhenDown::Refuse`]: money that was taken, or is still to be
//! taken or given back for a confirmed order, has to move however long it takes.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actors::payment::provider::{Answer, Request};
use bytes::Bytes;
use cluster::{CallError, Service, ServiceCall, supervision::Guard};
use futures::{FutureExt as _, future::BoxFuture};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use reqwest::{StatusCode, header};

use super::{
    policy::{Policy, WhenDown},
    retry_budget::RetryBudget,
};
use crate::provider::wire::{self, IDEMPOTENCY_KEY, Problem};

/// What an order is told whose authorisation was given up.
pub(crate) const GIVEN_UP: &str = "payment provider unavailable";

/// The payment provider.
pub(crate) struct PaymentProvider {
    policy: Policy,
    client: reqwest::Client,
    guard: Guard,
    rate: DefaultDirectRateLimiter,
    budget: RetryBudget,
}

/// Why one attempt has no answer.
#[derive(Debug)]
struct Miss {
    reason: String,
    /// The provider's or the breaker's own word on when to call again.
    after: Option<Duration>,
}

impl PaymentProvider {
    /// A provider that is called as the policy says, and supervised by the guard.
    pub(crate) fn new(policy: Policy, guard: Guard) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(policy.timeout())
            .pool_max_idle_per_host(guard.policy().in_flight_max)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            client,
            guard,
            rate: RateLimiter::direct(Quota::per_second(policy.calls_per_s_max)),
            budget: RetryBudget::new(policy.retries_per_s_min),
            policy,
        })
    }

    async fn carry_out(&self, call: ServiceCall) -> Result<Bytes, CallError> {
        let request: Request = serde_json::from_slice(&call.request)
            .map_err(|error| CallError::GivenUp(format!("not a request to the payment provider: {error}")))?;
        match self.attempt(&call, &request).await {
            Ok(answer) => Ok(answer),
            Err(miss) => Err(self.after_miss(&call, &request, miss)),
        }
    }

    async fn attempt(&self, call: &ServiceCall, request: &Request) -> Result<Bytes, Miss> {
        let permit = self.guard.admit().map_err(|refused| Miss {
            reason: "the breaker is open".to_owned(),
            after: Some(refused.retry_after),
        })?;
        if call.attempt == 0 {
            self.budget.first_call();
        } else if !self.budget.take_retry() {
            return Err(Miss::own("the retry budget is spent"));
        }
        if let Err(not_until) = self.rate.check() {
            return Err(Miss {
                reason: "the rate limit is reached".to_owned(),
                after: Some(not_until.wait_time_from(DefaultClock::default().now())),
            });
        }
        match self.send(call, request).await {
            Ok(sent) => {
                permit.succeeded();
                sent
            }
            Err(miss) => {
                permit.failed();
                Err(miss)
            }
        }
    }

    /// One exchange. The outer error is the provider's failure, for the breaker; the inner one a provider that works but
    /// does not take this call now.
    async fn send(&self, call: &ServiceCall, request: &Request) -> Result<Result<Bytes, Miss>, Miss> {
        let url = format!("{}{}", self.policy.url.trim_end_matches('/'), wire::path_of(request));
        let mut http = self
            .client
            .post(url)
            .header(IDEMPOTENCY_KEY, header_safe(&call.effect_id))
            .header(header::CONTENT_TYPE, "application/json")
            .body(call.request.clone());
        if call.trace.is_some() {
            http = http.header("traceparent", call.trace.to_string());
        }
        let response = http.send().await.map_err(|error| Miss::own(&network_reason(&error)))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response
            .bytes()
            .await
            .map_err(|error| Miss::own(&network_reason(&error)))?;
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(Miss {
                reason: said(status, &body),
                after: retry_after,
            });
        }
        if serde_json::from_slice::<Answer>(&body).is_ok() {
            return Ok(Ok(body));
        }
        // The provider works but does not take this very call: a limit, or one side's mistake that people have to mend.
        if status != StatusCode::TOO_MANY_REQUESTS {
            tracing::error!(effect = %call.effect_id, trace_id = call.trace.trace_hex(), said = %said(status, &body), "payment call not taken");
        }
        Ok(Err(Miss {
            reason: said(status, &body),
            after: retry_after,
        }))
    }

    /// When to call again, or that it is given up.
    fn after_miss(&self, call: &ServiceCall, request: &Request, miss: Miss) -> CallError {
        let pause = miss
            .after
            .unwrap_or_else(|| self.guard.policy().backoff(call.attempt, rand::random()));
        let may_be_given_up = matches!(request, Request::Authorise { .. }) && self.policy.when_down == WhenDown::Refuse;
        if !may_be_given_up {
            return CallError::Later {
                after: pause,
                reason: miss.reason,
            };
        }
        let give_up_at_ms = call.recorded_at_ms.saturating_add(self.policy.authorise_give_up_ms);
        let left = Duration::from_millis(give_up_at_ms.saturating_sub(now_ms()));
        if left.is_zero() {
            tracing::debug!(effect = %call.effect_id, reason = %miss.reason, "authorisation given up");
            return CallError::GivenUp(GIVEN_UP.to_owned());
        }
        CallError::Later {
            after: pause.min(left),
            reason: miss.reason,
        }
    }
}

impl Service for PaymentProvider {
    fn call(&self, call: ServiceCall) -> BoxFuture<'_, Result<Bytes, CallError>> {
        self.carry_out(call).boxed()
    }

    fn guard(&self) -> &Guard {
        &self.guard
    }
}

impl Miss {
    fn own(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            after: None,
        }
    }
}

/// The kind of failure in our words; the library's own contains the whole URL.
fn network_reason(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the connection broke"
    };
    format!("payment provider: {kind}")
}

/// An effect id as a header can carry it: what is not printable ASCII is written as `%` and two hexadecimal digits.
fn header_safe(id: &str) -> String {
    let mut safe = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => {
                write!(safe, "%{byte:02X}").expect("a string takes every text");
            }
            _ => safe.push(char::from(byte)),
        }
    }
    safe
}

fn said(status: StatusCode, body: &[u8]) -> String {
    let problem = serde_json::from_slice::<Problem>(body);
    let detail = problem.map_or_else(|_| "no reason given".to_owned(), |problem| problem.error);
    format!("payment provider: {} ({detail})", status.as_u16())
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
