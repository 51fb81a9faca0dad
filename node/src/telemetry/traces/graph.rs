//! Who calls whom, read from the spans of traces.
//!
//! A party is the edge of the cluster, a kind of entity, or a service outside. A call of the edge to an entity is what hangs
//! below the edge's span of that entity; one of an entity is an effect; one into the cluster is an edge's span below a
//! caller's.

use std::collections::{BTreeMap, HashMap};

use proto::telemetry::v1 as pb;

/// The party that takes calls for the cluster.
const EDGE: &str = "edge";
/// Durations that one edge of the graph keeps.
const DURATIONS_MAX: usize = 4_096;

/// The graph as it grows.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<String, pb::GraphNode>,
    edges: BTreeMap<(String, String), pb::GraphEdge>,
}

impl Graph {
    /// Takes an assembled trace in.
    pub(crate) fn add(&mut self, spans: &[pb::Span]) {
        let places: HashMap<&str, &pb::Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
        // What the edge asks of an entity has several spans; they are one call.
        let mut asked: BTreeMap<(&str, &str), (u64, u64, bool)> = BTreeMap::new();
        // A hop belongs to the call that it is made for.
        for span in spans.iter().filter(|span| span.name != "forward") {
            let party = party(span);
            let node = self.nodes.entry(party.0.clone()).or_default();
            node.name.clone_from(&party.0);
            node.spans += 1;
            node.errors += u64::from(span.status == "error");
            if node.kind.is_empty() || party.1 == "saga" {
                party.1.clone_into(&mut node.kind);
            }
            let times = (span.start_unix_ns, span.end_unix_ns);
            let is_error = span.status == "error";
            if let Some(to) = span.attributes.get("to").and_then(|to| to.split_once('/')) {
                self.call(&party.0, to.0, times, is_error);
            } else if let Some(service) = span.attributes.get("peer.service") {
                self.call(&party.0, service, times, is_error);
                let node = self.nodes.entry(service.clone()).or_default();
                (node.name, node.kind) = (service.clone(), "outside".to_owned());
            } else if let Some(parent) = places.get(span.parent_span_id.as_str()) {
                let from = self::party(parent).0;
                if span.kind == "server" && from != party.0 && span.node != 0 {
                    self.call(&from, &party.0, times, is_error);
                } else if from == EDGE && party.0 != EDGE && span.node != 0 {
                    let entity = span.attributes.get("entity").map_or("", String::as_str);
                    let call = asked.entry((&parent.span_id, entity)).or_insert((u64::MAX, 0, false));
                    *call = (call.0.min(times.0), call.1.max(times.1), call.2 | is_error);
                }
            }
        }
        for ((_, entity), (start, end, is_error)) in asked {
            let kind = entity.split_once('/').map_or(entity, |(kind, _)| kind);
            self.call(EDGE, kind, (start, end), is_error);
        }
    }

    fn call(&mut self, from: &str, to: &str, (start, end): (u64, u64), is_error: bool) {
        let edge = self
            .edges
            .entry((from.to_owned(), to.to_owned()))
            .or_insert_with(|| pb::GraphEdge {
                from: from.to_owned(),
                to: to.to_owned(),
                first_unix_ns: u64::MAX,
                ..pb::GraphEdge::default()
            });
        edge.calls += 1;
        edge.errors += u64::from(is_error);
        edge.first_unix_ns = edge.first_unix_ns.min(start);
        edge.last_unix_ns = edge.last_unix_ns.max(start);
        if edge.durations_ns.len() < DURATIONS_MAX {
            edge.durations_ns.push(end.saturating_sub(start));
        }
    }

    /// Takes in what another member has made of other traces.
    pub(crate) fn merge(&mut self, other: pb::GraphResponse) {
        for node in other.nodes {
            let own = self.nodes.entry(node.name.clone()).or_default();
            own.name = node.name;
            own.spans += node.spans;
            own.errors += node.errors;
            if own.kind.is_empty() || node.kind == "saga" {
                own.kind = node.kind;
            }
        }
        for edge in other.edges {
            let key = (edge.from.clone(), edge.to.clone());
            match self.edges.entry(key) {
                std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(edge)),
                std::collections::btree_map::Entry::Occupied(mut own) => {
                    let own = own.get_mut();
                    own.calls += edge.calls;
                    own.errors += edge.errors;
                    own.first_unix_ns = own.first_unix_ns.min(edge.first_unix_ns);
                    own.last_unix_ns = own.last_unix_ns.max(edge.last_unix_ns);
                    own.durations_ns.extend(edge.durations_ns);
                    own.durations_ns.truncate(DURATIONS_MAX);
                }
            }
        }
    }

    /// For another member: with all durations.
    pub(crate) fn raw(self) -> pb::GraphResponse {
        pb::GraphResponse {
            nodes: self.nodes.into_values().collect(),
            edges: self.edges.into_values().collect(),
            ..pb::GraphResponse::default()
        }
    }

    /// With its figures.
    pub(crate) fn told(self) -> pb::GraphResponse {
        let mut told = self.raw();
        for edge in &mut told.edges {
            let mut durations = std::mem::take(&mut edge.durations_ns);
            durations.sort_unstable();
            let at = |part: f64| {
                let place = ((durations.len() as f64 * part).ceil() as usize).saturating_sub(1);
                durations.get(place).copied().unwrap_or_default()
            };
            (edge.p50_ns, edge.p99_ns) = (at(0.5), at(0.99));
            edge.mean_ns = durations.iter().sum::<u64>() / durations.len().max(1) as u64;
            let seconds = edge.last_unix_ns.saturating_sub(edge.first_unix_ns) as f64 / 1e9;
            // One call alone is no rate.
            edge.per_s = if seconds > 0.0 {
                edge.calls as f64 / seconds
            } else {
                0.0
            };
        }
        told
    }
}

