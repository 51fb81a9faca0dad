//! Spans on their way to the members that keep their traces: each member gets all that is for it at once. One that does not take
//! its part is passed over, for each trace by the next in that trace's order.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use cluster::{Cluster, config::NodeId};
use futures::future::join_all;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tonic::{
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{TraceStore, otlp, owners};

/// The metadata key that says that spans come from a member and are to be kept where they arrive.
pub(crate) const FROM_MEMBER_KEY: &str = "x-playhouse-member";
/// How long a member may take to be reached, and to take spans.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that did not take spans is not asked for so long, unless there is no other.
const MEMBER_REST: Duration = Duration::from_secs(1);

/// The members, as far as spans are sent to them.
pub(super) struct Members {
    cluster: Cluster,
    store: Arc<TraceStore>,
    channels: Mutex<HashMap<SocketAddr, Channel>>,
    /// Those that did not take spans lately, and until when they are not asked.
    resting: Mutex<HashMap<NodeId, Instant>>,
}

impl Members {
    pub(super) fn new(cluster: Cluster, store: Arc<TraceStore>) -> Self {
        Self {
            cluster,
            store,
            channels: Mutex::default(),
            resting: Mutex::default(),
        }
    }

    /// Gives each span to those that keep its trace; how many spans nobody took.
    pub(super) async fn keep(&self, request: ExportTraceServiceRequest) -> u64 {
        let addresses: BTreeMap<NodeId, SocketAddr> = self.cluster.members().into_iter().collect();
        let mut plan = Plan::new(request, &self.by_readiness(addresses.keys().copied()));
        loop {
            let parts = plan.next_parts();
            if parts.is_empty() {
                return plan.untaken();
            }
            let sent = parts.into_iter().map(async |(node, spans)| {
                let part = plan.part(&spans);
                let is_taken = if node == self.cluster.node() {
                    self.store.take(part).await;
                    true
                } else {
                    self.send(node, addresses[&node], part).await
                };
                (spans, is_taken)
            });
            for (spans, is_taken) in join_all(sent).await {
                if is_taken {
                    plan.taken(&spans);
                }
            }
        }
    }

    /// The members that took what they were sent last, and those that did not.
    fn by_readiness(&self, nodes: impl Iterator<Item = NodeId>) -> [Vec<NodeId>; 2] {
        let (resting, now) = (self.resting.lock(), Instant::now());
        let (resting, ready) = nodes.partition(|node| resting.get(node).is_some_and(|until| *until > now));
        [ready, resting]
    }

    async fn send(&self, node: NodeId, address: SocketAddr, part: ExportTraceServiceRequest) -> bool {
        let Some(channel) = self.channel(address) else {
            return false;
        };
        let mut request = tonic::Request::new(part);
        request
            .metadata_mut()
            .insert(FROM_MEMBER_KEY, MetadataValue::from_static("1"));
        let exported = timeout(MEMBER_TIMEOUT, TraceServiceClient::new(channel).export(request)).await;
        let is_taken = matches!(exported, Ok(Ok(_)));
        if is_taken {
            self.resting.lock().remove(&node);
        } else {
            self.resting.lock().insert(node, Instant::now() + MEMBER_REST);
        }
        is_taken
    }

    fn channel(&self, address: SocketAddr) -> Option<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        channels.insert(address, channel.clone());
        Some(channel)
    }
}

/// Who is to take which spans of a request.
struct Plan {
    /// Without their spans.
    resources: Vec<ResourceSpans>,
    spans: Vec<Planned>,
    /// Of each trace: the members in the order in which they are to take it.
    ranked: HashMap<u128, Vec<NodeId>>,
}

/// A span, and how far it has come.
struct Planned {
    span: Span,
    trace_id: u128,
    /// Where it belongs: the place of its resource, and of its scope in that.
    of: (usize, usize),
    /// Members that were asked to take it, and those that did.
    asked: usize,
    copies: usize,
}

impl Plan {
    /// The second members are asked only where the first are too few.
    fn new(request: ExportTraceServiceRequest, members: &[Vec<NodeId>; 2]) -> Self {
        let mut plan = Self {
            resources: request.resource_spans,
            spans: Vec::new(),
            ranked: HashMap::new(),
        };
        for (at, resource) in plan.resources.iter_mut().enumerate() {
            for (scope_at, scope) in resource.scope_spans.iter_mut().enumerate() {
                for span in std::mem::take(&mut scope.spans) {
                    // What has no trace cannot be kept.
                    let Some(trace_id) = otlp::trace_id(&span) else {
                        continue;
                    };
                    (plan.ranked.entry(trace_id)).or_insert_with(|| {
                        let ranked = members.iter().map(|members| owners::ranked(trace_id, members));
                        ranked.flatten().collect()
                    });
                    plan.spans.push(Planned {
                        span,
                        trace_id,
                        of: (at, scope_at),
                        asked: 0,
                        copies: 0,
                    });
                }
            }
        }
        plan
    }

