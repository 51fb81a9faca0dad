//! What people are told of sagas, and the nudge they may give: generic, by what each kind can tell of itself
//! ([`crate::saga::outline`]).

use std::sync::Arc;

use proto::saga::v1 as pb;

use super::{Engine, read::Query};
use crate::{
    clock::unix_ns,
    cluster::{Consistency, Request},
    codec,
    entity::EntityKey,
    error::{AskError, Error},
    saga::{Outline, Phase, Rejection, StageOutline, WaitingStep, outline::Brief},
    schema::versioned,
    supervision::Phase as BreakerPhase,
};

/// Sagas of one page, at most and where nobody says how many.
const PAGE_LEN_MAX: usize = 1_000;
const PAGE_LEN_DEFAULT: usize = 100;
/// Sagas that are looked at for one page, whether they are wanted or not.
const EXAMINED_MAX: usize = 10_000;
/// Steps of one saga whose links are followed.
const FOLLOWED_STEPS_MAX: usize = 8;
/// Links from a saga outwards, and open effects of one entity, that are followed.
const LINKS_DEPTH_MAX: usize = 3;
const LINKS_WIDTH_MAX: usize = 4;

/// Which sagas are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct SagaQuery {
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) older_than_ms: u64,
    pub(crate) limit: usize,
    pub(crate) page: String,
}

/// How a state is called; all that can be asked for.
const STATES: [&str; 5] = ["running", "undoing", "stuck", "completed", "undone"];

fn state_of(phase: Phase, is_stuck: bool) -> &'static str {
    if is_stuck { "stuck" } else { phase.as_str() }
}

/// Where a page ended.
struct Place {
    shard: u32,
    kind: usize,
    after_id: String,
}

impl Place {
    fn parse(page: &str, kinds: &[&str]) -> Result<Self, Error> {
        if page.is_empty() {
            return Ok(Self {
                shard: 0,
                kind: 0,
                after_id: String::new(),
            });
        }
        let mut parts = page.splitn(3, ' ');
        let parsed = (|| {
            let shard = parts.next()?.parse().ok()?;
            let name = parts.next()?;
            let kind = kinds.iter().position(|kind| *kind == name)?;
            let after_id = parts.next()?.to_owned();
            Some(Self { shard, kind, after_id })
        })();
        parsed.ok_or_else(|| {
            invalid(
                "page",
                "is none that a list of these sagas ended with; begin without one",
            )
        })
    }

    fn text(shard: u32, kind: &str, after_id: &str) -> String {
        format!("{shard} {kind} {after_id}")
    }
}

fn invalid(field: &str, reason: impl Into<String>) -> Error {
    Error::Invalid {
        field: field.to_owned(),
        reason: reason.into(),
    }
}

