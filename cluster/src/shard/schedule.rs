//! When a leader fires which timer of its shard: by due time, so many at a time, one of each entity at a time, and those
//! that failed after a pause. Purely; [`timers`](super::timers) carries it out.

use std::collections::{BTreeSet, HashMap};

use crate::{
    entity::EntityKey,
    journal::{Firing, TimerKey},
};

/// First and longest pause after a failed attempt, in milliseconds.
const BACKOFF_FIRST_MS: u64 = 20;
const BACKOFF_MAX_MS: u64 = 30_000;

/// The timers of a shard, for its leader.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Those that wait for their time or for their next attempt.
    queue: BTreeSet<(u64, TimerKey)>,
    timers: HashMap<TimerKey, Slot>,
    /// Entities that are firing, each with those of its timers that became due meanwhile.
    busy: HashMap<EntityKey, Vec<TimerKey>>,
}

#[derive(Debug)]
struct Slot {
    firing: Firing,
    attempts: u32,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the queue, for that time.
    Queued(u64),
    /// Behind another timer of its entity.
    Parked,
    Firing,
}

impl Schedule {
    /// A timer's next firing is this one now; none if it is gone.
    pub(crate) fn changed(&mut self, key: TimerKey, firing: Option<Firing>) {
        if let Some(slot) = self.timers.get(&key) {
            if Some(&slot.firing) == firing.as_ref() {
                return;
            }
            if let Place::Queued(at_ms) = slot.place {
                self.queue.remove(&(at_ms, key.clone()));
            }
        }
        let Some(firing) = firing else {
            self.timers.remove(&key);
            return;
        };
        let place = Place::Queued(firing.due_ms);
        self.queue.insert((firing.due_ms, key.clone()));
        let slot = Slot {
            firing,
            attempts: 0,
            place,
        };
        self.timers.insert(key, slot);
    }

