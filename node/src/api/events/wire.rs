//! Messages of the events service in the engine's words, and back.

use std::{str::FromStr as _, time::Duration};

use cluster::{
    EntityKey,
    feed::{
        Batch, ConsumeOptions, Cursor, Delivery, FeedEvent, FeedFilter, Handed, Position, Start, SubscribeOptions,
        groups::{DeadLetterView, GroupView, MemberView, PartitionView},
    },
};
use proto::events::v1 as pb;

use crate::api::status::Fault;

/// The usual and the shortest time after which a cursor comes alone, in milliseconds.
const HEARTBEAT_MS: u32 = 5_000;
const HEARTBEAT_MS_MIN: u32 = 1_000;

fn or(value: u32, usual: u32) -> u32 {
    if value == 0 { usual } else { value }
}

/// Where to begin; `None` where the caller does not say.
pub(super) fn start(start: Option<pb::Start>) -> Result<Option<Start>, Fault> {
    Ok(match start.and_then(|start| start.at) {
        None => None,
        Some(pb::start::At::Beginning(true)) => Some(Start::Beginning),
        Some(pb::start::At::Beginning(false)) => Some(Start::Now),
        Some(pb::start::At::UnixMs(at_ms)) => Some(Start::Time(at_ms)),
        Some(pb::start::At::Cursor(text)) => {
            let cursor = Cursor::from_str(&text).map_err(|error| Fault::invalid("start.cursor", error))?;
            Some(Start::Cursor(cursor))
        }
    })
}

fn filter(filter: Option<pb::Filter>) -> Result<FeedFilter, Fault> {
    let pb::Filter { kinds, entity } = filter.unwrap_or_default();
    let entity = match entity.as_str() {
        "" => None,
        text => Some(EntityKey::parse(text).map_err(|error| Fault::invalid("filter.entity", error))?),
    };
    Ok(FeedFilter { kinds, entity })
}

pub(super) fn subscribe_options(request: pb::SubscribeRequest) -> Result<SubscribeOptions, Fault> {
    let usual = SubscribeOptions::default();
    let heartbeat_ms = or(request.heartbeat_ms, HEARTBEAT_MS);
    if heartbeat_ms < HEARTBEAT_MS_MIN {
        return Err(Fault::invalid(
            "heartbeat_ms",
            format!("is {heartbeat_ms}; must be at least {HEARTBEAT_MS_MIN}"),
        ));
    }
    Ok(SubscribeOptions {
        from: start(request.start)?.unwrap_or(Start::Now),
        filter: filter(request.filter)?,
        shards: request.shards,
        batch_events_max: or(request.batch_events_max, usual.batch_events_max as u32) as usize,
        heartbeat: Duration::from_millis(u64::from(heartbeat_ms)),
        stop_at_end: request.stop_at_end,
    })
}

pub(super) fn consume_options(join: pb::Join) -> Result<ConsumeOptions, Fault> {
    let usual = ConsumeOptions::new(&join.group, &join.member);
    Ok(ConsumeOptions {
        filter: filter(join.filter)?,
        start: start(join.start)?.unwrap_or(Start::Beginning),
        attempts_max: or(join.attempts_max, usual.attempts_max),
        lease: match join.lease_ms {
            0 => usual.lease,
            ms => Duration::from_millis(u64::from(ms)),
        },
        batch_events_max: or(join.batch_events_max, usual.batch_events_max as u32) as usize,
        ..usual
    })
}

/// A position that must be there.
pub(super) fn position(position: Option<pb::Position>) -> Result<Position, Fault> {
    let pb::Position { index, place } = position.ok_or_else(|| Fault::invalid("position", "is missing"))?;
    Ok(Position { index, place })
}

fn to_position(position: Position) -> pb::Position {
    pb::Position {
        index: position.index,
        place: position.place,
    }
}

fn event(event: FeedEvent) -> pb::Event {
    pb::Event {
        kind: event.kind,
        id: event.id,
        version: event.version,
        name: event.name,
        json: event.json.to_string(),
        raw: event.raw,
        at_unix_ms: event.at_ms,
        request_id: event.request_id,
        trace_id: if event.trace.is_some() {
            event.trace.trace_hex()
        } else {
            String::new()
        },
        shard: event.shard,
        position: Some(to_position(event.position)),
    }
}

