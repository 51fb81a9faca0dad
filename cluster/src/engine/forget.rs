//! Forgetting an entity, and the proof of it: every replica is asked what it still has.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use proto::history::v1 as pb;
use tokio::time::timeout;

use super::{
    Engine,
    call::{Body, unexpected},
};
use crate::{
    admission::Tenant,
    cluster::Request,
    entity::EntityKey,
    error::Error,
    journal::{
        Record, Tombstone,
        keys::{self, Meta},
    },
    replication::batch,
    shard::shard_of,
    store::{StateStore, StoreError},
    transport::outcome::Forwarded,
};

/// How long another node may take to look through its part.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What an entity is forgotten for.
#[derive(Debug, Clone)]
pub(crate) struct Forget {
    pub(crate) request: crate::entity::RequestId,
    pub(crate) asked_by: Option<Arc<str>>,
    pub(crate) reason: String,
}

impl Engine {
    /// Forgets an entity; `None` if there is nothing of it.
    pub(crate) async fn forget(
        self: &Arc<Self>,
        key: &EntityKey,
        reason: &str,
        request: &Request,
    ) -> Result<Option<Tombstone>, Error> {
        let forget = Forget {
            request: request.id.clone(),
            asked_by: request.asked_by(),
            reason: reason.to_owned(),
        };
        let body = Body::Forget(Box::new(forget));
        let tenant = Tenant::default();
        match self
            .call(key, body, request.trace, &tenant, request.timeout, true)
            .await?
        {
            Forwarded::Tombstone(tombstone) => Ok(tombstone.map(|tombstone| *tombstone)),
            other => Err(unexpected(key, &other)),
        }
    }

    /// What every node that may hold something of an entity still has of it.
    pub(crate) async fn all_remains(self: &Arc<Self>, key: &EntityKey) -> pb::ForgottenResponse {
        let asked = self.links.all().into_iter().map(|(node, peer)| {
            let mut client = peer.client.clone();
            let request = pb::ForgottenRequest { key: key.to_string() };
            async move {
                let answer = timeout(ANSWER_MAX, client.forgotten(request)).await;
                let answer = match answer {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err("it does not answer".to_owned()),
                };
                (u32::from(node), answer)
            }
        });
        let mut others = join_all(asked).await;
        others.push((u32::from(self.node()), self.remains_here(key).await));
        let mut nodes = BTreeMap::new();
        for (node, answer) in others {
            let remains = answer.unwrap_or_else(|error| pb::NodeRemains {
                error,
                ..pb::NodeRemains::default()
            });
            nodes.insert(node, pb::NodeRemains { node, ..remains });
        }
        let nodes: Vec<_> = nodes.into_values().collect();
        pb::ForgottenResponse {
            key: key.to_string(),
            shard: shard_of(key, self.shards()),
            receipt: nodes.iter().find_map(|node| node.receipt.clone()),
            nodes,
        }
    }

    /// What this node still has of an entity.
    pub(crate) async fn remains_here(self: &Arc<Self>, key: &EntityKey) -> Result<pb::NodeRemains, String> {
        let shard = shard_of(key, self.shards());
        let (engine, key) = (Arc::clone(self), key.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let mut found = pb::NodeRemains {
                files_to_rewrite: engine.erasure.is_pending(shard),
                ..pb::NodeRemains::default()
            };
            found.log_entries = engine.entries_of(shard, &key)?;
            let Some(replica) = engine.replica(shard) else {
                return Ok(found);
            };
            let remains = replica.remains(&key).map_err(|error| error.to_string())?;
            found.is_replica = true;
            found.receipt = remains.tombstone.as_ref().map(receipt);
            found.applied = remains.applied;
            found.checkpoint = remains.checkpoint;
            found.in_memory = remains.in_memory;
            found.rows = remains.rows;
            Ok(found)
        });
        looking.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
    }

    /// Records of an entity in this node's log, whether or not they have been applied: commands and all that came of them.
    fn entries_of(&self, shard: u32, key: &EntityKey) -> Result<u64, String> {
        let group = self.log.group(shard).map_err(|error| error.to_string())?;
        let entries = group.map(|group| group.entries).unwrap_or_default();
        let is_of_it = |record: Record| match record {
            Record::Decided(decided) => decided.entity == *key,
            Record::Quarantined(quarantined) => quarantined.entity == *key,
            Record::Trimmed(trimmed) => trimmed.entity == *key,
            Record::Acknowledged(_) | Record::Marked(_) | Record::Forgotten(_) => false,
        };
        let records = entries.into_iter().flat_map(|entry| batch::unpack(entry.data));
        // What cannot be read is none of this entity's, as far as can be told; the driver has met it before.
        let read = records.filter_map(|record| Record::decode(&record?).ok());
        Ok(read.filter(|record| is_of_it(record.clone())).count() as u64)
    }
}

impl Engine {
    /// Something was forgotten between what this node's replica of a shard has applied and a snapshot that it goes on from: the files
    /// that held it are to be written anew.
    pub(super) fn note_forgotten(&self, shard: u32, snapshot: &dyn StateStore) -> Result<(), StoreError> {
        let Some(row) = snapshot.get(keys::META)? else {
            return Ok(());
        };
        let meta: Meta = keys::decode(keys::META, &row)?;
        let applied = self.replica(shard).map_or(0, |replica| replica.applied());
        if meta.forgotten_at > applied {
            self.erasure.note(shard, meta.applied.0)?;
        }
        Ok(())
    }
}

/// The tombstone for people.
pub(crate) fn receipt(tombstone: &Tombstone) -> pb::Receipt {
    pb::Receipt {
        at_unix_ms: tombstone.at_ms,
        asked_by: tombstone.asked_by.as_deref().unwrap_or_default().to_owned(),
        reason: tombstone.reason.clone(),
        request_id: tombstone.request.to_string(),
        position: tombstone.position,
    }
}
