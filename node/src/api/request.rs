//! What every call carries beside its content: request id, deadline, trace. Read once from the metadata, answered once.
//!
//! `x-request-id` is the idempotency key; it is drawn where the caller gave none, and always echoed. `grpc-timeout` is the
//! caller's deadline; a part of it is kept back so that our answer, not the transport's, reaches the caller.
//! `traceparent` names the caller's span, `x-tenant` on whose behalf it calls, `x-caller` who it says that it is. What a call says of its reads stands in
//! [`super::reading`].

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cluster::{
    AskError, Caller, Cluster, Entity, QueryOptions, ReadOptions, Request, RequestId, Tenant, TraceContext, Versioned,
    cluster::fingerprint, trace::Attribute,
};
use prost::Message;
use tonic::{
    Response, Status,
    metadata::{MetadataMap, MetadataValue},
};
use ulid::Ulid;

use super::{
    calls::{Calls, UnderWay},
    reading::{Newness, Reading},
    status::Fault,
    traced::{self, CallSpan},
};
use crate::{
    http::tls::Tls,
    telemetry::{Telemetry, metrics::Metrics},
};

/// The metadata key of the idempotency key.
pub(crate) const REQUEST_ID_KEY: &str = "x-request-id";
/// The metadata key of the tenant.
const TENANT_KEY: &str = "x-tenant";
/// The metadata key of who calls, for the record.
pub(crate) const CALLER_KEY: &str = "x-caller";
/// The metadata key of the answer's trace id.
const TRACE_ID_KEY: &str = "x-trace-id";
/// The longest time that a call may wait.
const CALL_TIMEOUT_MAX_MS: u64 = 300_000;
/// Kept back from the caller's deadline for the way to the caller: a tenth of it, at most this much.
const ANSWER_MARGIN_MAX_MS: u64 = 100;

/// What all handlers share; cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) cluster: Cluster,
    pub(crate) telemetry: Telemetry,
    pub(crate) metrics: Metrics,
    pub(crate) default_timeout: Duration,
    pub(crate) calls: Calls,
    pub(crate) local: Arc<Local>,
    /// What this node runs with, for people.
    pub(crate) config: Arc<str>,
    /// TLS of the HTTP port, where it is on.
    pub(crate) tls: Option<Tls>,
}

/// Who can be asked for trouble where everything runs on one machine.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// The launcher's socket; none where something else started this node.
    pub(crate) control: Option<PathBuf>,
    /// The payment provider's address.
    pub(crate) provider: String,
}

/// One call on its way through a handler.
pub(crate) struct Call {
    _under_way: UnderWay,
    id: RequestId,
    /// Whether the caller chose the id, and so can repeat the call under it.
    id_given: bool,
    trace: TraceContext,
    tenant: Tenant,
    caller: Caller,
    received: Instant,
    deadline: Instant,
    /// Whether the caller set the deadline.
    deadline_given: bool,
    reading: Reading,
    /// Of the entity that the call is about, as it was last seen.
    newness: Mutex<Newness>,
    span: CallSpan,
}

impl Edge {
    /// Reads a unary call: what it carries, and its content.
    pub(crate) fn receive<Q>(&self, name: &'static str, request: tonic::Request<Q>) -> Result<(Call, Q), Status> {
        let (metadata, _, content) = request.into_parts();
        let given = text(&metadata, REQUEST_ID_KEY).map_err(|fault| fault.status(None))?;
        let reading = Reading::of(&metadata).map_err(|fault| fault.status(None))?;
        let whose = whose(&metadata).map_err(|fault| fault.status(None))?;
        let call = self
            .call(
                name,
                given,
                text(&metadata, "traceparent").ok().flatten(),
                timeout(&metadata),
            )
            .map_err(|fault| fault.status(None))?;
        Ok((call.reading(reading).on_behalf_of(whose), content))
    }

    /// Sends a command to the entity that the call is about.
    pub(super) async fn ask<E: Entity>(
        &self,
        call: &Call,
        id: &str,
        command: &E::Command,
        request: &Request,
    ) -> Result<E::Reply, AskError<E::Rejection>> {
        call.tell("entity", format!("{}/{id}", E::KIND));
        let told = self.cluster.ask_at::<E>(id, command, request).await?;
        call.note(Newness {
            token: Some(told.token),
            staleness: None,
        });
        told.answer.map_err(AskError::Rejected)
    }

