//! How a command or a read finds its leader. A caller is never told "not the leader": the call goes on until the leader has
//! answered or the caller's time is over, and repeating it is safe, because the request id goes with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Engine,
    forget::Forget,
    read::{self, Query},
    refused::{asked_by, refused},
    route::left,
    traced,
};
use crate::{
    admission::{Limit, Tenant},
    cluster::Request,
    config::NodeId,
    entity::{EntityKey, RequestId, activation::Undelivered, envelope::Envelope, release::Release},
    error::Error,
    journal::{Chain, Forgotten, Origin, Reply},
    shard::shard_of,
    token::VersionToken,
    trace::TraceContext,
    transport::outcome::{Forwarded, QuarantineView},
};

pub(super) use super::refused::unexpected;

/// First and longest time between two attempts to find a leader.
const ATTEMPT_FIRST: Duration = Duration::from_millis(4);
const ATTEMPT_MAX: Duration = Duration::from_millis(50);
/// What callers are told to wait when there is no leader.
const RETRY_UNAVAILABLE: Duration = Duration::from_millis(200);

/// What is asked of an entity.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Command(Bytes, Envelope),
    Query(Query),
    /// Lift a quarantine, under this request id.
    Release(Release, RequestId),
    /// What is known of a quarantine.
    Quarantine,
    /// The open effects.
    Outbox,
    /// Forget it.
    Forget(Box<Forget>),
}

impl Body {
    /// Whether it is a read that waits for something to happen.
    fn waits(&self) -> bool {
        matches!(
            self,
            Self::Query(Query {
                newer_than: Some(_),
                ..
            })
        )
    }
}

/// A call, on its way.
pub(super) struct Call<'a> {
    pub(super) shard: u32,
    pub(super) key: &'a EntityKey,
    pub(super) body: Body,
    trace: TraceContext,
    tenant: &'a Tenant,
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    /// A command has been handed to somebody who has not said that it was not done.
    maybe_done: AtomicBool,
    /// It is an effect, or the cluster's own: their number is bounded elsewhere.
    is_effect: bool,
    /// The first who was asked did not answer it: how long it takes says nothing of how busy the nodes are.
    was_repeated: AtomicBool,
}

