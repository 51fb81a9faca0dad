//! How long a replica waits for a leader before it stands itself.

use super::{driver::Settings, members::RaftId};

/// The time-out of a replica, in ticks. Each voter has a part of the time for itself, in an order that changes with the term:
/// two that stand at once would take each other's votes, and all would wait again.
pub(super) fn timeout(settings: &Settings, group: u32, term: u64, replica: RaftId, mut voters: Vec<RaftId>) -> usize {
    voters.sort_unstable();
    let count = voters.len().max(1);
    let rank = voters.iter().position(|id| *id == replica).unwrap_or_default();
    let group = u64::from(group) << 40;
    let turn = mix(group ^ term) as usize % count;
    let part = settings.election_ticks / count;
    let drawn = mix(settings.seed ^ group ^ term) as usize % (part / 2).max(1);
    settings.election_ticks + (rank + turn) % count * part + drawn
}

/// Spreads a number over all bits (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_voters_stand_at_the_same_time() {
        for (seed, term) in (0..50).flat_map(|seed| (1..50).map(move |term| (seed, term))) {
            let settings = |replica: u64| Settings {
                heartbeat_ticks: 4,
                election_ticks: 12,
                append_records_max: 1,
                append_bytes_max: 1,
                seed: seed ^ replica << 8,
                life: 0,
            };
            let mut times: Vec<usize> = (1..=3)
                .map(|replica| timeout(&settings(replica), 5, term, replica, vec![3, 1, 2]))
                .collect();
            times.sort_unstable();
            assert!(times[0] >= 12 && times[2] < 24, "{times:?}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 2), "{times:?}");
        }
    }
}
