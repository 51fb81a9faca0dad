//! How a tail reaches the state store: two rows for each entity it touched, whatever number of records it had.

use std::sync::Arc;

use super::{
    Decided, TakenEffects, feed, forget,
    keys::{self, EntityRow, HISTORY_ROW_LEN_MAX, KeptRequest, Meta, REQUEST_BLOCK_LEN},
    rebuild,
    shard::{is_unwritten, read_row, stored_history},
    tail::{Tail, TailEntity},
};
use crate::{
    entity::{EntityKey, Registry, requests::REQUESTS_KEPT_MAX},
    store::{Batch, StateStore, StoreError},
    supervision::contain::contain,
};

/// Bytes of commands, events and effects in one history row of more than one record.
const HISTORY_ROW_BYTES_MAX: usize = 64 << 10;
/// Blocks of requests that are kept for one entity.
const REQUEST_BLOCKS_MAX: u64 = (REQUESTS_KEPT_MAX / REQUEST_BLOCK_LEN) as u64;

/// The batch that moves a frozen tail into the store.
pub(crate) fn batch(
    store: &dyn StateStore,
    registry: &Registry,
    tail: &Tail,
    meta: &Meta,
    requests_kept_ms: u64,
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for (key, entity) in &tail.entities {
        if let Some(tombstone) = &entity.forgotten {
            forget::erase(store, key, entity.head, tombstone, &mut batch)?;
            continue;
        }
        let mut row = if entity.is_new { None } else { read_row(store, key)? }.unwrap_or_default();
        let is_unwritten = is_unwritten(&row, entity);
        if is_unwritten {
            row = write_entity(store, registry, key, row, entity, requests_kept_ms, &mut batch)?;
        }
        if let Some(base) = &entity.base {
            forget::trim_rows(store, key, &mut row, base, &mut batch)?;
        }
        if is_unwritten || entity.base.is_some() {
            batch.put(keys::entity(key), keys::encode(&row));
        }
    }
    for (id, effect) in &tail.outbox {
        match effect {
            Some(effect) => batch.put(keys::outbox(id), keys::encode(&(id, &**effect))),
            None => batch.remove(keys::outbox(id)),
        }
    }
    for (key, timer) in &tail.timers {
        match &timer.row {
            Some(row) => batch.put(keys::timer(key), keys::encode(&(key, &**row))),
            None => batch.remove(keys::timer(key)),
        }
    }
    for (key, row) in &tail.quarantine {
        match row {
            Some(row) => batch.put(keys::quarantine(key), keys::encode(&(key, &**row))),
            None => batch.remove(keys::quarantine(key)),
        }
    }
    feed::rows::write(store, &tail.feed, &mut batch)?;
    batch.put(keys::META.to_vec(), keys::encode(meta));
    Ok(batch)
}

fn write_entity(
    store: &dyn StateStore,
    registry: &Registry,
    key: &EntityKey,
    mut row: EntityRow,
    entity: &TailEntity,
    requests_kept_ms: u64,
    batch: &mut Batch,
) -> Result<EntityRow, StoreError> {
    let base = entity.base.as_ref().map_or(0, |base| base.seq);
    let kept = entity.records.partition_point(|record| record.seq <= base);
    for records in entity.records[kept..].chunks(HISTORY_ROW_LEN_MAX) {
        let mut row: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        for record in records {
            let size = record.bytes();
            if bytes + size > HISTORY_ROW_BYTES_MAX && !row.is_empty() {
                batch.put(keys::history(key, row[0].seq), keys::encode(&row));
                row.clear();
                bytes = 0;
            }
            bytes += size;
            row.push(for_history(record));
        }
        if let Some(first) = row.first() {
            batch.put(keys::history(key, first.seq), keys::encode(&row));
        }
    }
    row.requests
        .extend(entity.records.iter().filter_map(|record| kept_request(record)));
    let mut taken = TakenEffects::restore(&row.senders, &row.effects);
    entity.records.iter().for_each(|record| note_effect(&mut taken, record));
    (row.senders, row.effects) = taken.stored();
    seal_requests(store, key, &mut row, requests_kept_ms, batch)?;
    match snapshot(store, registry, key, &row, &entity.records) {
        Ok(snapshot) => {
            row.snapshot = Some(snapshot);
            row.snapshot_version = entity.head.version;
            row.snapshot_seq = entity.head.seq + 1;
        }
        Err(reason) => {
            // The events are safe in the history; whoever loads the entity finds them there and meets the same fault.
            tracing::error!(entity = %key, reason, "the state could not be made from its events");
            if row.snapshot_seq == 0 {
                row.snapshot_seq = 1;
            }
        }
    }
    row.head = entity.head;
    Ok(row)
}

