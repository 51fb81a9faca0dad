//! Which entities of a shard stay in memory when there is no room for all of them.
//!
//! The policy is W-TinyLFU (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017): whoever is
//! new waits in a small window. When it has to leave that, it may stay only if it was used more often of late than the one that
//! would have to go for it; how often is kept in a small sketch ([`Sketch`]), for those that are gone as well. So a scan of cold
//! entities passes through the window, and the hot ones stay.
//!
//! Beside that all residents stand in the order of their last use, so that the idle ones are found without looking at the others.
//! Pure: told the time, knows neither actors nor locks.

use std::{collections::HashMap, hash::Hash};

use super::sketch::Sketch;

/// The window's part of the cap: a fiftieth, at least one.
const WINDOW_PART: usize = 50;
/// The part of the rest that is for those used again since they came, in percent.
const PROTECTED_PERCENT: usize = 80;
/// How many that cannot leave are passed over when one has to.
const LOOKS_MAX: usize = 32;
/// No place.
const NONE: u32 = u32::MAX;

/// A queue through the residents' places.
#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    len: usize,
}

const EMPTY: List = List {
    first: NONE,
    last: NONE,
    len: 0,
};

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

const LOOSE: Link = Link {
    before: NONE,
    after: NONE,
};

/// Where a resident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// New.
    Window,
    /// Used once since it left the window, or not for a while.
    Probation,
    /// Used again.
    Protected,
}

/// The queues: one for each segment, and that of the last use.
const BY_USE: usize = 3;

struct Resident<K, V> {
    key: K,
    value: V,
    hash: u64,
    used_ms: u64,
    segment: Segment,
    in_segment: Link,
    by_use: Link,
}

/// The residents of a shard.
pub(crate) struct Residents<K, V> {
    places: HashMap<K, u32>,
    slots: Vec<Option<Resident<K, V>>>,
    free: Vec<u32>,
    lists: [List; 4],
    sketch: Sketch,
    cap: usize,
}

impl<K: Hash + Eq + Clone, V> Residents<K, V> {
    /// Room for `cap` residents. `most` is the most that it will ever be.
    pub(crate) fn new(cap: usize, most: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            lists: [EMPTY; 4],
            sketch: Sketch::new(most),
            cap: cap.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.places.len() > self.cap
    }

    /// Room for more or fewer from now on; whoever has no room leaves with [`Self::next_to_leave`].
    pub(crate) fn set_cap(&mut self, cap: usize) {
        self.cap = cap.max(1);
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// A resident, without counting as use.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        let place = *self.places.get(key)?;
        Some(&self.resident(place).value)
    }

