//! Following the cluster's map, and changing it: who belongs to the cluster, and where replicas live.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proto::cluster::v1 as pb;
use tokio::time::sleep;

use super::{Engine, schema::card_of, status::Detail};
use crate::{
    cluster::Cluster,
    codec,
    config::NodeId,
    entity::{RequestId, envelope::Envelope},
    error::{AskError, Error},
    membership::{Map, Roster, RosterCommand, RosterRejection, Standing},
    placement::plan::{Seen, SeenShard, Step, is_look_due, next_step},
    shard::end_node,
    trace::TraceContext,
};

/// How long one question to the roster may take.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How long a read of the roster waits for its next change.
const WATCH_MAX: Duration = Duration::from_secs(5);
/// Time between two attempts after one failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks at replicas that are to go.
const CLOSE_INTERVAL: Duration = Duration::from_millis(300);
/// Time between two looks at what should be placed elsewhere.
const PLACE_INTERVAL: Duration = Duration::from_millis(100);

impl Cluster {
    /// All nodes of the cluster with where they listen, as this node knows them now.
    pub fn members(&self) -> Vec<(NodeId, SocketAddr)> {
        let map = self.engine().map();
        map.members.iter().map(|(id, member)| (*id, member.address)).collect()
    }
}

impl Engine {
    /// Asks the roster for a change.
    pub(crate) async fn change_roster(
        self: &Arc<Self>,
        command: &RosterCommand,
    ) -> Result<(), AskError<RosterRejection>> {
        let request = RequestId::new(&format!("roster-{:032x}", rand::random::<u128>())).expect("a short id");
        let command = codec::encode(command);
        let trace = TraceContext::default();
        // As an effect: what clients have under way must not stand in its way.
        let envelope = Envelope::new(request, trace);
        let reply = self.ask_effect(&Roster::key(), command, envelope, ASK_MAX).await?;
        reply.map(drop).map_err(|rejection| match codec::decode(&rejection) {
            Ok(rejection) => AskError::Rejected(rejection),
            Err(error) => AskError::Engine(Error::Failed {
                entity: Roster::key().to_string(),
                reason: format!("its answer cannot be read by this build: {error}"),
            }),
        })
    }

    /// The cluster's map as it is now, or as it is once it has changed past `newer_than`; at most until the time is over.
    async fn read_roster(self: &Arc<Self>, newer_than: Option<u64>, timeout: Duration) -> Result<(u64, Map), Error> {
        let view = self.read_own(&Roster::key(), newer_than, timeout).await?;
        let map = codec::decode(&view.state).map_err(|error| Error::Failed {
            entity: Roster::key().to_string(),
            reason: format!("its state cannot be read by this build: {error}"),
        })?;
        Ok((view.version, map))
    }

