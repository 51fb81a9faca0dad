//! The rules of a consumer group.

use std::collections::BTreeMap;

use super::{
    ATTEMPTS_MAX, Assigned, Assignment, Command, DEAD_LETTERS_LEN_MAX, DeadLetter, Done, Event, Group, LEASE_MS_MAX,
    LEASE_MS_MIN, MEMBERS_LEN_MAX, Member, NAME_LEN_MAX, Position, REASON_LEN_MAX, RecordRef, Rejection, State, Terms,
    Token, evolve, plan::plan,
};
use crate::entity::{Decision, Effect, key};

/// The name of the timer.
const LEASES: &str = "leases";

pub(super) fn decide(state: &State, command: Command, now_ms: u64) -> Result<Decision<Group>, Rejection> {
    if !state.exists && !matches!(command, Command::Join { .. } | Command::Expire) {
        return Err(Rejection::NoGroup);
    }
    let mut group = Deciding {
        state: state.clone(),
        events: Vec::new(),
        now_ms,
        members_changed: false,
    };
    match command {
        Command::Join {
            member,
            session,
            lease_ms,
            terms,
        } => {
            group.join(&member, session, lease_ms, terms)?;
            Ok(group.answer(Some(&member)))
        }
        Command::Report {
            member,
            session,
            done,
            given_up,
        } => {
            group.renew(&member, session)?;
            let fenced = group.commit(&member, done);
            for shard in given_up {
                let partition = &group.state.partitions.get(&shard);
                if partition.is_some_and(|p| p.owner.as_ref() == Some(&member) && p.give_up_by_ms.is_some()) {
                    group.put(Event::PartitionFreed { shard });
                    group.members_changed = true;
                }
            }
            let mut decision = group.answer(Some(&member));
            decision.reply.fenced = fenced;
            Ok(decision)
        }
        Command::Leave { member, session, done } => {
            group.member(&member, session)?;
            group.commit(&member, done);
            group.put(Event::MemberLeft { member, expired: false });
            group.members_changed = true;
            Ok(group.answer(None))
        }
        Command::Refuse {
            member,
            session,
            shard,
            epoch,
            record,
            reason,
        } => {
            group.renew(&member, session)?;
            let dead = group.refuse(&member, shard, epoch, record, reason)?;
            let mut decision = group.answer(Some(&member));
            decision.reply.dead = dead;
            Ok(decision)
        }
        Command::Settle {
            member,
            session,
            id,
            refused,
        } => {
            group.renew(&member, session)?;
            group.letter(id)?;
            group.put(match refused {
                None => Event::DeadLetterDone { id, skipped: false },
                Some(reason) => Event::DeadLetterRefused {
                    id,
                    reason: cut(reason),
                    at_ms: now_ms,
                },
            });
            Ok(group.answer(Some(&member)))
        }
        Command::Expire => {
            group.expire();
            Ok(group.answer(None))
        }
        Command::Reset { positions } => {
            if let Some(shard) = positions.keys().find(|shard| !state.partitions.contains_key(shard)) {
                return Err(Rejection::NoShard(*shard));
            }
            group.put(Event::PositionsReset {
                positions: positions.clone(),
            });
            for shard in positions.keys() {
                group.assign_again(*shard);
            }
            Ok(group.answer(None))
        }
        Command::Delete => {
            if !state.members.is_empty() {
                return Err(Rejection::HasMembers(state.members.len()));
            }
            group.put(Event::Deleted {});
            Ok(group.answer(None))
        }
        Command::RetryDead { id } => {
            if !group.letter(id)?.is_retried {
                group.put(Event::DeadLetterRetried { id });
            }
            Ok(group.answer(None))
        }
        Command::SkipDead { id } => {
            group.letter(id)?;
            group.put(Event::DeadLetterDone { id, skipped: true });
            Ok(group.answer(None))
        }
    }
}

/// A decision that comes about event by event.
struct Deciding {
    /// As it is after the events.
    state: State,
    events: Vec<Event>,
    now_ms: u64,
    /// Who reads what is to be planned anew.
    members_changed: bool,
}

impl Deciding {
    fn put(&mut self, event: Event) {
        evolve(&mut self.state, &event);
        self.events.push(event);
    }

    fn member(&self, member: &str, session: u64) -> Result<&Member, Rejection> {
        let row = self.state.members.get(member).filter(|row| row.session == session);
        row.ok_or_else(|| Rejection::NotAMember {
            member: member.to_owned(),
        })
    }

    fn letter(&self, id: u64) -> Result<&DeadLetter, Rejection> {
        self.state.dead.get(&id).ok_or(Rejection::NoDeadLetter(id))
    }