/// Whose a span is, and what kind of party that is.
fn party(span: &pb::Span) -> (String, &'static str) {
    if span.node == 0 {
        let kind = if span.kind == "server" { "outside" } else { "client" };
        return (span.service.clone(), kind);
    }
    match span.attributes.get("entity").and_then(|key| key.split_once('/')) {
        Some((kind, _)) if span.kind != "server" => {
            let kind_of = if span.attributes.contains_key("saga") {
                "saga"
            } else {
                "entity"
            };
            (kind.to_owned(), kind_of)
        }
        _ => (EDGE.to_owned(), "edge"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::assemble::tests::span, *};

    fn of(id: &str, parent: &str, times: (u64, u64), kind: &str, attributes: &[(&str, &str)]) -> pb::Span {
        pb::Span {
            service: "playhouse".to_owned(),
            node: 1,
            kind: kind.to_owned(),
            attributes: attributes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..span(id, parent, times.0, times.1)
        }
    }

    fn trace() -> Vec<pb::Span> {
        let mut cli = of("cli", "", (0, 100), "client", &[]);
        (cli.service, cli.node) = ("playhouse-cli".to_owned(), 0);
        let mut provider = of("p", "c", (60, 70), "server", &[]);
        (provider.service, provider.node) = ("payment-provider".to_owned(), 0);
        let mut call = of(
            "c",
            "f",
            (55, 75),
            "client",
            &[("entity", "payment/1"), ("peer.service", "payment-provider")],
        );
        call.status = "error".to_owned();
        vec![
            cli,
            of("e", "cli", (1, 50), "server", &[("entity", "order/1")]),
            of("d", "e", (5, 6), "internal", &[("entity", "order/1")]),
            of("k", "e", (6, 15), "internal", &[("entity", "order/1")]),
            of(
                "f",
                "e",
                (15, 90),
                "producer",
                &[("entity", "order/1"), ("to", "checkout/1")],
            ),
            of(
                "g",
                "f",
                (16, 17),
                "internal",
                &[("entity", "checkout/1"), ("saga", "checkout/1")],
            ),
            call,
            provider,
        ]
    }

    #[test]
    fn parties_and_calls_are_read_from_a_trace() {
        let mut graph = Graph::default();
        graph.add(&trace());
        graph.add(&trace());
        let told = graph.told();
        let edges: Vec<_> = told
            .edges
            .iter()
            .map(|edge| {
                (
                    edge.from.as_str(),
                    edge.to.as_str(),
                    edge.calls,
                    edge.errors,
                    edge.p50_ns,
                )
            })
            .collect();
        let expected = [
            ("edge", "order", 2, 0, 10),
            ("order", "checkout", 2, 0, 75),
            ("payment", "payment-provider", 2, 2, 20),
            ("playhouse-cli", "edge", 2, 0, 49),
        ];
        assert_eq!(edges, expected);
        let kinds: Vec<_> = told
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.kind.as_str()))
            .collect();
        assert!(
            kinds.contains(&("checkout", "saga")) && kinds.contains(&("payment-provider", "outside")),
            "{kinds:?}"
        );
    }

    #[test]
    fn what_members_made_of_different_traces_is_one_graph() {
        let (mut whole, mut one, mut other) = (Graph::default(), Graph::default(), Graph::default());
        for (number, graph) in [&mut one, &mut other].into_iter().enumerate() {
            let spans: Vec<_> = trace()
                .into_iter()
                .map(|span| pb::Span {
                    start_unix_ns: span.start_unix_ns + number as u64 * 1_000_000_000,
                    end_unix_ns: span.end_unix_ns + number as u64 * 1_000_000_000,
                    ..span
                })
                .collect();
            graph.add(&spans);
            whole.add(&spans);
        }
        one.merge(other.raw());
        let told = one.told();
        assert_eq!(told, whole.told());
        assert!((told.edges[0].per_s - 2.0).abs() < 0.01);
    }
}
