//! Which member of a group reads which shards: balanced, and with as few moves as that allows.

use std::collections::BTreeMap;

/// The reader of each shard. `owners` has every shard with whoever reads it now; one who is no member has left. Nobody reads
/// anything where there are no members.
pub(crate) fn plan(members: &[&str], owners: &BTreeMap<u32, Option<&str>>) -> BTreeMap<u32, String> {
    let Some(least) = owners.len().checked_div(members.len()) else {
        return BTreeMap::new();
    };
    // Who has the most keeps one more, where it does not come out even.
    let mut room: Vec<(&str, usize)> = members
        .iter()
        .map(|member| {
            (
                *member,
                owners.values().filter(|owner| **owner == Some(*member)).count(),
            )
        })
        .collect();
    room.sort_by(|(one, has), (other, others)| others.cmp(has).then(one.cmp(other)));
    let more = owners.len() % members.len();
    for (place, (_, room)) in room.iter_mut().enumerate() {
        *room = least + usize::from(place < more);
    }
    let mut room: BTreeMap<&str, usize> = room.into_iter().collect();
    let mut planned = BTreeMap::new();
    for (shard, owner) in owners {
        if let Some(owner) = owner
            && let Some(left @ 1..) = room.get_mut(owner)
        {
            *left -= 1;
            planned.insert(*shard, (*owner).to_owned());
        }
    }
    let homeless = owners.keys().filter(|shard| !planned.contains_key(shard));
    let taken: Vec<u32> = homeless.copied().collect();
    for shard in taken {
        // The one with the most room, the first of them by name.
        let most = room.iter_mut().rev().max_by_key(|(_, left)| **left);
        let (member, left) = most.expect("there is a member");
        *left -= 1;
        planned.insert(shard, (*member).to_owned());
    }
    planned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owners(planned: &BTreeMap<u32, String>) -> BTreeMap<u32, Option<&str>> {
        planned.iter().map(|(shard, owner)| (*shard, Some(&**owner))).collect()
    }

    fn of(planned: &BTreeMap<u32, String>, member: &str) -> Vec<u32> {
        let mine = planned.iter().filter(|(_, owner)| **owner == member);
        mine.map(|(shard, _)| *shard).collect()
    }

    #[test]
    fn shards_are_spread_and_stay_where_they_are() {
        let nobody: BTreeMap<u32, Option<&str>> = (0..7).map(|shard| (shard, None)).collect();
        assert!(plan(&[], &nobody).is_empty());
        let one = plan(&["a"], &nobody);
        assert_eq!(of(&one, "a"), [0, 1, 2, 3, 4, 5, 6]);
        let two = plan(&["a", "b"], &owners(&one));
        assert_eq!((of(&two, "a"), of(&two, "b")), (vec![0, 1, 2, 3], vec![4, 5, 6]));
        let three = plan(&["a", "b", "c"], &owners(&two));
        assert_eq!(
            (of(&three, "a"), of(&three, "b"), of(&three, "c")),
            (vec![0, 1, 2], vec![4, 5], vec![3, 6])
        );
        let without_a = plan(&["b", "c"], &owners(&three));
        assert_eq!(
            (of(&without_a, "b"), of(&without_a, "c")),
            (vec![0, 1, 4, 5], vec![2, 3, 6])
        );
    }

    proptest! {
        #[test]
        fn every_shard_has_a_reader_all_have_as_many_and_no_more_move_than_must(
            now in prop::collection::vec(prop::option::of(0_usize..6), 0..40),
            count in 1_usize..9,
        ) {
            let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let members = &names[8 - count..];
            let owners: BTreeMap<u32, Option<&str>> =
                (0..).zip(now.iter().map(|owner| owner.map(|at| names[at]))).collect();
            let planned = plan(members, &owners);
            prop_assert_eq!(planned.len(), owners.len());
            let mut counts: Vec<(usize, usize)> = members.iter().map(|member| {
                let has = owners.values().filter(|owner| **owner == Some(*member)).count();
                (has, of(&planned, member).len())
            }).collect();
            let (least, most) = (owners.len() / count, owners.len().div_ceil(count));
            prop_assert!(counts.iter().all(|(_, gets)| (least..=most).contains(gets)));
            let kept = owners.iter().filter(|(shard, owner)| owner.is_some_and(|owner| planned[*shard] == owner)).count();
            counts.sort_unstable_by(|one, other| other.cmp(one));
            let more = owners.len() % count;
            let can: usize = counts.iter().enumerate().map(|(at, (has, _))| (*has).min(least + usize::from(at < more))).sum();
            prop_assert_eq!(kept, can);
            let again: BTreeMap<u32, Option<&str>> = planned.iter().map(|(shard, owner)| (*shard, Some(&**owner))).collect();
            prop_assert_eq!(plan(members, &again), planned.clone());
        }
    }
}