    fn join(&mut self, member: &str, session: u64, lease_ms: u64, terms: Terms) -> Result<(), Rejection> {
        key::check(member, NAME_LEN_MAX).map_err(|error| Rejection::Invalid(format!("the member's name {error}")))?;
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms) {
            return Err(Rejection::Invalid(format!(
                "a lease of {lease_ms} ms cannot be: it takes from {LEASE_MS_MIN} to {LEASE_MS_MAX}"
            )));
        }
        if !self.state.exists {
            self.create(terms)?;
        } else if let Some(other) = differs(&self.state, &terms) {
            return Err(Rejection::OtherTerms(other));
        }
        let before = self.state.members.get(member);
        if before.is_some_and(|before| before.session == session) {
            return self.renew(member, session);
        }
        if before.is_none() && self.state.members.len() >= MEMBERS_LEN_MAX {
            return Err(Rejection::TooManyMembers(MEMBERS_LEN_MAX));
        }
        self.put(Event::MemberJoined {
            member: member.to_owned(),
            session,
            lease_ms,
            until_ms: self.now_ms + lease_ms,
        });
        // Whoever joined before under this name is out: what it read is read under a new epoch.
        let of_member = |(_, partition): &(&u32, &super::Partition)| partition.owner.as_deref() == Some(member);
        let mine: Vec<u32> = self
            .state
            .partitions
            .iter()
            .filter(of_member)
            .map(|(shard, _)| *shard)
            .collect();
        for shard in mine {
            self.assign_again(shard);
        }
        self.members_changed = true;
        Ok(())
    }

    fn create(&mut self, terms: Terms) -> Result<(), Rejection> {
        let begin = terms.begin.ok_or(Rejection::NoGroup)?;
        if !(1..=ATTEMPTS_MAX).contains(&terms.attempts_max) {
            return Err(Rejection::Invalid(format!(
                "attempts_max is {}; must be between 1 and {ATTEMPTS_MAX}",
                terms.attempts_max
            )));
        }
        self.put(Event::Created {
            filter: terms.filter,
            attempts_max: terms.attempts_max,
            begin,
        });
        Ok(())
    }

    /// The same owner under a new epoch.
    fn assign_again(&mut self, shard: u32) {
        let owner = self
            .state
            .partitions
            .get(&shard)
            .and_then(|partition| partition.owner.clone());
        if let Some(member) = owner {
            self.assign(shard, member);
        }
    }

    fn assign(&mut self, shard: u32, member: String) {
        let epoch = self.state.epoch + 1;
        self.put(Event::PartitionAssigned { shard, member, epoch });
    }

    /// The member lives. A lease that has most of its time left is not written anew.
    fn renew(&mut self, member: &str, session: u64) -> Result<(), Rejection> {
        let row = self.member(member, session)?;
        let until_ms = self.now_ms + row.lease_ms;
        if row.until_ms.saturating_sub(self.now_ms) < row.lease_ms * 3 / 4 {
            self.put(Event::MemberRenewed {
                member: member.to_owned(),
                until_ms,
            });
        }
        Ok(())
    }

    /// Takes what is done; says of which shards it is refused.
    fn commit(&mut self, member: &str, done: BTreeMap<u32, Done>) -> Vec<u32> {
        let mut fenced = Vec::new();
        let mut positions: BTreeMap<u32, Position> = BTreeMap::new();
        for (shard, Done { epoch, position }) in done {
            match self.state.partitions.get(&shard) {
                Some(partition) if partition.owner.as_deref() == Some(member) && partition.epoch == epoch => {
                    if position > partition.committed {
                        positions.insert(shard, position);
                    }
                }
                _ => fenced.push(shard),
            }
        }
        if !positions.is_empty() {
            self.put(Event::Committed { positions });
        }
        fenced
    }

    fn refuse(
        &mut self,
        member: &str,
        shard: u32,
        epoch: u64,
        record: RecordRef,
        reason: String,
    ) -> Result<Option<u64>, Rejection> {
        let partition = self.state.partitions.get(&shard);
        let partition = partition.filter(|p| p.owner.as_deref() == Some(member) && p.epoch == epoch);
        let partition = partition.ok_or(Rejection::Fenced(shard))?;
        let (position, reason) = (record.position, cut(reason));
        if position <= partition.committed {
            return Ok(None);
        }
        let before = partition
            .refused
            .as_ref()
            .filter(|refused| refused.position == position);
        let attempts = before.map_or(0, |refused| refused.attempts) + 1;
        let committed = partition.committed;
        if attempts < self.state.attempts_max {
            if position.before() > committed {
                self.put(Event::Committed {
                    positions: BTreeMap::from([(shard, position.before())]),
                });
            }
            self.put(Event::RecordRefused {
                shard,
                position,
                attempts,
                reason,
            });
            return Ok(None);
        }
        if self.state.dead.len() >= DEAD_LETTERS_LEN_MAX {
            return Err(Rejection::DeadLettersFull(DEAD_LETTERS_LEN_MAX));
        }
        let id = self.state.next_dead;
        let letter = DeadLetter {
            shard,
            record,
            reason,
            attempts,
            at_ms: self.now_ms,
            is_retried: false,
        };
        self.put(Event::DeadLettered { id, letter });
        Ok(Some(id))
    }

    fn expire(&mut self) {
        let now_ms = self.now_ms;
        let gone = self
            .state
            .members
            .iter()
            .filter(|(_, member)| member.until_ms <= now_ms);
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for member in gone {
            self.put(Event::MemberLeft { member, expired: true });
        }
        let late = |by_ms: Option<u64>| by_ms.is_some_and(|by_ms| by_ms <= now_ms);
        let overdue = self
            .state
            .partitions
            .iter()
            .filter(|(_, partition)| late(partition.give_up_by_ms));
        let overdue: Vec<u32> = overdue.map(|(shard, _)| *shard).collect();
        for shard in overdue {
            self.put(Event::PartitionFreed { shard });
        }
        self.members_changed = true;
    }

    /// Gives free shards to who is to read them, and asks for those that others are to read.
    fn rebalance(&mut self) {
        let members: Vec<&str> = self.state.members.keys().map(|name| &**name).collect();
        let owners = self.state.partitions.iter();
        let owners = owners
            .map(|(shard, partition)| (*shard, partition.owner.as_deref()))
            .collect();
        for (shard, target) in plan(&members, &owners) {
            let partition = &self.state.partitions[&shard];
            match (&partition.owner, partition.give_up_by_ms) {
                (None, _) => self.assign(shard, target),
                (Some(owner), Some(_)) if *owner == target => self.put(Event::PartitionKept { shard }),
                (Some(owner), None) if *owner != target => {
                    let patience = self.state.members.get(owner).map_or(0, |owner| owner.lease_ms);
                    let by_ms = self.now_ms + patience;
                    self.put(Event::PartitionRecalled { shard, by_ms });
                }
                _ => {}
            }
        }
    }

    /// The decision, with what a member is told.
    fn answer(mut self, member: Option<&str>) -> Decision<Group> {
        let mut effects = Vec::new();
        if self.members_changed {
            self.rebalance();
            let leases = self.state.members.values().map(|member| member.until_ms);
            let recalls = self
                .state
                .partitions
                .values()
                .filter_map(|partition| partition.give_up_by_ms);
            effects.push(match leases.chain(recalls).min() {
                Some(due_ms) => Effect::set_timer(LEASES, due_ms.max(self.now_ms + 1), Token::Leases),
                None => Effect::cancel_timer(LEASES),
            });
        }
        let reply = member.map(|member| told(&self.state, member)).unwrap_or_default();
        Decision {
            events: self.events,
            reply,
            effects,
        }
    }
}

