//! How a replica learns that it has everything: it asks the leader, which answers with its commit position once a majority
//! has confirmed that it leads. Whoever has applied that position has all that was committed when the question was asked.
//!
//! No clock is compared with another one: the replica remembers, by its own, when it asked.

use std::collections::{BTreeMap, VecDeque};

use raft::RawNode;

use super::{driver::Output, group_log::GroupLog, members::RaftId};

/// Questions of one replica that may be under way; whoever comes meanwhile waits for the next one.
const QUESTIONS_MAX: usize = 2;
/// Bytes of a question's name: the replica, its process, and a number.
pub(super) const QUESTION_LEN: usize = 24;

/// The questions of one replica.
pub(super) struct CatchUp {
    replica: RaftId,
    life: u64,
    /// A question without an answer is given up after so many ticks: messages get lost.
    ticks_max: usize,
    waiting: Vec<u64>,
    asked: BTreeMap<u64, Asked>,
    /// What is to be applied first, and who waits for it.
    answered: VecDeque<(u64, Vec<u64>)>,
    next: u64,
}

struct Asked {
    ticks: usize,
    tickets: Vec<u64>,
}

impl CatchUp {
    pub(super) fn new(replica: RaftId, life: u64, ticks_max: usize) -> Self {
        Self {
            replica,
            life,
            ticks_max,
            waiting: Vec::new(),
            asked: BTreeMap::new(),
            answered: VecDeque::new(),
            next: 1,
        }
    }

    pub(super) fn enqueue(&mut self, ticket: u64) {
        self.waiting.push(ticket);
    }

    /// Whether [`Self::ask`] has something to do.
    pub(super) fn can_ask(&self) -> bool {
        !self.waiting.is_empty() && self.asked.len() < QUESTIONS_MAX
    }

    /// Asks for everybody who waits.
    pub(super) fn ask(&mut self, raw: &mut RawNode<GroupLog>, output: &mut Output) {
        if !self.can_ask() {
            return;
        }
        let tickets = std::mem::take(&mut self.waiting);
        if raw.raft.leader_id == 0 {
            return refuse(tickets, output);
        }
        let number = self.next;
        self.next += 1;
        raw.read_index(self.question(number));
        self.asked.insert(number, Asked { ticks: 0, tickets });
    }

    /// A name that no other question has: the leader takes two of one name for the same, and would answer a later one with
    /// what it knew at the time of the first.
    fn question(&self, number: u64) -> Vec<u8> {
        [self.replica, self.life, number].map(u64::to_be_bytes).concat()
    }

    /// Takes an answer; says whether it is one to a question of this kind.
    pub(super) fn answered(&mut self, question: &[u8], index: u64) -> bool {
        let Some((of_whom, number)) = question.split_last_chunk::<8>() else {
            return false;
        };
        if of_whom != [self.replica, self.life].map(u64::to_be_bytes).concat() {
            return question.len() == QUESTION_LEN;
        }
        if let Some(asked) = self.asked.remove(&u64::from_be_bytes(*number)) {
            self.answered.push_back((index, asked.tickets));
        }
        true
    }

    /// So much is applied now.
    pub(super) fn applied(&mut self, applied: u64, output: &mut Output) {
        self.answered.retain_mut(|(index, tickets)| {
            let is_due = *index <= applied;
            if is_due {
                output.reads.extend(tickets.drain(..).map(|ticket| (ticket, true)));
            }
            !is_due
        });
    }

    /// The replica is given up.
    pub(super) fn close(self, output: &mut Output) {
        refuse(self.waiting, output);
        self.asked.into_values().for_each(|asked| refuse(asked.tickets, output));
        self.answered
            .into_iter()
            .for_each(|(_, tickets)| refuse(tickets, output));
    }

    pub(super) fn tick(&mut self, output: &mut Output) {
        let ticks_max = self.ticks_max;
        let given_up = self.asked.extract_if(.., |_, asked| {
            asked.ticks += 1;
            asked.ticks > ticks_max
        });
        given_up.for_each(|(_, asked)| refuse(asked.tickets, output));
    }
}

fn refuse(tickets: Vec<u64>, output: &mut Output) {
    output.reads.extend(tickets.into_iter().map(|ticket| (ticket, false)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(life: u64) -> CatchUp {
        let mut catch_up = CatchUp::new(7, life, 2);
        catch_up.asked.insert(
            1,
            Asked {
                ticks: 0,
                tickets: vec![5],
            },
        );
        catch_up
    }

    #[test]
    fn whoever_waits_is_told_when_the_answered_position_is_applied() {
        let (mut catch_up, mut output) = (asking(1), Output::default());
        let question = catch_up.question(1);
        assert_eq!(question.len(), QUESTION_LEN);
        assert!(catch_up.answered(&question, 10));
        catch_up.applied(9, &mut output);
        assert_eq!(output.reads, []);
        catch_up.applied(10, &mut output);
        assert_eq!(output.reads, [(5, true)]);
    }

    /// The process before this one asked with the same number; its answer may be of long ago.
    #[test]
    fn an_answer_to_an_earlier_process_counts_for_nothing() {
        let (mut catch_up, mut output) = (asking(2), Output::default());
        assert!(catch_up.answered(&asking(1).question(1), 10));
        assert!(!catch_up.answered(&[0; 8], 10), "a leader's own round");
        catch_up.applied(100, &mut output);
        assert_eq!(output.reads, []);
        for _ in 0..3 {
            catch_up.tick(&mut output);
        }
        assert_eq!(output.reads, [(5, false)]);
    }
}
