//! Each timer fires once for each time at which it is due or missed, not before it is due by the clock of the node that
//! fires it, and not after a record that cancels or replaces it. At the end none is left that is due, and all replicas
//! know the same ones.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    codec,
    entity::EntityKey,
    journal::{Decided, Record, Shard, TimerKey},
    replication::batch,
    simulation::tally::Command,
};

/// What is known of timers, from the commands of the committed records alone.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeMap<TimerKey, Set>,
    /// By timer and the record that set it.
    labels: BTreeMap<(TimerKey, u64), String>,
}

#[derive(Debug)]
struct Set {
    label: String,
    due_ms: u64,
    every_ms: Option<u64>,
}

impl Timers {
    /// The first replica has applied an entry, and says which of its records it took.
    pub(crate) fn committed(&mut self, data: Bytes, taken: &[bool]) -> Result<(), String> {
        let records = batch::unpack(data)
            .map(|bytes| bytes.ok_or("an entry is cut short"))
            .zip(taken);
        for (bytes, taken) in records {
            if let (Record::Decided(decided), true) = (Record::decode(&bytes?)?, *taken) {
                self.takes(&decided)?;
            }
        }
        Ok(())
    }

    fn takes(&mut self, decided: &Decided) -> Result<(), String> {
        let entity = &decided.entity;
        let key = |name: &str| TimerKey {
            entity: entity.clone(),
            name: name.into(),
        };
        match codec::decode(&decided.command).map_err(|error| error.to_string())? {
            Command::SetTimer {
                label,
                name,
                due_ms,
                every_ms,
            } => {
                self.labels.insert((key(&name), decided.seq), label.clone());
                let set = Set {
                    label,
                    due_ms,
                    every_ms,
                };
                self.set.insert(key(&name), set);
            }
            Command::CancelTimer { name } => drop(self.set.remove(&key(&name))),
            Command::Fired { label, due_ms, missed } => self.fires(entity, &label, due_ms, missed, decided.at_ms)?,
            Command::Add { .. } | Command::Refuse => {}
        }
        Ok(())
    }

    fn fires(&mut self, entity: &EntityKey, label: &str, due_ms: u64, missed: u64, at_ms: u64) -> Result<(), String> {
        let mut of_label = (self.set.iter_mut()).filter(|(key, set)| key.entity == *entity && set.label == label);
        let Some((key, set)) = of_label.next().filter(|(_, set)| set.due_ms == due_ms) else {
            return Err(format!(
                "{entity}: the timer {label} of {due_ms} fires at {at_ms}; it was cancelled, replaced, or has fired"
            ));
        };
        if at_ms < due_ms {
            return Err(format!(
                "{entity}: the timer {label} of {due_ms} fires at {at_ms} already"
            ));
        }
        let key = key.clone();
        match set.every_ms {
            Some(every_ms) => {
                set.due_ms += every_ms * (missed + 1);
                let is_next = set.due_ms > at_ms && set.due_ms - every_ms <= at_ms;
                if !is_next {
                    return Err(format!(
                        "{entity}: the timer {label} of {due_ms} says at {at_ms} that it missed {missed}"
                    ));
                }
            }
            None => drop(self.set.remove(&key)),
        }
        Ok(())
    }

    /// What a timer was set for, whatever has become of it.
    pub(crate) fn label_of(&self, key: &TimerKey, seq: u64) -> String {
        self.labels.get(&(key.clone(), seq)).cloned().unwrap_or_default()
    }

    /// Timers that are due once and have not fired.
    pub(crate) fn open(&self) -> usize {
        self.set.values().filter(|set| set.every_ms.is_none()).count()
    }

    /// A timer that should have fired long before now, if there is one.
    pub(crate) fn overdue(&self, now_ms: u64) -> Option<String> {
        let late = self.set.values().find(|set| set.due_ms < now_ms);
        late.map(|set| format!("{set:?} has not fired at {now_ms}"))
    }

    /// A replica knows exactly the timers that are set.
    pub(crate) fn are_held(&self, shard: &Shard, keys: &[EntityKey]) -> Result<(), String> {
        let held: Vec<_> = shard
            .timers()
            .all()
            .iter()
            .map(|(key, row)| (key, row.due_ms))
            .collect();
        let set: Vec<_> = (self.set.iter())
            .filter(|(key, _)| keys.contains(&key.entity))
            .map(|(key, set)| (key, set.due_ms))
            .collect();
        if held == set {
            return Ok(());
        }
        Err(format!("the timers {held:?} are held, and {set:?} are set"))
    }
}