impl Engine {
    /// Sends a command to an entity and waits for its answer.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        key: &EntityKey,
        command: Bytes,
        request: &Request,
    ) -> Result<(Reply, VersionToken), Error> {
        let envelope = Envelope {
            fingerprint: request.fingerprint,
            asked_by: request.asked_by(),
            ..Envelope::new(request.id.clone(), request.trace)
        };
        self.tell(key, command, envelope, &request.tenant, request.timeout, false)
            .await
    }

    /// The same for an effect: its number is bounded by the outbox, and those who wait for what it brings about must not
    /// stand in its way.
    pub(crate) async fn ask_effect(
        self: &Arc<Self>,
        key: &EntityKey,
        command: Bytes,
        envelope: Envelope,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let told = self
            .tell(key, command, envelope, &Tenant::default(), timeout, true)
            .await;
        told.map(|(reply, _)| reply)
    }

    async fn tell(
        self: &Arc<Self>,
        key: &EntityKey,
        command: Bytes,
        envelope: Envelope,
        tenant: &Tenant,
        timeout: Duration,
        is_effect: bool,
    ) -> Result<(Reply, VersionToken), Error> {
        if command.len() > self.limits().value_bytes_max {
            return Err(Error::Invalid {
                field: "command".to_owned(),
                reason: format!(
                    "is {} bytes long; at most {} are allowed",
                    command.len(),
                    self.limits().value_bytes_max
                ),
            });
        }
        let (trace, body) = (envelope.trace, Body::Command(command, envelope));
        match self.call(key, body, trace, tenant, timeout, is_effect).await? {
            Forwarded::Reply(reply, token) => Ok((reply, token)),
            other => Err(unexpected(key, &other)),
        }
    }

    pub(super) async fn call(
        self: &Arc<Self>,
        key: &EntityKey,
        body: Body,
        trace: TraceContext,
        tenant: &Tenant,
        timeout: Duration,
        is_effect: bool,
    ) -> Result<Forwarded, Error> {
        if self.registry().get(&key.kind).is_none() {
            return Err(Error::Invalid {
                field: "kind".to_owned(),
                reason: format!("{:?} is not a kind of entity this cluster carries", key.kind),
            });
        }
        let bytes = match &body {
            Body::Command(command, _) => command.len(),
            Body::Query(_) | Body::Release(..) | Body::Quarantine | Body::Outbox | Body::Forget(_) => 0,
        };
        let credit = if is_effect {
            None
        } else {
            let credit = self.admission.call(tenant, &key.kind, bytes, body.waits());
            Some(credit.map_err(|overload| Error::Overloaded {
                what: format!("{} of node {}", overload.limit, self.node()),
                retry_after: overload.retry_after,
            })?)
        };
        let call = Call {
            shard: shard_of(key, self.shards()),
            key,
            body,
            trace,
            tenant,
            timeout,
            deadline: Instant::now() + timeout,
            maybe_done: AtomicBool::new(false),
            is_effect,
            was_repeated: AtomicBool::new(false),
        };
        let answered = async {
            if let Some(answer) = self.from_any(&call).await {
                return answer;
            }
            self.until_answered(&call).await
        };
        match timeout_at(call.deadline, answered).await {
            Ok(answer) => {
                if let (Ok(_), Some(credit), false) = (&answer, &credit, call.was_repeated.load(Ordering::Relaxed)) {
                    credit.done();
                }
                answer
            }
            Err(_) => Err(self.out_of_time(&call)),
        }
    }

    /// Which error a caller gets whose time is over: whether there was nobody to ask, or no answer.
    fn out_of_time(&self, call: &Call<'_>) -> Error {
        if call.maybe_done.load(Ordering::Relaxed) {
            return Error::Unknown {
                reason: format!("no answer for {} ms", call.timeout.as_millis()),
            };
        }
        if self.routes[call.shard as usize].borrow().leader.is_none() {
            return Error::Unavailable {
                reason: format!(
                    "shard {} has no leader: a majority of its replicas cannot be reached",
                    call.shard
                ),
                retry_after: RETRY_UNAVAILABLE,
            };
        }
        Error::TimedOut { after: call.timeout }
    }

    async fn until_answered(self: &Arc<Self>, call: &Call<'_>) -> Result<Forwarded, Error> {
        let mut routes = self.routes[call.shard as usize].subscribe();
        let mut hint = None;
        let mut attempt = 0_u32;
        loop {
            let leader = routes.borrow_and_update().leader;
            let detour = match leader {
                Some(_) => None,
                None => self.detours.of(call.shard, Instant::now()),
            };
            let target = hint
                .take()
                .or(leader)
                .or(detour)
                .unwrap_or_else(|| self.any_replica(call.shard, attempt));
            // Whoever is said to lead has been asked in vain, or cannot be known from here.
            let may_relay = leader.is_none() && (attempt > 0 || detour == Some(target));
            let maybe_done = call.maybe_done.swap(
                matches!(call.body, Body::Command(..) | Body::Release(..) | Body::Forget(_)),
                Ordering::Relaxed,
            );
            let answer = if target == self.node() {
                self.here(call.shard, call).await
            } else {
                tokio::select! {
                    answer = self.there(target, call, may_relay) => answer,
                    // Whoever was asked leads no longer; it may be gone for good.
                    () = left(&mut routes, target), if leader == Some(target) => Forwarded::Unknown,
                    // It may stand still, and nothing here would say so before its connection breaks.
                    () = sleep(self.patience(call.shard, leader == Some(target), may_relay && call.body.waits())) => {
                        self.detours.heard_nothing(target, Instant::now());
                        Forwarded::Unknown
                    }
                }
            };
            if !matches!(answer, Forwarded::Unknown) {
                // This attempt has not done it; an earlier one may have.
                call.maybe_done.store(maybe_done, Ordering::Relaxed);
            }
            match answer {
                Forwarded::Reply(..)
                | Forwarded::State(_)
                | Forwarded::Released(_)
                | Forwarded::Quarantine(_)
                | Forwarded::Outbox(_)
                | Forwarded::Tombstone(_) => {
                    if may_relay {
                        self.detours.found(call.shard, target, Instant::now());
                    } else {
                        self.learn(call.shard, Some(target));
                    }
                    return Ok(answer);
                }
                Forwarded::NotLeader(other) => {
                    hint = other.filter(|other| *other != target);
                    self.learn(call.shard, hint);
                }
                Forwarded::Unknown => self.learn(call.shard, None),
                Forwarded::TooOld => {}
                Forwarded::Overloaded { .. } | Forwarded::Restarting { .. } if maybe_done => {}
                Forwarded::Overloaded { limit, retry_ms } => {
                    return Err(Error::Overloaded {
                        what: format!("{limit} at the leader of {}", call.key),
                        retry_after: Duration::from_millis(retry_ms),
                    });
                }
                Forwarded::Restarting { after_ms, reason } => {
                    return Err(Error::Unavailable {
                        reason: format!("{}: {reason}", call.key),
                        retry_after: Duration::from_millis(after_ms.max(1)),
                    });
                }
                Forwarded::Quarantined(reason) => {
                    return Err(Error::Quarantined {
                        entity: call.key.to_string(),
                        reason,
                    });
                }
                Forwarded::Skipped(reason) => {
                    return Err(Error::Skipped {
                        entity: call.key.to_string(),
                        reason,
                    });
                }
                Forwarded::Failed(_) | Forwarded::Invalid { .. } | Forwarded::Forgotten(_) => {
                    return Err(refused(call.key, answer));
                }
            }
            call.was_repeated.store(true, Ordering::Relaxed);
            if hint.is_none() {
                let pause = (ATTEMPT_FIRST * 2_u32.saturating_pow(attempt.min(8))).min(ATTEMPT_MAX);
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = routes.changed() => {}
                }
            }
            attempt += 1;
        }
    }

    pub(super) async fn there(&self, node: NodeId, call: &Call<'_>, may_relay: bool) -> Forwarded {
        let Some(peer) = self.links.peer(node) else {
            return Forwarded::NotLeader(None);
        };
        let span = self.forward_span(node, call.shard, call.key, &call.trace, &call.was_repeated);
        let remaining = call.deadline.saturating_duration_since(Instant::now());
        let envelope = match &call.body {
            Body::Command(_, envelope) => Some(envelope),
            Body::Query(_) | Body::Release(..) | Body::Quarantine | Body::Outbox | Body::Forget(_) => None,
        };
        let request_id = match &call.body {
            Body::Release(_, by) => by.to_string(),
            Body::Forget(forget) => forget.request.to_string(),
            _ => envelope.map_or_else(String::new, |envelope| envelope.request.to_string()),
        };
        let chain = envelope.and_then(|envelope| envelope.chain.as_deref());
        let origin = envelope.and_then(|envelope| envelope.origin.as_deref());
        let request = pb::ForwardRequest {
            correlation: 0,
            shard: call.shard,
            kind: call.key.kind.to_string(),
            id: call.key.id.to_string(),
            request_id,
            tenant: call.tenant.as_str().to_owned(),
            schema: self.fleet.fingerprint(),
            fingerprint: envelope.map_or(0, |envelope| envelope.fingerprint),
            asked_by: match &call.body {
                Body::Forget(forget) => forget.asked_by.as_deref(),
                _ => envelope.and_then(|envelope| envelope.asked_by.as_deref()),
            }
            .unwrap_or_default()
            .to_owned(),
            depth: chain.map_or(0, |chain| chain.depth),
            path: chain.map_or_else(Vec::new, |chain| chain.path.iter().map(ToString::to_string).collect()),
            origin: origin.map(|origin| pb::EffectOrigin {
                shard: origin.shard,
                born: origin.born,
                floor: origin.floor,
                holes: origin.holes.clone(),
            }),
            traceparent: if call.trace.is_some() {
                call.trace.to_string()
            } else {
                String::new()
            },
            is_effect: call.is_effect,
            may_relay,
            timeout_ms: u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX),
            body: Some(match &call.body {
                Body::Command(command, _) => pb::forward_request::Body::Command(command.clone()),
                Body::Query(query) => pb::forward_request::Body::Query(query.to_wire()),
                Body::Release(Release::Retry, _) => pb::forward_request::Body::Release(pb::Release { skip: false }),
                Body::Release(Release::Skip, _) => pb::forward_request::Body::Release(pb::Release { skip: true }),
                Body::Quarantine => pb::forward_request::Body::Quarantine(pb::QuarantineQuery {}),
                Body::Outbox => pb::forward_request::Body::Outbox(pb::OutboxQuery {}),
                Body::Forget(forget) => pb::forward_request::Body::Forget(pb::Forget {
                    reason: forget.reason.clone(),
                }),
            }),
        };
        let answer = match peer.forward.call(request) {
            Some(mut call) => call.answer().await,
            None => self.refused(Limit::Forward),
        };
        traced::answered(span, &answer);
        answer
    }

    /// Serves a call that another node has forwarded.
    pub(crate) async fn serve(self: &Arc<Self>, request: pb::ForwardRequest) -> Forwarded {
        let invalid = |field: &str, reason: String| Forwarded::Invalid {
            field: field.to_owned(),
            reason,
        };
        let key = match EntityKey::new(&request.kind, &request.id) {
            Ok(key) => key,
            Err(error) => return invalid("id", error.to_string()),
        };
        if shard_of(&key, self.shards()) != request.shard {
            return invalid(
                "shard",
                "is another here: the nodes disagree about the number of shards".to_owned(),
            );
        }
        let body = match request.body {
            Some(pb::forward_request::Body::Command(command)) => {
                let id = match RequestId::new(&request.request_id) {
                    Ok(id) => id,
                    Err(error) => return invalid("request id", error.to_string()),
                };
                let chain = Chain {
                    depth: request.depth,
                    path: request
                        .path
                        .iter()
                        .filter_map(|key| EntityKey::parse(key).ok())
                        .collect(),
                };
                let envelope = Envelope {
                    is_foreign: request.schema != 0 && request.schema != self.fleet.fingerprint(),
                    fingerprint: request.fingerprint,
                    asked_by: asked_by(&request.asked_by),
                    chain: (request.depth > 0).then(|| Arc::new(chain)),
                    origin: request.origin.map(|origin| {
                        Arc::new(Origin {
                            shard: origin.shard,
                            born: origin.born,
                            floor: origin.floor,
                            holes: origin.holes,
                        })
                    }),
                    ..Envelope::new(id, TraceContext::parse(&request.traceparent).unwrap_or_default())
                };
                Body::Command(command, envelope)
            }
            Some(pb::forward_request::Body::Query(query)) => Body::Query(Query::from_wire(query, request.shard)),
            Some(pb::forward_request::Body::Release(release)) => match RequestId::new(&request.request_id) {
                Ok(by) => Body::Release(if release.skip { Release::Skip } else { Release::Retry }, by),
                Err(error) => return invalid("request id", error.to_string()),
            },
            Some(pb::forward_request::Body::Forget(forget)) => match RequestId::new(&request.request_id) {
                Ok(id) => Body::Forget(Box::new(Forget {
                    request: id,
                    asked_by: asked_by(&request.asked_by),
                    reason: forget.reason,
                })),
                Err(error) => return invalid("request id", error.to_string()),
            },
            Some(pb::forward_request::Body::Quarantine(_)) => Body::Quarantine,
            Some(pb::forward_request::Body::Outbox(_)) => Body::Outbox,
            None => return invalid("body", "is missing".to_owned()),
        };
        // A name that this node would not take counts as nobody's.
        let tenant = Tenant::new(&request.tenant).unwrap_or_default();
        let _credit = if body.waits() && !request.is_effect {
            match self.admission.call(&tenant, &key.kind, 0, true) {
                Ok(credit) => Some(credit),
                Err(overload) => return Forwarded::overloaded(overload),
            }
        } else {
            None
        };
        let timeout = Duration::from_millis(u64::from(request.timeout_ms));
        let call = Call {
            shard: request.shard,
            key: &key,
            body,
            tenant: &tenant,
            trace: TraceContext::parse(&request.traceparent).unwrap_or_default(),
            timeout,
            deadline: Instant::now() + timeout,
            maybe_done: AtomicBool::new(false),
            is_effect: request.is_effect,
            was_repeated: AtomicBool::new(false),
        };
        let may_relay = request.may_relay && request.schema == self.fleet.fingerprint();
        match self.here(request.shard, &call).await {
            Forwarded::NotLeader(Some(leader)) if may_relay => self.relay(leader, &call).await,
            answer => answer,
        }
    }

    pub(super) async fn here(self: &Arc<Self>, shard: u32, call: &Call<'_>) -> Forwarded {
        let Some(replica) = self.replica(shard) else {
            return Forwarded::NotLeader(None);
        };
        let credit = if call.is_effect || call.body.waits() {
            None
        } else {
            let left = call.deadline.saturating_duration_since(Instant::now());
            match self.admission.work(call.tenant, &call.key.kind, left) {
                Ok(credit) => Some(credit),
                Err(overload) => return Forwarded::overloaded(overload),
            }
        };
        let answer = match &call.body {
            Body::Command(command, envelope) => {
                let envelope = Envelope {
                    deadline: Some(call.deadline),
                    ..envelope.clone()
                };
                replica
                    .command(call.key, command.clone(), envelope, None)
                    .await
                    .map(|(reply, token)| Forwarded::Reply(reply, token))
            }
            Body::Release(how, by) => replica
                .release(call.key, *how, by.clone(), call.trace)
                .await
                .map(Forwarded::Released),
            Body::Forget(forget) => {
                let forgotten = Forgotten {
                    entity: call.key.clone(),
                    request: forget.request.clone(),
                    at_ms: replica.now_ms(),
                    asked_by: forget.asked_by.clone(),
                    reason: forget.reason.clone(),
                    trace: call.trace,
                };
                let tombstone = replica.forget(forgotten).await;
                tombstone.map(|tombstone| Forwarded::Tombstone(tombstone.map(|found| Box::new((*found).clone()))))
            }
            Body::Outbox => replica
                .confirm()
                .await
                .map(|()| Forwarded::Outbox(replica.outbox_views(call.key))),
            Body::Quarantine => replica.confirm().await.map(|()| {
                let row = replica.quarantine_row(call.key);
                Forwarded::Quarantine(row.map(|row| {
                    Box::new(QuarantineView {
                        entity: call.key.clone(),
                        shard,
                        row: (*row).clone(),
                    })
                }))
            }),
            Body::Query(query) => tokio::select! {
                read = read::here(&replica, call, query) => read,
                // Who waits for news asks the next leader, and does not hold this node up.
                () = self.until_stopping(), if query.newer_than.is_some() => Err(Undelivered::NotLeader),
            },
        };
        let leader = self.routes[shard as usize]
            .borrow()
            .leader
            .filter(|leader| *leader != self.node());
        if let (Ok(_), Some(credit)) = (&answer, &credit) {
            credit.done();
        }
        answer.unwrap_or_else(|reason| match reason {
            Undelivered::NotLeader => Forwarded::NotLeader(leader),
            Undelivered::Unknown => Forwarded::Unknown,
            Undelivered::Overloaded(limit) => self.refused(limit),
            Undelivered::Expired => self.refused(Limit::Deadline),
            Undelivered::Failed(reason) => Forwarded::Failed(reason),
            Undelivered::Restarting { after_ms, reason } => Forwarded::Restarting { after_ms, reason },
            Undelivered::Quarantined(reason) => Forwarded::Quarantined(reason),
            Undelivered::Skipped(reason) => Forwarded::Skipped(reason),
            Undelivered::Forgotten(reason) => Forwarded::Forgotten(reason),
            Undelivered::Reused => Forwarded::Invalid {
                field: "request id".to_owned(),
                reason: "was used for another command".to_owned(),
            },
        })
    }
}
