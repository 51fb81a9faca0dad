//! Seeds that have found bugs, by what they found. A change of what the simulation draws makes other runs of them: then
//! they are runs like all others, and what they guarded is still among what the sets reach.

use super::{flaws::Flaws, run};

fn hold(seeds: &[u64]) {
    for seed in seeds {
        assert_eq!(run(*seed, Flaws::default(), false).violation, None, "seed {seed}");
    }
}

/// A node lost its disk and came back empty under a new name. The leader's heartbeat for the old replica told it of commits
/// that it never had, and the library panicked.
#[test]
fn a_new_replica_takes_no_message_meant_for_the_old_one() {
    hold(&[0, 6]);
}

/// A replica had installed a snapshot and applied nothing since. An election then made the library look for entries before
/// the snapshot, and it panicked.
#[test]
fn a_replica_stands_for_election_right_after_a_snapshot() {
    hold(&[85]);
}

/// The leader's snapshot was older than the membership of a new replica, which refused it; the leader sent it again for ever.
#[test]
fn a_new_replica_is_sent_a_snapshot_that_knows_it() {
    hold(&[124, 214]);
}

/// A checkpoint ended in the same step in which a snapshot was installed: the log's beginning was moved back to where it
/// had no entries, and the node could not start again.
#[test]
fn a_snapshot_overtakes_the_cut_behind_a_checkpoint() {
    hold(&[483]);
}
