//! A replica that needs a snapshot learns of it, whatever is lost on the way.

use bytes::Bytes;
use proto::cluster::v1 as pb;

use super::{
    Applied, Driver, Input, Members, Output, Task,
    driver::SnapshotPosition,
    fresh::{GROUP, driver_of_three},
    raft_id,
};
use crate::config::NodeId;

const AWAY: NodeId = 3;
/// Ticks within which all of a step has happened: elections, and what is said again.
const TICKS: usize = 100;

/// Three replicas of a group, of which the first leads, and the last has been away for all of its log.
struct Replicas {
    drivers: Vec<Driver>,
    applied: u64,
    term: u64,
}

impl Replicas {
    fn new() -> Self {
        Self {
            drivers: (1..=AWAY).map(|node| driver_of_three(node, node == 1)).collect(),
            applied: 0,
            term: 0,
        }
    }

    /// Gives a node its inputs, and carries out what comes of it. Says which messages it sends and what work it asks for.
    fn step(&mut self, node: NodeId, inputs: Vec<Input>) -> Output {
        let mut output = self.drivers[usize::from(node) - 1].step(inputs);
        if let Some(write) = output.write.take() {
            let after = self.step(node, vec![Input::Written(write.number)]);
            output.send.extend(after.send);
            output.applied.extend(after.applied);
            output.tasks.extend(after.tasks);
            output.roles.extend(after.roles);
        }
        for role in output.roles.iter().filter(|role| role.serving && node == 1) {
            self.term = role.term;
        }
        for applied in &output.applied {
            if let Applied::Entry { index, .. } = applied
                && node == 1
            {
                self.applied = *index;
            }
        }
        output
    }

    /// Ticks pass until a node is asked to do something; only messages that `passes` lets through arrive.
    fn until_task(
        &mut self,
        of: NodeId,
        passes: impl Fn(NodeId, &pb::RaftMessage) -> bool,
        is_it: impl Fn(&Task) -> bool,
    ) -> Option<Task> {
        for _ in 0..TICKS {
            let mut due: Vec<(NodeId, Input)> = (1..=AWAY).map(|node| (node, Input::Tick)).collect();
            while let Some((node, input)) = due.pop() {
                let output = self.step(node, vec![input]);
                if let Some(task) = output.tasks.into_iter().find(|task| node == of && is_it(task)) {
                    return Some(task);
                }
                for (to, message) in output.send {
                    if passes(to, message.message.as_ref().expect("of a group")) {
                        due.push((to, Input::Messages(vec![message])));
                    }
                }
            }
        }
        None
    }
}

fn is_fetch(task: &Task) -> bool {
    matches!(task, Task::FetchSnapshot { .. })
}

/// The leader has cut its log, and has a snapshot for the one that was away.
fn with_a_snapshot() -> Replicas {
    let mut replicas = Replicas::new();
    let without_away = |to: NodeId, message: &pb::RaftMessage| to != AWAY && message.from != raft_id(AWAY, 0);
    replicas.until_task(1, without_away, |_| false);
    assert!(replicas.term > 0, "the first leads");
    for ticket in 0..40 {
        let propose = Input::Propose {
            group: GROUP,
            term: replicas.term,
            record: Bytes::from_static(b"record"),
            ticket,
        };
        let output = replicas.step(1, vec![propose]);
        for (to, message) in output.send.into_iter().filter(|(to, _)| *to != AWAY) {
            replicas.step(to, vec![Input::Messages(vec![message])]);
        }
    }
    replicas.until_task(1, without_away, |_| false);
    let (index, term) = (replicas.applied, replicas.term);
    assert!(index > 3, "{index}");
    replicas.step(
        1,
        vec![Input::Checkpointed {
            group: GROUP,
            index,
            keep_bytes: 0,
        }],
    );
    let wanted = replicas.until_task(1, |_, _| true, |task| matches!(task, Task::BuildSnapshot { .. }));
    assert!(wanted.is_some(), "no snapshot was wanted");
    let members = Members::of_voters((1..=AWAY).map(|node| raft_id(node, 0)).collect());
    let position = SnapshotPosition { index, term, members };
    replicas.step(1, vec![Input::SnapshotBuilt { group: GROUP, position }]);
    replicas
}

#[test]
fn a_replica_whose_failed_fetch_nobody_heard_of_is_told_again() {
    let mut replicas = with_a_snapshot();
    assert!(replicas.until_task(AWAY, |_, _| true, is_fetch).is_some());
    // What this node sends of it is lost.
    replicas.step(AWAY, vec![Input::FetchFailed { group: GROUP }]);
    assert!(
        replicas.until_task(AWAY, |_, _| true, is_fetch).is_some(),
        "it waits for ever"
    );
}

#[test]
fn a_replica_is_told_again_of_a_snapshot_that_it_never_heard_of() {
    let mut replicas = with_a_snapshot();
    let without_news = |_: NodeId, message: &pb::RaftMessage| message.snapshot.is_none();
    assert!(replicas.until_task(AWAY, without_news, is_fetch).is_none());
    assert!(
        replicas.until_task(AWAY, |_, _| true, is_fetch).is_some(),
        "it waits for ever"
    );
}
