//! For tests: replicas of a group that has only begun.

use super::{Boot, Driver, HardState, Members, Settings, raft_id};
use crate::config::NodeId;

pub(super) const GROUP: u32 = 0;

/// One of three replicas, on the nodes 1 to 3, with nothing in its log yet.
pub(super) fn driver_of_three(node: NodeId, campaign: bool) -> Driver {
    let settings = Settings {
        heartbeat_ticks: 2,
        election_ticks: 6,
        append_records_max: 8,
        append_bytes_max: 1 << 16,
        seed: u64::from(node),
        life: 1,
    };
    let boot = Boot {
        group: GROUP,
        id: raft_id(node, 0),
        hard_state: HardState {
            term: 1,
            vote: 0,
            commit: 1,
        },
        cut: (1, 1),
        entries: Vec::new(),
        applied: 1,
        members: Members::of_voters((1..=3).map(|node| raft_id(node, 0)).collect()),
        generation: 0,
        campaign,
    };
    Driver::new(node, &settings, vec![boot])
}
