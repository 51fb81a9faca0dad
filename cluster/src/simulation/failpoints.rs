//! Crashes at single steps: before and after each thing that a node makes durable. A run arms a few of them; each strikes when its
//! step has come a drawn number of times, and is armed anew.

use super::{rng::Rng, world::World};
use crate::{config::NodeId, replication::driver::Write};

/// Something that is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Entries are synced in the log.
    Entries,
    /// A term or a vote.
    Vote,
    /// The log is cut behind a checkpoint.
    Cut,
    /// The log goes on from a fetched snapshot.
    Install,
    /// A group that has left is taken out of the log.
    Remove,
    /// A checkpoint's rows are written.
    CheckpointRows,
    /// The state store is synced.
    CheckpointSync,
    /// The driver is told of a checkpoint.
    CheckpointEnd,
    /// A snapshot's file is there for peers.
    SnapshotFile,
    /// Some rows of a fetched snapshot are written.
    SnapshotRows,
    /// All rows of a fetched snapshot are synced.
    SnapshotSync,
    /// An old generation of a group's state is dropped.
    GenerationDropped,
    /// A new replica is begun.
    ReplicaBegun,
    /// The identity says that a replica is gone.
    ReplicaClosed,
}

/// On which side of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// All of them, with the names under which crashes are counted.
pub(super) const POINTS: [(Step, &str, &str); 14] = [
    (
        Step::Entries,
        "crash before the sync of entries",
        "crash after the sync of entries",
    ),
    (
        Step::Vote,
        "crash before the sync of a vote",
        "crash after the sync of a vote",
    ),
    (Step::Cut, "crash before the log is cut", "crash after the log is cut"),
    (
        Step::Install,
        "crash before a snapshot is installed",
        "crash after a snapshot is installed",
    ),
    (
        Step::Remove,
        "crash before a group leaves the log",
        "crash after a group leaves the log",
    ),
    (
        Step::CheckpointRows,
        "crash before a checkpoint's rows",
        "crash after a checkpoint's rows",
    ),
    (
        Step::CheckpointSync,
        "crash before a checkpoint's sync",
        "crash after a checkpoint's sync",
    ),
    (
        Step::CheckpointEnd,
        "crash before a checkpoint counts",
        "crash after a checkpoint counts",
    ),
    (
        Step::SnapshotFile,
        "crash before a snapshot's file",
        "crash after a snapshot's file",
    ),
    (
        Step::SnapshotRows,
        "crash before rows of a snapshot",
        "crash after rows of a snapshot",
    ),
    (
        Step::SnapshotSync,
        "crash before a snapshot's sync",
        "crash after a snapshot's sync",
    ),
    (
        Step::GenerationDropped,
        "crash before an old state goes",
        "crash after an old state goes",
    ),
    (
        Step::ReplicaBegun,
        "crash before a replica begins",
        "crash after a replica begins",
    ),
    (
        Step::ReplicaClosed,
        "crash before a replica is closed",
        "crash after a replica is closed",
    ),
];

/// The armed ones: which, on which side, and how often the step is still let through.
#[derive(Debug, Default)]
pub(super) struct Failpoints {
    armed: Vec<(Step, Side, u64)>,
}

/// Failpoints of one run, at most.
const ARMED_MAX: u64 = 3;

impl Failpoints {
    pub(super) fn draw(rng: &mut Rng, are_off: bool) -> Self {
        let count = rng.below(ARMED_MAX + 1);
        let armed = (0..count)
            .map(|_| {
                let (step, ..) = rng.pick(&POINTS);
                let side = rng.pick(&[Side::Before, Side::After]);
                (step, side, countdown(rng, step))
            })
            .collect();
        Self {
            armed: if are_off { Vec::new() } else { armed },
        }
    }

    /// Whether one strikes here and now.
    fn strikes(&mut self, rng: &mut Rng, step: Step, side: Side) -> bool {
        let found = self.armed.iter_mut().find(|(of, on, _)| (*of, *on) == (step, side));
        let Some((_, _, left)) = found else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        *left = countdown(rng, step);
        true
    }
}

/// How often a step is let through: the log is synced all the time, replicas are begun seldom.
fn countdown(rng: &mut Rng, step: Step) -> u64 {
    let most = match step {
        Step::Entries => 400,
        Step::CheckpointRows | Step::CheckpointSync | Step::CheckpointEnd | Step::Cut => 40,
        Step::Vote | Step::SnapshotRows => 15,
        _ => 3,
    };
    rng.below(most)
}

/// What a batch of writes does, as the rarest thing in it.
pub(super) fn step_of(writes: &[Write]) -> Step {
    let parts = || writes.iter().flat_map(|write| write.groups.values());
    if parts().any(|part| part.remove) {
        Step::Remove
    } else if parts().any(|part| part.install.is_some()) {
        Step::Install
    } else if parts().any(|part| part.cut.is_some()) {
        Step::Cut
    } else if parts().all(|part| part.entries.is_empty()) {
        Step::Vote
    } else {
        Step::Entries
    }
}

impl World {
    /// Whether the node has crashed at this step, just now.
    pub(super) fn crashes_at(&mut self, node: NodeId, step: Step, side: Side) -> bool {
        let Some(weather) = self.weather.as_mut().filter(|_| !self.calm) else {
            return false;
        };
        if !weather.failpoints.strikes(&mut weather.rng, step, side) {
            return false;
        }
        let found = POINTS.iter().find(|(of, ..)| *of == step);
        let (_, before, after) = found.expect("the table has every step");
        let name = if side == Side::Before { *before } else { *after };
        self.tell(format!("node {node}: {name}"));
        self.count(name, 1);
        self.crash(node);
        self.come_back(node);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_names_and_no_two_share_one() {
        let names: std::collections::BTreeSet<&str> =
            POINTS.iter().flat_map(|(_, before, after)| [*before, *after]).collect();
        assert_eq!(names.len(), 2 * POINTS.len());
    }

    #[test]
    fn an_armed_failpoint_strikes_when_its_step_has_come_often_enough() {
        let mut rng = Rng::new(1);
        let mut points = Failpoints {
            armed: vec![(Step::Cut, Side::After, 2)],
        };
        let mut strike = |step, side| points.strikes(&mut rng, step, side);
        assert!(!strike(Step::Cut, Side::Before) && !strike(Step::Vote, Side::After));
        let struck = [(); 3].map(|()| strike(Step::Cut, Side::After));
        assert_eq!(struck, [false, false, true]);
    }
}
