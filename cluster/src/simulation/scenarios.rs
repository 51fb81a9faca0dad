//! Seeds that have found bugs, by what they found. A change of what the simulation draws makes other runs of them: then
//! they are runs like all others, and what they guarded is still among what the sets reach.

use super::engine::{Kind, Limits, run};

fn hold(seeds: &[u64]) {
    for seed in seeds {
        let outcome = run(*seed, Kind::Engine, &Limits::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
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

/// A replica that was on its way out came to lead, and led on without belonging to the group: the library looked for its own
/// progress, which was gone, and panicked; or nobody could be added any more.
#[test]
fn a_leader_on_its_way_out_steps_down() {
    hold(&[3, 1_068, 2_002]);
}

/// A replica was closed once its leader said that it had left. The other voters restarted, had forgotten that the change was
/// committed, and needed its vote.
#[test]
fn a_replica_stays_until_every_voter_knows_for_good_that_it_left() {
    hold(&[2_075]);
}

/// A replica that was alive made place for its successor on the same node while another one was dead: too few were left.
#[test]
fn a_replica_that_is_alive_is_not_given_up_while_another_is_missing() {
    hold(&[38, 983, 993]);
}

/// A replica could not be closed because a voter did not say that it knew: that voter's node had lost it long before.
#[test]
fn nobody_waits_for_the_word_of_a_voter_that_is_gone() {
    hold(&[313]);
}
