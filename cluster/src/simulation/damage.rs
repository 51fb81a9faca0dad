//! Bits that flip on a node's device, who notices, and what is done about it. Values of the state store stand behind the product's
//! own checksums (`store::seal`), so that whatever reads one finds the damage as the product does. The log's and the snapshots'
//! checksums are modelled: each entry and row has a sum of its own that is compared where raft-engine and `shard::snapshot` do it.
//!
//! A node that finds damage refuses what it was asked, or ends, as the product does in the same place; a person then deletes its
//! folder, once all other replicas are there.

use std::{fmt::Display, sync::Arc};

use super::world::{Event, TICK, World};
use crate::{config::NodeId, replication::Input, store::StoreError};

/// For how long a snapshot that turned out to be damaged stays before another is made, in ticks.
const DAMAGED_SNAPSHOT_TICKS: u64 = 40;

/// What is wrong with a device; nothing by default.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// A bit of the state or of the log has flipped.
    pub(super) is_there: bool,
    /// The node has said so; it leads nothing then, as far as others can.
    pub(super) is_found: bool,
    /// The node ended because of it, and will at each start.
    keeps_down: bool,
    /// The log's entry in which it did: group, index, and the sum of what was written.
    log: Option<(u32, u64, u32)>,
}

impl World {
    /// Flips a bit somewhere on a node's device, unless another disk is in need already.
    pub(super) fn flip_a_bit(&mut self, node: NodeId) {
        let rng = self.weather_rng();
        let (place, group, row, bit) = (rng.below(3), rng.next(), rng.next(), rng.next());
        if place == 2 {
            // It is a copy, and can be made anew.
            return self.flip_in_snapshot(node, row, bit);
        }
        if !self.can_lose_disk() {
            return;
        }
        let disk = &mut self.node(node).disk;
        let held: Vec<u32> = disk.held.keys().copied().collect();
        if held.is_empty() {
            return;
        }
        let group = held[group as usize % held.len()];
        if place == 0 {
            self.flip_in_state(node, group, row, bit);
        } else {
            self.flip_in_log(node, group, row, bit);
        }
    }

    fn flip_in_state(&mut self, node: NodeId, group: u32, row: u64, bit: u64) {
        let disk = &mut self.node(node).disk;
        let generation = disk.groups.get(&group).map_or(0, |stored| stored.generation);
        let store = disk.store(group, generation);
        let Some(key) = store.flip(row, bit) else { return };
        disk.damage.is_there = true;
        let key = String::from_utf8_lossy(&key).into_owned();
        self.tell(format!(
            "a bit flips in the state of node {node}: group {group}, {key:?}"
        ));
        self.count("bits flipped in the state", 1);
    }

    /// The log is read when a node starts: so it ends first.
    fn flip_in_log(&mut self, node: NodeId, group: u32, row: u64, bit: u64) {
        self.crash(node);
        self.come_back(node);
        let disk = &mut self.node(node).disk;
        let entries = disk.groups.get_mut(&group).map(|stored| &mut stored.entries);
        let Some(entry) = entries.and_then(|entries| {
            let place = row.checked_rem(entries.len() as u64)? as usize;
            entries.get_mut(place)
        }) else {
            return;
        };
        if entry.data.is_empty() {
            return;
        }
        disk.damage.log = Some((group, entry.index, crc32fast::hash(&entry.data)));
        disk.damage.is_there = true;
        let mut data = entry.data.to_vec();
        flip(&mut data, bit);
        entry.data = data.into();
        let index = entry.index;
        self.tell(format!(
            "a bit flips in the log of node {node}: group {group} at {index}"
        ));
        self.count("bits flipped in the log", 1);
    }

    fn flip_in_snapshot(&mut self, node: NodeId, row: u64, bit: u64) {
        let disk = &mut self.node(node).disk;
        let Some((group, (_, rows))) = disk.snapshots.iter_mut().next() else {
            return;
        };
        let group = *group;
        let rows = Arc::make_mut(rows);
        let place = row as usize % rows.len();
        let mut value = rows[place].value.to_vec();
        if value.is_empty() {
            return;
        }
        flip(&mut value, bit);
        rows[place].value = value.into();
        self.tell(format!("a bit flips in a snapshot of node {node}, of group {group}"));
        self.count("bits flipped in snapshots", 1);
    }