fn told(state: &State, member: &str) -> Assignment {
    let is_mine = |shard: u32| {
        state
            .partitions
            .get(&shard)
            .is_some_and(|p| p.owner.as_deref() == Some(member))
    };
    let partitions = state.partitions.iter().filter(|(shard, _)| is_mine(**shard));
    let assigned = |partition: &super::Partition| Assigned {
        epoch: partition.epoch,
        committed: partition.committed,
        is_recalled: partition.give_up_by_ms.is_some(),
        refused: partition
            .refused
            .as_ref()
            .map(|refused| (refused.position, refused.attempts)),
    };
    let retried = state
        .dead
        .iter()
        .filter(|(_, letter)| letter.is_retried && is_mine(letter.shard));
    Assignment {
        partitions: partitions
            .map(|(shard, partition)| (*shard, assigned(partition)))
            .collect(),
        retried: retried.map(|(id, letter)| (*id, letter.clone())).collect(),
        fenced: Vec::new(),
        dead: None,
    }
}

/// In what the group differs from what a consumer wants.
fn differs(state: &State, terms: &Terms) -> Option<String> {
    if state.filter != terms.filter {
        return Some(format!("{}, not {}", words(&state.filter), words(&terms.filter)));
    }
    if state.attempts_max != terms.attempts_max {
        return Some(format!("{} attempts, not {}", state.attempts_max, terms.attempts_max));
    }
    None
}

fn words(filter: &super::FeedFilter) -> String {
    let kinds = if filter.kinds.is_empty() {
        "all kinds".to_owned()
    } else {
        filter.kinds.join(", ")
    };
    filter.entity.as_ref().map_or(kinds, ToString::to_string)
}

/// At most so much of a text.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_LEN_MAX));
    text
}
