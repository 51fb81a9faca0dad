//! The live entities of one shard during one term of leadership, and which of them have to go.

use std::{collections::HashMap, sync::atomic::Ordering};

use ractor::ActorId;

use super::{live::LiveEntities, residents::Residents};
use crate::{
    entity::{EntityKey, activation::ActivationHandle},
    journal::keys::fnv,
};

/// At most so many leave for one that comes: whoever brings it to life must not pay for all of them.
const LEAVE_MAX: usize = 4;
/// So many are looked at while the shard's other callers wait.
pub(super) const SWEEP_LEN: usize = 256;

/// Live entities.
pub(super) struct Population {
    residents: Residents<EntityKey, ActivationHandle>,
    by_actor: HashMap<ActorId, EntityKey>,
    /// How many have left for want of room since that was last asked.
    left: usize,
}

fn hash(key: &EntityKey) -> u64 {
    fnv(key.id.as_bytes()) ^ fnv(key.kind.as_bytes()).rotate_left(32)
}

impl Population {
    pub(super) fn new(room: usize, most: usize) -> Self {
        Self {
            residents: Residents::new(room, most),
            by_actor: HashMap::new(),
            left: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.residents.len()
    }

    pub(super) fn contains(&self, key: &EntityKey) -> bool {
        self.residents.contains(key)
    }

    /// A live entity that is used now.
    pub(super) fn touch(&mut self, key: &EntityKey, now_ms: u64) -> Option<&ActivationHandle> {
        self.residents.touch(key, now_ms).map(|handle| &*handle)
    }

    /// Counts a use of an entity that is not live; says whether it is worth bringing to life.
    pub(super) fn is_wanted(&mut self, key: &EntityKey) -> bool {
        self.residents.note_absent(hash(key)) > 1
    }

    pub(super) fn insert(&mut self, key: &EntityKey, handle: ActivationHandle, now_ms: u64) {
        self.by_actor.insert(handle.actor.get_id(), key.clone());
        self.residents.insert(key.clone(), hash(key), handle, now_ms);
    }

    pub(super) fn remove(&mut self, key: &EntityKey) -> Option<ActivationHandle> {
        let handle = self.residents.remove(key)?;
        self.by_actor.remove(&handle.actor.get_id());
        Some(handle)
    }

    /// An activation has ended; says whose it was, if it was not sent away.
    pub(super) fn ended(&mut self, actor: ActorId) -> Option<EntityKey> {
        let key = self.by_actor.remove(&actor)?;
        if self
            .residents
            .peek(&key)
            .is_some_and(|handle| handle.actor.get_id() == actor)
        {
            self.residents.remove(&key);
        }
        Some(key)
    }

    /// Sends some away if there are too many; never one that has something to do.
    pub(super) fn make_room(&mut self, counts: &LiveEntities) {
        for _ in 0..LEAVE_MAX {
            let Some(key) = self.residents.next_to_leave(|handle| handle.gate.is_idle()) else {
                return;
            };
            self.send_away(&key, "no room");
            self.left += 1;
            counts.left_for_room.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends some of those away that were not used since `before_ms`; says whether there may be more.
    pub(super) fn sweep(&mut self, before_ms: u64, now_ms: u64, counts: &LiveEntities) -> bool {
        for _ in 0..SWEEP_LEN {
            let Some((key, handle)) = self.residents.idle_since(before_ms) else {
                return false;
            };
            let (key, is_idle) = (key.clone(), handle.gate.is_idle());
            if is_idle {
                self.send_away(&key, "idle");
                counts.left_idle.fetch_add(1, Ordering::Relaxed);
            } else {
                // To be at work is a use.
                self.residents.touch(&key, now_ms);
            }
        }
        true
    }

    /// How many entities this shard would have live if it could.
    pub(super) fn wanted(&mut self) -> usize {
        self.residents.len() + std::mem::take(&mut self.left)
    }

    /// So much room from now on.
    pub(super) fn set_room(&mut self, room: usize, counts: &LiveEntities) {
        self.residents.set_cap(room);
        for _ in 0..SWEEP_LEN / LEAVE_MAX {
            self.make_room(counts);
        }
    }

    fn send_away(&mut self, key: &EntityKey, reason: &str) {
        if let Some(handle) = self.residents.remove(key) {
            self.by_actor.remove(&handle.actor.get_id());
            handle.actor.stop(Some(reason.to_owned()));
        }
    }
}