    /// A resident that is used now.
    pub(crate) fn touch(&mut self, key: &K, now_ms: u64) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.used(place, now_ms);
        Some(&mut self.resident_mut(place).value)
    }

    /// Counts a use of somebody who is not here; says how often that was of late.
    pub(crate) fn note_absent(&mut self, hash: u64) -> u8 {
        self.sketch.count(hash, self.cap);
        self.sketch.frequency(hash)
    }

    /// Takes a new resident in, which is used now. There may be too many then: see [`Self::next_to_leave`].
    pub(crate) fn insert(&mut self, key: K, hash: u64, value: V, now_ms: u64) {
        debug_assert!(!self.places.contains_key(&key), "a resident comes once");
        let resident = Resident {
            key: key.clone(),
            value,
            hash,
            used_ms: now_ms,
            segment: Segment::Window,
            in_segment: LOOSE,
            by_use: LOOSE,
        };
        let place = if let Some(place) = self.free.pop() {
            self.slots[place as usize] = Some(resident);
            place
        } else {
            self.slots.push(Some(resident));
            u32::try_from(self.slots.len() - 1).expect("memory ends long before four thousand million residents")
        };
        self.places.insert(key, place);
        self.sketch.count(hash, self.cap);
        self.push(Segment::Window as usize, place);
        self.push(BY_USE, place);
        while self.lists[Segment::Window as usize].len > self.window_cap() && !self.is_over() {
            // There is room: no need to choose.
            self.move_to(self.lists[Segment::Window as usize].first, Segment::Probation);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        self.unlink(self.resident(place).segment as usize, place);
        self.unlink(BY_USE, place);
        self.free.push(place);
        let resident = self.slots[place as usize].take();
        if self.places.is_empty() {
            // A burst must not be paid for ever after.
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        resident.map(|resident| resident.value)
    }

    /// The resident that was not used for longest, if that was before `before_ms`.
    pub(crate) fn idle_since(&self, before_ms: u64) -> Option<(&K, &V)> {
        let place = self.lists[BY_USE].first;
        let resident = (place != NONE).then(|| self.resident(place))?;
        (resident.used_ms < before_ms).then_some((&resident.key, &resident.value))
    }

    /// Who is to leave because there are too many; nobody where there are not, or where none of those that were looked at can.
    pub(crate) fn next_to_leave(&mut self, mut can_leave: impl FnMut(&V) -> bool) -> Option<K> {
        for look in 0..LOOKS_MAX {
            if !self.is_over() {
                return None;
            }
            let is_window_full = self.lists[Segment::Window as usize].len > self.window_cap();
            let candidate = is_window_full.then(|| self.lists[Segment::Window as usize].first);
            let mut order = [Segment::Probation, Segment::Protected, Segment::Window];
            // Where the first ones are all at work, others may not be.
            order.rotate_right(look % 3);
            let victim = order
                .map(|segment| self.lists[segment as usize].first)
                .into_iter()
                .find(|place| *place != NONE && Some(*place) != candidate);
            let (leaves, other) = match (candidate, victim) {
                (Some(candidate), Some(victim)) if self.frequency(candidate) > self.frequency(victim) => {
                    (victim, Some(candidate))
                }
                (Some(candidate), victim) => (candidate, victim),
                (None, Some(victim)) => (victim, None),
                (None, None) => return None,
            };
            for leaves in [Some(leaves), other].into_iter().flatten() {
                if can_leave(&self.resident(leaves).value) {
                    if let Some(stays) = candidate.filter(|stays| *stays != leaves) {
                        self.move_to(stays, Segment::Probation);
                    }
                    return Some(self.resident(leaves).key.clone());
                }
            }
            // It is at work, which is a use.
            match self.resident(leaves).segment {
                Segment::Window => self.move_to(leaves, Segment::Probation),
                _ => self.move_to(leaves, Segment::Protected),
            }
        }
        None
    }

    fn frequency(&self, place: u32) -> u8 {
        self.sketch.frequency(self.resident(place).hash)
    }

    fn window_cap(&self) -> usize {
        (self.cap / WINDOW_PART).max(1)
    }

    fn used(&mut self, place: u32, now_ms: u64) {
        let resident = self.resident_mut(place);
        resident.used_ms = now_ms;
        let (hash, segment) = (resident.hash, resident.segment);
        self.sketch.count(hash, self.cap);
        if self.lists[BY_USE].last != place {
            self.unlink(BY_USE, place);
            self.push(BY_USE, place);
        }
        match segment {
            Segment::Window => self.move_to(place, Segment::Window),
            Segment::Probation | Segment::Protected => self.move_to(place, Segment::Protected),
        }
        let protected_cap = (self.cap - self.window_cap().min(self.cap)) * PROTECTED_PERCENT / 100;
        while self.lists[Segment::Protected as usize].len > protected_cap.max(1) {
            self.move_to(self.lists[Segment::Protected as usize].first, Segment::Probation);
        }
    }

    fn move_to(&mut self, place: u32, segment: Segment) {
        let from = self.resident(place).segment;
        if from == segment && self.lists[segment as usize].last == place {
            return;
        }
        self.unlink(from as usize, place);
        self.resident_mut(place).segment = segment;
        self.push(segment as usize, place);
    }

    fn resident(&self, place: u32) -> &Resident<K, V> {
        self.slots[place as usize].as_ref().expect("places in use are filled")
    }

    fn resident_mut(&mut self, place: u32) -> &mut Resident<K, V> {
        self.slots[place as usize].as_mut().expect("places in use are filled")
    }

    fn link(&mut self, list: usize, place: u32) -> &mut Link {
        let resident = self.resident_mut(place);
        if list == BY_USE {
            &mut resident.by_use
        } else {
            &mut resident.in_segment
        }
    }

    fn push(&mut self, list: usize, place: u32) {
        let last = self.lists[list].last;
        *self.link(list, place) = Link {
            before: last,
            after: NONE,
        };
        if last == NONE {
            self.lists[list].first = place;
        } else {
            self.link(list, last).after = place;
        }
        self.lists[list].last = place;
        self.lists[list].len += 1;
    }

    fn unlink(&mut self, list: usize, place: u32) {
        let Link { before, after } = std::mem::replace(self.link(list, place), LOOSE);
        match before {
            NONE => self.lists[list].first = after,
            before => self.link(list, before).after = after,
        }
        match after {
            NONE => self.lists[list].last = before,
            after => self.link(list, after).before = before,
        }
        self.lists[list].len -= 1;
    }
}

#[cfg(test)]
mod tests;
