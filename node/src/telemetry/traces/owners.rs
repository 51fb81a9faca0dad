//! Which members keep a trace: those with the highest hash of the trace's id and their own number. All nodes agree on it
//! without asking each other, and a member that comes or goes moves only its own part.

use cluster::config::NodeId;

/// Members that keep a trace, so that one that is killed does not take it along.
pub(crate) const COPIES: usize = 2;

/// All members, those first that are to keep the trace.
pub(crate) fn ranked(trace_id: u128, members: &[NodeId]) -> Vec<NodeId> {
    let mut ranked: Vec<(u64, NodeId)> = members.iter().map(|node| (weight(trace_id, *node), *node)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, node)| node).collect()
}

fn weight(trace_id: u128, node: NodeId) -> u64 {
    let mut hash = (trace_id as u64) ^ ((trace_id >> 64) as u64).rotate_left(32);
    hash = hash.wrapping_add(u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_spread_and_stay_when_a_member_goes() {
        let members: Vec<NodeId> = (1..=5).collect();
        let fewer: Vec<NodeId> = members.iter().copied().filter(|node| *node != 3).collect();
        let mut firsts = [0; 6];
        for trace in 0..5_000_u128 {
            let trace = trace.wrapping_mul(0x1234_5678_9abc_def0_1357_9bdf);
            let ranked_all = ranked(trace, &members);
            firsts[usize::from(ranked_all[0])] += 1;
            let without: Vec<NodeId> = ranked_all.into_iter().filter(|node| *node != 3).collect();
            assert_eq!(without, ranked(trace, &fewer));
        }
        assert!(
            firsts[1..].iter().all(|count| (800..1_200).contains(count)),
            "{firsts:?}"
        );
    }
}