    /// What was read, unless it is damaged, which the node then says.
    pub(super) fn sound<T>(&mut self, node: NodeId, read: Result<T, StoreError>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                self.finds_damage(node, &error);
                None
            }
        }
    }

    pub(super) fn finds_damage(&mut self, node: NodeId, what: &dyn Display) {
        let damage = &mut self.node(node).disk.damage;
        let (is_there, was_found) = (damage.is_there, damage.is_found);
        damage.is_found = true;
        if !is_there {
            return self.violated(
                "damage",
                format!("node {node} finds damage where none was done: {what}"),
            );
        }
        self.tell(format!("node {node} finds its folder damaged: {what}"));
        if !was_found {
            self.count("damage found", 1);
        }
    }

    /// What is wrong with the log that a node is about to start from.
    pub(super) fn damage_of_log(&self, node: NodeId) -> Option<String> {
        if self.flaws.damage_served {
            return None;
        }
        let disk = &self.nodes[&node].disk;
        let (group, index, sum) = disk.damage.log?;
        let entries = &disk.groups.get(&group)?.entries;
        let entry = entries.iter().find(|entry| entry.index == index)?;
        (crc32fast::hash(&entry.data) != sum).then(|| format!("the log of group {group} at {index}"))
    }

    /// A node must not go on with what it has read: it ends, and comes back.
    pub(super) fn ends_for_damage(&mut self, node: NodeId, what: &dyn Display) {
        self.cannot_start(node, what);
        self.crash(node);
        self.come_back(node);
    }

    /// A node must not begin with what it has read.
    pub(super) fn cannot_start(&mut self, node: NodeId, what: &dyn Display) {
        self.finds_damage(node, what);
        self.node(node).disk.damage.keeps_down = true;
    }

    /// A fetched snapshot is not what was made: the source makes another before long.
    pub(super) fn damaged_snapshot(&mut self, source: NodeId, group: u32) {
        self.tell(format!("the snapshot of group {group} on node {source} is damaged"));
        self.count("damaged snapshots refused", 1);
        let life = self.nodes[&source].life;
        self.node(source).disk.snapshots.remove(&group);
        let input = Input::SnapshotGone { group };
        self.after(DAMAGED_SNAPSHOT_TICKS * TICK, source, Event::Arrives { life, input });
    }

    /// A person deletes the folder of a node that has found it damaged, once no other copy is in need. When nothing goes wrong any
    /// more, the nodes' folders are verified, so that none stays damaged for want of being read.
    pub(super) fn repair(&mut self) {
        if self.flaws.damage_served {
            return;
        }
        let damaged: Vec<NodeId> = (self.nodes.values().filter(|node| node.disk.damage.is_there))
            .map(|node| node.id)
            .collect();
        for node in damaged {
            if self.calm && !self.nodes[&node].disk.damage.is_found {
                self.verify(node);
            }
            if self.nodes[&node].disk.damage.is_found && self.can_replace(node) {
                self.count("damaged folders replaced", 1);
                self.wipe(node);
                self.come_back(node);
            }
        }
    }

    /// Reads all that a node has. What was damaged may have been written anew.
    fn verify(&mut self, node: NodeId) {
        if let Some(what) = self.damage_of_log(node) {
            return self.finds_damage(node, &what);
        }
        let stores = self.nodes[&node].disk.stores.values();
        let read = stores.map(|store| store.rows()).collect::<Result<Vec<_>, _>>();
        if self.sound(node, read).is_some() {
            self.node(node).disk.damage = Damage::default();
            self.count("damage overwritten", 1);
        }
    }

    /// Whether all other replicas of a node's groups are there and have seen the end of all changes of members. One that cannot start
    /// is no use to anyone as it is, and changes of members may wait for it. One that is down for another reason is waited for: a
    /// group may have two voters meanwhile, and need the vote of this one.
    fn can_replace(&self, node: NodeId) -> bool {
        self.nodes[&node].disk.damage.keeps_down
            || (0..self.shape.groups).all(|group| {
                self.home_of(group)
                    .into_iter()
                    .all(|of| of == node || self.is_whole(of, group))
            })
    }

    /// What keeps a run from its end.
    pub(super) fn damage_left(&self) -> Result<(), String> {
        match self.nodes.values().find(|node| node.disk.damage.is_there) {
            Some(node) if !self.flaws.damage_served => Err(format!("the folder of node {} is damaged", node.id)),
            _ => Ok(()),
        }
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    let bit = (bit % (bytes.len() as u64 * 8)) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
}