/// What history keeps of a record: all that a later build needs to decide it again and to compare.
pub(crate) fn for_history(record: &Decided) -> Decided {
    Decided {
        entity: record.entity.clone(),
        seq: record.seq,
        activation: record.activation,
        base: record.base,
        request: record.request.clone(),
        at_ms: record.at_ms,
        trace: record.trace,
        command: record.command.clone(),
        reply: record.reply.clone(),
        events: record.events.clone(),
        effects: record.effects.clone(),
        acknowledges: record.acknowledges.clone(),
        fires: record.fires.clone(),
        lift: record.lift.clone(),
        fingerprint: record.fingerprint,
        // Of use only while the record's effects are under way, and while it may come again: both are kept elsewhere.
        chain: None,
        origin: None,
        asked_by: record.asked_by.clone(),
        keeps_effects: true,
    }
}

/// What is kept of a client's request. Those of effects are kept for as long as they can come again ([`note_effect`]), and outcomes
/// are taken only while their effect is open, firings only while their timer awaits them.
pub(super) fn kept_request(record: &Decided) -> Option<KeptRequest> {
    let is_clients = record.origin.is_none() && record.acknowledges.is_empty() && record.fires.is_none();
    is_clients.then(|| KeptRequest {
        hash: keys::request_hash(&record.request),
        seq: record.seq,
        at_ms: record.at_ms,
    })
}

/// Takes note of a record that answered another entity's effect.
pub(super) fn note_effect(taken: &mut TakenEffects, record: &Decided) {
    if let Some(origin) = &record.origin {
        taken.learn(origin);
        taken.insert(origin, keys::request_hash(&record.request), record.seq);
    }
}

/// Moves full blocks of requests into rows of their own, and forgets the oldest past their time or number.
fn seal_requests(
    store: &dyn StateStore,
    key: &EntityKey,
    row: &mut EntityRow,
    requests_kept_ms: u64,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let now_ms = row.requests.last().map_or(0, |request| request.at_ms);
    while row.requests.len() >= REQUEST_BLOCK_LEN * 2 {
        let block: Vec<KeptRequest> = row.requests.drain(..REQUEST_BLOCK_LEN).collect();
        batch.put(keys::requests(key, row.next_block), keys::encode(&block));
        row.next_block += 1;
    }
    while row.first_block < row.next_block {
        let block_key = keys::requests(key, row.first_block);
        let is_old = match store.get(&block_key)? {
            Some(bytes) => keys::decode::<Vec<KeptRequest>>(&block_key, &bytes)?
                .last()
                .is_none_or(|request| request.at_ms.saturating_add(requests_kept_ms) < now_ms),
            None => false, // Sealed just now.
        };
        if !is_old && row.next_block - row.first_block <= REQUEST_BLOCKS_MAX {
            break;
        }
        batch.remove(block_key);
        row.first_block += 1;
    }
    Ok(())
}

/// The state after a tail's records. It is made of the last snapshot where that is what this build would have made, and else
/// of all events: a build that knows less must not take a field away from one that knows more.
fn snapshot(
    store: &dyn StateStore,
    registry: &Registry,
    key: &EntityKey,
    row: &EntityRow,
    records: &[Arc<Decided>],
) -> Result<bytes::Bytes, String> {
    let kind = registry.get(&key.kind).ok_or("this build does not know the kind")?;
    let is_current = row.snapshot_version == row.head.version;
    let is_trusted = row.snapshot.as_deref().is_none_or(|snapshot| kind.trusts(snapshot));
    contain(|| {
        let rebuilt = if is_current && is_trusted {
            None
        } else {
            let history = stored_history(store, key, 1).map_err(|error| error.to_string())?;
            let mut history: Vec<_> = history.into_iter().map(Arc::new).collect();
            history.retain(|record| record.seq <= row.head.seq);
            rebuild::from_all(&**kind, &history, row.head.version)
        };
        let mut live = match rebuilt {
            Some(rebuilt) => rebuilt.map_err(|error| error.to_string())?,
            None if !is_current => return Err("an earlier state could not be made".to_owned()),
            None if !is_trusted && !rebuild::keeps_all(&**kind, row.snapshot.as_deref().unwrap_or_default()) => {
                return Err(
                    "another build's state holds what this one does not know, and history is not whole".to_owned(),
                );
            }
            None => kind.load(row.snapshot.as_deref()).map_err(|error| error.to_string())?,
        };
        for event in records.iter().flat_map(|record| &record.events) {
            live.evolve(event).map_err(|error| error.to_string())?;
        }
        Ok(live.snapshot())
    })
    .unwrap_or_else(|panic| Err(format!("its code panicked at {}: {}", panic.place, panic.text)))
}
