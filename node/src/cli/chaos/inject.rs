//! Does faults, and heals them. Healing is the same whatever was done: every node runs, nothing is wrong with any, the provider is as it
//! was. So it can be done at any time, and more than once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::{
    chaos::v1::{
        self as pb, ClearFaultsRequest, Direction, SetFaultsRequest, chaos_client::ChaosClient, fault::Kind as Wire,
    },
    cluster::v1::StatusRequest,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::kind::Act;
use crate::{
    cli::{client::Client, failure::Failure, node::progress::is_led},
    local::{
        PROVIDER_PORT_OFFSET,
        control::{self, Done, Order},
        layout::LocalCluster,
    },
    provider::{client as provider, wire::Control},
};

/// How long a node may take to answer that it is hurt, or healed.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Faults end by themselves so long after they should have been healed.
const EXPIRES_AFTER: Duration = Duration::from_secs(20);
/// How long a node that was healed may take to say so.
const HEAL_MAX: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node that was wiped stays away.
const WIPED_FOR: Duration = Duration::from_millis(500);

/// One node.
struct Hurt {
    chaos: ChaosClient<Channel>,
    /// The process that is to run.
    pid: u32,
}

/// Everything that can be hurt.
pub(super) struct Injector {
    cluster: LocalCluster,
    nodes: BTreeMap<u32, Hurt>,
    provider: String,
    /// The provider's switches as they were.
    provider_was: Option<Control>,
    /// Nodes that were made to end, and may have another process since.
    made_to_end: BTreeSet<u32>,
}

impl Injector {
    /// Looks whether all of it is there and may be hurt, and heals what an earlier trial may have left.
    pub(super) async fn new(cluster: LocalCluster, client: &Client) -> Result<Self, Failure> {
        let status = client.status(StatusRequest {}).await?;
        if status.nodes.len() < 3 {
            return Err(Failure::usage(format!(
                "the cluster has {} nodes; with fewer than three no fault of a node could be survived",
                status.nodes.len()
            ))
            .help("start one with `playhouse up --nodes 3`"));
        }
        let provider = format!("http://127.0.0.1:{}", cluster.base_port()? + PROVIDER_PORT_OFFSET);
        let mut injector = Self {
            cluster,
            nodes: BTreeMap::new(),
            provider_was: provider::control(&provider, &Control::default()).await.ok(),
            provider,
            made_to_end: BTreeSet::new(),
        };
        for node in status.nodes {
            let channel = Endpoint::from_shared(format!("http://{}", node.address))
                .map_err(|error| Failure::usage(format!("node {} has a strange address: {error}", node.id)))?
                .connect_timeout(ANSWER_MAX)
                .timeout(ANSWER_MAX)
                .connect_lazy();
            let chaos = ChaosClient::new(channel);
            injector.nodes.insert(node.id, Hurt { chaos, pid: 0 });
        }
        // Whatever runs now is what is to run.
        injector.made_to_end.extend(injector.nodes.keys().copied());
        injector.heal().await?;
        Ok(injector)
    }

