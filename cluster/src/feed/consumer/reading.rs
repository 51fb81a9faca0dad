//! One shard as a member reads it: what waits, what is out, what is done.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::feed::{
    FeedRecord, Position,
    follow::Follower,
    group::{Assigned, Done, RecordRef},
};

/// A shard that a member reads.
pub(super) struct Reading {
    pub(super) epoch: u64,
    pub(super) is_recalled: bool,
    /// The record that comes next, if it was refused: how often.
    pub(super) refused: Option<(Position, u32)>,
    /// Read and not handed out yet.
    pub(super) waiting: VecDeque<FeedRecord>,
    /// Handed out and not done.
    out: VecDeque<FeedRecord>,
    /// Here while no page is on its way.
    pub(super) follower: Option<Follower>,
    done: Position,
    reported: Position,
    /// Some of what was handed out is done and not reported.
    is_news: bool,
    /// Nothing is handed out before this.
    resumes: Option<Instant>,
}

/// What is to be done next.
pub(super) enum Out {
    /// Hand these out, for so many times.
    Batch(Vec<FeedRecord>, u32),
    /// Read on.
    Read(Follower),
    Nothing,
}

impl Reading {
    pub(super) fn new(assigned: &Assigned) -> Self {
        Self {
            epoch: assigned.epoch,
            is_recalled: assigned.is_recalled,
            refused: assigned.refused,
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            follower: None,
            done: assigned.committed,
            reported: assigned.committed,
            is_news: false,
            resumes: None,
        }
    }

    /// What comes next of this shard, with at most so many events unless one record alone has more.
    pub(super) fn next_batch(&mut self, events_max: usize, now: Instant) -> Out {
        if !self.out.is_empty() || self.is_recalled || self.resumes.is_some_and(|at| at > now) {
            return Out::Nothing;
        }
        self.resumes = None;
        let mut events = 0;
        while let Some(next) = self.waiting.front()
            && (events == 0 || events + next.events.len() <= events_max)
        {
            events += next.events.len();
            self.out.extend(self.waiting.pop_front());
        }
        if let Some(first) = self.out.front() {
            let before = self.refused.filter(|(at, _)| *at == first.position);
            let attempt = before.map_or(0, |(_, attempts)| attempts) + 1;
            return Out::Batch(self.out.iter().cloned().collect(), attempt);
        }
        match self.follower.take() {
            Some(follower) => {
                // What nobody wanted is done, too.
                self.done = self.done.max(follower.after);
                Out::Read(follower)
            }
            None => Out::Nothing,
        }
    }

    /// Everything up to here is done; says whether that is all that was out.
    pub(super) fn done(&mut self, position: Position) -> bool {
        let before = self.out.len();
        while let Some(record) = self.out.pop_front_if(|record| record.position <= position) {
            self.done = self.done.max(record.position);
            self.is_news = true;
        }
        before > 0 && self.out.is_empty()
    }

    /// The record at this position is refused: it comes again, with all that was handed out behind it. `None` if it is not out.
    pub(super) fn refuse(&mut self, position: Position) -> Option<RecordRef> {
        let record = self.out.iter().find(|record| record.position == position)?;
        let named = RecordRef {
            position,
            entity: record.entity.clone(),
            seq: record.seq,
            first_version: record.first_version,
            events: record.events.len() as u32,
        };
        self.done(position.before());
        while let Some(record) = self.out.pop_back() {
            self.waiting.push_front(record);
        }
        Some(named)
    }

    /// The next record was put aside.
    pub(super) fn put_aside(&mut self, position: Position) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.position <= position) {
            self.done = self.done.max(record.position);
        }
        self.resumes = self.resumes.map(|_| Instant::now());
    }

    pub(super) fn pause(&mut self, time: Duration) {
        self.resumes = Some(Instant::now() + time);
    }

    /// It was waiting for this time.
    pub(super) fn is_resuming(&self, now: Instant) -> bool {
        self.resumes.is_some_and(|at| at <= now)
    }

    /// How far it is done, where the group does not know that.
    pub(super) fn unreported(&self) -> Option<Done> {
        (self.done > self.reported).then_some(Done {
            epoch: self.epoch,
            position: self.done,
        })
    }

    pub(super) fn reported(&mut self, position: Position) {
        self.reported = self.reported.max(position);
        self.is_news = false;
    }

    /// Whether nothing of it is out, and it was asked for.
    pub(super) fn can_be_given_up(&self) -> bool {
        self.is_recalled && self.out.is_empty()
    }

    /// Whether there is something to report now: records that are done, or that it is given up. That nobody wanted some is told
    /// with the next report that there is.
    pub(super) fn has_news(&self) -> bool {
        self.can_be_given_up() || self.is_news
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        entity::{EntityKey, RequestId},
        trace::TraceContext,
    };

    fn at(index: u64) -> Position {
        Position { index, place: 0 }
    }

    fn reading(records: std::ops::RangeInclusive<u64>) -> Reading {
        let mut reading = Reading::new(&Assigned {
            epoch: 1,
            committed: Position::BEGINNING,
            is_recalled: false,
            refused: None,
        });
        reading.waiting.extend(records.map(|n| FeedRecord {
            position: at(n),
            entity: EntityKey::new("order", "1").expect("a key"),
            seq: n,
            first_version: n * 2 - 1,
            at_ms: 0,
            trace: TraceContext::default(),
            request_id: RequestId::new("r").expect("an id"),
            events: vec![Bytes::new(); 2],
        }));
        reading
    }

    fn out(reading: &mut Reading, later: Duration) -> Option<(Vec<u64>, u32)> {
        match reading.next_batch(4, Instant::now() + later) {
            Out::Batch(records, attempt) => Some((records.iter().map(|record| record.seq).collect(), attempt)),
            Out::Read(_) | Out::Nothing => None,
        }
    }

    #[test]
    fn one_batch_is_out_at_a_time() {
        let mut reading = reading(1..=5);
        assert_eq!(out(&mut reading, Duration::ZERO), Some((vec![1, 2], 1)));
        assert_eq!(out(&mut reading, Duration::ZERO), None);
        assert!(!reading.done(at(1)), "a part of it");
        assert_eq!(reading.unreported().map(|done| done.position), Some(at(1)));
        assert!(reading.done(at(2)), "all of it");
        assert!(!reading.done(at(2)), "said again");
        assert_eq!(out(&mut reading, Duration::ZERO), Some((vec![3, 4], 1)));
        reading.is_recalled = true;
        assert!(!reading.can_be_given_up(), "some of it is out");
        assert!(reading.done(at(4)) && reading.can_be_given_up());
        assert_eq!(
            out(&mut reading, Duration::ZERO),
            None,
            "what is recalled is read no further"
        );
    }

    #[test]
    fn what_is_refused_comes_again_first_after_a_while() {
        let mut reading = reading(1..=5);
        out(&mut reading, Duration::ZERO);
        let named = reading.refuse(at(2)).expect("it is out");
        assert_eq!((named.seq, named.first_version, named.events), (2, 3, 2));
        assert_eq!(reading.unreported().map(|done| done.position), Some(at(1)));
        assert_eq!(reading.refuse(at(2)), None, "it is not out any more");
        reading.pause(Duration::from_mins(1));
        reading.refused = Some((at(2), 1));
        assert_eq!(out(&mut reading, Duration::ZERO), None);
        assert_eq!(out(&mut reading, Duration::from_hours(1)), Some((vec![2, 3], 2)));
        reading.refuse(at(2));
        reading.put_aside(at(2));
        assert_eq!(out(&mut reading, Duration::from_hours(1)), Some((vec![3, 4], 1)));
    }
}
