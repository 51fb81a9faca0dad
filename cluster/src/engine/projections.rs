//! Questions for read models: one replica of each shard is asked, this node's own first, and the parts are merged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep, timeout};

use super::Engine;
use crate::{
    cluster::{Consistency, Request},
    codec,
    config::NodeId,
    error::Error,
    projection::{
        ProjectionView, QueryOptions, RebuildBegun,
        carried::Carried,
        door::ModelRows,
        models::{Models, NoPart},
        question::{ANSWER_BYTES_MAX, Newness, PartQuestion, Question, ReplicaModel, SHARDS_ASKED_MAX, Told},
    },
    shard::replica::Replica,
    store::StoreError,
    supervision::contain::contain,
    token::VersionToken,
};

/// How long a replica is given to become new enough before another one is asked.
const PATIENCE_MAX: Duration = Duration::from_secs(2);
/// How long another node may take beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Between two rounds over the replicas of a shard.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// When a question that could not be answered is worth repeating.
const RETRY: Duration = Duration::from_millis(500);
/// From this age on a replica that answered asks for what is new.
const AGE_ASK: Duration = Duration::from_millis(500);

/// An answer, encoded.
pub(crate) struct Gathered {
    pub(crate) answer: Bytes,
    pub(crate) staleness: Option<Duration>,
    pub(crate) tokens: Vec<VersionToken>,
}

/// One shard's part of it.
struct Part {
    bytes: Bytes,
    token: VersionToken,
    age: Option<Duration>,
}

impl Engine {
    /// Opens the read models of a replica and begins to feed them.
    pub(super) fn begin_models(&self, replica: &Arc<Replica>) {
        let all = self.registry.projections();
        if replica.shard() == self.shards() || all.is_empty() {
            return;
        }
        if let Err(error) = self.projections.begin(replica, all, &self.db) {
            let shard = replica.shard();
            tracing::error!(shard, %error, "the read models of a shard cannot be opened; other nodes answer for it");
        }
    }

    /// The versions of a projection that this node carries, the latest first.
    pub(crate) fn carried(&self, name: &str) -> Result<Vec<Arc<dyn Carried>>, Error> {
        let all = self.registry.projections();
        let versions = all.values().rev().filter(|carried| carried.name() == name);
        let versions: Vec<_> = versions.cloned().collect();
        if versions.is_empty() {
            let mut names: Vec<_> = all.keys().map(|(name, _)| *name).collect();
            names.dedup();
            return Err(Error::Invalid {
                field: "projection".to_owned(),
                reason: format!("{name:?} is none of this cluster; there are {}", names.join(", ")),
            });
        }
        Ok(versions)
    }

