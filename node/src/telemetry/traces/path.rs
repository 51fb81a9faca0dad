//! What a trace's duration is made of: going back from its end, for each moment the span that everything after it waited
//! for.
//!
//! An effect goes on when the call that caused it was answered long ago. So a span counts as under way until the last of
//! what it caused has ended.

use std::collections::HashMap;

use proto::telemetry::v1 as pb;

/// The spans' places by their ids, and their children.
pub(crate) struct Tree<'a> {
    spans: &'a [pb::Span],
    children: Vec<Vec<usize>>,
    /// When the last of what it caused has ended.
    ends: Vec<u64>,
    pub(crate) root: Option<usize>,
}

impl<'a> Tree<'a> {
    /// Of assembled spans.
    pub(crate) fn new(spans: &'a [pb::Span]) -> Self {
        let places: HashMap<&str, usize> = spans
            .iter()
            .enumerate()
            .map(|(place, span)| (span.span_id.as_str(), place))
            .collect();
        let mut children = vec![Vec::new(); spans.len()];
        let mut root = None;
        for (place, span) in spans.iter().enumerate() {
            match places.get(span.parent_span_id.as_str()) {
                Some(parent) => children[*parent].push(place),
                None => root = root.or(Some(place)),
            }
        }
        let mut tree = Self {
            ends: spans.iter().map(|span| span.end_unix_ns).collect(),
            spans,
            children,
            root,
        };
        let depth_first = tree.depth_first();
        for (place, _) in depth_first.iter().rev() {
            let last = tree.children[*place].iter().map(|child| tree.ends[*child]).max();
            tree.ends[*place] = tree.ends[*place].max(last.unwrap_or_default());
        }
        tree
    }

    /// All spans with their depth, each before its children, these by time.
    pub(crate) fn depth_first(&self) -> Vec<(usize, usize)> {
        let mut order = Vec::new();
        let mut waiting: Vec<(usize, usize)> = self.root.map(|root| (root, 0)).into_iter().collect();
        while let Some((place, depth)) = waiting.pop() {
            order.push((place, depth));
            waiting.extend(self.children[place].iter().rev().map(|child| (*child, depth + 1)));
        }
        order
    }

    /// The critical path, by time.
    pub(crate) fn critical_path(&self) -> Vec<pb::PathPart> {
        let mut parts = Vec::new();
        // Spans with the moment from which on others are on the path already.
        let mut waiting: Vec<(usize, u64, u64)> = self.root.map(|root| (root, 0, u64::MAX)).into_iter().collect();
        while let Some((place, from, until)) = waiting.pop() {
            let start = self.spans[place].start_unix_ns.max(from);
            let mut at = self.ends[place].min(until);
            let mut children = self.children[place].clone();
            children.sort_by_key(|child| std::cmp::Reverse((self.ends[*child], self.spans[*child].start_unix_ns)));
            for child in children {
                let end = self.ends[child].min(at);
                let begin = self.spans[child].start_unix_ns.max(start);
                if begin >= end || at <= start {
                    continue;
                }
                self.part(&mut parts, place, end, at);
                waiting.push((child, begin, end));
                at = begin;
            }
            self.part(&mut parts, place, start, at);
        }
        parts.sort_by_key(|part| part.start_unix_ns);
        parts
    }

    fn part(&self, parts: &mut Vec<pb::PathPart>, place: usize, start: u64, end: u64) {
        if start < end {
            parts.push(pb::PathPart {
                span_id: self.spans[place].span_id.clone(),
                start_unix_ns: start,
                end_unix_ns: end,
            });
        }
    }

    /// Time of a span that its own children have no part in.
    pub(crate) fn self_ns(&self, place: usize) -> u64 {
        let span = &self.spans[place];
        let mut parts: Vec<(u64, u64)> = self.children[place]
            .iter()
            .map(|child| {
                let child = &self.spans[*child];
                (
                    child.start_unix_ns.max(span.start_unix_ns),
                    child.end_unix_ns.min(span.end_unix_ns),
                )
            })
            .filter(|(start, end)| start < end)
            .collect();
        parts.sort_unstable();
        let (mut covered, mut at) = (0, 0);
        for (start, end) in parts {
            covered += end.saturating_sub(start.max(at));
            at = at.max(end);
        }
        (span.end_unix_ns - span.start_unix_ns).saturating_sub(covered)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::assemble::tests::span, *};

    fn path(spans: &[pb::Span]) -> Vec<(&str, u64, u64)> {
        let spans: &[pb::Span] = spans;
        let parts = Tree::new(spans).critical_path();
        parts
            .into_iter()
            .map(|part| {
                let found = spans
                    .iter()
                    .find(|span| span.span_id == part.span_id)
                    .expect("is there");
                (found.span_id.as_str(), part.start_unix_ns, part.end_unix_ns)
            })
            .collect()
    }

    #[test]
    fn the_path_goes_through_what_ended_last() {
        let spans = [
            span("root", "", 0, 100),
            span("short", "root", 10, 40),
            span("long", "root", 10, 70),
            span("inner", "long", 20, 60),
            span("after", "root", 75, 95),
        ];
        let expected = [
            ("root", 0, 10),
            ("long", 10, 20),
            ("inner", 20, 60),
            ("long", 60, 70),
            ("root", 70, 75),
            ("after", 75, 95),
            ("root", 95, 100),
        ];
        assert_eq!(path(&spans), expected);
    }

    #[test]
    fn what_goes_on_after_the_answer_is_on_the_path() {
        let spans = [
            span("call", "", 0, 20),
            span("effect", "call", 10, 15),
            span("step", "effect", 30, 60),
        ];
        assert_eq!(path(&spans), [("call", 0, 10), ("effect", 10, 30), ("step", 30, 60)]);
    }

    #[test]
    fn the_path_covers_the_whole_time_once_whatever_the_clocks_say() {
        let spans = [
            span("root", "", 100, 200),
            span("early", "root", 50, 120),
            span("late", "root", 150, 400),
            span("twin", "root", 150, 400),
        ];
        let path = path(&spans);
        let total: u64 = path.iter().map(|(_, start, end)| end - start).sum();
        assert_eq!(total, 300, "{path:?}");
        assert!(path.windows(2).all(|pair| pair[0].2 == pair[1].1), "{path:?}");
        assert!(Tree::new(&[]).critical_path().is_empty());
    }

    #[test]
    fn own_time_is_what_no_child_covers() {
        let spans = [
            span("root", "", 0, 100),
            span("a", "root", 10, 40),
            span("b", "root", 30, 50),
            span("c", "root", 90, 150),
        ];
        let tree = Tree::new(&spans);
        assert_eq!(tree.self_ns(0), 50);
        assert_eq!(tree.self_ns(3), 60);
    }
}
