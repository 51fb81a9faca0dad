//! What people see of consumer groups and do to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    FeedEvent, FeedFilter, PageMax, Position, Start,
    consumer::rejected,
    follow::{Follower, Question},
    group::{Command, DeadLetter, Group, State},
};
use crate::{
    codec,
    engine::Engine,
    entity::{Entity as _, EntityKey},
    error::Error,
};

/// How long one question to a group, or for the end of a shard, may take.
const ASK_MAX: Duration = Duration::from_secs(5);

/// A consumer group, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// Whose events it reads.
    pub filter: FeedFilter,
    /// How often a record is refused before it is put aside.
    pub attempts_max: u32,
    /// Its members,
    pub members: Vec<MemberView>,
    /// the shards it reads,
    pub partitions: Vec<PartitionView>,
    /// and the number of its dead letters.
    pub dead_letters: usize,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// How many shards it reads.
    pub shards: usize,
    /// When its lease runs out, in milliseconds since 1970.
    pub until_ms: u64,
}

/// A shard as a group reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// The shard.
    pub shard: u32,
    /// Who reads it.
    pub owner: Option<String>,
    /// Under which epoch.
    pub epoch: u64,
    /// It is to be given up.
    pub is_recalled: bool,
    /// Everything up to here is done.
    pub committed: Position,
    /// The record behind that, if it was refused: where, how often, and why.
    pub refused: Option<(Position, u32, String)>,
    /// How far the shard's journal has come; `None` where that was not asked for.
    pub end: Option<Position>,
}

/// A record that a group has put aside.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterView {
    /// Its number within the group.
    pub id: u64,
    /// The shard,
    pub shard: u32,
    /// the position there,
    pub position: Position,
    /// and the entity of the record.
    pub entity: EntityKey,
    /// The entity's version after the first of its events, and how many they are.
    pub first_version: u64,
    /// See `first_version`.
    pub events_len: u32,
    /// Why it was refused last.
    pub reason: String,
    /// How often it was refused.
    pub attempts: u32,
    /// When it was put aside, or refused last, in milliseconds since 1970.
    pub at_ms: u64,
    /// It is to be handed out once more.
    pub is_retried: bool,
    /// Its events, where they were asked for.
    pub events: Vec<FeedEvent>,
}

impl Engine {
    async fn group_state(self: &Arc<Self>, key: &EntityKey) -> Result<Option<State>, Error> {
        let view = self.read_own(key, None, ASK_MAX).await?;
        let state: State = codec::decode(&view.state).map_err(|error| Error::Failed {
            entity: key.to_string(),
            reason: format!("its state cannot be read by this build: {error}"),
        })?;
        Ok(state.exists.then_some(state))
    }

    /// All groups, without how far behind they are.
    pub(crate) async fn groups(self: &Arc<Self>) -> Result<Vec<GroupView>, Error> {
        let mut groups = Vec::new();
        for shard in 0..self.shards() {
            let mut pages = self.scan(shard, Group::KIND, "").await?;
            while let Some(page) = pages.recv().await {
                for row in page?.rows {
                    let state = codec::decode::<State>(&row.state).ok().filter(|state| state.exists);
                    groups.extend(state.map(|state| view(&row.id, &state)));
                }
            }
        }
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(groups)
    }

    /// One group, with how far its shards have come.
    pub(crate) async fn group(self: &Arc<Self>, name: &str) -> Result<Option<GroupView>, Error> {
        let Some(state) = self.group_state(&Group::key(name)?).await? else {
            return Ok(None);
        };
        let mut group = view(name, &state);
        let ends = group
            .partitions
            .iter()
            .map(|p| self.feed_position(p.shard, &Question::End, ASK_MAX));
        let ends = futures::future::join_all(ends).await;
        for (partition, end) in group.partitions.iter_mut().zip(ends) {
            partition.end = end.ok();
        }
        Ok(Some(group))
    }

    async fn change_group(self: &Arc<Self>, name: &str, command: &Command) -> Result<(), Error> {
        let key = Group::key(name)?;
        let answer = self.ask_group(&key, command, ASK_MAX).await?;
        answer.map(drop).map_err(|rejection| rejected(&key, &rejection))
    }

