//! The planted bugs, in which kind of run each is looked for, and within how many seeds it must be noticed.

use super::{engine::Kind, flaws::Flaws};

/// A planted bug.
#[derive(Debug, Clone)]
pub struct Planted {
    /// What is wrong.
    pub name: &'static str,
    /// The kind of run in which it shows.
    pub kind: Kind,
    /// Within how many seeds, from 0 on, it must be noticed.
    pub seeds_max: u64,
    /// The only invariant that may notice it, where there is one.
    pub by: Option<&'static str>,
    pub(super) flaws: Flaws,
}

macro_rules! planted {
    ($($name:literal, $kind:ident, $seeds_max:literal, $flaw:ident $(, $by:literal)?;)+) => {
        vec![$(Planted {
            name: $name,
            kind: Kind::$kind,
            seeds_max: $seeds_max,
            by: None$(.or(Some($by)))?,
            flaws: Flaws { $flaw: true, ..Flaws::default() },
        }),+]
    };
}

/// All of them.
#[rustfmt::skip]
pub fn planted() -> Vec<Planted> {
    planted! {
        "a write counts before its sync",              Engine, 20,    written_before_sync;
        "a device that lies about its sync",           Engine, 20,    device_lies;
        "a vote forgotten at a restart",               Engine, 2_500, forgotten_vote;
        "a checkpoint that counts before its sync",    Engine, 10,    checkpoint_without_sync;
        "a log cut too far",                           Engine, 10,    cut_too_far;
        "requests decided again",                      Engine, 10,    no_deduplication;
        "an answer before the commit",                 Engine, 20,    answer_before_commit;
        "a read without the driver's word",            Engine, 1_500, unconfirmed_reads;
        "a read from any replica",                     Engine, 20,    follower_reads;
        "a read of what is not committed",             Engine, 20,    ungated_reads;
        "a snapshot without the request ids",          Engine, 60,    snapshot_without_requests;
        "a snapshot without its end",                  Engine, 20,    snapshot_without_end;
        "an old leader that is not fenced: activations that outlive their leadership", Engine, 60, immortal_activations;
        "a replica closed before it has left its group", Engine, 60,  closes_early;
        "a lost disk under its old name",              Engine, 20,    wiped_under_old_name;
        "a timer fired twice after a failover",        Timers, 20,    timers_fired_twice;
        "a timer forgotten at a failover",             Timers, 20,    forgotten_timers;
        "a cancelled timer that fires",                Timers, 20,    cancelled_timers;
        "freshness that was never shown",              Reads,  20,    claimed_freshness, "glances";
        "an age counted from the answer",              Reads,  20,    age_from_answer, "glances";
        "a failed sync that is ignored",               Storms, 60,    failed_sync_ignored;
        "a damaged value that is served",              Storms, 200,   damage_served;
    }
}