    /// Asks all shards and merges their parts.
    pub(crate) async fn query_projection(
        self: &Arc<Self>,
        carried: &Arc<dyn Carried>,
        query: Bytes,
        options: &QueryOptions,
        request: &Request,
    ) -> Result<Gathered, Error> {
        carried.check(&query).map_err(invalid)?;
        let deadline = Instant::now() + request.timeout;
        let newness = match options.consistency {
            None | Some(Consistency::Tokens) => Newness::Any,
            Some(Consistency::Stale(bound)) => Newness::Within(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX)),
            Some(Consistency::Linearizable) => Newness::Leader,
        };
        let questions: Result<Vec<_>, Error> = (0..self.shards())
            .map(|shard| {
                Ok(PartQuestion {
                    shard,
                    name: carried.name().to_owned(),
                    version: carried.version(),
                    query: query.clone(),
                    newness,
                    after: self.token_for(shard, &options.after)?,
                    patience_ms: 0,
                })
            })
            .collect();
        let asked = stream::iter(questions?).map(|question| self.part_of(question, deadline));
        let parts: Vec<Part> = asked.buffered(SHARDS_ASKED_MAX).try_collect().await?;
        let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
        if bytes > ANSWER_BYTES_MAX {
            return Err(invalid(format!(
                "is answered with {bytes} bytes by all shards; at most {ANSWER_BYTES_MAX} are allowed: ask for less at a time"
            )));
        }
        let staleness = parts
            .iter()
            .map(|part| part.age)
            .try_fold(Duration::ZERO, |oldest, age| age.map(|age| oldest.max(age)));
        let tokens = parts.iter().map(|part| part.token).collect();
        let (merging, query) = (Arc::clone(carried), query.clone());
        let parts = parts.into_iter().map(|part| part.bytes).collect();
        let merged = tokio::task::spawn_blocking(move || {
            contain(|| merging.merge(parts, &query))
                .unwrap_or_else(|panic| Err(format!("its code panicked at {}: {}", panic.place, panic.text)))
        });
        let failed = |reason: String| Error::Failed {
            entity: format!("the projection {}", carried.name()),
            reason,
        };
        let answer = merged
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)?;
        Ok(Gathered {
            answer,
            staleness,
            tokens,
        })
    }

    /// The part of one shard, from whichever of its replicas can give it in time.
    async fn part_of(self: &Arc<Self>, mut question: PartQuestion, deadline: Instant) -> Result<Part, Error> {
        let shard = question.shard;
        let mut last = "nobody has a replica of it".to_owned();
        loop {
            for node in self.feed_order(shard, question.newness == Newness::Leader) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // Half of what is left, so that there is time for another one.
                question.patience_ms = (left / 2).min(PATIENCE_MAX).as_millis() as u32;
                match self.models_at(node, Question::Part(question.clone()), left).await {
                    Ok(Told::Part { bytes, token, age_us }) => {
                        let age = age_us.map(Duration::from_micros);
                        return Ok(Part { bytes, token, age });
                    }
                    Ok(Told::Invalid { field, reason }) => return Err(Error::Invalid { field, reason }),
                    Ok(other) => {
                        if let Some(reason) = reason_of(node, &question, &other) {
                            last = reason;
                        }
                    }
                    Err(reason) => last = reason,
                }
            }
            if Instant::now() + ROUND_PAUSE >= deadline {
                let name = &question.name;
                return Err(Error::Unavailable {
                    reason: format!("the projection {name} cannot be read in shard {shard}: {last}"),
                    retry_after: RETRY,
                });
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks a node.
    async fn models_at(self: &Arc<Self>, node: NodeId, question: Question, left: Duration) -> Result<Told, String> {
        if node == self.node() {
            return Ok(self.models_here(question).await);
        }
        let peer = self.links.peer(node).filter(|peer| peer.is_up());
        let peer = peer.ok_or_else(|| format!("node {node} cannot be reached"))?;
        let question = codec::encode(&question);
        let request = pb::AskModelsRequest { question };
        let within = left.min(PATIENCE_MAX + ANSWER_MAX);
        match timeout(within, peer.client.clone().ask_models(request)).await {
            Ok(Ok(answer)) => codec::decode(&answer.into_inner().answer).map_err(|error| error.to_string()),
            Ok(Err(status)) => Err(format!("node {node}: {}", status.message())),
            Err(_) => Err(format!("node {node} does not answer")),
        }
    }

    /// Answers from this node's own models.
    pub(crate) async fn models_here(self: &Arc<Self>, question: Question) -> Told {
        match question {
            Question::Part(question) => {
                tokio::select! {
                    told = self.part_here(question) => told.unwrap_or_else(|told| told),
                    () = self.until_stopping() => Told::NotHere,
                }
            }
            Question::Views => Told::Views(self.views_here()),
            Question::Rebuild { name, version } => self.rebuild_here(name, version).await,
        }
    }

    async fn part_here(self: &Arc<Self>, question: PartQuestion) -> Result<Told, Told> {
        let until = Instant::now() + Duration::from_millis(u64::from(question.patience_ms)).min(PATIENCE_MAX);
        let replica = self.replica(question.shard).ok_or(Told::NotHere)?;
        let models = self.projections.get(question.shard).ok_or(Told::NotHere)?;
        let model = Arc::clone(models.get(&question.name, question.version).ok_or(Told::Unknown)?);
        let not_built = || {
            let building = model.standing().building;
            Told::NotBuilt {
                reached: building.map_or(0, |building| building.place.reached()),
                applied: replica.applied(),
            }
        };
        if model.reached().is_none() {
            return Err(not_built());
        }
        let _waiting = self
            .projections
            .questions_waiting
            .try_acquire()
            .map_err(|_| Told::Busy)?;
        let seen = wait_until_new(&replica, &models, &question, until).await?;
        let _running = timeout(
            until.saturating_duration_since(Instant::now()),
            self.projections.questions.acquire(),
        )
        .await
        .map_err(|_| Told::Busy)?;
        let age = seen.or_else(|| model.age()).map(|age| (age, Instant::now()));
        let (asked, query) = (Arc::clone(&model), question.query);
        let part = tokio::task::spawn_blocking(move || asked.part(&query)).await;
        let part = part.map_err(|_| Told::Failed("the node is stopping".to_owned()))?;
        let part = part.map_err(|reason| match reason {
            NoPart::NotBuilt => not_built(),
            NoPart::Invalid(reason) => Told::Invalid {
                field: "query".to_owned(),
                reason,
            },
            NoPart::Failed(reason) => Told::Failed(reason),
        })?;
        let age = age.map(|(age, since)| age + since.elapsed());
        if age.is_none_or(|age| age > AGE_ASK) {
            // Whoever asks next is told something better.
            replica.ask_for_all();
        }
        Ok(Told::Part {
            bytes: part.bytes,
            token: replica.token_of(part.place.reached()),
            age_us: age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        })
    }

    /// What this node's models say of the shards that it leads.
    pub(crate) async fn led_parts(&self, name: &'static str, version: u32, query: Bytes) -> Vec<Bytes> {
        let led = self.projections.all().into_iter().filter(|models| {
            let replica = self.replica(models.shard);
            replica.is_some_and(|replica| replica.leads_term().is_some())
        });
        let led: Vec<_> = led.filter_map(|models| models.get(name, version).cloned()).collect();
        let read = move || {
            led.iter()
                .filter_map(|model| Some(model.part(&query).ok()?.bytes))
                .collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    fn views_here(&self) -> Vec<(String, u32, ReplicaModel)> {
        let all = self.projections.all();
        let here = all
            .iter()
            .filter_map(|models| Some((models, self.replica(models.shard)?)));
        here.flat_map(|(models, replica)| models.views(self.node(), replica.applied()))
            .collect()
    }

    async fn rebuild_here(self: &Arc<Self>, name: String, version: u32) -> Told {
        let engine = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || {
            let mut begun = Vec::new();
            for models in engine.projections.all() {
                let Some(model) = models.get(&name, version) else {
                    return Ok(Told::Unknown);
                };
                let generation = model.rebuild()?;
                models.nudge.notify_one();
                begun.extend(generation.map(|generation| (models.shard, generation)));
            }
            // What was promised outlives a crash.
            engine.db.sync()?;
            Ok::<_, StoreError>(Told::Rebuilding(begun))
        });
        match begun.await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => Told::Failed(error.to_string()),
            Err(_) => Told::Failed("the node is stopping".to_owned()),
        }
    }

    /// What all members say to the same question.
    async fn models_everywhere(self: &Arc<Self>, question: &Question) -> Vec<(NodeId, Result<Told, String>)> {
        let nodes: Vec<NodeId> = self.map().members.keys().copied().collect();
        let asked = nodes
            .into_iter()
            .map(|node| async move { (node, self.models_at(node, question.clone(), PATIENCE_MAX).await) });
        join_all(asked).await
    }

    /// All projections that this node carries, with all copies that can be reached.
    pub(crate) async fn projection_views(self: &Arc<Self>) -> Vec<ProjectionView> {
        let mut told: Vec<(String, u32, ReplicaModel)> = Vec::new();
        for (node, answer) in self.models_everywhere(&Question::Views).await {
            match answer {
                Ok(Told::Views(views)) => told.extend(views),
                other => tracing::debug!(node, ?other, "a node does not tell of its read models"),
            }
        }
        told.sort_by_key(|(_, _, view)| (view.shard, view.node));
        let all = self.registry.projections();
        let views = all.iter().map(|((name, version), carried)| ProjectionView {
            name: (*name).to_owned(),
            version: *version,
            is_former: all
                .range((*name, version + 1)..)
                .next()
                .is_some_and(|((later, _), _)| later == name),
            kinds: carried.kinds().iter().map(|kind| (*kind).to_owned()).collect(),
            replicas: told
                .iter()
                .filter(|(of, in_version, _)| of == name && in_version == version)
                .map(|(_, _, view)| view.clone())
                .collect(),
        });
        views.collect()
    }

    /// All rows of this node's copy, and the last record that it took in.
    pub(crate) async fn model_rows(&self, name: &str, version: u32, shard: u32) -> Result<Option<ModelRows>, Error> {
        let models = self.projections.get(shard);
        let Some(model) = models.and_then(|models| models.get(name, version).cloned()) else {
            return Ok(None);
        };
        let read = tokio::task::spawn_blocking(move || model.rows()).await;
        let rows = read
            .map_err(|error| error.to_string())
            .and_then(|rows| rows.map_err(|error| error.to_string()));
        rows.map(|rows| rows.map(|(place, rows)| (place.last, rows)))
            .map_err(|reason| Error::Failed {
                entity: format!("the projection {name}"),
                reason,
            })
    }

    /// Begins to build the latest version of a projection anew, on all nodes that can be reached.
    pub(crate) async fn rebuild_projection(self: &Arc<Self>, name: &str) -> Result<RebuildBegun, Error> {
        let version = self.carried(name)?[0].version();
        let question = Question::Rebuild {
            name: name.to_owned(),
            version,
        };
        let mut begun = RebuildBegun {
            version,
            ..RebuildBegun::default()
        };
        for (node, answer) in self.models_everywhere(&question).await {
            match answer {
                Ok(Told::Rebuilding(building)) => {
                    begun
                        .building
                        .extend(building.into_iter().map(|(shard, number)| (shard, node, number)));
                }
                Ok(Told::Unknown) => begun
                    .not_told
                    .push((node, format!("its build has no version {version} of it"))),
                Ok(Told::Failed(reason)) | Err(reason) => begun.not_told.push((node, reason)),
                Ok(other) => begun
                    .not_told
                    .push((node, format!("answered with something else: {other:?}"))),
            }
        }
        begun.building.sort_unstable();
        Ok(begun)
    }
}

/// Waits until a model is as new as the question wants it; says how old it is then, where that is known.
async fn wait_until_new(
    replica: &Arc<Replica>,
    models: &Models,
    question: &PartQuestion,
    until: Instant,
) -> Result<Option<Duration>, Told> {
    let model = models.get(&question.name, question.version).ok_or(Told::Unknown)?;
    let foreign = |reason: String| Told::Invalid {
        field: "version token".to_owned(),
        reason,
    };
    if let Some(token) = question.after {
        replica.belongs(token).map_err(foreign)?;
        if !replica.reaches(token.index, until).await || !models.reaches(model, token.index, until).await {
            return Err(Told::TooOld);
        }
    }
    match question.newness {
        Newness::Any => Ok(None),
        Newness::Leader => {
            let confirmed = timeout(until.saturating_duration_since(Instant::now()), replica.confirm()).await;
            if !matches!(confirmed, Ok(Ok(()))) {
                return Err(Told::NotLeader);
            }
            // It has applied all that was committed when it was asked.
            if let Some(token) = question.after {
                replica.has_given(token).map_err(foreign)?;
            }
            if models.reaches(model, replica.applied(), until).await {
                Ok(Some(Duration::ZERO))
            } else {
                Err(Told::TooOld)
            }
        }
        Newness::Within(bound_us) => {
            let bound = Duration::from_micros(bound_us);
            loop {
                if !replica.freshness().within(bound, until, || replica.ask_for_all()).await {
                    return Err(Told::TooOld);
                }
                // Before how far it has come is looked at: what comes meanwhile makes it newer, never older.
                let proof = replica.freshness().proof();
                if !models.reaches(model, replica.applied(), until).await {
                    return Err(Told::TooOld);
                }
                let age = proof.map(super::super::shard::freshness::Proof::age);
                match age {
                    Some(age) if age <= bound => return Ok(Some(age)),
                    _ if Instant::now() >= until => return Err(Told::TooOld),
                    _ => {}
                }
            }
        }
    }
}

/// Why a node gave no part, for people; nothing where it has no replica.
fn reason_of(node: NodeId, question: &PartQuestion, told: &Told) -> Option<String> {
    match told {
        Told::NotHere => None,
        Told::NotLeader => Some(format!("node {node} does not lead it")),
        Told::Unknown => Some(format!("node {node} does not carry version {} of it", question.version)),
        Told::NotBuilt { reached, applied } => Some(format!(
            "node {node} is still building version {} of it, and has come to {reached} of {applied}",
            question.version
        )),
        Told::TooOld => Some(format!("node {node} did not become as new as is asked in time")),
        Told::Busy => Some(format!("node {node} has too many questions waiting")),
        Told::Failed(reason) => Some(format!("node {node}: {reason}")),
        other => Some(format!("node {node} answered with something else: {other:?}")),
    }
}

fn invalid(reason: String) -> Error {
    Error::Invalid {
        field: "query".to_owned(),
        reason,
    }
}
