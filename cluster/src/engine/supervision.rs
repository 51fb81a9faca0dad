//! What people see of supervision and may do about it, and how the nodes' breakers follow each other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use proto::cluster::v1 as pb;
use tokio::time::{sleep, timeout};

use super::{
    Engine,
    call::{Body, unexpected},
};
use crate::{
    admission::Tenant,
    clock::unix_ns,
    codec,
    config::NodeId,
    entity::{
        Entity, EntityKey, RequestId,
        envelope::Envelope,
        release::{Release, Released},
    },
    error::Error,
    journal::quarantine::{AttemptEnd, QuarantineRow},
    supervision::{
        Forced, Guard, Phase, Policy,
        dependency::{Command, Dependency, State},
    },
    trace::TraceContext,
    transport::outcome::{Forwarded, OutboxView, QuarantineView},
};

/// How long another node may take to tell of its entities.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// How long one look at a breaker's entity waits for something new.
const WATCH_MAX: Duration = Duration::from_secs(10);
/// How long telling it may take.
const TELL_MAX: Duration = Duration::from_secs(2);
/// After a look or a word that did not get through.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Engine {
    /// Lifts an entity's quarantine, or tries to.
    async fn release(
        self: &Arc<Self>,
        key: &EntityKey,
        how: Release,
        request: &RequestId,
        trace: TraceContext,
        timeout: Duration,
    ) -> Result<Released, Error> {
        match self
            .call(
                key,
                Body::Release(how, request.clone()),
                trace,
                &Tenant::default(),
                timeout,
                true,
            )
            .await?
        {
            Forwarded::Released(released) => Ok(released),
            other => Err(unexpected(key, &other)),
        }
    }

    /// What is known of an entity that is or was quarantined.
    async fn quarantine(
        self: &Arc<Self>,
        key: &EntityKey,
        trace: TraceContext,
        timeout: Duration,
    ) -> Result<Option<Box<QuarantineView>>, Error> {
        match self
            .call(key, Body::Quarantine, trace, &Tenant::default(), timeout, true)
            .await?
        {
            Forwarded::Quarantine(view) => Ok(view),
            other => Err(unexpected(key, &other)),
        }
    }

    /// The open effects of an entity, as its leader knows them.
    pub(crate) async fn outbox_of(
        self: &Arc<Self>,
        key: &EntityKey,
        trace: TraceContext,
        timeout: Duration,
    ) -> Result<Vec<OutboxView>, Error> {
        match self
            .call(key, Body::Outbox, trace, &Tenant::default(), timeout, true)
            .await?
        {
            Forwarded::Outbox(views) => Ok(views),
            other => Err(unexpected(key, &other)),
        }
    }

    /// The policies of this node.
    pub(crate) fn policies(&self) -> Vec<pb::SupervisionPolicy> {
        let entities = self
            .registry()
            .names()
            .map(|name| policy_view("entity", name, &self.registry().policy(name)));
        let outside = self
            .services()
            .iter()
            .map(|(name, service)| policy_view("outside", name, service.guard().policy()));
        entities.chain(outside).collect()
    }

    /// What this node knows of quarantined and failing entities, in the shards that it leads.
    pub(crate) fn own_quarantine(&self) -> pb::QuarantinedResponse {
        let mut response = pb::QuarantinedResponse::default();
        // The last one is the system's.
        let led = (0..=self.shards()).filter(|shard| self.route(*shard).leader == Some(self.node()));
        for replica in led.filter_map(|shard| self.replica(shard)) {
            {
                let state = replica.state();
                let open = state.quarantined().rows().filter(|(_, row)| row.poison.is_some());
                response
                    .entities
                    .extend(open.map(|(key, row)| quarantined_view(key, replica.shard(), row)));
            }
            let failing = replica.failing().into_iter().map(|failing| pb::FailingEntity {
                key: failing.entity.to_string(),
                failures: failing.failures,
                breaker: failing.phase.as_str().to_owned(),
                reason: failing.reason,
                retry_after_ms: failing.after_ms,
            });
            response.failing.extend(failing);
        }
        response
    }

    /// Quarantined and failing entities of the whole cluster, as far as it can be reached from here; and the nodes that
    /// could not be asked.
    pub(crate) async fn all_quarantine(&self) -> pb::ListQuarantineResponse {
        let others = self.links.all().into_iter().map(|(node, peer)| {
            let mut client = peer.client.clone();
            async move {
                let answer = timeout(ANSWER_MAX, client.quarantined(pb::QuarantinedRequest {})).await;
                (node, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            }
        });
        let others = join_all(others).await;
        let mut response = pb::ListQuarantineResponse::default();
        let (mut entities, mut failing) = (BTreeMap::new(), BTreeMap::new());
        for (node, said) in others.into_iter().chain([(self.node(), Some(self.own_quarantine()))]) {
            let Some(said) = said else {
                response.unreachable_nodes.push(u32::from(node));
                continue;
            };
            entities.extend(said.entities.into_iter().map(|entity| (entity.key.clone(), entity)));
            failing.extend(said.failing.into_iter().map(|entity| (entity.key.clone(), entity)));
        }
        response.entities = entities.into_values().collect();
        response.failing = failing.into_values().collect();
        response
    }

    /// All that is known of one entity's quarantine.
    pub(crate) async fn show_quarantine(
        self: &Arc<Self>,
        key: &EntityKey,
        trace: TraceContext,
        limit: Duration,
    ) -> Result<Option<pb::ShowQuarantineResponse>, Error> {
        let Some(view) = self.quarantine(key, trace, limit).await? else {
            return Ok(None);
        };
        let poison = view.row.poison.as_ref();
        Ok(Some(pb::ShowQuarantineResponse {
            entity: Some(quarantined_view(key, view.shard, &view.row)),
            is_quarantined: poison.is_some(),
            backtrace: poison.map(|poison| poison.backtrace.clone()).unwrap_or_default(),
            command_json: poison.map_or_else(String::new, |poison| self.command_json(key, &poison.command)),
            command: poison.map(|poison| poison.command.clone()).unwrap_or_default(),
            trace_id: poison
                .filter(|poison| poison.trace.is_some())
                .map_or_else(String::new, |p| p.trace.trace_hex()),
            attempts: view
                .row
                .attempts
                .iter()
                .map(|attempt| pb::LiftAttempt {
                    request_id: attempt.by.to_string(),
                    at_unix_ms: attempt.at_ms,
                    of_request_id: attempt.request.to_string(),
                    end: match &attempt.end {
                        AttemptEnd::Decided(seq) => format!("decided by record {seq}"),
                        AttemptEnd::Skipped => "skipped".to_owned(),
                        AttemptEnd::Failed(reason) => format!("failed: {reason}"),
                    },
                })
                .collect(),
        }))
    }

    /// The command as JSON, or nothing if it cannot be read: that may be why it is here.
    fn command_json(&self, key: &EntityKey, command: &[u8]) -> String {
        let kind = self.registry().get(&key.kind);
        let json = kind.and_then(|kind| kind.command_json(command).ok());
        json.map(|json| json.to_string()).unwrap_or_default()
    }

    /// Lifts an entity's quarantine, or tries to; `None` if it has none.
    pub(crate) async fn lift_quarantine(
        self: &Arc<Self>,
        key: &EntityKey,
        how: Release,
        request: &RequestId,
        trace: TraceContext,
        limit: Duration,
    ) -> Result<Option<pb::LiftQuarantineResponse>, Error> {
        let mut response = pb::LiftQuarantineResponse::default();
        match self.release(key, how, request, trace, limit).await? {
            Released::NotQuarantined => return Ok(None),
            Released::Skipped => {
                response.lifted = true;
                response.skipped = true;
            }
            Released::Failed(reason) => response.failure = reason,
            Released::Decided(reply) => {
                response.lifted = true;
                response.rejected = reply.is_err();
                let bytes = reply
                    .as_ref()
                    .map(|reply| &reply[..])
                    .map_err(|rejection| &rejection[..]);
                let kind = self.registry().get(&key.kind);
                response.reply_json = kind
                    .and_then(|kind| kind.reply_json(bytes).ok())
                    .map(|json| json.to_string())
                    .unwrap_or_default();
            }
        }
        Ok(Some(response))
    }

    /// Says for the whole cluster what people want of a breaker.
    pub(crate) async fn force_breaker(
        self: &Arc<Self>,
        dependency: &str,
        forced: Forced,
        request: &RequestId,
        trace: TraceContext,
        limit: Duration,
    ) -> Result<(), Error> {
        let Some(service) = self.services().get(dependency) else {
            let known: Vec<&str> = self.services().iter().map(|(name, _)| name).collect();
            return Err(Error::Invalid {
                field: "dependency".to_owned(),
                reason: format!(
                    "{dependency:?} is none of this cluster; there are: {}",
                    known.join(", ")
                ),
            });
        };
        let key = breaker_key(dependency)?;
        let command = codec::encode(&Command::Force(forced));
        // It never refuses.
        let envelope = Envelope::new(request.clone(), trace);
        drop(self.ask_effect(&key, command, envelope, limit).await?);
        service.guard().force(forced);
        Ok(())
    }

    /// Makes a dependency's breaker known to the cluster, and follows what the cluster knows. Nothing waits for it.
    pub(super) async fn keep_breaker(self: Arc<Self>, guard: Guard) {
        let Ok(key) = breaker_key(guard.dependency()) else {
            return tracing::error!(
                dependency = guard.dependency(),
                "its breaker cannot be shared: no entity has such an id"
            );
        };
        let mut version = 0;
        let mut has_news = false;
        while !self.is_stopping() {
            if has_news {
                has_news = self.tell_breaker(&key, &guard).await.is_err();
                if !has_news {
                    continue;
                }
            } else {
                let seen = tokio::select! {
                    () = guard.changed() => {
                        has_news = true;
                        continue;
                    }
                    seen = self.read_own(&key, Some(version), WATCH_MAX) => seen,
                };
                if let Ok(view) = seen {
                    if view.version > version
                        && let Ok(state) = codec::decode::<State>(&view.state)
                    {
                        // What this node said itself in an earlier life is news to it as well.
                        let own = (version > 0).then(|| self.node());
                        follow_breaker(own, &guard, &state);
                    }
                    version = view.version;
                    continue;
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn tell_breaker(self: &Arc<Self>, key: &EntityKey, guard: &Guard) -> Result<(), Error> {
        let state = guard.state();
        let node = self.node();
        let command = match state.phase {
            Phase::Open => Command::Open {
                node,
                failures: state.failures,
                for_ms: state.open_left_ms,
            },
            Phase::Closed => Command::Close { node },
            // Its probe will say.
            Phase::HalfOpen => return Ok(()),
        };
        let id = format!("node-{node}/{:016x}", rand::random::<u64>());
        let request = RequestId::new(&id).expect("it is short and plain");
        let envelope = Envelope::new(request, TraceContext::default());
        let told = self.ask_effect(key, codec::encode(&command), envelope, TELL_MAX);
        told.await.map(drop)
    }
}

/// Takes over what the cluster knows of a breaker, but for what the node `own` has said.
fn follow_breaker(own: Option<NodeId>, guard: &Guard, state: &State) {
    guard.force(state.forced);
    match &state.opened {
        Some(opened) if Some(opened.node) != own => {
            let left_ms = opened.until_ms.saturating_sub(unix_ns() / 1_000_000);
            if left_ms > 0 {
                guard.adopt_open(left_ms, opened.failures);
            }
        }
        Some(_) => {}
        None => guard.adopt_closed(),
    }
}

fn breaker_key(dependency: &str) -> Result<EntityKey, Error> {
    EntityKey::new(Dependency::KIND, dependency).map_err(|error| Error::key("dependency", &error))
}

fn policy_view(of: &str, name: &str, policy: &Policy) -> pb::SupervisionPolicy {
    pb::SupervisionPolicy {
        of: of.to_owned(),
        name: name.to_owned(),
        intensity_max: policy.intensity_max,
        intensity_within_ms: policy.intensity_within_ms,
        backoff_first_ms: policy.backoff_first_ms,
        backoff_max_ms: policy.backoff_max_ms,
        jitter_percent: policy.jitter_percent,
        breaker_failures_max: policy.breaker_failures_max,
        breaker_open_ms: policy.breaker_open_ms,
        in_flight_max: policy.in_flight_max as u64,
        quarantine_after: policy.quarantine_after,
    }
}

fn quarantined_view(key: &EntityKey, shard: u32, row: &QuarantineRow) -> pb::QuarantinedEntity {
    let mut view = pb::QuarantinedEntity {
        key: key.to_string(),
        shard,
        position: row.position,
        ..pb::QuarantinedEntity::default()
    };
    if let Some(poison) = &row.poison {
        view.seq = poison.seq;
        view.request_id = poison.request.to_string();
        poison.stage.as_str().clone_into(&mut view.stage);
        view.reason.clone_from(&poison.reason);
        view.place.clone_from(&poison.place);
        view.failures = poison.count;
        view.since_unix_ms = poison.since_ms;
        view.at_unix_ms = poison.at_ms;
        view.command_bytes = poison.command.len() as u64;
        view.effect = poison
            .acknowledges
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
    }
    view
}
