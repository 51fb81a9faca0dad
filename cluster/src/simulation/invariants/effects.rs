//! Each request takes effect at most once, and an entity's records follow each other without a gap.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    entity::EntityKey,
    journal::{Decided, Record},
    replication::batch,
};

/// The one history of each entity, from the entries in the order of their commitment.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) histories: BTreeMap<EntityKey, Vec<Decided>>,
    places: BTreeMap<(EntityKey, String), u64>,
}

impl Effects {
    /// The first replica has applied an entry, and says which of its records it took.
    pub(crate) fn committed(&mut self, data: Bytes, taken: &[bool]) -> Result<(), String> {
        let records = batch::unpack(data)
            .map(|bytes| bytes.ok_or("an entry is cut short"))
            .zip(taken);
        for (bytes, taken) in records {
            if let (Record::Decided(decided), true) = (Record::decode(&bytes?)?, *taken) {
                self.takes(decided)?;
            }
        }
        Ok(())
    }

    fn takes(&mut self, decided: Decided) -> Result<(), String> {
        let history = self.histories.entry(decided.entity.clone()).or_default();
        let next = history.len() as u64 + 1;
        if decided.seq != next {
            return Err(format!(
                "{}: record {} was taken where {next} belongs",
                decided.entity, decided.seq
            ));
        }
        let place = (decided.entity.clone(), decided.request.to_string());
        if let Some(before) = self.places.insert(place, decided.seq) {
            return Err(format!(
                "{}: the request {} takes effect twice, in records {before} and {}",
                decided.entity, decided.request, decided.seq
            ));
        }
        history.push(decided);
        Ok(())
    }
}