    /// Lets a group go on from elsewhere, in these shards or in all of them.
    pub(crate) async fn reset_group(self: &Arc<Self>, name: &str, start: &Start, shards: &[u32]) -> Result<(), Error> {
        let state = self.group_state(&Group::key(name)?).await?;
        let all = state
            .map(|state| state.partitions.into_keys().collect::<Vec<u32>>())
            .unwrap_or_default();
        let chosen = if shards.is_empty() { all } else { shards.to_vec() };
        if let Some(shard) = chosen.iter().find(|shard| **shard >= self.shards()) {
            return Err(Error::Invalid {
                field: "shards".to_owned(),
                reason: format!(
                    "names shard {shard}; this cluster has those from 0 to {}",
                    self.shards() - 1
                ),
            });
        }
        let places = self.places(start, &chosen).await?;
        let positions: BTreeMap<u32, Position> = chosen
            .into_iter()
            .zip(places.iter().map(|place| place.position))
            .collect();
        self.change_group(name, &Command::Reset { positions }).await
    }

    pub(crate) async fn delete_group(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        self.change_group(name, &Command::Delete).await
    }

    /// The dead letters of a group, the oldest first; `None` if there is no such group.
    pub(crate) async fn dead_letters(self: &Arc<Self>, name: &str) -> Result<Option<Vec<DeadLetterView>>, Error> {
        let state = self.group_state(&Group::key(name)?).await?;
        Ok(state.map(|state| state.dead.iter().map(|(id, letter)| letter_view(*id, letter)).collect()))
    }

    /// One dead letter with its events; `None` if there is no such group or letter.
    pub(crate) async fn dead_letter(self: &Arc<Self>, name: &str, id: u64) -> Result<Option<DeadLetterView>, Error> {
        let state = self.group_state(&Group::key(name)?).await?;
        let Some(letter) = state.and_then(|mut state| state.dead.remove(&id)) else {
            return Ok(None);
        };
        let mut shown = letter_view(id, &letter);
        let filter = Arc::new(FeedFilter::of_entity(letter.record.entity.clone()));
        let max = PageMax { records: 1, bytes: 1 };
        let at = (letter.record.position.before(), 0);
        let mut follower = Follower::new(Arc::clone(self), letter.shard, filter, max, at);
        let page = follower.next(Duration::ZERO).await.unwrap_or_default();
        let records = page
            .records
            .iter()
            .filter(|record| record.position == letter.record.position);
        shown.events = records
            .flat_map(|record| FeedEvent::of(self.registry(), letter.shard, record))
            .collect();
        Ok(Some(shown))
    }

    /// Hands a dead letter out once more, or skips it for good.
    pub(crate) async fn lift_dead_letter(self: &Arc<Self>, name: &str, id: u64, skip: bool) -> Result<(), Error> {
        let command = if skip {
            Command::SkipDead { id }
        } else {
            Command::RetryDead { id }
        };
        self.change_group(name, &command).await
    }
}

fn view(name: &str, state: &State) -> GroupView {
    let members = state.members.iter().map(|(name, member)| MemberView {
        name: name.clone(),
        shards: state
            .partitions
            .values()
            .filter(|partition| partition.owner.as_ref() == Some(name))
            .count(),
        until_ms: member.until_ms,
    });
    let partitions = state.partitions.iter().map(|(shard, partition)| PartitionView {
        shard: *shard,
        owner: partition.owner.clone(),
        epoch: partition.epoch,
        is_recalled: partition.give_up_by_ms.is_some(),
        committed: partition.committed,
        refused: (partition.refused.clone()).map(|refused| (refused.position, refused.attempts, refused.reason)),
        end: None,
    });
    GroupView {
        name: name.to_owned(),
        filter: state.filter.clone(),
        attempts_max: state.attempts_max,
        members: members.collect(),
        partitions: partitions.collect(),
        dead_letters: state.dead.len(),
    }
}

fn letter_view(id: u64, letter: &DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id,
        shard: letter.shard,
        position: letter.record.position,
        entity: letter.record.entity.clone(),
        first_version: letter.record.first_version,
        events_len: letter.record.events,
        reason: letter.reason.clone(),
        attempts: letter.attempts,
        at_ms: letter.at_ms,
        is_retried: letter.is_retried,
        events: Vec::new(),
    }
}
