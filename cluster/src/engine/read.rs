//! What a read asks for, and how a replica answers it: the leader with what is true now, any other with what it can show to
//! be new enough.

use std::{sync::Arc, time::Duration};

use proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Engine,
    call::{Body, Call, unexpected},
};
use crate::{
    admission::Tenant,
    cluster::Request,
    entity::{
        EntityKey,
        activation::{ReadState, Undelivered},
    },
    error::Error,
    shard::{
        behind::{Behind, NotHere, Seen},
        replica::Replica,
        shard_of,
    },
    token::VersionToken,
    trace::TraceContext,
    transport::outcome::{EventView, Forwarded, StateView},
};

/// A node answers a waiting read this long before the caller's time is over.
const ANSWER_BEFORE: Duration = Duration::from_millis(30);
/// How long a replica that need not lead may wait until it can answer; the leader is asked after that.
const BEHIND_WAIT_MAX: Duration = Duration::from_millis(150);

/// A bound below this is that of a linearizable read: asking the leader takes as long.
const BOUND_MIN: Duration = Duration::from_millis(1);

/// How new what is read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// As it is at some time after the call: the leader answers, once a majority has confirmed that it leads.
    #[default]
    Linearizable,
    /// It may be so old, and any replica that can show that it is no older may answer.
    Stale(Duration),
    /// At least as new as the tokens that are presented for the entity's shard; any replica that has come so far may
    /// answer. Without such a token it is linearizable.
    Tokens,
}

/// What a read asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query {
    pub(crate) newer_than: Option<u64>,
    pub(crate) events_after: Option<u64>,
    /// What is read is at least so new.
    pub(crate) after: Option<VersionToken>,
    /// Any replica may answer that fulfils this; `None`: the leader does.
    pub(crate) behind: Option<Behind>,
}

impl Query {
    pub(super) fn to_wire(self) -> pb::Query {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        pb::Query {
            newer_than: self.newer_than,
            events_after: self.events_after,
            after_index: self.after.map(|token| token.index),
            after_mark: self.after.map_or(0, |token| token.mark),
            from_any: self.behind.is_some(),
            // Rounded down: what is shown to be newer than asked is right too.
            bound_ms: self.behind.and_then(|behind| behind.bound).map(millis),
        }
    }

    /// Another node's question. Whoever is asked on behalf of another answers at once, or not.
    pub(super) fn from_wire(query: pb::Query, shard: u32) -> Self {
        Self {
            newer_than: query.newer_than,
            events_after: query.events_after,
            after: query.after_index.map(|index| VersionToken {
                shard,
                index,
                mark: query.after_mark,
            }),
            behind: query.from_any.then(|| Behind {
                bound: query.bound_ms.map(|ms| Duration::from_millis(u64::from(ms))),
                patience: BEHIND_WAIT_MAX / 2,
            }),
        }
    }
}

impl Engine {
    /// Reads an entity of the cluster's own, whatever clients have under way.
    pub(crate) async fn read_own(
        self: &Arc<Self>,
        key: &EntityKey,
        newer_than: Option<u64>,
        timeout: Duration,
    ) -> Result<StateView, Error> {
        let query = Query {
            newer_than,
            ..Query::default()
        };
        let (trace, tenant) = (TraceContext::default(), Tenant::default());
        match self
            .call(key, Body::Query(query), trace, &tenant, timeout, true)
            .await?
        {
            Forwarded::State(state) => Ok(state),
            other => Err(unexpected(key, &other)),
        }
    }

    /// Reads an entity.
    pub(crate) async fn read(
        self: &Arc<Self>,
        key: &EntityKey,
        mut query: Query,
        (consistency, tokens): (Consistency, &[VersionToken]),
        request: &Request,
    ) -> Result<StateView, Error> {
        query.after = self.token_for(shard_of(key, self.shards()), tokens)?;
        let patience = BEHIND_WAIT_MAX.min(request.timeout / 4);
        let bound = match consistency {
            Consistency::Stale(bound) if bound >= BOUND_MIN => Some(Some(bound)),
            Consistency::Tokens if query.after.is_some() => Some(None),
            Consistency::Stale(_) | Consistency::Tokens | Consistency::Linearizable => None,
        };
        // Whoever waits for the next event is told by the leader, who has it first.
        query.behind = bound
            .filter(|_| query.newer_than.is_none())
            .map(|bound| Behind { bound, patience });
        match self
            .call(
                key,
                Body::Query(query),
                request.trace,
                &request.tenant,
                request.timeout,
                false,
            )
            .await?
        {
            Forwarded::State(state) => Ok(state),
            other => Err(unexpected(key, &other)),
        }
    }

