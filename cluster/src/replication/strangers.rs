//! Whatever comes from the network in the shape of a peer's message: a driver goes on. Peers' connections are those of the
//! cluster's port, so anybody who reaches it can send what no peer would.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use proto::cluster::v1 as pb;

use super::{
    Input, Members, Task,
    fresh::{GROUP, driver_of_three},
    raft_id,
};
use crate::inputs::cases;

/// Mostly near what the group has, so that it gets past the first comparison.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..8, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn replica() -> impl Strategy<Value = u64> {
    prop_oneof![6 => (1_u16..=3).prop_map(|node| raft_id(node, 0)), 1 => any::<u64>(), 1 => Just(0)]
}

fn entry() -> impl Strategy<Value = pb::RaftEntry> {
    (0_u32..5, number(), number(), vec(any::<u8>(), 0..24)).prop_map(|(kind, term, index, data)| pb::RaftEntry {
        kind,
        term,
        index,
        data: data.into(),
        context: Bytes::new(),
    })
}

prop_compose! {
    fn snapshot()(index in number(), term in number(), voters in vec(replica(), 0..4), has_members in any::<bool>())
        -> pb::RaftSnapshot {
        let members = pb::GroupMembers::from(&Members::of_voters(voters));
        pb::RaftSnapshot { index, term, members: has_members.then_some(members), source_node: 2 }
    }
}

prop_compose! {
    fn message()(
        kind in 0_u32..24,
        (from, to) in (replica(), prop_oneof![9 => Just(raft_id(1, 0)), 1 => any::<u64>()]),
        (term, log_term, index) in (number(), number(), number()),
        (commit, commit_term, reject_hint, request_snapshot) in (number(), number(), number(), number()),
        (priority, reject) in (any::<i64>(), any::<bool>()),
        context in vec(any::<u8>(), 0..40),
        mut entries in vec(entry(), 0..4),
        follow in any::<bool>(),
        snapshot in proptest::option::of(snapshot()),
    ) -> pb::RaftMessage {
        if follow {
            for (entry, place) in entries.iter_mut().zip(1..) {
                entry.index = index.wrapping_add(place);
            }
        }
        pb::RaftMessage {
            kind, from, to, term, log_term, index, commit, commit_term, reject_hint, request_snapshot, priority, reject,
            context: context.into(), entries, snapshot,
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    let messages = message().prop_map(|message| {
        Input::Messages(vec![pb::GroupMessage {
            group: GROUP,
            message: Some(message),
        }])
    });
    prop_oneof![
        12 => messages,
        4 => Just(Input::Tick),
        1 => (1_u64..6).prop_map(|term| Input::Propose {
            group: GROUP,
            term,
            record: Bytes::from_static(b"record"),
            ticket: term,
        }),
        1 => Just(Input::Read { group: GROUP, ticket: 1 }),
        1 => Just(Input::Catch { group: GROUP, ticket: 2 }),
        1 => (1_u16..4).prop_map(Input::LinkDown),
        1 => (1_u16..4).prop_map(|to| Input::Transfer { group: GROUP, to }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn nothing_in_a_message_stops_a_driver(inputs in vec(input(), 1..40)) {
        let mut driver = driver_of_three(1, false);
        for input in inputs {
            let output = driver.step([input]);
            let snapshots = output.tasks.iter().any(|task| matches!(task, Task::FetchSnapshot { .. }));
            if snapshots {
                driver.step([Input::FetchFailed { group: GROUP }]);
            }
            if let Some(write) = output.write {
                driver.step([Input::Written(write.number)]);
            }
        }
    }
}

/// A driver goes on after one message of a peer that no peer sends, and after its own next tick.
fn survives(message: pb::RaftMessage) {
    let mut driver = driver_of_three(1, false);
    let message = pb::GroupMessage {
        group: GROUP,
        message: Some(message),
    };
    driver.step([Input::Messages(vec![message])]);
    driver.step([Input::Tick]);
}

/// The library took it for its own log's, and its positions for places in a list.
#[test]
fn entries_in_its_own_name_at_the_end_of_all_numbers_stop_nobody() {
    survives(pb::RaftMessage {
        kind: 3,
        from: raft_id(1, 0),
        to: raft_id(1, 0),
        index: u64::MAX,
        entries: vec![pb::RaftEntry::default()],
        ..pb::RaftMessage::default()
    });
}

/// It names what the group has committed, under another term.
#[test]
fn a_snapshot_of_a_committed_position_in_another_term_stops_nobody() {
    survives(pb::RaftMessage {
        kind: 7,
        from: raft_id(2, 0),
        to: raft_id(1, 0),
        term: 4,
        snapshot: Some(pb::RaftSnapshot {
            index: 1,
            term: 2,
            members: Some(pb::GroupMembers::from(&Members::of_voters(vec![raft_id(1, 0)]))),
            source_node: 2,
        }),
        ..pb::RaftMessage::default()
    });
}