pub(super) fn batch(delivery: Delivery) -> pb::EventBatch {
    pb::EventBatch {
        events: delivery.events.into_iter().map(event).collect(),
        cursor: delivery.cursor.to_string(),
        caught_up: delivery.caught_up,
    }
}

pub(super) fn handed(handed: Handed) -> pb::ConsumeResponse {
    use pb::consume_response::Handed as Out;

    let handed = match handed {
        Handed::Shards(shards) => Out::Shards(pb::Shards { shards }),
        Handed::Batch(Batch {
            shard,
            events,
            position,
            attempt,
            dead_letter,
        }) => Out::Work(pb::Work {
            shard,
            events: events.into_iter().map(event).collect(),
            position: Some(to_position(position)),
            attempt,
            dead_letter: dead_letter.unwrap_or_default(),
        }),
    };
    pb::ConsumeResponse { handed: Some(handed) }
}

pub(super) fn group(group: GroupView) -> pb::Group {
    let entity = group
        .filter
        .entity
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let kinds = group.filter.kinds;
    pb::Group {
        name: group.name,
        filter: Some(pb::Filter { kinds, entity }),
        attempts_max: group.attempts_max,
        members: group.members.into_iter().map(member).collect(),
        partitions: group.partitions.into_iter().map(partition).collect(),
        dead_letters: group.dead_letters as u32,
    }
}

fn member(member: MemberView) -> pb::Member {
    pb::Member {
        name: member.name,
        shards: member.shards as u32,
        lease_until_unix_ms: member.until_ms,
    }
}

fn partition(partition: PartitionView) -> pb::Partition {
    let (attempts, reason) = partition
        .refused
        .map_or((0, String::new()), |(_, attempts, reason)| (attempts, reason));
    pb::Partition {
        shard: partition.shard,
        owner: partition.owner.unwrap_or_default(),
        epoch: partition.epoch,
        is_recalled: partition.is_recalled,
        committed: Some(to_position(partition.committed)),
        end: partition.end.map(to_position),
        refused_attempts: attempts,
        refused_reason: reason,
    }
}

pub(super) fn dead_letter(letter: DeadLetterView) -> pb::DeadLetter {
    pb::DeadLetter {
        id: letter.id,
        shard: letter.shard,
        position: Some(to_position(letter.position)),
        entity: letter.entity.to_string(),
        first_version: letter.first_version,
        events_len: letter.events_len,
        reason: letter.reason,
        attempts: letter.attempts,
        at_unix_ms: letter.at_ms,
        is_retried: letter.is_retried,
        events: letter.events.into_iter().map(event).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(request: pb::SubscribeRequest) -> String {
        subscribe_options(request).expect_err("it is wrong").to_string()
    }

    #[test]
    fn what_is_left_out_has_usual_values() {
        let options = subscribe_options(pb::SubscribeRequest::default()).expect("a subscription");
        assert_eq!(options, SubscribeOptions::default());
        let options = consume_options(pb::Join {
            group: "mailer".to_owned(),
            member: "m-1".to_owned(),
            ..pb::Join::default()
        });
        assert_eq!(options.expect("a consumer"), ConsumeOptions::new("mailer", "m-1"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let start = |at| pb::SubscribeRequest {
            start: Some(pb::Start { at: Some(at) }),
            ..pb::SubscribeRequest::default()
        };
        let text = fault(start(pb::start::At::Cursor("tea".to_owned())));
        assert!(text.starts_with("start.cursor is no cursor"), "{text}");
        let of_entity = |entity: &str| pb::SubscribeRequest {
            filter: Some(pb::Filter {
                entity: entity.to_owned(),
                ..pb::Filter::default()
            }),
            ..pb::SubscribeRequest::default()
        };
        assert_eq!(fault(of_entity("tea")), "filter.entity is not of the form kind/id");
        let hasty = pb::SubscribeRequest {
            heartbeat_ms: 1,
            ..pb::SubscribeRequest::default()
        };
        assert_eq!(fault(hasty), "heartbeat_ms is 1; must be at least 1000");
        assert!(position(None).is_err());
    }
}
