//! Consumer groups: an entity of the engine's own for each. It holds the members with their leases, who reads which shard, how far
//! each shard is done, and what was refused so often that it was put aside.
//!
//! Reading order: this file (what can be asked, what happens), [`decide`] (the rules), [`plan`] (who reads which shards).
//!
//! A shard is read by one member at a time, under an *epoch* that is drawn anew whenever it is given to somebody: what an earlier
//! reader says under an old one is refused. A member that lives is asked for a shard and given time to finish; one whose lease
//! has run out is not.

mod decide;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FeedFilter, Position};
use crate::{
    entity::{Context, Decision, Entity, EntityKey, Outcome},
    history::Retention,
};

/// Members of one group.
pub const MEMBERS_LEN_MAX: usize = 256;
/// The longest name of a member or a group, in bytes.
pub const NAME_LEN_MAX: usize = 100;
/// Dead letters of one group. When it is full the shard with the next one waits: nothing is dropped.
pub const DEAD_LETTERS_LEN_MAX: usize = 1_000;
/// The longest reason that is kept, in bytes; the rest is cut off.
pub const REASON_LEN_MAX: usize = 500;
/// How short and how long a lease can be, in milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
/// See [`LEASE_MS_MIN`].
pub const LEASE_MS_MAX: u64 = 600_000;
/// How often a record can be given out before it is put aside, at most.
pub const ATTEMPTS_MAX: u32 = 100;

/// What is kept of a group's own history: who reads what changes little, how far they are changes all the time.
pub(crate) const RETENTION: Retention = Retention {
    records_max: Some(4_096),
    age_max_ms: None,
};

/// The entity.
pub(crate) struct Group;

/// A group as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// It was created and not deleted since.
    pub(crate) exists: bool,
    pub(crate) filter: FeedFilter,
    /// A record that was refused so often is put aside.
    pub(crate) attempts_max: u32,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) partitions: BTreeMap<u32, Partition>,
    /// The newest epoch of all.
    pub(crate) epoch: u64,
    pub(crate) dead: BTreeMap<u64, DeadLetter>,
    pub(crate) next_dead: u64,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Drawn by who joins: another one under the same name is somebody else.
    pub(crate) session: u64,
    pub(crate) lease_ms: u64,
    /// When it counts as gone, unless it says something before, in milliseconds since 1970.
    pub(crate) until_ms: u64,
}

/// A shard as the group reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partition {
    pub(crate) owner: Option<String>,
    pub(crate) epoch: u64,
    /// Its owner is to give it up until then, in milliseconds since 1970.
    pub(crate) give_up_by_ms: Option<u64>,
    /// Everything up to here is done.
    pub(crate) committed: Position,
    /// The record behind that, if it was refused.
    pub(crate) refused: Option<Refused>,
}

/// A record that was refused and will be given out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

/// A record that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    pub(crate) shard: u32,
    pub(crate) record: RecordRef,
    /// Why it was refused last, and how often it was.
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    /// When it was put aside, or refused last, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// It is to be given out once more.
    pub(crate) is_retried: bool,
}

/// Names a record of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordRef {
    pub(crate) position: Position,
    pub(crate) entity: EntityKey,
    pub(crate) seq: u64,
    pub(crate) first_version: u64,
    pub(crate) events: u32,
}

/// What a group is for; fixed when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) filter: FeedFilter,
    pub(crate) attempts_max: u32,
    /// The shards it reads, and where each begins; `None` where the group must be there already.
    pub(crate) begin: Option<BTreeMap<u32, Position>>,
}

/// How far a member has come with a shard it reads under this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) epoch: u64,
    pub(crate) position: Position,
}