    /// The furthest of the tokens of a shard. Two of different journals cannot both be of this cluster.
    pub(super) fn token_for(&self, shard: u32, tokens: &[VersionToken]) -> Result<Option<VersionToken>, Error> {
        let invalid = |reason: String| Error::Invalid {
            field: "version token".to_owned(),
            reason,
        };
        let mut furthest: Option<VersionToken> = None;
        for token in tokens {
            // The cluster's own shard stands behind all others.
            if token.shard > self.shards() {
                return Err(invalid(format!(
                    "names shard {}, and this cluster has {}: it is one of another cluster",
                    token.shard,
                    self.shards()
                )));
            }
            if token.shard == shard {
                match &mut furthest {
                    Some(other) if other.mark != token.mark => {
                        return Err(invalid("is presented with one of another cluster".to_owned()));
                    }
                    Some(other) => other.index = other.index.max(token.index),
                    None => furthest = Some(*token),
                }
            }
        }
        Ok(furthest)
    }
}

/// Answers a read from this node's replica; `leader` is whom to ask where it cannot.
pub(super) async fn here(replica: &Arc<Replica>, call: &Call<'_>, query: &Query) -> Result<Forwarded, Undelivered> {
    let (seen, is_linearizable) = match query.behind {
        // The leader's live entity answers at less cost than its journal.
        Some(behind)
            if replica.leads()
                && let Some(seen) = leads_still(replica, call, behind).await =>
        {
            (seen, true)
        }
        Some(behind) => match replica.read_behind(call.key, behind, query.after).await {
            Ok(seen) => (seen, false),
            Err(NotHere::TooOld) => return Ok(Forwarded::TooOld),
            Err(NotHere::Foreign(reason)) => return Ok(foreign(reason)),
            Err(NotHere::Failed(reason)) => return Ok(Forwarded::Failed(reason)),
            Err(NotHere::Forgotten(reason)) => return Ok(Forwarded::Forgotten(reason)),
        },
        None => (as_leader(replica, call, query.newer_than).await?, true),
    };
    if let (true, Some(token)) = (is_linearizable, query.after)
        && let Err(reason) = replica.has_given(token)
    {
        return Ok(foreign(reason));
    }
    let ReadState { head, state } = seen.state;
    let events = match query.events_after {
        Some(after) => events(replica, call.key, after, head.version)?,
        None => Vec::new(),
    };
    Ok(Forwarded::State(StateView {
        version: head.version,
        state,
        events,
        token: seen.token,
        age_us: seen.age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        node: replica.node(),
    }))
}

/// What is true now, if this node leads and can show it in time.
async fn leads_still(replica: &Arc<Replica>, call: &Call<'_>, behind: Behind) -> Option<Seen> {
    timeout(behind.patience, as_leader(replica, call, None))
        .await
        .ok()?
        .ok()
}

fn foreign(reason: String) -> Forwarded {
    Forwarded::Invalid {
        field: "version token".to_owned(),
        reason,
    }
}

/// What is true now, by the leader; waits for the entity's next event where that is asked.
async fn as_leader(replica: &Arc<Replica>, call: &Call<'_>, newer_than: Option<u64>) -> Result<Seen, Undelivered> {
    let give_up = call.deadline - ANSWER_BEFORE.min(call.timeout / 4);
    loop {
        let watch = newer_than.map(|_| replica.watch(call.key));
        let state = replica.read(call.key).await?;
        if let (Some(mut watch), Some(newer_than)) = (watch, newer_than)
            && state.head.version <= newer_than
            && Instant::now() < give_up
        {
            tokio::select! {
                () = watch.next() => {}
                () = sleep_until(give_up) => {}
            }
            continue;
        }
        return Ok(Seen {
            state,
            age: Some(Duration::ZERO),
            // All that the state rests on was applied before it was given out.
            token: replica.token_of(replica.applied()),
        });
    }
}

/// The events of an entity after a version, up to another.
fn events(replica: &Replica, key: &EntityKey, after: u64, up_to: u64) -> Result<Vec<EventView>, Undelivered> {
    let (before, records) = replica
        .history(key)
        .map_err(|error| Undelivered::Failed(error.to_string()))?;
    let all = records
        .iter()
        .flat_map(|record| record.events.iter().map(move |event| (record, event)));
    Ok((before + 1..)
        .zip(all)
        .filter(|(version, _)| *version > after && *version <= up_to)
        .map(|(version, (record, event))| EventView {
            version,
            event: event.clone(),
            at_ms: record.at_ms,
            request: record.request.to_string(),
            trace: record.trace,
        })
        .collect())
}
