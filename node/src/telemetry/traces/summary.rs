//! A trace in a few words, kept for all traces of the store; and whether a search means it.

use proto::telemetry::v1 as pb;

/// Names of each kind that a summary keeps.
const NAMES_MAX: usize = 16;
/// Request ids that it keeps.
const REQUESTS_MAX: usize = 4;
/// Bytes of what a text search looks at beside these.
const TEXT_BYTES_MAX: usize = 2_048;

/// A trace in a few words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) told: pb::TraceSummary,
    /// Lower-case: names of spans, events, errors.
    text: String,
    /// The name shown was that of a span without a parent.
    has_root: bool,
    root_start_unix_ns: u64,
    /// Entities of which there were too many to keep.
    is_cut: bool,
}

impl Summary {
    /// Of a trace without spans.
    pub(crate) fn new(trace_id: u128) -> Self {
        Self {
            told: pb::TraceSummary {
                trace_id: format!("{trace_id:032x}"),
                start_unix_ns: u64::MAX,
                ..pb::TraceSummary::default()
            },
            ..Self::default()
        }
    }

    /// Takes a span in.
    pub(crate) fn add(&mut self, span: &pb::Span) {
        let told = &mut self.told;
        told.spans += 1;
        told.start_unix_ns = told.start_unix_ns.min(span.start_unix_ns);
        told.end_unix_ns = told.end_unix_ns.max(span.end_unix_ns);
        if span.status == "error" {
            told.errors += 1;
            if told.error.is_empty() {
                told.error.clone_from(&span.error);
            }
        }
        let is_root = span.parent_span_id.is_empty();
        let is_better = match (is_root, self.has_root) {
            (true, false) => true,
            (false, true) => false,
            _ => self.root_start_unix_ns == 0 || span.start_unix_ns < self.root_start_unix_ns,
        };
        if is_better {
            told.root.clone_from(&span.name);
            told.service.clone_from(&span.service);
            self.root_start_unix_ns = span.start_unix_ns.max(1);
            self.has_root |= is_root;
        }
        keep(&mut told.services, &span.service, NAMES_MAX);
        for (key, value) in &span.attributes {
            match key.as_str() {
                "entity" | "to" if value.contains('/') => self.is_cut |= !keep(&mut told.entities, value, NAMES_MAX),
                "saga" => {
                    keep(&mut told.sagas, value, NAMES_MAX);
                }
                "asked_by" | "tenant" | "caller" | "customer" => {
                    keep(&mut told.users, value, NAMES_MAX);
                }
                "request.id" if span.kind == "server" => {
                    keep(&mut told.request_ids, value, REQUESTS_MAX);
                }
                "events" => note(&mut self.text, value),
                _ => {}
            }
        }
        note(&mut self.text, &span.name);
        if !span.error.is_empty() {
            note(&mut self.text, &span.error);
        }
    }

    /// The same trace, as another member has it: the better of both.
    pub(crate) fn merge(&mut self, other: &Self) {
        if (other.told.spans, other.has_root) > (self.told.spans, self.has_root) {
            let mine = std::mem::replace(self, other.clone());
            self.widen(&mine.told);
        } else {
            self.widen(&other.told);
        }
    }

    fn widen(&mut self, other: &pb::TraceSummary) {
        self.told.start_unix_ns = self.told.start_unix_ns.min(other.start_unix_ns);
        self.told.end_unix_ns = self.told.end_unix_ns.max(other.end_unix_ns);
    }

    /// Whether some entity of the trace may be this one.
    pub(crate) fn may_have(&self, entity: &str) -> bool {
        self.is_cut
            || [&self.told.entities, &self.told.sagas]
                .iter()
                .any(|keys| keys.iter().any(|key| key == entity))
    }

    /// Whether a search means it.
    pub(crate) fn matches(&self, search: &pb::SearchTracesRequest) -> bool {
        let told = &self.told;
        let duration_ms = told.end_unix_ns.saturating_sub(told.start_unix_ns) / 1_000_000;
        let start_ms = told.start_unix_ns / 1_000_000;
        let is_error = told.errors > 0;
        (search.service.is_empty() || told.services.contains(&search.service))
            && key_among(&search.entity, &told.entities)
            && key_among(&search.saga, &told.sagas)
            && user_among(&search.user, &told.users)
            && (search.status.is_empty() || (search.status == "error") == is_error)
            && duration_ms >= search.min_duration_ms
            && (search.max_duration_ms == 0 || duration_ms <= search.max_duration_ms)
            && start_ms >= search.since_unix_ms
            && (search.until_unix_ms == 0 || start_ms < search.until_unix_ms)
            && self.has_text(&search.text.to_lowercase())
    }

    fn has_text(&self, text: &str) -> bool {
        let told = &self.told;
        let lists = [&told.entities, &told.request_ids, &told.users];
        text.is_empty()
            || told.trace_id.contains(text)
            || self.text.contains(text)
            || lists
                .iter()
                .any(|list| list.iter().any(|name| name.to_lowercase().contains(text)))
    }
}

/// Puts summaries of several members together, the newest first.
pub(crate) fn merged(lists: impl IntoIterator<Item = Vec<pb::TraceSummary>>, limit: usize) -> Vec<pb::TraceSummary> {
    let mut by_id = std::collections::HashMap::<String, Summary>::new();
    for told in lists.into_iter().flatten() {
        let found = Summary {
            told,
            ..Summary::default()
        };
        match by_id.entry(found.told.trace_id.clone()) {
            std::collections::hash_map::Entry::Occupied(mut known) => known.get_mut().merge(&found),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(found);
            }
        }
    }
    let mut all: Vec<_> = by_id.into_values().map(|summary| summary.told).collect();
    all.sort_unstable_by(|a, b| (b.start_unix_ns, &b.trace_id).cmp(&(a.start_unix_ns, &a.trace_id)));
    all.truncate(limit);
    all
}

