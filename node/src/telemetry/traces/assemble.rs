//! The spans of a trace, from several members and several attempts, as one tree with one root.
//!
//! A span may come more than once: from each member that keeps it, and from each attempt at an effect. A parent may be
//! missing: whoever made it was killed before it could tell. What stands in its place says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proto::telemetry::v1 as pb;

use super::otlp::RECOVERED;

/// What stands in the place of a span that nobody told of.
const LOST: &str = "lost";
/// The same for the span of a caller outside.
const CALLER: &str = "caller";

/// One tree: each span once, each parent known, one root; by time.
pub(crate) fn assembled(spans: impl IntoIterator<Item = pb::Span>) -> Vec<pb::Span> {
    let mut by_id: HashMap<String, pb::Span> = HashMap::new();
    for span in spans {
        match by_id.entry(span.span_id.clone()) {
            std::collections::hash_map::Entry::Occupied(mut known) => merge(known.get_mut(), span),
            std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(span)),
        }
    }
    let mut spans: Vec<pb::Span> = by_id.into_values().collect();
    spans.sort_by(|a, b| order(a).cmp(&order(b)));
    for span in &mut spans {
        if span.parent_span_id == span.span_id {
            span.parent_span_id.clear();
        }
    }
    find_parents(&mut spans);
    break_circles(&mut spans);
    spans.sort_by(|a, b| order(a).cmp(&order(b)));
    spans
}

/// A root before others that began with it.
fn order(span: &pb::Span) -> (u64, bool, std::cmp::Reverse<u64>, &str) {
    (
        span.start_unix_ns,
        !span.parent_span_id.is_empty(),
        std::cmp::Reverse(span.end_unix_ns),
        &span.span_id,
    )
}

/// Two reports of one span: whoever made it knows better than who tells of it for another, and the last attempt knows best.
fn merge(known: &mut pb::Span, other: pb::Span) {
    let is_recovered = |span: &pb::Span| span.attributes.contains_key(RECOVERED);
    match (is_recovered(known), is_recovered(&other)) {
        (false, true) => return,
        (true, false) => {
            *known = other;
            return;
        }
        _ => {}
    }
    let (start, end) = (
        known.start_unix_ns.min(other.start_unix_ns),
        known.end_unix_ns.max(other.end_unix_ns),
    );
    if other.end_unix_ns > known.end_unix_ns {
        *known = other;
    }
    (known.start_unix_ns, known.end_unix_ns) = (start, end);
}

fn find_parents(spans: &mut Vec<pb::Span>) {
    let known: HashSet<String> = spans.iter().map(|span| span.span_id.clone()).collect();
    let mut orphans: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, span) in spans.iter().enumerate() {
        if !span.parent_span_id.is_empty() && !known.contains(&span.parent_span_id) {
            orphans.entry(span.parent_span_id.clone()).or_default().push(place);
        }
    }
    let roots: Vec<usize> = (0..spans.len())
        .filter(|place| spans[*place].parent_span_id.is_empty())
        .collect();
    // A call of somebody who does not send its own spans here is the root itself.
    if let (true, 1, Some((parent, children))) = (roots.is_empty(), orphans.len(), orphans.first_key_value())
        && let [only] = children[..]
    {
        spans[only].remote_parent_span_id.clone_from(parent);
        spans[only].parent_span_id.clear();
        return;
    }
    // By their first child, so that the earliest is the root where there is no other.
    let mut lost: Vec<pb::Span> = orphans
        .into_iter()
        .map(|(span_id, children)| placeholder(span_id, children.iter().map(|place| &spans[*place])))
        .collect();
    lost.sort_by_key(|span| (span.name != CALLER, span.start_unix_ns));
    let root = roots.first().map(|place| spans[*place].span_id.clone());
    let root = root.or_else(|| lost.first().map(|span| span.span_id.clone()));
    let Some(root) = root else { return };
    spans.append(&mut lost);
    // All else that has no parent is put below the one root.
    for span in spans
        .iter_mut()
        .filter(|span| span.parent_span_id.is_empty() && span.span_id != root)
    {
        span.parent_span_id.clone_from(&root);
    }
}

fn placeholder<'a>(span_id: String, children: impl Iterator<Item = &'a pb::Span> + Clone) -> pb::Span {
    let is_caller = children.clone().all(|span| span.kind == "server");
    pb::Span {
        span_id,
        name: if is_caller { CALLER } else { LOST }.to_owned(),
        service: children
            .clone()
            .next()
            .map(|span| span.service.clone())
            .unwrap_or_default(),
        start_unix_ns: children
            .clone()
            .map(|span| span.start_unix_ns)
            .min()
            .unwrap_or_default(),
        end_unix_ns: children.map(|span| span.end_unix_ns).max().unwrap_or_default(),
        status: "ok".to_owned(),
        kind: "internal".to_owned(),
        is_lost: true,
        ..pb::Span::default()
    }
}

