//! No acknowledged write is lost: at the end every replica holds the one history of each entity, and every answer stands
//! in it.

use crate::{
    entity::EntityKey,
    journal::{Decided, Shard, checkpoint::for_history},
    simulation::{activation::Delivered, clients::Op},
};

/// A replica's history of an entity is the one that was committed.
pub(crate) fn is_held(shard: &Shard, key: &EntityKey, committed: &[Decided]) -> Result<(), String> {
    let held = shard.history(key, 1).map_err(|error| error.to_string())?;
    if held.len() != committed.len() {
        return Err(format!("{key}: {} records are held of {}", held.len(), committed.len()));
    }
    match held
        .iter()
        .zip(committed)
        .find(|(held, committed)| for_history(held) != for_history(committed))
    {
        Some((held, committed)) => Err(format!("{key}: {held:?} is held in the place of {committed:?}")),
        None => Ok(()),
    }
}

/// What a client was answered stands in the history.
pub(crate) fn keeps(op: &Op, committed: &[Decided]) -> Result<(), String> {
    let Some(Delivered::Reply(reply)) = &op.answer else {
        return Ok(());
    };
    let request = op.ask.request();
    let stands = committed
        .iter()
        .any(|record| record.request == request && record.reply == *reply);
    if stands {
        return Ok(());
    }
    Err(format!("{}: the answer to {request} is lost", op.key))
}