    /// Who is asked next, each for all the spans that it is to take; by their places. Nobody where all is done that can be.
    fn next_parts(&mut self) -> BTreeMap<NodeId, Vec<usize>> {
        let mut parts: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (place, planned) in self.spans.iter_mut().enumerate() {
            let wanted = owners::COPIES.saturating_sub(planned.copies);
            let next = self.ranked[&planned.trace_id].iter().skip(planned.asked).take(wanted);
            for node in next {
                parts.entry(*node).or_default().push(place);
                planned.asked += 1;
            }
        }
        parts
    }

    /// These spans as they are sent.
    fn part(&self, places: &[usize]) -> ExportTraceServiceRequest {
        let mut part: BTreeMap<usize, BTreeMap<usize, Vec<Span>>> = BTreeMap::new();
        for planned in places.iter().map(|place| &self.spans[*place]) {
            let scopes = part.entry(planned.of.0).or_default();
            scopes.entry(planned.of.1).or_default().push(planned.span.clone());
        }
        let resource_spans = part.into_iter().map(|(at, scopes)| {
            let of = &self.resources[at];
            let scope_spans = scopes.into_iter().map(|(at, spans)| ScopeSpans {
                scope: of.scope_spans[at].scope.clone(),
                schema_url: of.scope_spans[at].schema_url.clone(),
                spans,
            });
            ResourceSpans {
                resource: of.resource.clone(),
                scope_spans: scope_spans.collect(),
                schema_url: of.schema_url.clone(),
            }
        });
        ExportTraceServiceRequest {
            resource_spans: resource_spans.collect(),
        }
    }

    /// Somebody has taken these.
    fn taken(&mut self, places: &[usize]) {
        for place in places {
            self.spans[*place].copies += 1;
        }
    }

    /// How many nobody has taken.
    fn untaken(&self) -> u64 {
        self.spans.iter().filter(|planned| planned.copies == 0).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred traces of one span each, and one of two.
    fn request() -> ExportTraceServiceRequest {
        let spans = (1..=100_u128).chain([100]).map(|trace_id| Span {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: vec![1; 8],
            ..Span::default()
        });
        otlp::request("playhouse", "1", spans.collect())
    }

    #[test]
    fn each_member_is_sent_one_part_with_all_that_it_keeps() {
        let mut plan = Plan::new(request(), &[vec![1, 2, 3, 4, 5], vec![]]);
        let parts = plan.next_parts();
        assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(parts.values().map(Vec::len).sum::<usize>(), 101 * owners::COPIES);
        for (node, places) in &parts {
            let (spans, unreadable) = otlp::read(plan.part(places));
            assert_eq!((spans.len(), unreadable), (places.len(), 0));
            for (trace_id, span) in spans {
                assert_eq!((span.service.as_str(), span.node), ("playhouse", 1));
                assert!(owners::ranked(trace_id, &[1, 2, 3, 4, 5])[..owners::COPIES].contains(node));
            }
        }
        for places in parts.values() {
            plan.taken(places);
        }
        assert!(plan.next_parts().is_empty(), "all have their copies");
    }

    #[test]
    fn what_a_member_does_not_take_goes_to_the_next_of_each_trace() {
        let mut plan = Plan::new(request(), &[vec![1, 2, 3], vec![]]);
        for (_, places) in plan.next_parts().into_iter().filter(|(node, _)| *node != 2) {
            plan.taken(&places);
        }
        let instead = plan.next_parts();
        assert!(!instead.contains_key(&2), "nobody is asked twice");
        for places in instead.values() {
            plan.taken(places);
        }
        assert!(plan.next_parts().is_empty());
        assert!(plan.spans.iter().all(|planned| planned.copies == owners::COPIES));
        assert_eq!(plan.untaken(), 0);
    }

    #[test]
    fn a_member_that_took_nothing_lately_is_asked_last() {
        let mut plan = Plan::new(request(), &[vec![1, 3], vec![2]]);
        let parts = plan.next_parts();
        assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [1, 3]);
        plan.taken(&parts[&1]);
        assert_eq!(plan.next_parts().keys().copied().collect::<Vec<_>>(), [2]);
        assert!(plan.next_parts().is_empty(), "there is nobody else");
        assert_eq!(plan.untaken(), 0);
    }
}
