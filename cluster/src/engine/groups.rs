//! The replicas of a node: how they begin, how they are found again at a start, how they come and go while the node runs.
//!
//! What a folder holds is what its identity says. A replica is written before it is said, and said to be gone before it is
//! removed; what is left over after an early end is cleared away before its place is used again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Engine,
    folder::{self, Held},
    status::Detail,
};
use crate::{
    clock::SystemClock,
    journal::{
        Shard,
        keys::{self, Meta},
    },
    placement::{self, Said, SaidReplica},
    replication::{Boot, HardState, Input, Members, RaftId},
    shard::replica::{Replica, Surroundings},
    store::{Batch, StateStore, StoreError, log::StoredGroup},
};

/// Index and term at which the log of every group begins. Not zero, so that a replica that begins with nothing is sent a
/// snapshot and learns the members from it.
const BEGIN: (u64, u64) = (1, 1);

/// What the driver's threads start with.
pub(super) struct Opened {
    pub(super) boots: Vec<Boot>,
    /// The generation under which the state store keeps each group.
    pub(super) generations: HashMap<u32, u64>,
}

impl Engine {
    /// Writes the beginning of every group that this node holds in a new cluster.
    pub(super) fn begin_first_groups(&self) -> Result<BTreeMap<u32, RaftId>, StoreError> {
        let map = self.map();
        let held: BTreeMap<u32, RaftId> = map.replicas_on(self.node()).collect();
        for shard in held.keys() {
            let members = Members::of_voters(map.home(*shard).to_vec());
            self.begin_state(*shard, Some(members))?;
        }
        self.db.sync()?;
        for shard in held.keys() {
            let hard_state = HardState {
                term: BEGIN.1,
                vote: 0,
                commit: BEGIN.0,
            };
            let stored = StoredGroup {
                hard_state,
                cut: BEGIN,
                ..StoredGroup::default()
            };
            self.log.remove(*shard)?;
            self.log.begin(*shard, &stored)?;
        }
        Ok(held)
    }

    /// Writes the state that a group begins with: that of a new cluster with its members, or nothing, if all is to come
    /// from peers.
    fn begin_state(&self, shard: u32, members: Option<Members>) -> Result<(), StoreError> {
        let meta = match members {
            Some(members) => Meta {
                applied: BEGIN,
                members,
                ..Meta::default()
            },
            None => Meta::default(),
        };
        self.db.drop_all(shard)?;
        let mut batch = Batch::default();
        batch.put(keys::META.to_vec(), keys::encode(&meta));
        self.db.shard(shard, 0)?.write(batch)
    }

    /// Opens the replicas in this node's folder.
    pub(super) fn open_held(self: &Arc<Self>, is_first: bool) -> Result<Opened, StoreError> {
        let held = self.identity.held();
        let mut opened = Opened {
            boots: Vec::new(),
            generations: HashMap::new(),
        };
        for shard in 0..=self.shards() {
            let Some(id) = held.get(&shard).copied() else {
                self.log.remove(shard)?;
                self.db.drop_all(shard)?;
                continue;
            };
            let found = self.found.lock().remove(&shard);
            let Held { stored, state } = match found {
                Some(found) => found,
                None => folder::held(&self.log, &self.db, shard)?,
            };
            let meta = state.meta().clone();
            let mut hard_state = stored.hard_state;
            // The commit position is written along with other things; the state store may know better.
            hard_state.commit = hard_state.commit.max(meta.applied.0);
            opened.boots.push(Boot {
                group: shard,
                id,
                hard_state,
                cut: stored.cut,
                entries: stored.entries,
                applied: meta.applied.0,
                members: meta.members,
                generation: stored.generation,
                campaign: is_first && self.map().nodes_of(shard).next() == Some(self.node()),
            });
            opened.generations.insert(shard, stored.generation);
            self.replicas.put(self.replica_of(shard, state));
        }
        Ok(opened)
    }

    fn replica_of(self: &Arc<Self>, shard: u32, state: Shard) -> Arc<Replica> {
        let surroundings = Surroundings {
            meters: self.meters.clone(),
            node: self.config.node,
            registry: self.registry.clone(),
            limits: self.config.limits.clone(),
            mailbox: Arc::clone(&self.mailbox),
            db: Arc::clone(&self.db),
            clock: Arc::new(SystemClock(Arc::clone(&self.faults))),
            spans: self.spans.clone(),
            live: Arc::clone(&self.live),
            fleet: Arc::clone(&self.fleet),
        };
        let replica = Arc::new(Replica::new(
            shard,
            state,
            surroundings,
            self.routes[shard as usize].clone(),
        ));
        replica.set_engine(Arc::downgrade(self));
        self.begin_models(&replica);
        replica
    }

    /// Begins to hold a replica of one more shard; everything in it is to come from its peers.
    pub(super) fn open_replica(self: &Arc<Self>, shard: u32, id: RaftId) -> Result<(), String> {
        let begin = || -> Result<Shard, StoreError> {
            self.begin_state(shard, None)?;
            self.db.sync()?;
            self.log.remove(shard)?;
            self.log.begin(shard, &StoredGroup::default())?;
            Shard::open(self.db.shard(shard, 0)?)
        };
        let state = begin().map_err(|error| error.to_string())?;
        self.identity.hold(shard, id)?;
        let meta = state.meta().clone();
        self.replicas.put(self.replica_of(shard, state));
        self.mailbox.input(Input::Open(Box::new(Boot {
            group: shard,
            id,
            hard_state: HardState::default(),
            cut: (0, 0),
            entries: Vec::new(),
            applied: 0,
            members: meta.members,
            generation: 0,
            campaign: false,
        })));
        tracing::info!(shard, "this node gets a replica");
        Ok(())
    }

    /// Ends this node's replica of a shard, which belongs to it no longer.
    pub(super) fn close_replica(&self, shard: u32) -> Result<(), String> {
        self.identity.release(shard)?;
        self.mailbox.input(Input::Close { group: shard });
        tracing::info!(shard, "this node gives its replica up");
        Ok(())
    }

    /// The driver has closed a replica: what it had in memory and in the state store goes too.
    pub(super) fn forget_replica(&self, shard: u32) {
        let Some(replica) = self.replicas.take(shard) else {
            return;
        };
        self.projections.end(shard);
        replica.close();
        if let Err(error) = self.db.drop_all(shard) {
            tracing::warn!(shard, %error, "the state of a replica that has gone could not be removed");
        }
    }

    /// Whether this node's replica of a shard has left its group for good.
    pub(super) async fn is_out(&self, shard: u32, id: RaftId) -> bool {
        let nodes = self.all_nodes(Detail::Brief).await;
        let answers = nodes.iter().filter_map(|(node, said)| Some((*node, said.as_ref()?)));
        let said: Vec<Said> = answers
            .filter(|(_, said)| said.has_begun)
            .map(|(node, said)| {
                let replica = said.replicas.iter().find(|replica| replica.shard == shard);
                Said {
                    node,
                    replica: replica.map(|replica| SaidReplica {
                        id: replica.replica,
                        term: replica.term,
                        is_leader: replica.is_leader,
                        members: replica.members.clone(),
                        voters: replica.voters.clone(),
                        durable_members: replica.durable_members.clone(),
                    }),
                }
            })
            .collect();
        placement::is_out(id, &said, &self.map().given_up())
    }
}
