//! What people are told of timers, from the leaders of their shards.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use proto::cluster::v1 as pb;
use tokio::time::timeout;

use super::Engine;
use crate::{
    entity::EntityKey,
    journal::{TimerKey, TimerRow},
    shard::shard_of,
};

/// How long a shard's leader may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Timers of one answer.
const TIMERS_LEN_MAX: usize = 10_000;
/// Timers that are listed for who does not say how many.
const TIMERS_LEN_DEFAULT: usize = 100;

impl Engine {
    /// The most urgent timers of a shard that this node leads; `None` if it does not.
    pub(crate) async fn timers_here(&self, request: &pb::TimersRequest) -> Option<pb::TimersResponse> {
        let replica = self.replica(request.shard)?;
        replica.confirm().await.ok()?;
        let now_ms = replica.now_ms();
        let limit = (request.limit as usize).min(TIMERS_LEN_MAX);
        let state = replica.state();
        let timers = match EntityKey::parse(&request.entity) {
            Ok(entity) => (state.timers().of(&entity).take(limit))
                .map(|(name, row)| timer_row(&entity, name, row, now_ms))
                .collect(),
            Err(_) => (state.timers().page(None, limit).into_iter())
                .filter_map(|(_, key, _)| {
                    let row = state.timers().get(&key)?;
                    let TimerKey { entity, name } = &key;
                    Some(timer_row(entity, name, row, now_ms))
                })
                .collect(),
        };
        Some(pb::TimersResponse { timers })
    }

    /// The same from whichever node leads the shard; `None` if none can be asked.
    async fn timers_of_shard(&self, request: pb::TimersRequest) -> Option<Vec<pb::TimerRow>> {
        let leader = self.route(request.shard).leader;
        let answer = async {
            match leader {
                Some(leader) if leader != self.node() => {
                    let mut client = self.links.peer(leader)?.client.clone();
                    Some(client.timers(request).await.ok()?.into_inner())
                }
                _ => self.timers_here(&request).await,
            }
        };
        timeout(ANSWER_MAX, answer)
            .await
            .ok()
            .flatten()
            .map(|answer| answer.timers)
    }

    /// The timers of one entity; none if its leader cannot be asked.
    pub(crate) async fn timers_of(self: &Arc<Self>, key: &EntityKey) -> Vec<pb::TimerView> {
        let request = pb::TimersRequest {
            shard: shard_of(key, self.shards()),
            limit: TIMERS_LEN_MAX as u32,
            entity: key.to_string(),
        };
        let rows = self.timers_of_shard(request).await.unwrap_or_default();
        rows.into_iter().map(timer_view).collect()
    }

    /// The most urgent timers of all shards.
    pub(crate) async fn timers(self: &Arc<Self>, limit: u32) -> pb::ListTimersResponse {
        let limit = match limit as usize {
            0 => TIMERS_LEN_DEFAULT,
            limit => limit.min(TIMERS_LEN_MAX),
        };
        let asked = (0..self.shards()).map(|shard| {
            self.timers_of_shard(pb::TimersRequest {
                shard,
                limit: limit as u32,
                entity: String::new(),
            })
        });
        let (mut timers, mut unavailable_shards) = (Vec::new(), Vec::new());
        for (shard, answer) in (0..).zip(join_all(asked).await) {
            match answer {
                Some(rows) => timers.extend(rows.into_iter().map(timer_view)),
                None => unavailable_shards.push(shard),
            }
        }
        timers.sort_by(|a: &pb::TimerView, b| (a.due_unix_ms, &a.entity).cmp(&(b.due_unix_ms, &b.entity)));
        timers.truncate(limit);
        pb::ListTimersResponse {
            timers,
            unavailable_shards,
        }
    }
}

fn timer_row(entity: &EntityKey, name: &str, row: &TimerRow, now_ms: u64) -> pb::TimerRow {
    pb::TimerRow {
        entity: entity.to_string(),
        name: name.to_owned(),
        due_unix_ms: row.due_ms,
        every_ms: row.every_ms.unwrap_or_default(),
        set_by_record: row.seq,
        trace_id: if row.trace.is_some() {
            row.trace.trace_hex()
        } else {
            String::new()
        },
        overdue_ms: now_ms.saturating_sub(row.due_ms),
    }
}

fn timer_view(row: pb::TimerRow) -> pb::TimerView {
    pb::TimerView {
        entity: row.entity,
        name: row.name,
        due_unix_ms: row.due_unix_ms,
        every_ms: row.every_ms,
        set_by_record: row.set_by_record,
        trace_id: row.trace_id,
        overdue_ms: row.overdue_ms,
    }
}
