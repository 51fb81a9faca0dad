//! An entity's state from all of its events: where its snapshot was made by another build, which may have known less.

use std::sync::Arc;

use super::Decided;
use crate::{
    codec::DecodeError,
    entity::kind::{Kind, Live},
    schema::Part,
};

/// The state after a number of events, from all of them; `None` where some are not kept, so that the snapshot is all there is.
pub(crate) fn from_all(
    kind: &dyn Kind,
    history: &[Arc<Decided>],
    version: u64,
) -> Option<Result<Box<dyn Live>, DecodeError>> {
    if !is_whole(history, version) {
        return None;
    }
    let evolved = kind.load(None).and_then(|mut live| {
        for event in history.iter().flat_map(|record| &record.events) {
            live.evolve(event)?;
        }
        Ok(live)
    });
    Some(evolved)
}

/// Whether these are all records from the first on, with so many events.
fn is_whole(history: &[Arc<Decided>], version: u64) -> bool {
    let is_gapless = (1..).zip(history).all(|(seq, record)| record.seq == seq);
    let events: usize = history.iter().map(|record| record.events.len()).sum();
    is_gapless && events as u64 == version
}

/// Whether nothing of a snapshot is lost when this build reads it and writes its own.
pub(crate) fn keeps_all(kind: &dyn Kind, snapshot: &[u8]) -> bool {
    kind.unknown_fields(Part::State, snapshot)
        .is_ok_and(|unknown| unknown.is_empty())
}