    /// Those to fire now, the most urgent first; at most so many are under way at a time.
    pub(crate) fn due(&mut self, now_ms: u64, firings_max: usize) -> Vec<(TimerKey, Firing)> {
        let mut due = Vec::new();
        while self.busy.len() < firings_max
            && self.queue.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms)
            && let Some((_, key)) = self.queue.pop_first()
        {
            let slot = self.timers.get_mut(&key).expect("what is queued has a slot");
            if let Some(parked) = self.busy.get_mut(&key.entity) {
                slot.place = Place::Parked;
                parked.push(key);
            } else {
                slot.place = Place::Firing;
                self.busy.insert(key.entity.clone(), Vec::new());
                let firing = slot.firing.clone();
                due.push((key, firing));
            }
        }
        due
    }

    /// An attempt has ended. Unless the timer has changed (which is how a firing that counts is noticed) it is tried again
    /// after a pause; `jitter` makes the actual pause of the usual one.
    pub(crate) fn ended(&mut self, key: &TimerKey, firing: &Firing, now_ms: u64, jitter: impl FnOnce(u64) -> u64) {
        for parked in self.busy.remove(&key.entity).unwrap_or_default() {
            if let Some(slot) = self.timers.get_mut(&parked)
                && slot.place == Place::Parked
            {
                slot.place = Place::Queued(slot.firing.due_ms);
                self.queue.insert((slot.firing.due_ms, parked));
            }
        }
        if let Some(slot) = self.timers.get_mut(key)
            && slot.place == Place::Firing
            && slot.firing == *firing
        {
            let pause_ms = (BACKOFF_FIRST_MS << slot.attempts.min(20)).min(BACKOFF_MAX_MS);
            let at_ms = now_ms.saturating_add(jitter(pause_ms));
            slot.attempts += 1;
            slot.place = Place::Queued(at_ms);
            self.queue.insert((at_ms, key.clone()));
        }
    }

    /// When to look again; none while nothing waits for a time, or as many are firing as may.
    pub(crate) fn next_ms(&self, firings_max: usize) -> Option<u64> {
        let (at_ms, _) = self.queue.first()?;
        (self.busy.len() < firings_max).then_some(*at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8;

    fn key(entity: &str, name: &str) -> TimerKey {
        TimerKey {
            entity: EntityKey::new("alarm", entity).expect("a key"),
            name: name.into(),
        }
    }

    fn firing(name: &str, seq: u64, due_ms: u64) -> Firing {
        let name = name.into();
        Firing { name, seq, due_ms }
    }

    fn names(due: &[(TimerKey, Firing)]) -> Vec<String> {
        due.iter()
            .map(|(key, _)| format!("{}.{}", key.entity.id, key.name))
            .collect()
    }

    #[test]
    fn the_most_urgent_come_first_and_so_many_at_a_time() {
        let mut schedule = Schedule::default();
        for n in (0..20).rev() {
            schedule.changed(key(&format!("{n:02}"), "x"), Some(firing("x", 1, 100 + n)));
        }
        assert_eq!(schedule.next_ms(MAX), Some(100));
        assert_eq!(names(&schedule.due(99, MAX)), Vec::<String>::new());
        let due = schedule.due(1_000, 3);
        assert_eq!(names(&due), ["00.x", "01.x", "02.x"]);
        assert_eq!(schedule.next_ms(3), None, "no more until one has ended");
        assert!(schedule.due(1_000, 3).is_empty());
        schedule.changed(due[1].0.clone(), None);
        schedule.ended(&due[1].0, &due[1].1, 1_000, |ms| ms);
        assert_eq!(names(&schedule.due(1_000, 3)), ["03.x"]);
    }

    /// dapr 1.18.2: one slow timer delays all.
    #[test]
    fn one_slow_timer_delays_no_other_entity() {
        let mut schedule = Schedule::default();
        schedule.changed(key("slow", "a"), Some(firing("a", 1, 10)));
        schedule.changed(key("slow", "b"), Some(firing("b", 2, 11)));
        schedule.changed(key("quick", "a"), Some(firing("a", 1, 12)));
        let slow = schedule.due(10, MAX);
        assert_eq!(names(&slow), ["slow.a"]);
        // It never ends, and the others fire when they are due; only its own second timer waits behind it.
        assert_eq!(names(&schedule.due(12, MAX)), ["quick.a"]);
        schedule.ended(&slow[0].0, &slow[0].1, 50, |ms| ms);
        assert_eq!(names(&schedule.due(50, MAX)), ["slow.b"]);
    }

    #[test]
    fn what_failed_is_tried_again_after_longer_and_longer_pauses() {
        let mut schedule = Schedule::default();
        schedule.changed(key("e", "x"), Some(firing("x", 1, 10)));
        let mut now_ms = 10;
        let mut pauses = Vec::new();
        for _ in 0..13 {
            let due = schedule.due(now_ms, MAX);
            assert_eq!(due.len(), 1);
            schedule.ended(&due[0].0, &due[0].1, now_ms, |ms| ms);
            let next_ms = schedule.next_ms(MAX).expect("it waits");
            pauses.push(next_ms - now_ms);
            now_ms = next_ms;
        }
        assert_eq!((pauses[0], pauses[1], pauses[12]), (20, 40, BACKOFF_MAX_MS));
    }

    #[test]
    fn one_that_fired_is_not_tried_again_whatever_is_heard_first() {
        for change_first in [true, false] {
            let mut schedule = Schedule::default();
            schedule.changed(key("e", "x"), Some(firing("x", 1, 10)));
            let due = schedule.due(10, MAX);
            if change_first {
                schedule.changed(key("e", "x"), Some(firing("x", 1, 30)));
                schedule.ended(&due[0].0, &due[0].1, 11, |ms| ms);
            } else {
                schedule.ended(&due[0].0, &due[0].1, 11, |ms| ms);
                schedule.changed(key("e", "x"), Some(firing("x", 1, 30)));
            }
            assert!(schedule.due(29, MAX).is_empty());
            assert_eq!(schedule.due(30, MAX)[0].1, firing("x", 1, 30));
        }
    }

    #[test]
    fn one_that_was_replaced_while_it_fired_waits_for_its_new_time_behind_the_old_firing() {
        let mut schedule = Schedule::default();
        schedule.changed(key("e", "x"), Some(firing("x", 1, 10)));
        let due = schedule.due(10, MAX);
        schedule.changed(key("e", "x"), Some(firing("x", 2, 12)));
        assert!(schedule.due(12, MAX).is_empty(), "its entity is busy");
        schedule.ended(&due[0].0, &due[0].1, 13, |ms| ms);
        assert_eq!(schedule.due(13, MAX)[0].1.seq, 2);
        schedule.changed(key("e", "x"), None);
        assert_eq!(schedule.next_ms(MAX), None);
    }
}
