//! What the engine tells people: its own part, and that of all nodes put together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use proto::cluster::v1 as pb;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::Status;

use super::Engine;
use crate::{
    config::NodeId, entity::EntityKey, error::Error, placement::plan::steps_left, replication::node_of,
    shard::replica::Route,
};

/// How long another node may take to tell of itself.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// Time between two looks at whether this node has begun.
const READY_POLL: Duration = Duration::from_millis(10);
/// Entities in one message of a scan.
const SCAN_PAGE_LEN: usize = 200;

/// How much a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Full,
    /// Without what only a comparison of replicas needs.
    Brief,
}

impl Engine {
    /// This node's own part.
    pub(crate) async fn node_status(&self, detail: Detail) -> pb::NodeStatusResponse {
        let groups = self.group_status().await;
        let has_begun = groups.is_some();
        let groups = groups.unwrap_or_default();
        let mut activations = 0;
        let replicas = groups
            .into_iter()
            .filter_map(|group| {
                let replica = self.replica(group.group)?;
                activations += replica.activations() as u64;
                let now_ms = replica.now_ms();
                let state = replica.state();
                let meta = state.meta();
                Some(pb::ReplicaStatus {
                    shard: group.group,
                    replica: group.replica,
                    term: group.term,
                    leader: group.leader.map_or(0, u32::from),
                    is_leader: group.is_leader,
                    applied: meta.applied.0,
                    digest: meta.digest,
                    entities: meta.entities,
                    outbox: state.outbox().len() as u64,
                    quarantined: state.quarantined().open() as u64,
                    checkpoint: state.checkpoint_index(),
                    lag: group
                        .matched
                        .iter()
                        .map(|(id, matched)| (u32::from(node_of(*id)), group.last.saturating_sub(*matched)))
                        .collect(),
                    voters: group.members.voters.clone(),
                    members: group.members.all().collect(),
                    durable_members: state.durable_members().all().collect(),
                    recent_digests: match detail {
                        Detail::Full => state.recent_digests().collect(),
                        Detail::Brief => HashMap::new(),
                    },
                    timers: state.timers().len() as u64,
                    timers_overdue_ms: (state.timers().first_due_ms())
                        .map_or(0, |due_ms| now_ms.saturating_sub(due_ms)),
                    commit: Some(replica.commit_times().told()),
                })
            })
            .collect();
        pb::NodeStatusResponse {
            node: u32::from(self.node()),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            activations,
            resident_bytes: resident_bytes(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            unwell: self.unwell().unwrap_or_default(),
            has_begun,
            http: (self.services.http()).map_or_else(String::new, |address| address.to_string()),
            load: Some(self.load_status()),
            replicas,
            times: Some(self.mailbox.times_told()),
            links: self.links.told(),
            breakers: self
                .services
                .iter()
                .map(|(name, service)| {
                    let guard = service.guard();
                    let breaker = guard.state();
                    pb::OutsideBreaker {
                        dependency: name.to_owned(),
                        state: breaker.phase.as_str().to_owned(),
                        failures: breaker.failures,
                        forced: breaker.forced.to_string(),
                        open_left_ms: breaker.open_left_ms,
                        in_flight: guard.in_flight() as u64,
                    }
                })
                .collect(),
        }
    }

    /// What each node says of itself; `None` for one that does not answer.
    pub(super) async fn all_nodes(&self, detail: Detail) -> BTreeMap<NodeId, Option<pb::NodeStatusResponse>> {
        let request = pb::NodeStatusRequest {
            is_brief: detail == Detail::Brief,
        };
        let others = self.links.all().into_iter().map(|(node, peer)| {
            let mut client = peer.client.clone();
            async move {
                let answer = timeout(ANSWER_MAX, client.node_status(request)).await;
                (node, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            }
        });
        let (own, others) = tokio::join!(self.node_status(detail), join_all(others));
        others.into_iter().chain([(self.node(), Some(own))]).collect()
    }

    /// The whole cluster, as far as it can be reached from here.
    pub(crate) async fn status(&self) -> pb::StatusResponse {
        let nodes = self.all_nodes(Detail::Full).await;
        let map = self.map();
        let silent = nodes.iter().filter(|(_, said)| said.is_none());
        let down = silent.map(|(node, _)| *node).collect();
        let shards = (0..self.shards())
            .map(|shard| self.shard_status(shard, &nodes))
            .collect::<Vec<_>>();
        pb::StatusResponse {
            nodes: map
                .members
                .iter()
                .map(|(id, member)| {
                    let said = nodes.get(id).and_then(Option::as_ref);
                    let node = u32::from(*id);
                    pb::NodeStatus {
                        id: node,
                        up: said.is_some(),
                        address: member.address.to_string(),
                        pid: said.map_or(0, |said| said.pid),
                        version: said.map(|said| said.version.clone()).unwrap_or_default(),
                        leads: shards.iter().filter(|shard| shard.leader == node).count() as u32,
                        activations: said.map_or(0, |said| said.activations),
                        resident_bytes: said.map_or(0, |said| said.resident_bytes),
                        uptime_ms: said.map_or(0, |said| said.uptime_ms),
                        standing: member.standing.name().to_owned(),
                        replicas: map.replicas_on(*id).filter(|(shard, _)| *shard < map.shards).count() as u32,
                        unwell: said.map(|said| said.unwell.clone()).unwrap_or_default(),
                        http: said.map(|said| said.http.clone()).unwrap_or_default(),
                        load: said.and_then(|said| said.load.clone()),
                        times: said.and_then(|said| said.times),
                        links: said.map(|said| said.links.clone()).unwrap_or_default(),
                    }
                })
                .collect(),
            breakers: nodes
                .values()
                .flatten()
                .flat_map(|said| {
                    said.breakers.iter().map(|breaker| pb::BreakerStatus {
                        node: said.node,
                        dependency: breaker.dependency.clone(),
                        state: breaker.state.clone(),
                        failures: breaker.failures,
                        forced: breaker.forced.clone(),
                        open_left_ms: breaker.open_left_ms,
                        in_flight: breaker.in_flight,
                    })
                })
                .collect(),
            shards,
            system: Some(self.shard_status(map.system_shard(), &nodes)),
            roster_version: map.version(),
            moves_left: steps_left(&map, &down) as u32,
        }
    }

    fn shard_status(&self, shard: u32, nodes: &BTreeMap<NodeId, Option<pb::NodeStatusResponse>>) -> pb::ShardStatus {
        let told: Vec<(u32, &pb::ReplicaStatus)> = nodes
            .values()
            .flatten()
            .flat_map(|said| said.replicas.iter().map(|replica| (said.node, replica)))
            .filter(|(_, replica)| replica.shard == shard)
            .collect();
        // The leader of the highest term: an older one may not know yet that it was deposed.
        let leader = told
            .iter()
            .filter(|(_, replica)| replica.is_leader)
            .max_by_key(|(_, replica)| replica.term);
        let best = leader.or_else(|| told.iter().max_by_key(|(_, replica)| replica.applied));
        let home: Vec<u32> = self.map().nodes_of(shard).map(u32::from).collect();
        let Some((_, replica)) = best else {
            return pb::ShardStatus {
                id: shard,
                replicas: home.clone(),
                home,
                ..pb::ShardStatus::default()
            };
        };
        let mut replicas: Vec<u32> = replica.voters.iter().map(|id| u32::from(node_of(*id))).collect();
        replicas.sort_unstable();
        pb::ShardStatus {
            id: shard,
            leader: leader.map_or(0, |(node, _)| *node),
            term: replica.term,
            replicas: if replicas.is_empty() { home.clone() } else { replicas },
            home,
            lag: replica.lag.clone(),
            applied: replica.applied,
            entities: replica.entities,
            outbox: replica.outbox,
            quarantined: replica.quarantined,
            checkpoint: replica.checkpoint,
            timers: replica.timers,
            timers_overdue_ms: replica.timers_overdue_ms,
            commit: replica.commit,
        }
    }

    /// What each replica holds, at the highest position that all of a shard's replicas have reached and remember.
    pub(crate) async fn digests(&self) -> pb::DigestsResponse {
        let (nodes, map) = (self.all_nodes(Detail::Full).await, self.map());
        let shards = (0..self.shards())
            .map(|shard| {
                let told: Vec<(NodeId, Option<&pb::ReplicaStatus>)> = map
                    .nodes_of(shard)
                    .map(|node| {
                        let said = nodes.get(&node).and_then(Option::as_ref);
                        (
                            node,
                            said.and_then(|said| said.replicas.iter().find(|replica| replica.shard == shard)),
                        )
                    })
                    .collect();
                let voters: Vec<u32> = told
                    .iter()
                    .filter_map(|(_, replica)| *replica)
                    .max_by_key(|replica| (replica.is_leader, replica.term))
                    .map(|leader| leader.voters.iter().map(|id| u32::from(node_of(*id))).collect())
                    .unwrap_or_default();
                let reached = told.iter().filter_map(|(_, replica)| *replica);
                let common = reached.clone().next().and_then(|first| {
                    let mut positions: Vec<u64> = first.recent_digests.keys().copied().collect();
                    positions.retain(|position| reached.clone().all(|r| r.recent_digests.contains_key(position)));
                    positions.into_iter().max()
                });
                pb::ShardDigests {
                    shard,
                    replicas: told
                        .iter()
                        .map(|(node, replica)| digest_at(*node, *replica, common, &voters))
                        .collect(),
                }
            })
            .collect();
        pb::DigestsResponse { shards }
    }

    /// Waits until every shard has a leader that this node knows of.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<(), Error> {
        let all = async {
            while !self.has_begun.load(Ordering::Acquire) {
                sleep(READY_POLL).await;
            }
            for replica in self.replicas.iter() {
                let mut route = self.routes[replica.shard() as usize].subscribe();
                // The sender lives as long as the engine.
                let _ = route.wait_for(|route| route.leader.is_some()).await;
            }
        };
        timeout(limit, all).await.map_err(|_| Error::Unavailable {
            reason: "some shards have no leader".to_owned(),
            retry_after: ANSWER_MAX,
        })
    }

    /// Who leads a shard, as far as this node knows.
    pub(crate) fn route(&self, shard: u32) -> Route {
        *self.routes[shard as usize].borrow()
    }

    /// The entities of a shard of a kind after this id, from whichever node leads it.
    pub(crate) async fn scan(
        self: &Arc<Self>,
        shard: u32,
        kind: &str,
        after_id: &str,
    ) -> Result<mpsc::Receiver<Result<pb::ScanResponse, Error>>, Error> {
        if shard > self.shards() {
            return Err(Error::Invalid {
                field: "shard".to_owned(),
                reason: format!("must be at most {}, the system shard", self.shards()),
            });
        }
        let unavailable = move |reason: String| Error::Unavailable {
            reason: format!("shard {shard}: {reason}"),
            retry_after: ANSWER_MAX,
        };
        let leader = match self.route(shard).leader {
            Some(leader) => Some(leader),
            // A node without a replica of the shard asks the others.
            None => NodeId::try_from(self.shard_status(shard, &self.all_nodes(Detail::Full).await).leader).ok(),
        };
        let leader = leader
            .filter(|leader| *leader != 0)
            .ok_or_else(|| unavailable("has no leader".to_owned()))?;
        let (sender, receiver) = mpsc::channel(4);
        if leader == self.node() {
            let (engine, kind, after_id) = (Arc::clone(self), kind.to_owned(), after_id.to_owned());
            let (pages, mut queue) = mpsc::channel(4);
            tokio::spawn(async move {
                if let Err(status) = engine.scan_here(shard, &kind, &after_id, &pages).await {
                    let _ = pages.send(Err(status)).await;
                }
            });
            tokio::spawn(async move {
                while let Some(page) = queue.recv().await {
                    let page = page.map_err(|status| unavailable(status.message().to_owned()));
                    if sender.send(page).await.is_err() {
                        return;
                    }
                }
            });
        } else {
            let peer = self
                .links
                .peer(leader)
                .ok_or_else(|| unavailable("has no leader".to_owned()))?;
            let request = pb::ScanRequest {
                shard,
                kind: kind.to_owned(),
                after_id: after_id.to_owned(),
            };
            let pages = peer.client.clone().scan(request).await;
            let mut pages = pages
                .map_err(|status| unavailable(status.message().to_owned()))?
                .into_inner();
            tokio::spawn(async move {
                while let Some(page) = pages.next().await {
                    let page = page.map_err(|status| unavailable(status.message().to_owned()));
                    if sender.send(page).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(receiver)
    }

    /// Sends the entities of a shard that this node leads, page by page.
    pub(crate) async fn scan_here(
        self: &Arc<Self>,
        shard: u32,
        kind: &str,
        after_id: &str,
        pages: &mpsc::Sender<Result<pb::ScanResponse, Status>>,
    ) -> Result<(), Status> {
        let not_here = || Status::unavailable(format!("shard {shard} is not led by node {}", self.node()));
        let replica = self.replica(shard).ok_or_else(not_here)?;
        replica.confirm().await.map_err(|_| not_here())?;
        let mut after = EntityKey::new(kind, after_id).ok();
        loop {
            let keys = replica
                .state()
                .keys_after(kind, after.as_ref(), SCAN_PAGE_LEN)
                .map_err(|error| Status::data_loss(error.to_string()))?;
            let Some(last) = keys.last().cloned() else {
                return Ok(());
            };
            let rows = keys
                .iter()
                .map(|key| {
                    let loaded = replica
                        .load(key)
                        .map_err(|error| Status::data_loss(error.to_string()))?;
                    if loaded.forgotten.is_some() {
                        return Ok(None);
                    }
                    let live = replica
                        .revive(key, &loaded)
                        .map_err(|fault| Status::data_loss(fault.reason))?;
                    Ok(Some(pb::ScanRow {
                        kind: key.kind.to_string(),
                        id: key.id.to_string(),
                        version: loaded.head.version,
                        state: live.snapshot(),
                        outbox: replica.state().outbox_of(key).count() as u32,
                    }))
                })
                .filter_map(Result::transpose)
                .collect::<Result<Vec<_>, Status>>()?;
            if pages.send(Ok(pb::ScanResponse { rows })).await.is_err() {
                return Ok(());
            }
            after = Some(last);
        }
    }
}

fn digest_at(
    node: NodeId,
    replica: Option<&pb::ReplicaStatus>,
    position: Option<u64>,
    voters: &[u32],
) -> pb::ReplicaDigest {
    let mut digest = pb::ReplicaDigest {
        node: u32::from(node),
        ..pb::ReplicaDigest::default()
    };
    match (replica, position) {
        (None, _) => "the node cannot be reached".clone_into(&mut digest.error),
        (Some(replica), Some(position)) => {
            digest.applied = position;
            digest.digest = replica.recent_digests.get(&position).copied().unwrap_or_default();
            if !voters.contains(&digest.node) {
                "this replica does not vote yet: it is still catching up".clone_into(&mut digest.error);
            }
        }
        (Some(replica), None) => {
            digest.applied = replica.applied;
            digest.digest = replica.digest;
            "its replicas have no position in common yet; ask again".clone_into(&mut digest.error);
        }
    }
    digest
}

/// Memory of this process that is in use, where the system tells (Linux).
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * PAGE_BYTES)
}