/// Keeps a name, if there is room; says whether it is kept.
fn keep(names: &mut Vec<String>, name: &str, max: usize) -> bool {
    if name.is_empty() || names.iter().any(|known| known == name) {
        return true;
    }
    let has_room = names.len() < max;
    if has_room {
        names.push(name.to_owned());
    }
    has_room
}

fn note(text: &mut String, said: &str) {
    let said = said.to_lowercase();
    if text.len() + said.len() < TEXT_BYTES_MAX && !text.contains(&said) {
        text.push_str(&said);
        text.push('\n');
    }
}

/// A whole key, or only its kind.
fn key_among(wanted: &str, keys: &[String]) -> bool {
    wanted.is_empty()
        || keys.iter().any(|key| {
            key == wanted
                || key
                    .split_once('/')
                    .is_some_and(|(kind, _)| !wanted.contains('/') && kind == wanted)
        })
}

/// A whole name, or either part of `tenant/caller`.
fn user_among(wanted: &str, users: &[String]) -> bool {
    wanted.is_empty()
        || users
            .iter()
            .any(|user| user == wanted || user.split('/').any(|part| part == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, parent: &str, times: (u64, u64), attributes: &[(&str, &str)]) -> pb::Span {
        pb::Span {
            span_id: name.to_owned(),
            parent_span_id: parent.to_owned(),
            name: name.to_owned(),
            service: "playhouse".to_owned(),
            kind: if parent.is_empty() { "server" } else { "internal" }.to_owned(),
            start_unix_ns: times.0 * 1_000_000,
            end_unix_ns: times.1 * 1_000_000,
            status: "ok".to_owned(),
            attributes: attributes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..pb::Span::default()
        }
    }

    fn summary() -> Summary {
        let mut summary = Summary::new(7);
        summary.add(&span(
            "decide",
            "Orders/PlaceOrder",
            (1_002, 1_003),
            &[("entity", "order/42"), ("asked_by", "shop/ann")],
        ));
        summary.add(&span(
            "Orders/PlaceOrder",
            "",
            (1_000, 1_050),
            &[("request.id", "r-1"), ("customer", "Bob")],
        ));
        let mut failed = span(
            "call",
            "x",
            (1_010, 1_200),
            &[("saga", "checkout/42"), ("events", "Placed@1")],
        );
        failed.status = "error".to_owned();
        failed.error = "Payment provider: 503".to_owned();
        summary.add(&failed);
        summary
    }

    #[test]
    fn a_trace_is_named_by_its_root_whatever_came_first() {
        let told = summary().told;
        assert_eq!(
            (told.root.as_str(), told.spans, told.errors),
            ("Orders/PlaceOrder", 3, 1)
        );
        assert_eq!((told.start_unix_ns, told.end_unix_ns), (1_000_000_000, 1_200_000_000));
        assert_eq!(
            (told.entities, told.request_ids),
            (vec!["order/42".to_owned()], vec!["r-1".to_owned()])
        );
    }

    #[test]
    fn a_search_means_what_has_all_of_it() {
        let summary = summary();
        let search = |change: &dyn Fn(&mut pb::SearchTracesRequest)| {
            let mut search = pb::SearchTracesRequest::default();
            change(&mut search);
            summary.matches(&search)
        };
        assert!(search(&|_| {}));
        assert!(search(&|s| s.entity = "order/42".to_owned()) && search(&|s| s.entity = "order".to_owned()));
        assert!(!search(&|s| s.entity = "order/4".to_owned()) && !search(&|s| s.entity = "stock".to_owned()));
        assert!(search(&|s| s.saga = "checkout".to_owned()) && !search(&|s| s.saga = "order/42".to_owned()));
        for user in ["ann", "shop", "shop/ann", "Bob"] {
            assert!(search(&|s| s.user = user.to_owned()), "{user}");
        }
        assert!(!search(&|s| s.user = "bo".to_owned()));
        assert!(search(&|s| s.status = "error".to_owned()) && !search(&|s| s.status = "ok".to_owned()));
        assert!(search(&|s| s.min_duration_ms = 200) && !search(&|s| s.min_duration_ms = 201));
        assert!(!search(&|s| s.max_duration_ms = 199) && search(&|s| s.since_unix_ms = 1_000));
        assert!(!search(&|s| s.since_unix_ms = 1_001) && !search(&|s| s.until_unix_ms = 1_000));
        for text in ["placed@", "503", "R-1", "placeorder", "ORDER/4", "0000007"] {
            assert!(search(&|s| s.text = text.to_owned()), "{text}");
        }
        assert!(!search(&|s| s.text = "kettle".to_owned()));
    }

    #[test]
    fn what_several_members_say_is_one_list_the_newest_first() {
        let (mut part, whole) = (Summary::new(7), summary());
        part.add(&span("late", "x", (1_100, 1_300), &[]));
        let mut newer = Summary::new(8);
        newer.add(&span("Stock/GetStock", "", (2_000, 2_001), &[]));
        let lists = [vec![part.told.clone(), newer.told.clone()], vec![whole.told]];
        let all = merged(lists.clone(), 10);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].root.as_str(), all[1].root.as_str()),
            ("Stock/GetStock", "Orders/PlaceOrder")
        );
        assert_eq!(all[1].end_unix_ns, 1_300_000_000);
        assert_eq!(merged(lists, 1).len(), 1);
    }
}
