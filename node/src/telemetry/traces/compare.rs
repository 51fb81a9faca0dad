//! Where two traces spent their time, by the names of their spans.

use std::collections::BTreeMap;

use proto::telemetry::v1 as pb;

use super::path::Tree;

/// By the greatest difference.
pub(crate) fn differences(before: &[pb::Span], after: &[pb::Span]) -> Vec<pb::NameDifference> {
    let (before, after) = (totals(before), totals(after));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut differences: Vec<pb::NameDifference> = names
        .into_iter()
        .map(|name| {
            let (before, after) = (before.get(name).copied(), after.get(name).copied());
            let self_ns = |totals: Option<pb::SpanTotals>| totals.map_or(0, |totals| totals.self_ns as i64);
            pb::NameDifference {
                name: name.clone(),
                before: Some(before.unwrap_or_default()),
                after: Some(after.unwrap_or_default()),
                self_difference_ns: self_ns(after) - self_ns(before),
            }
        })
        .collect();
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.self_difference_ns.unsigned_abs()));
    differences
}

fn totals(spans: &[pb::Span]) -> BTreeMap<String, pb::SpanTotals> {
    let tree = Tree::new(spans);
    let mut totals = BTreeMap::<String, pb::SpanTotals>::new();
    for (place, span) in spans.iter().enumerate() {
        let total = totals.entry(span.name.clone()).or_default();
        total.count += 1;
        total.errors += u32::from(span.status == "error");
        total.total_ns += span.end_unix_ns - span.start_unix_ns;
        total.self_ns += tree.self_ns(place);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::{super::assemble::tests::span, *};

    #[test]
    fn names_are_compared_by_their_own_time() {
        let named = |name: &str, id: &str, start, end| pb::Span {
            name: name.to_owned(),
            ..span(id, if id == "r" { "" } else { "r" }, start, end)
        };
        let before = [
            named("edge", "r", 0, 100),
            named("decide", "a", 10, 20),
            named("decide", "b", 30, 40),
        ];
        let after = [
            named("edge", "r", 0, 300),
            named("decide", "a", 10, 210),
            named("call", "c", 210, 215),
        ];
        let found = differences(&before, &after);
        let told: Vec<_> = found.iter().map(|d| (d.name.as_str(), d.self_difference_ns)).collect();
        assert_eq!(told, [("decide", 180), ("edge", 15), ("call", 5)]);
        let decide = &found[0];
        assert_eq!(
            (
                decide.before.expect("is there").count,
                decide.after.expect("is there").count
            ),
            (2, 1)
        );
        assert_eq!(found[2].before.expect("is there").count, 0);
    }
}