impl Engine {
    fn saga_kinds(&self) -> Vec<&'static str> {
        self.registry().sagas().collect()
    }

    /// A page of the sagas that are wanted, shard after shard.
    pub(crate) async fn sagas(self: &Arc<Self>, query: &SagaQuery) -> Result<pb::ListSagasResponse, Error> {
        let mut kinds = self.saga_kinds();
        if !query.kind.is_empty() {
            if !kinds.contains(&query.kind.as_str()) {
                return Err(invalid(
                    "kind",
                    format!("is none of the sagas here: {}", kinds.join(", ")),
                ));
            }
            kinds.retain(|kind| *kind == query.kind);
        }
        if !query.state.is_empty() && !STATES.contains(&query.state.as_str()) {
            return Err(invalid("state", format!("is none of {}", STATES.join(", "))));
        }
        let from = Place::parse(&query.page, &kinds)?;
        let limit = match query.limit {
            0 => PAGE_LEN_DEFAULT,
            limit => limit.min(PAGE_LEN_MAX),
        };
        let mut response = pb::ListSagasResponse::default();
        let mut examined = 0;
        for shard in from.shard..self.shards() {
            let first = if shard == from.shard { from.kind } else { 0 };
            for (at, kind) in kinds.iter().enumerate().skip(first) {
                let is_first = shard == from.shard && at == from.kind;
                let after_id = if is_first { from.after_id.as_str() } else { "" };
                let mut pages = self.scan(shard, kind, after_id).await?;
                while let Some(page) = pages.recv().await {
                    for row in page?.rows {
                        let key = EntityKey::new(&row.kind, &row.id).map_err(|error| Error::key("id", &error))?;
                        let brief = self.saga_brief(&key, &row.state)?;
                        if is_wanted(&brief, query) {
                            response.sagas.push(summary(&key, &brief));
                        }
                        examined += 1;
                        if response.sagas.len() == limit || examined == EXAMINED_MAX {
                            response.next_page = Place::text(shard, kind, &row.id);
                            return Ok(response);
                        }
                    }
                }
            }
        }
        Ok(response)
    }

    fn saga_brief(&self, key: &EntityKey, state: &[u8]) -> Result<Brief, Error> {
        let kind = self.registry().get(&key.kind).ok_or_else(|| self.no_saga(key))?;
        let brief = kind.saga_brief(state).map_err(|error| unreadable(key, &error))?;
        brief.ok_or_else(|| self.no_saga(key))
    }

    fn no_saga(&self, key: &EntityKey) -> Error {
        let kinds = self.saga_kinds().join(", ");
        invalid(
            "saga",
            format!(
                "names an entity of kind {:?}, which is no saga; sagas are: {kinds}",
                key.kind
            ),
        )
    }

    /// The saga that is meant: by kind and id, or by an id that only one saga has. `None` if there is none.
    pub(crate) async fn saga_named(
        self: &Arc<Self>,
        text: &str,
        request: &Request,
    ) -> Result<Option<EntityKey>, Error> {
        let kinds = self.saga_kinds();
        if text.contains('/') {
            let key = EntityKey::parse(text).map_err(|error| Error::key("saga", &error))?;
            if !kinds.contains(&&*key.kind) {
                return Err(self.no_saga(&key));
            }
            return Ok(Some(key));
        }
        let mut found = Vec::new();
        for kind in kinds {
            let key = EntityKey::new(kind, text).map_err(|error| Error::key("saga", &error))?;
            if self.saga_state(&key, request).await?.is_some() {
                found.push(key);
            }
        }
        if found.len() > 1 {
            let keys: Vec<String> = found.iter().map(ToString::to_string).collect();
            return Err(invalid(
                "saga",
                format!("is the id of several: {}; say which", keys.join(", ")),
            ));
        }
        Ok(found.pop())
    }

    /// Version and state of a saga that was started.
    async fn saga_state(
        self: &Arc<Self>,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<(u64, bytes::Bytes)>, Error> {
        let view = self
            .read(key, Query::default(), (Consistency::Linearizable, &[]), request)
            .await?;
        Ok((view.version > 0).then_some((view.version, view.state)))
    }

    /// One saga, as its own state tells it. `None` if there is no such saga.
    pub(crate) async fn show_saga(
        self: &Arc<Self>,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::ShowSagaResponse>, Error> {
        let Some((version, state)) = self.saga_state(key, request).await? else {
            return Ok(None);
        };
        let kind = self.registry().get(&key.kind).ok_or_else(|| self.no_saga(key))?;
        let brief = self.saga_brief(key, &state)?;
        let outline = kind
            .saga_outline(&key.id, &state)
            .map_err(|error| unreadable(key, &error))?;
        let outline = outline.ok_or_else(|| self.no_saga(key))?;
        let json = kind.state_json(&state).map_err(|error| unreadable(key, &error))?;
        Ok(Some(shown(key, version, &brief, outline, json.to_string())))
    }

    /// The same, and what those whom it waits for wait for.
    pub(crate) async fn explain_saga(
        self: &Arc<Self>,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::ExplainSagaResponse>, Error> {
        let Some(mut saga) = self.show_saga(key, request).await? else {
            return Ok(None);
        };
        let troubles = Troubles(self.all_quarantine().await);
        for step in saga.waiting.iter_mut().take(FOLLOWED_STEPS_MAX) {
            step.links = self.links(key, &step.target, &troubles, request).await?;
        }
        Ok(Some(pb::ExplainSagaResponse {
            saga: Some(saga),
            now_unix_ms: unix_ns() / 1_000_000,
        }))
    }

    /// From an entity to the one that it waits for, and on to those that this one waits for.
    async fn links(
        self: &Arc<Self>,
        from: &EntityKey,
        to: &str,
        troubles: &Troubles,
        request: &Request,
    ) -> Result<Vec<pb::SagaLink>, Error> {
        let mut links = Vec::new();
        let mut ahead = vec![(from.clone(), to.to_owned(), 1)];
        while let Some((from, to, depth)) = ahead.pop() {
            let open = self.outbox_of(&from, request.trace, request.timeout).await?;
            let effect = open.into_iter().find(|effect| effect.target == to);
            let is_taken = effect.is_none();
            let (attempts, waits_for) = effect.map_or((0, String::new()), |effect| (effect.attempts, effect.waits_for));
            let mut link = pb::SagaLink {
                from: from.to_string(),
                to: to.clone(),
                attempts,
                waits_for,
                ..pb::SagaLink::default()
            };
            if let Some(service) = self.services().get(&to) {
                link.to_service = true;
                let breaker = service.guard().state();
                if breaker.phase != BreakerPhase::Closed {
                    let (state, failures) = (breaker.phase.as_str(), breaker.failures);
                    link.trouble = format!("its breaker is {state} after {failures} failures in a row");
                    link.retry_after_ms = breaker.open_left_ms;
                }
            } else if let Ok(entity) = EntityKey::parse(&to) {
                (link.trouble, link.retry_after_ms) = troubles.of(&to);
                // Who has not taken the command yet does nothing for it.
                if is_taken && depth < LINKS_DEPTH_MAX {
                    let timers = self.timers_of(&entity).await.into_iter().take(LINKS_WIDTH_MAX);
                    link.timers = timers
                        .map(|timer| pb::SagaTimer {
                            name: timer.name,
                            due_unix_ms: timer.due_unix_ms,
                        })
                        .collect();
                    let open = self.outbox_of(&entity, request.trace, request.timeout).await?;
                    let others = open.into_iter().filter(|effect| effect.target != from.to_string());
                    ahead.extend(
                        others
                            .take(LINKS_WIDTH_MAX)
                            .map(|effect| (entity.clone(), effect.target, depth + 1)),
                    );
                }
            }
            links.push(link);
        }
        Ok(links)
    }

    /// Has what waits to be tried again tried now.
    pub(crate) async fn nudge_saga(
        self: &Arc<Self>,
        key: &EntityKey,
        request: &Request,
    ) -> Result<pb::NudgeSagaResponse, AskError<Rejection>> {
        let kind = self.registry().get(&key.kind);
        let nudge = kind
            .and_then(|kind| kind.saga_nudge())
            .ok_or_else(|| self.no_saga(key))?;
        let (reply, _) = self.ask(key, nudge, request).await?;
        match reply {
            Ok(reply) => {
                let phase: Phase = codec::decode(plain(&reply)).map_err(|error| unreadable(key, &error))?;
                Ok(pb::NudgeSagaResponse {
                    key: key.to_string(),
                    state: phase.as_str().to_owned(),
                })
            }
            Err(rejection) => {
                let rejection = codec::decode(plain(&rejection)).map_err(|error| unreadable(key, &error))?;
                Err(AskError::Rejected(rejection))
            }
        }
    }
}

/// A value without what stands before it to say its version.
fn plain(value: &[u8]) -> &[u8] {
    versioned::split(value).map_or(value, |(_, value)| value)
}

/// The entities of the cluster that are quarantined or fail just now.
struct Troubles(proto::cluster::v1::ListQuarantineResponse);

impl Troubles {
    /// What is wrong with an entity, and when it is tried again, in milliseconds from now; nothing and 0 for a sound one.
    fn of(&self, key: &str) -> (String, u64) {
        if let Some(entity) = self.0.entities.iter().find(|entity| entity.key == key) {
            return (
                format!(
                    "it is quarantined after {} failures: {}",
                    entity.failures, entity.reason
                ),
                0,
            );
        }
        let failing = self.0.failing.iter().find(|entity| entity.key == key);
        failing.map_or_else(Default::default, |entity| {
            let (failures, breaker) = (entity.failures, &entity.breaker);
            let text = format!("it has failed {failures} times (breaker {breaker}): {}", entity.reason);
            (text, entity.retry_after_ms)
        })
    }
}

fn unreadable(key: &EntityKey, error: &dyn std::error::Error) -> Error {
    Error::Failed {
        entity: key.to_string(),
        reason: format!("its stored form cannot be read by this build: {error}"),
    }
}

fn is_wanted(brief: &Brief, query: &SagaQuery) -> bool {
    let now_ms = unix_ns() / 1_000_000;
    brief.phase != Phase::New
        && (query.state.is_empty() || state_of(brief.phase, brief.is_stuck) == query.state)
        && now_ms.saturating_sub(brief.started_ms) >= query.older_than_ms
}

fn summary(key: &EntityKey, brief: &Brief) -> pb::SagaSummary {
    pb::SagaSummary {
        key: key.to_string(),
        state: state_of(brief.phase, brief.is_stuck).to_owned(),
        stage: brief.stage.clone(),
        waiting: brief.waiting as u32,
        reason: brief.reason.clone().unwrap_or_default(),
        problems: brief.problems as u32,
        started_unix_ms: brief.started_ms,
        since_unix_ms: brief.since_ms,
    }
}

fn shown(key: &EntityKey, version: u64, brief: &Brief, outline: Outline, state_json: String) -> pb::ShowSagaResponse {
    let undo = outline.phase == Phase::Undoing;
    pb::ShowSagaResponse {
        saga: Some(summary(key, brief)),
        version,
        round: outline.round,
        waiting: outline.waiting.into_iter().map(|step| waiting(step, undo)).collect(),
        next: outline.next.into_iter().map(stage).collect(),
        undo: outline.undo.into_iter().map(stage).collect(),
        can_turn_back: outline.can_turn_back,
        stage_deadline_unix_ms: outline.stage_deadline_ms.unwrap_or_default(),
        overall_deadline_unix_ms: outline.overall_deadline_ms.unwrap_or_default(),
        overdue: outline.overdue,
        problems: (outline.problems.into_iter())
            .map(|(step, reason)| pb::SagaProblem { step, reason })
            .collect(),
        state_json,
    }
}

fn waiting(step: WaitingStep, undo: bool) -> pb::SagaWaiting {
    pb::SagaWaiting {
        step: step.step,
        undo,
        target: step.target,
        attempt: step.attempt,
        attempts_max: step.attempts_max.unwrap_or_default(),
        again_unix_ms: step.again_ms.unwrap_or_default(),
        failure: step.failure.unwrap_or_default(),
        links: Vec::new(),
    }
}

fn stage(stage: StageOutline) -> pb::SagaStage {
    pb::SagaStage {
        stage: stage.stage,
        steps: (stage.steps.into_iter())
            .map(|(step, target)| pb::SagaStep { step, target })
            .collect(),
        is_point_of_no_return: stage.is_point_of_no_return,
    }
}