    /// Lets a node in, or says why not.
    pub(crate) async fn let_in(
        self: &Arc<Self>,
        request: pb::JoinRequest,
    ) -> Result<pb::JoinResponse, AskError<String>> {
        // Who runs under this number already has not lost anything.
        let is_running = |node: NodeId| self.links.peer(node).is_some_and(|peer| peer.is_up());
        let invalid = |field: &str, reason: &str| {
            AskError::Engine(Error::Invalid {
                field: field.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let node = NodeId::try_from(request.node).ok().filter(|node| *node != 0);
        let node = node.ok_or_else(|| invalid("node", "must be between 1 and 65535"))?;
        let card = card_of(&request.schema).map_err(|reason| invalid("schema", &reason))?;
        if let Some(reason) = card.as_ref().and_then(|card| card.obstacle(self.map().floor.as_ref())) {
            return Err(AskError::Rejected(reason));
        }
        let address = request.address.parse();
        let command = RosterCommand::Join {
            node,
            address: address.map_err(|_| invalid("address", "must be an IP address with a port"))?,
            nonce: request.nonce,
            is_lost: request.is_lost || !is_running(node),
        };
        self.change_roster(&command).await.map_err(|error| match error {
            AskError::Rejected(rejection @ RosterRejection::NotBegun) => AskError::Engine(Error::Unavailable {
                reason: rejection.to_string(),
                retry_after: RETRY_INTERVAL,
            }),
            AskError::Rejected(rejection) => AskError::Rejected(rejection.to_string()),
            AskError::Engine(error) => AskError::Engine(error),
        })?;
        if let Some(card) = card.map(Arc::new) {
            let announced = self.change_roster(&RosterCommand::Announce { node, card }).await;
            announced.map_err(|error| match error {
                AskError::Rejected(rejection) => AskError::Rejected(rejection.to_string()),
                AskError::Engine(error) => AskError::Engine(error),
            })?;
        }
        let (version, map) = self.read_roster(None, ASK_MAX).await?;
        Ok(pb::JoinResponse {
            map: codec::encode(&map),
            version,
        })
    }

    /// Says who this node is, then follows the map for as long as the node runs.
    pub(super) async fn keep_following(self: Arc<Self>) {
        let announcing = tokio::spawn(Arc::clone(&self).announce());
        self.tasks.lock().push(announcing);
        self.open_replicas(&self.map()).await;
        loop {
            let seen = self.map().version();
            // Of a roster that has not begun there is nothing to wait for: somebody has to begin it.
            match self.read_roster((seen > 0).then_some(seen), WATCH_MAX).await {
                Ok((version, map)) if version > seen => {
                    self.take_map(version, map);
                }
                Ok((0, _)) => {
                    self.begin_roster().await;
                    sleep(RETRY_INTERVAL).await;
                }
                Ok(_) => {}
                Err(_) => sleep(RETRY_INTERVAL).await,
            }
            self.open_replicas(&self.map()).await;
        }
    }

    /// The first map of a new cluster becomes the roster's; every node of it would say the same.
    async fn begin_roster(self: &Arc<Self>) {
        let begin = RosterCommand::Begin(self.map().as_ref().clone());
        if let Err(error) = self.change_roster(&begin).await {
            tracing::debug!(%error, "the roster does not begin yet");
        }
    }

    /// Tells the roster where this node listens and which folder it has.
    async fn announce(self: Arc<Self>) {
        let command = RosterCommand::Join {
            node: self.node(),
            address: self.own_address(),
            nonce: self.identity.nonce(),
            is_lost: false,
        };
        let mut maps = self.map.subscribe();
        // The sender lives as long as the engine.
        let _ = maps.wait_for(|map| map.0 > 0).await;
        let mut commands = [command, self.announcement()].into_iter().peekable();
        while let Some(command) = commands.peek() {
            match self.change_roster(command).await {
                Ok(()) => {
                    commands.next();
                    continue;
                }
                Err(AskError::Rejected(
                    rejection @ (RosterRejection::HasLeft(_)
                    | RosterRejection::NumberTaken(_)
                    | RosterRejection::Unreadable(_)),
                )) => end_node(&rejection.to_string()),
                Err(error) => tracing::debug!(%error, "the roster does not know this node yet"),
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Takes note of a newer map: it is on the device before anything follows from it.
    fn take_map(&self, version: u64, map: Map) {
        if let Err(reason) = self.identity.set_map(version, &map) {
            end_node(&reason);
        }
        let before = self.map();
        for (node, member) in &map.members {
            // What this node's own config file says of a peer holds for as long as it runs.
            let address = self.config.address_of(*node).unwrap_or(member.address);
            self.links.connect(*node, address);
        }
        for node in before.members.keys().filter(|node| !map.members.contains_key(node)) {
            self.links.disconnect(*node);
        }
        if before.members.contains_key(&self.node()) && !map.members.contains_key(&self.node()) {
            tracing::warn!("this node has left the cluster; it only forwards calls, and can be stopped");
        }
        self.learn_builds(&map);
        self.map.send_replace(Arc::new((version, map)));
    }

    /// Opens the replicas that this node is to hold.
    async fn open_replicas(self: &Arc<Self>, map: &Map) {
        let held = self.identity.held();
        for (shard, id) in map.replicas_on(self.node()) {
            if self.replica(shard).is_none() && !held.contains_key(&shard) {
                let engine = Arc::clone(self);
                let opened = tokio::task::spawn_blocking(move || engine.open_replica(shard, id)).await;
                if let Ok(Err(reason)) = opened {
                    end_node(&format!("a replica cannot be begun: {reason}"));
                }
            }
        }
    }

    /// Closes replicas that have left their group.
    pub(super) async fn keep_closing(self: Arc<Self>) {
        loop {
            sleep(CLOSE_INTERVAL).await;
            let map = self.map();
            for (shard, id) in self.identity.held() {
                if !map.home(shard).contains(&id)
                    && self.is_out(shard, id).await
                    && let Err(reason) = self.close_replica(shard)
                {
                    end_node(&reason);
                }
            }
        }
    }

    /// While this node leads the roster, sees to what should be placed elsewhere.
    pub(super) async fn keep_placing(self: Arc<Self>) {
        loop {
            sleep(PLACE_INTERVAL).await;
            let map = self.map();
            let leader = self.routes[map.system_shard() as usize].borrow().leader;
            if map.version() == 0 || leader != Some(self.node()) || self.leaving.load(Ordering::Relaxed) {
                continue;
            }
            let peers = self.links.all().into_iter();
            let down = peers.filter(|(_, peer)| !peer.is_up()).map(|(node, _)| node).collect();
            if !is_look_due(&map, &down) {
                continue;
            }
            let seen = self.look_around().await;
            let Some(step) = next_step(&map, &seen) else { continue };
            match &step {
                Step::Place { shard, to, .. } => tracing::info!(shard, ?to, "a shard gets another home"),
                Step::Release(node) => tracing::info!(node, "a node has left the cluster"),
            }
            match self.change_roster(&step.command()).await {
                // The next step is planned from the map that this one has made.
                Ok(()) => self.until_newer(map.version()).await,
                Err(error) => tracing::debug!(%error, "a step of placement was not taken"),
            }
        }
    }

    async fn until_newer(&self, version: u64) {
        let mut maps = self.map.subscribe();
        let newer = maps.wait_for(|map| map.0 > version);
        // Without an answer the plan is made again, from whatever is known then.
        let _ = tokio::time::timeout(ASK_MAX, newer).await;
    }

    /// What the leaders of all shards say of their members, and who does not answer.
    async fn look_around(&self) -> Seen {
        let nodes = self.all_nodes(Detail::Brief).await;
        let mut shards: BTreeMap<u32, (u64, SeenShard)> = BTreeMap::new();
        let leaders = nodes
            .values()
            .flatten()
            .flat_map(|said| &said.replicas)
            .filter(|replica| replica.is_leader);
        for leader in leaders {
            let known = shards.entry(leader.shard).or_default();
            // An older leader may not know yet that it was deposed.
            if leader.term >= known.0 {
                let seen = SeenShard {
                    voters: leader.voters.clone(),
                    is_changing: leader.members.len() != leader.voters.len(),
                };
                *known = (leader.term, seen);
            }
        }
        Seen {
            holding: nodes
                .iter()
                .filter(|(_, said)| said.as_ref().is_some_and(|said| !said.replicas.is_empty()))
                .map(|(node, _)| *node)
                .collect(),
            down: nodes
                .iter()
                .filter(|(_, said)| said.is_none())
                .map(|(node, _)| *node)
                .collect(),
            shards: shards.into_iter().map(|(shard, (_, seen))| (shard, seen)).collect(),
        }
    }

    /// Changes what a node is used for.
    pub(crate) async fn set_standing(
        self: &Arc<Self>,
        node: u32,
        standing: Standing,
    ) -> Result<(), AskError<RosterRejection>> {
        let node = NodeId::try_from(node).map_err(|_| Error::Invalid {
            field: "node".to_owned(),
            reason: "must be between 1 and 65535".to_owned(),
        })?;
        self.change_roster(&RosterCommand::SetStanding { node, standing }).await
    }
}
