//! What clients are told is what one counter that everyone shares could have told them: a reply is never given twice with
//! another value, a count is given to one request only, and whatever begins after an answer sees what was answered.

use std::collections::BTreeMap;

use crate::{
    codec,
    entity::EntityKey,
    simulation::{activation::Delivered, clients::Ask},
};

#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// For each operation: the largest count that anyone had been told when it began.
    floors: BTreeMap<u64, u64>,
    told: BTreeMap<EntityKey, u64>,
    begun: BTreeMap<EntityKey, u64>,
    first: BTreeMap<u64, Delivered>,
    by_count: BTreeMap<(EntityKey, u64), u64>,
}

impl Replies {
    pub(crate) fn begins(&mut self, op: u64, key: &EntityKey, ask: &Ask) {
        self.floors.insert(op, self.told.get(key).copied().unwrap_or_default());
        if let Ask::Add { .. } = ask {
            *self.begun.entry(key.clone()).or_default() += 1;
        }
    }

    pub(crate) fn answered(&mut self, op: u64, key: &EntityKey, ask: &Ask, answer: &Delivered) -> Result<(), String> {
        let first = self.first.entry(op).or_insert_with(|| answer.clone());
        if first != answer {
            return Err(format!("{key}: operation {op} was told {first:?}, and then {answer:?}"));
        }
        let floor = self.floors[&op];
        let count = match (ask, answer) {
            (Ask::Add { .. }, Delivered::Reply(Ok(bytes))) => {
                let count = number(bytes)?;
                let first = *self.by_count.entry((key.clone(), count)).or_insert(op);
                if first != op {
                    return Err(format!("{key}: operations {first} and {op} were both told {count}"));
                }
                if count <= floor {
                    return Err(format!(
                        "{key}: operation {op} was told {count}, after others were told {floor}"
                    ));
                }
                count
            }
            (Ask::Refuse { .. }, Delivered::Reply(Err(bytes)))
            | (Ask::SetTimer { .. } | Ask::CancelTimer { .. }, Delivered::Reply(Ok(bytes))) => number(bytes)?,
            (Ask::Read, Delivered::Read(count)) => *count,
            other => {
                return Err(format!(
                    "{key}: operation {op} was answered with something else: {other:?}"
                ));
            }
        };
        let begun = self.begun.get(key).copied().unwrap_or_default();
        if count < floor || count > begun {
            return Err(format!(
                "{key}: operation {op} saw {count}; {floor} were known before it began, and {begun} had been asked for"
            ));
        }
        let told = self.told.entry(key.clone()).or_default();
        *told = count.max(*told);
        Ok(())
    }
}

fn number(bytes: &[u8]) -> Result<u64, String> {
    codec::decode(bytes).map_err(|error| error.to_string())
}