    /// The numbers of the nodes.
    pub(super) fn nodes(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// Whether the payment provider can be hurt.
    pub(super) fn has_provider(&self) -> bool {
        self.provider_was.is_some()
    }

    /// Does it. What a node is told ends by itself some time after `lasts`.
    pub(super) async fn hurt(&mut self, act: &Act, lasts: Duration) -> Result<(), Failure> {
        self.made_to_end.extend(act.ends());
        match act {
            Act::Kill { node } => self.order(Order::Kill, *node).await.map(drop),
            Act::Pause { node } => self.order(Order::Pause, *node).await.map(drop),
            Act::Wipe { node } => {
                self.order(Order::Wipe, *node).await?;
                sleep(WIPED_FOR).await;
                // It comes back at once, and has to fetch everything while the clients go on.
                self.order(Order::Start, *node).await.map(drop)
            }
            Act::Isolate { node } => {
                let others = self.others(*node);
                self.cut(&[*node], &others, lasts).await?;
                self.cut(&others, &[*node], lasts).await
            }
            Act::Mute { node } => self.cut(&[*node], &self.others(*node), lasts).await,
            Act::Deafen { node } => self.cut(&self.others(*node), &[*node], lasts).await,
            Act::Bridge { one, other } => {
                self.cut(&[*one], &[*other], lasts).await?;
                self.cut(&[*other], &[*one], lasts).await
            }
            Act::SlowLink {
                node,
                delay_ms,
                loss_percent,
            } => {
                let slow = |peer: u32| {
                    Wire::SlowLink(pb::SlowLink {
                        peer,
                        delay_ms: *delay_ms,
                        loss_percent: *loss_percent,
                    })
                };
                let others = self.others(*node);
                self.set(*node, others.iter().map(|peer| slow(*peer)), lasts).await?;
                for other in others {
                    self.set(other, [slow(*node)], lasts).await?;
                }
                Ok(())
            }
            Act::SlowDisk { node, delay_ms } => {
                let slow = pb::SlowSync { delay_ms: *delay_ms };
                self.set(*node, [Wire::SlowSync(slow)], lasts).await
            }
            Act::FullDisk { node } => self.set(*node, [Wire::FullDisk(pb::FullDisk {})], lasts).await,
            Act::Fsync { node } => self.set(*node, [Wire::FailedSync(pb::FailedSync {})], lasts).await,
            Act::Clock { node, offset_ms } => {
                let clock = pb::Clock { offset_ms: *offset_ms };
                self.set(*node, [Wire::Clock(clock)], lasts).await
            }
            Act::ProviderDown => {
                let outage = Control {
                    outage: Some(true),
                    ..Control::default()
                };
                self.control_provider(&outage).await
            }
            Act::ProviderFails { percent } => {
                let errors = Control {
                    error_rate: Some(f64::from(*percent) / 100.0),
                    ..Control::default()
                };
                self.control_provider(&errors).await
            }
        }
    }

    /// Everything runs again, and nothing is wrong with it. Says which nodes had ended although nothing was done that should end them.
    pub(super) async fn heal(&mut self) -> Result<Vec<String>, Failure> {
        let mut ended = Vec::new();
        for node in self.nodes() {
            let deadline = Instant::now() + HEAL_MAX;
            // One that ended just now may not have been noticed yet.
            let Done { pid, .. } = loop {
                match self.order(Order::Start, node).await {
                    Ok(done) => match self.clear(node).await {
                        Ok(()) => break done,
                        Err(status) if status.code() == Code::FailedPrecondition => {
                            return Err(Failure::usage(format!("node {node}: {}", status.message())));
                        }
                        Err(status) if Instant::now() > deadline => {
                            return Err(Failure::unreachable(format!(
                                "node {node} cannot be healed: {}",
                                status.message()
                            )));
                        }
                        Err(_) => {}
                    },
                    Err(failure) if Instant::now() > deadline => return Err(failure),
                    Err(_) => {}
                }
                sleep(LOOK_INTERVAL).await;
            };
            let hurt = self.nodes.get_mut(&node).expect("it is one of them");
            if hurt.pid != pid && !self.made_to_end.contains(&node) {
                ended.push(format!(
                    "node {node} (pid {}) had ended by itself; its log says why",
                    hurt.pid
                ));
            }
            hurt.pid = pid;
        }
        self.made_to_end.clear();
        if let Some(was) = self.provider_was.clone() {
            self.control_provider(&was).await?;
        }
        Ok(ended)
    }

    /// Waits until every node is there and every shard is led and whole. Says what was not, if that takes too long.
    pub(super) async fn settle(client: &Client, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let last = match client.status(StatusRequest {}).await {
                Ok(status) if is_led(&status) => return Ok(()),
                Ok(status) => {
                    let down: Vec<u32> = (status.nodes.iter())
                        .filter(|node| !node.up)
                        .map(|node| node.id)
                        .collect();
                    let shards = status.shards.iter().chain(&status.system);
                    let unled = shards.filter(|shard| shard.leader == 0).count();
                    format!("nodes down: {down:?}; shards without a leader: {unled}; the others wait for replicas")
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(format!(
                    "the cluster is not whole {} s after healing: {last}",
                    limit.as_secs()
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn others(&self, node: u32) -> Vec<u32> {
        self.nodes.keys().copied().filter(|other| *other != node).collect()
    }

    async fn order(&self, order: Order, node: u32) -> Result<Done, Failure> {
        let number =
            u8::try_from(node).map_err(|_| Failure::usage(format!("node {node} is not one that `up` started")))?;
        control::send(&self.cluster, order, number).await
    }

    /// Cuts what goes from the one to the other. Each connection carries both ways and belongs to who opened it, so both ends are told.
    async fn cut(&self, from: &[u32], to: &[u32], lasts: Duration) -> Result<(), Failure> {
        let cut = |peer: &u32, direction: Direction| {
            Wire::Cut(pb::Cut {
                peer: *peer,
                direction: direction as i32,
            })
        };
        for node in from {
            self.set(*node, to.iter().map(|peer| cut(peer, Direction::Out)), lasts)
                .await?;
        }
        for node in to {
            self.set(*node, from.iter().map(|peer| cut(peer, Direction::In)), lasts)
                .await?;
        }
        Ok(())
    }

    async fn set(&self, node: u32, faults: impl IntoIterator<Item = Wire>, lasts: Duration) -> Result<(), Failure> {
        let faults = faults.into_iter().map(|kind| pb::Fault { kind: Some(kind) }).collect();
        let request = SetFaultsRequest {
            faults,
            lasts_ms: (lasts + EXPIRES_AFTER).as_millis() as u64,
        };
        let set = self.nodes[&node].chaos.clone().set_faults(request).await;
        set.map(drop)
            .map_err(|status| Failure::unreachable(format!("node {node} could not be hurt: {}", status.message())))
    }

    async fn clear(&self, node: u32) -> Result<(), Status> {
        let mut chaos = self.nodes[&node].chaos.clone();
        let cleared = timeout(ANSWER_MAX, chaos.clear_faults(ClearFaultsRequest {})).await;
        cleared
            .map_err(|_| Status::deadline_exceeded("it does not answer"))?
            .map(drop)
    }

    async fn control_provider(&self, change: &Control) -> Result<(), Failure> {
        let changed = provider::control(&self.provider, change).await;
        changed
            .map(drop)
            .map_err(|error| Failure::unreachable(format!("the payment provider does not answer: {error}")))
    }
}
