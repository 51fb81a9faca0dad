//! Planted bugs, each in the simulation's own shell, to see whether the checks would find the like in the product.

/// Which bugs are planted; none by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flaws {
    /// The driver is told that a write is on the device as soon as it is handed over.
    pub(super) written_before_sync: bool,
    /// The device says that it has synced, and keeps some writes in a cache that a crash empties.
    pub(super) device_lies: bool,
    /// A vote and a term do not survive a restart.
    pub(super) forgotten_vote: bool,
    /// A checkpoint counts before the state store was synced.
    pub(super) checkpoint_without_sync: bool,
    /// A checkpoint reports a position further than what it wrote.
    pub(super) cut_too_far: bool,
    /// A request that was taken before is decided again.
    pub(super) no_deduplication: bool,
    /// A caller is answered when the record is proposed, not when it is applied.
    pub(super) answer_before_commit: bool,
    /// A read is answered by whoever believes to lead, without the driver's word.
    pub(super) unconfirmed_reads: bool,
    /// A read is answered by any replica, from what it has applied.
    pub(super) follower_reads: bool,
    /// A read sees what is decided and not yet committed.
    pub(super) ungated_reads: bool,
    /// A fetched snapshot comes without the request ids.
    pub(super) snapshot_without_requests: bool,
    /// A fetched snapshot lacks its last chunk, and is taken all the same.
    pub(super) snapshot_without_end: bool,
    /// An activation outlives its leadership.
    pub(super) immortal_activations: bool,
    /// What was due before a leader came is fired by a record that does not name the firing.
    pub(super) timers_fired_twice: bool,
    /// A leader fires only what was set while it led.
    pub(super) forgotten_timers: bool,
    /// A leader does not hear of cancels, and its activations do not ask whether a timer is still theirs.
    pub(super) cancelled_timers: bool,
    /// A replica is closed as soon as the map has no place for it, whether or not its group knows.
    pub(super) closes_early: bool,
    /// A node that lost its disk comes back under its old name.
    pub(super) wiped_under_old_name: bool,
    /// A node goes on after a sync of its log has failed.
    pub(super) failed_sync_ignored: bool,
    /// What is damaged on a device is served as if it was not.
    pub(super) damage_served: bool,
    /// Effects are carried out when they are decided, not when they are committed.
    pub(super) outbox_before_commit: bool,
    /// A leader carries out only the effects that came about while it led.
    pub(super) outbox_forgotten: bool,
    /// A replica takes itself for up to date as soon as it has asked.
    pub(super) claimed_freshness: bool,
    /// A replica counts its age from when it was answered, not from when it asked.
    pub(super) age_from_answer: bool,
}