/// Spans that cause each other are put below the root. Nothing of ours is so, but anybody may send spans.
fn break_circles(spans: &mut [pb::Span]) {
    let places: HashMap<String, usize> = spans
        .iter()
        .enumerate()
        .map(|(place, span)| (span.span_id.clone(), place))
        .collect();
    let root = spans
        .iter()
        .find(|span| span.parent_span_id.is_empty())
        .map(|span| span.span_id.clone());
    let mut is_good = vec![false; spans.len()];
    for first in 0..spans.len() {
        let mut way = BTreeSet::new();
        let mut at = first;
        while !is_good[at] && way.insert(at) {
            match places.get(&spans[at].parent_span_id) {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        let is_circle = !is_good[at] && places.contains_key(&spans[at].parent_span_id);
        if is_circle {
            spans[at].parent_span_id = root.clone().unwrap_or_default();
        }
        for place in way {
            is_good[place] = true;
        }
    }
}

/// What the spans have written, by time.
pub(crate) fn events(spans: &[pb::Span]) -> Vec<pb::WrittenEvent> {
    let mut events = Vec::new();
    // A commit that failed has written nothing.
    for span in spans.iter().filter(|span| span.status == "ok") {
        let (Some(entity), Some(written)) = (span.attributes.get("entity"), span.attributes.get("events")) else {
            continue;
        };
        for event in written.split(' ') {
            if let Some((name, version)) = event.rsplit_once('@') {
                events.push(pb::WrittenEvent {
                    entity: entity.clone(),
                    version: version.parse().unwrap_or_default(),
                    name: name.to_owned(),
                    span_id: span.span_id.clone(),
                    node: span.node,
                    at_unix_ns: span.end_unix_ns,
                });
            }
        }
    }
    events.sort_by_key(|event| event.at_unix_ns);
    events
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn span(id: &str, parent: &str, start: u64, end: u64) -> pb::Span {
        pb::Span {
            span_id: id.to_owned(),
            parent_span_id: parent.to_owned(),
            name: format!("name {id}"),
            start_unix_ns: start,
            end_unix_ns: end,
            status: "ok".to_owned(),
            kind: "internal".to_owned(),
            ..pb::Span::default()
        }
    }

    fn server(id: &str, parent: &str, start: u64, end: u64) -> pb::Span {
        pb::Span {
            kind: "server".to_owned(),
            ..span(id, parent, start, end)
        }
    }

    fn check(spans: &[pb::Span]) {
        let ids: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
        assert_eq!(ids.len(), spans.len());
        let roots = spans.iter().filter(|span| span.parent_span_id.is_empty()).count();
        assert_eq!(roots, 1, "{spans:#?}");
        assert!(
            spans
                .iter()
                .all(|span| span.parent_span_id.is_empty() || ids.contains(span.parent_span_id.as_str()))
        );
    }

    #[test]
    fn copies_and_attempts_of_a_span_become_one() {
        let mut failed = span("b", "a", 2, 5);
        failed.status = "error".to_owned();
        let spans = assembled([span("a", "", 1, 9), failed.clone(), failed, span("b", "a", 6, 8)]);
        check(&spans);
        assert_eq!((spans.len(), spans[1].start_unix_ns, spans[1].end_unix_ns), (2, 2, 8));
        assert_eq!(spans[1].status, "ok", "the last attempt");
    }

    #[test]
    fn whoever_made_a_span_knows_better() {
        let mut told = span("b", "a", 1, 50);
        told.attributes.insert(RECOVERED.to_owned(), "true".to_owned());
        for spans in [[told.clone(), span("b", "a", 2, 3)], [span("b", "a", 2, 3), told]] {
            let spans = assembled(spans.into_iter().chain([span("a", "", 1, 9)]));
            check(&spans);
            assert_eq!(spans[1].end_unix_ns, 3);
        }
    }

    #[test]
    fn a_call_whose_caller_sends_nothing_is_the_root() {
        let spans = assembled([server("a", "client", 1, 9), span("b", "a", 2, 3)]);
        check(&spans);
        assert_eq!(spans[0].remote_parent_span_id, "client");
        let several = assembled([server("a", "client", 1, 9), server("b", "client", 5, 9)]);
        check(&several);
        assert_eq!(
            (several.len(), several[0].name.as_str(), several[0].is_lost),
            (3, CALLER, true)
        );
    }

    #[test]
    fn what_nobody_told_of_is_stood_in_for() {
        let spans = assembled([
            span("a", "", 1, 9),
            span("b", "gone", 3, 4),
            span("c", "gone", 5, 6),
            span("d", "c", 5, 6),
        ]);
        check(&spans);
        let lost = spans.iter().find(|span| span.is_lost).expect("is there");
        assert_eq!((lost.span_id.as_str(), lost.parent_span_id.as_str()), ("gone", "a"));
        assert_eq!((lost.start_unix_ns, lost.end_unix_ns), (3, 6));
        // Even the root, and more than one.
        check(&assembled([
            span("b", "x", 3, 4),
            span("c", "y", 1, 2),
            span("d", "b", 3, 4),
        ]));
    }

    #[test]
    fn spans_that_cause_each_other_do_no_harm() {
        check(&assembled([
            span("a", "", 1, 9),
            span("b", "c", 2, 3),
            span("c", "b", 2, 3),
            span("d", "c", 2, 3),
        ]));
        check(&assembled([
            span("b", "c", 2, 3),
            span("c", "b", 2, 3),
            span("d", "d", 1, 1),
        ]));
        check(&assembled([span("b", "c", 2, 3), span("c", "b", 2, 3)]));
        assert!(assembled([]).is_empty());
    }

    #[test]
    fn events_are_read_from_commits_that_counted() {
        let mut commit = span("b", "a", 2, 3);
        commit.attributes = [("entity", "order/1"), ("events", "Placed@1 Confirmed@2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let mut refused = commit.clone();
        refused.status = "error".to_owned();
        let events = events(&[commit, refused]);
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.name.as_str(), event.version))
            .collect();
        assert_eq!(told, [("Placed", 1), ("Confirmed", 2)]);
    }
}
