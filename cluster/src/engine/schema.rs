//! What the members' builds can read: told by each node, kept by the roster, followed by all.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proto::cluster::v1 as pb;

use super::Engine;
use crate::{
    codec,
    config::NodeId,
    entity::EntityKey,
    error::Error,
    membership::{Map, RosterCommand},
    replication::{GroupStatus, node_of},
    schema::{
        SchemaCheck, SchemaView,
        card::{CARD_BYTES_MAX, Card},
        view,
    },
};

impl Engine {
    /// Refuses a peer whose build cannot read what is there.
    pub(super) fn may_read(&self, hello: &pb::HelloRequest) -> Result<(), String> {
        let Some(card) = card_of(&hello.schema)? else {
            return Ok(());
        };
        match card.obstacle(&self.map().floor) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// A client's command, in a form that every member can read if there is one.
    pub(crate) fn fit(&self, key: &EntityKey, command: Bytes) -> Bytes {
        match self.registry().get(&key.kind) {
            Some(kind) => self.fleet.fit_command(&**kind, &key.kind, command),
            None => command,
        }
    }

    /// What the cluster's journal may hold, for people.
    pub(crate) fn schema(&self) -> SchemaView {
        let map = self.map();
        SchemaView {
            is_known: map.floor.is_some(),
            builds: map
                .members
                .iter()
                .map(|(node, member)| (*node, member.schema))
                .collect(),
            entries: view::entries(&map.floor),
        }
    }

    /// What would come of a node with another build.
    pub(crate) fn check_schema(&self, schema_json: &str) -> Result<SchemaCheck, Error> {
        let invalid = |reason: String| Error::Invalid {
            field: "schema_json".to_owned(),
            reason,
        };
        if schema_json.len() > CARD_BYTES_MAX {
            return Err(invalid(format!(
                "has {} bytes; at most {CARD_BYTES_MAX} are taken",
                schema_json.len()
            )));
        }
        let card: Card =
            serde_json::from_str(schema_json).map_err(|error| invalid(format!("is no schema: {error}")))?;
        Ok(view::check(&card, &self.map().floor))
    }

    /// What this node tells the roster of its build.
    pub(super) fn announcement(&self) -> RosterCommand {
        RosterCommand::Announce {
            node: self.node(),
            card: Arc::clone(self.fleet.own()),
        }
    }

    /// Takes note of what a map says of the members' builds.
    pub(super) fn learn_builds(&self, map: &Map) {
        let builds = map.members.iter().map(|(node, member)| (*node, member.schema));
        self.fleet.learn(&map.floor, builds);
    }

    /// The members whose build would pass over something that this one writes.
    pub(super) fn reads_less(&self, map: &Map) -> Vec<NodeId> {
        let own = self.fleet.own();
        let others = map.cards_of_others(self.fleet.fingerprint());
        others
            .filter(|(_, card)| !card.covers(own))
            .map(|(node, _)| node)
            .collect()
    }

    /// For each shard that this node leads, a member that reads all that this build does and more, and can lead it.
    pub(super) fn heirs(&self, map: &Map, groups: &[GroupStatus]) -> BTreeMap<u32, NodeId> {
        let own = self.fleet.own();
        let others = map.cards_of_others(self.fleet.fingerprint());
        let newer: Vec<_> = others
            .filter(|(node, card)| card.covers(own) && self.links.peer(*node).is_some_and(|peer| peer.can_lead()))
            .map(|(node, _)| node)
            .collect();
        let led = groups.iter().filter(|group| group.is_leader && !newer.is_empty());
        led.filter_map(|group| {
            let voters = group.members.voters.iter().map(|id| node_of(*id));
            let heir = voters.into_iter().find(|node| newer.contains(node))?;
            Some((group.group, heir))
        })
        .collect()
    }
}

/// A card that came over the wire; none where none was sent.
pub(crate) fn card_of(bytes: &[u8]) -> Result<Option<Card>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > CARD_BYTES_MAX {
        return Err(format!(
            "the schema of its build has {} bytes; at most {CARD_BYTES_MAX} are taken",
            bytes.len()
        ));
    }
    let card = codec::decode(bytes);
    card.map(Some)
        .map_err(|error| format!("the schema of its build cannot be read by this one: {error}"))
}