    /// A read of the entity that the call is about, as new as the caller wants it.
    pub(super) async fn show<E: Entity>(&self, call: &Call, id: &str) -> Result<Versioned<E::State>, Fault> {
        call.tell("entity", format!("{}/{id}", E::KIND));
        let read = self
            .cluster
            .read::<E>(id, call.reading.options(), &call.request())
            .await?;
        call.note(Newness::of(&read));
        Ok(read)
    }

    /// A linearizable read of an entity as it stands.
    pub(super) async fn read<E: Entity>(&self, call: &Call, id: &str) -> Result<Versioned<E::State>, Fault> {
        let read = self
            .cluster
            .read::<E>(id, ReadOptions::default(), &call.request())
            .await;
        read.map_err(Fault::from)
    }

    /// A call with these properties; a request id is drawn where none is given.
    pub(crate) fn call(
        &self,
        name: &'static str,
        request_id: Option<&str>,
        traceparent: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<Call, Fault> {
        let id = match request_id {
            // The engine names effects so; a client's id must never be taken for one of them.
            Some(given) if given.contains('#') => {
                return Err(Fault::invalid(
                    REQUEST_ID_KEY,
                    "contains '#'; it is kept for the platform's own ids",
                ));
            }
            Some(given) => RequestId::new(given).map_err(|error| Fault::invalid(REQUEST_ID_KEY, error))?,
            None => RequestId::new(&Ulid::generate().to_string()).expect("a ULID is 26 letters and digits"),
        };
        let span = CallSpan::begin(name, self.telemetry.clone(), traceparent, (&id, request_id.is_some()));
        let received = Instant::now();
        Ok(Call {
            _under_way: self.calls.begin(),
            trace: *span.trace(),
            id,
            id_given: request_id.is_some(),
            tenant: Tenant::default(),
            caller: Caller::default(),
            received,
            deadline: received + less_margin(timeout.unwrap_or(self.default_timeout)),
            deadline_given: timeout.is_some(),
            reading: Reading::default(),
            newness: Mutex::default(),
            span,
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.span.end(&self.id, Some(traced::given_up()));
    }
}

impl Call {
    /// The same, for a tenant, by whom.
    #[must_use]
    pub(crate) fn on_behalf_of(mut self, (tenant, caller): (Tenant, Caller)) -> Self {
        (self.tenant, self.caller) = (tenant, caller);
        let asked_by = self.asked_by();
        if !asked_by.is_empty() {
            self.tell("asked_by", asked_by);
        }
        self
    }

    /// The idempotency key.
    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Whether the caller chose the idempotency key.
    pub(crate) fn id_given(&self) -> bool {
        self.id_given
    }

    /// Who asks, as they say: `tenant/caller`, or the one of them that is named; empty where nobody says.
    pub(crate) fn asked_by(&self) -> String {
        match (self.tenant.as_str(), self.caller.as_str()) {
            (tenant, "") => tenant.to_owned(),
            ("", caller) => caller.to_owned(),
            (tenant, caller) => format!("{tenant}/{caller}"),
        }
    }

    /// The trace that the call belongs to.
    pub(crate) fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// The same call with reads as new as this.
    pub(super) fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// How new its reads must be.
    pub(super) fn read_options(&self) -> ReadOptions {
        self.reading.options()
    }

    /// Takes note of how new the entity was that the call is about.
    pub(super) fn note(&self, newness: Newness) {
        *self.newness.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = newness;
    }

    /// How new it was.
    pub(super) fn newness(&self) -> Newness {
        *self.newness.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How new an answer of a read model must be.
    pub(super) fn query_options(&self) -> QueryOptions {
        self.reading.query_options()
    }

    /// The time that is left; zero when the deadline has passed.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// For the engine, with the time that is left.
    pub(crate) fn request(&self) -> Request {
        Request {
            trace: self.trace,
            tenant: self.tenant.clone(),
            caller: self.caller.clone(),
            ..Request::new(self.id.clone(), self.time_left())
        }
    }

    /// For the engine: a command that stands for what was [`sent`].
    pub(crate) fn command(&self, sent: u64) -> Request {
        Request {
            fingerprint: sent,
            ..self.request()
        }
    }

    /// For the engine: a wait of at most `longest`.
    pub(crate) fn request_within(&self, longest: Duration) -> Request {
        Request {
            timeout: self.time_left().min(longest),
            ..self.request()
        }
    }

    /// For the engine: one poll of a stream. A stream without a deadline goes on until its reader leaves.
    pub(crate) fn poll(&self, longest: Duration) -> Result<Request, Fault> {
        if !self.deadline_given {
            return Ok(Request {
                timeout: longest,
                ..self.request()
            });
        }
        match self.time_left() {
            Duration::ZERO => Err(Fault::Engine(cluster::Error::TimedOut {
                after: self.deadline.saturating_duration_since(self.received),
            })),
            _ => Ok(self.request_within(longest)),
        }
    }

    /// Ends a unary call: the answer or the fault, with the request id and the trace id in the metadata.
    pub(crate) fn answer<R>(&self, result: Result<R, Fault>) -> Result<Response<R>, Status> {
        self.finish(result.as_ref().err());
        match result {
            Ok(content) => {
                let mut response = Response::new(content);
                self.echo(response.metadata_mut());
                Ok(response)
            }
            Err(fault) => {
                let mut status = fault.status(Some(self));
                self.echo(status.metadata_mut());
                Err(status)
            }
        }
    }

    /// Adds what has become known of the call to its span.
    pub(super) fn tell(&self, name: &'static str, value: impl Into<Attribute>) {
        self.span.note(name, value);
    }

    /// Ends the call's span.
    pub(crate) fn finish(&self, fault: Option<&Fault>) {
        let failure = fault.map(|fault| (fault.code(self.id_given), fault.to_string()));
        self.span.end(&self.id, failure);
    }

    fn echo(&self, metadata: &mut MetadataMap) {
        // A request id may hold letters that a header cannot carry; such a caller knows its id anyway.
        if let Ok(id) = MetadataValue::try_from(self.id.as_str()) {
            metadata.insert(REQUEST_ID_KEY, id);
        }
        if let Ok(trace) = MetadataValue::try_from(self.trace.trace_hex()) {
            metadata.insert(TRACE_ID_KEY, trace);
        }
        self.newness().tell(metadata);
    }
}

/// The fingerprint of what a caller sent, under the name of the call. It is taken of the message and not of the command that is made
/// of it: that one may differ each time, by today's prices for instance, and is still an honest repetition.
pub(super) fn sent(name: &str, message: &impl Message) -> u64 {
    let mut bytes = Vec::with_capacity(name.len() + message.encoded_len());
    bytes.extend_from_slice(name.as_bytes());
    message.encode(&mut bytes).expect("a vector takes all of it");
    fingerprint(&bytes)
}

/// On whose behalf a call comes, and by whom; nobody in particular where it does not say.
pub(super) fn whose(metadata: &MetadataMap) -> Result<(Tenant, Caller), Fault> {
    let name = text(metadata, TENANT_KEY)?.unwrap_or_default();
    let tenant = Tenant::new(name).map_err(|error| Fault::invalid(TENANT_KEY, error))?;
    let name = text(metadata, CALLER_KEY)?.unwrap_or_default();
    let caller = Caller::new(name).map_err(|error| Fault::invalid(CALLER_KEY, error))?;
    Ok((tenant, caller))
}

/// A metadata value as text.
fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Fault> {
    metadata
        .get(key)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Fault::invalid(key, "is not plain ASCII text"))
        })
        .transpose()
}

/// The caller's time limit: at most eight digits and a unit; `None` where there is none or it is no time.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn less_margin(timeout: Duration) -> Duration {
    let timeout = timeout.min(Duration::from_millis(CALL_TIMEOUT_MAX_MS));
    timeout.saturating_sub((timeout / 10).min(Duration::from_millis(ANSWER_MARGIN_MAX_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout_of(value: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().expect("ASCII"));
        timeout(&metadata)
    }

    #[test]
    fn a_deadline_is_read_in_every_unit_and_nonsense_is_none() {
        assert_eq!(timeout_of("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(timeout_of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout_of("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(timeout_of("7u"), Some(Duration::from_micros(7)));
        for nonsense in ["", "S", "-1S", "+1S", "1", "1x", "999999999S", "1.5S"] {
            assert_eq!(timeout_of(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_part_of_the_deadline_is_kept_back_for_the_answer() {
        assert_eq!(less_margin(Duration::from_millis(200)), Duration::from_millis(180));
        assert_eq!(less_margin(Duration::from_secs(10)), Duration::from_millis(9900));
        let longest = Duration::from_millis(CALL_TIMEOUT_MAX_MS - ANSWER_MARGIN_MAX_MS);
        assert_eq!(less_margin(Duration::MAX), longest);
    }
}