/// What can be asked of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    Join {
        member: String,
        session: u64,
        lease_ms: u64,
        terms: Terms,
    },
    /// The member lives, has done this much, and gives these shards up.
    Report {
        member: String,
        session: u64,
        done: BTreeMap<u32, Done>,
        given_up: Vec<u32>,
    },
    Leave {
        member: String,
        session: u64,
        done: BTreeMap<u32, Done>,
    },
    /// The member cannot do this record; everything before it is done.
    Refuse {
        member: String,
        session: u64,
        shard: u32,
        epoch: u64,
        record: RecordRef,
        reason: String,
    },
    /// What came of giving a dead letter out once more.
    Settle {
        member: String,
        session: u64,
        id: u64,
        refused: Option<String>,
    },
    /// Leases may have run out.
    Expire,
    /// Goes on from other positions.
    Reset {
        positions: BTreeMap<u32, Position>,
    },
    Delete,
    RetryDead {
        id: u64,
    },
    SkipDead {
        id: u64,
    },
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Created {
        filter: FeedFilter,
        attempts_max: u32,
        begin: BTreeMap<u32, Position>,
    },
    MemberJoined {
        member: String,
        session: u64,
        lease_ms: u64,
        until_ms: u64,
    },
    MemberRenewed {
        member: String,
        until_ms: u64,
    },
    MemberLeft {
        member: String,
        expired: bool,
    },
    PartitionAssigned {
        shard: u32,
        member: String,
        epoch: u64,
    },
    /// Its owner is to give it up.
    PartitionRecalled {
        shard: u32,
        by_ms: u64,
    },
    /// Its owner keeps it after all.
    PartitionKept {
        shard: u32,
    },
    PartitionFreed {
        shard: u32,
    },
    Committed {
        positions: BTreeMap<u32, Position>,
    },
    RecordRefused {
        shard: u32,
        position: Position,
        attempts: u32,
        reason: String,
    },
    DeadLettered {
        id: u64,
        letter: DeadLetter,
    },
    DeadLetterRetried {
        id: u64,
    },
    DeadLetterRefused {
        id: u64,
        reason: String,
        at_ms: u64,
    },
    DeadLetterDone {
        id: u64,
        skipped: bool,
    },
    PositionsReset {
        positions: BTreeMap<u32, Position>,
    },
    Deleted {},
}

/// What a member is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) partitions: BTreeMap<u32, Assigned>,
    /// Dead letters of its shards that are to be given out once more.
    pub(crate) retried: BTreeMap<u64, DeadLetter>,
    /// Shards of which a report was refused: somebody else reads them, or they were set to another position.
    pub(crate) fenced: Vec<u32>,
    /// The number under which a refused record was put aside.
    pub(crate) dead: Option<u64>,
}

/// A shard that a member reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assigned {
    pub(crate) epoch: u64,
    pub(crate) committed: Position,
    /// It is to be given up.
    pub(crate) is_recalled: bool,
    /// How often the record behind `committed` was refused, if it was.
    pub(crate) refused: Option<(Position, u32)>,
}

/// Why it says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("there is no such group; `playhouse group list` shows those that there are")]
    NoGroup,
    #[error("{member:?} is no member any more: its lease has run out, or another consumer has joined under this name")]
    NotAMember { member: String },
    #[error("the group was created for other events ({0}); use another group, or delete this one")]
    OtherTerms(String),
    #[error("the group has {0} members, which is all that it can have")]
    TooManyMembers(usize),
    #[error("shard {0} is read by another member, or from another position, by now")]
    Fenced(u32),
    #[error(
        "the group has {0} dead letters, which is all that it can have: retry or skip some; until then the shard waits"
    )]
    DeadLettersFull(usize),
    #[error("there is no dead letter {0} in this group; `playhouse dead-letter list` shows those that there are")]
    NoDeadLetter(u64),
    #[error("the group has {0} members; stop them first")]
    HasMembers(usize),
    #[error("the group does not read shard {0}")]
    NoShard(u32),
    #[error("{0}")]
    Invalid(String),
}

/// The one timer: when the next lease or recall runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Token {
    Leases,
}

impl Group {
    /// Where a group is found; what is wrong with its name.
    pub(crate) fn key(name: &str) -> Result<EntityKey, crate::error::Error> {
        crate::entity::key::check(name, NAME_LEN_MAX)
            .and_then(|()| EntityKey::new(Self::KIND, name))
            .map_err(|error| crate::error::Error::key("group", &error))
    }
}

impl Entity for Group {
    const KIND: &'static str = "consumer-group";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Assignment;
    type Rejection = Rejection;
    type Token = Token;

    fn decide(state: &State, command: Command, context: &Context) -> Result<Decision<Self>, Rejection> {
        decide::decide(state, command, context.now_ms)
    }

    fn evolve(state: &mut State, event: &Event) {
        evolve(state, event);
    }

    fn resume(token: Token, _: Outcome) -> Command {
        match token {
            Token::Leases => Command::Expire,
        }
    }
}

fn evolve(state: &mut State, event: &Event) {
    match event.clone() {
        Event::Created {
            filter,
            attempts_max,
            begin,
        } => {
            let partition = |committed| Partition {
                committed,
                ..Partition::default()
            };
            *state = State {
                exists: true,
                filter,
                attempts_max,
                partitions: begin.into_iter().map(|(shard, at)| (shard, partition(at))).collect(),
                // Epochs and numbers go on: those of a deleted group of the same name must not come again.
                epoch: state.epoch,
                next_dead: state.next_dead.max(1),
                ..State::default()
            };
        }
        Event::MemberJoined {
            member,
            session,
            lease_ms,
            until_ms,
        } => {
            let row = Member {
                session,
                lease_ms,
                until_ms,
            };
            state.members.insert(member, row);
        }
        Event::MemberRenewed { member, until_ms } => {
            if let Some(member) = state.members.get_mut(&member) {
                member.until_ms = until_ms;
            }
        }
        Event::MemberLeft { member, .. } => {
            state.members.remove(&member);
            for partition in state.partitions.values_mut() {
                if partition.owner.as_ref() == Some(&member) {
                    partition.owner = None;
                    partition.give_up_by_ms = None;
                }
            }
        }
        Event::PartitionAssigned { shard, member, epoch } => {
            state.epoch = state.epoch.max(epoch);
            if let Some(partition) = state.partitions.get_mut(&shard) {
                partition.owner = Some(member);
                partition.epoch = epoch;
                partition.give_up_by_ms = None;
            }
        }
        Event::PartitionRecalled { shard, by_ms } => give_up(state, shard, Some(by_ms)),
        Event::PartitionKept { shard } => give_up(state, shard, None),
        Event::PartitionFreed { shard } => {
            give_up(state, shard, None);
            if let Some(partition) = state.partitions.get_mut(&shard) {
                partition.owner = None;
            }
        }
        Event::Committed { positions } => positions.into_iter().for_each(|(shard, at)| commit(state, shard, at)),
        Event::RecordRefused {
            shard,
            position,
            attempts,
            reason,
        } => {
            if let Some(partition) = state.partitions.get_mut(&shard) {
                partition.refused = Some(Refused {
                    position,
                    attempts,
                    reason,
                });
            }
        }
        Event::DeadLettered { id, letter } => {
            commit(state, letter.shard, letter.record.position);
            state.next_dead = id + 1;
            state.dead.insert(id, letter);
        }
        Event::DeadLetterRetried { id } => {
            if let Some(letter) = state.dead.get_mut(&id) {
                letter.is_retried = true;
            }
        }
        Event::DeadLetterRefused { id, reason, at_ms } => {
            if let Some(letter) = state.dead.get_mut(&id) {
                letter.is_retried = false;
                letter.attempts += 1;
                (letter.reason, letter.at_ms) = (reason, at_ms);
            }
        }
        Event::DeadLetterDone { id, .. } => drop(state.dead.remove(&id)),
        Event::PositionsReset { positions } => {
            for (shard, position) in positions {
                if let Some(partition) = state.partitions.get_mut(&shard) {
                    partition.committed = position;
                    partition.refused = None;
                }
            }
        }
        Event::Deleted {} => {
            *state = State {
                epoch: state.epoch,
                next_dead: state.next_dead,
                ..State::default()
            };
        }
    }
}

fn give_up(state: &mut State, shard: u32, by_ms: Option<u64>) {
    if let Some(partition) = state.partitions.get_mut(&shard) {
        partition.give_up_by_ms = by_ms;
    }
}

fn commit(state: &mut State, shard: u32, position: Position) {
    if let Some(partition) = state.partitions.get_mut(&shard) {
        partition.committed = partition.committed.max(position);
        if partition
            .refused
            .as_ref()
            .is_some_and(|refused| refused.position <= position)
        {
            partition.refused = None;
        }
    }
}
