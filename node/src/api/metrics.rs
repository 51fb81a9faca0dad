//! How the cluster is doing: the short history of all nodes put together, and whether the objectives are met.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::config::NodeId;
use futures::{Stream, StreamExt as _, stream};
use proto::telemetry::v1::{self as pb, metrics_client::MetricsClient};
use tokio::time::{sleep, timeout};
use tonic::{Response, Status, transport::Channel};

use super::{members, request::Edge, status::Fault};
use crate::telemetry::metrics::{
    STEP,
    objectives::{self, Name, Part, WINDOWS_S},
    series::{About, Merge, Points, SERIES, merged},
    unix_ms,
};

/// How long another node may take to tell of itself.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// Nodes make their points at full seconds; a moment later all of them are there.
const SETTLED: Duration = Duration::from_millis(300);
/// Streams of one node that are watched at one time.
const WATCHERS_MAX: usize = 64;
/// Bytes of one node's answer: all series of ten minutes are about 200 KB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The metrics service.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(super) edge: Edge,
    watchers: Arc<AtomicUsize>,
}

type SeriesStream = Pin<Box<dyn Stream<Item = Result<pb::SeriesResponse, Status>> + Send>>;

/// What was told by which node, and why another one told nothing.
pub(super) type Told<T> = (Vec<(NodeId, T)>, Vec<pb::UnansweredNode>);

#[tonic::async_trait]
impl pb::metrics_server::Metrics for Metrics {
    type WatchStream = SeriesStream;

    async fn series(&self, request: tonic::Request<pb::SeriesRequest>) -> Result<Response<pb::SeriesResponse>, Status> {
        let (call, request) = self.edge.receive("Metrics/Series", request)?;
        call.answer(self.gather(&request).await)
    }

    async fn watch(&self, request: tonic::Request<pb::SeriesRequest>) -> Result<Response<SeriesStream>, Status> {
        let (call, mut request) = self.edge.receive("Metrics/Watch", request)?;
        let watching = Watching::begin(&self.watchers);
        let begun = match watching {
            Some(watching) => self.check(&request).map(|_| watching),
            None => Err(Fault::Engine(cluster::Error::Overloaded {
                what: format!("{WATCHERS_MAX} watchers of metrics on one node"),
                retry_after: Duration::from_secs(5),
            })),
        };
        let response = call.answer(begun)?;
        let first = request.since_unix_ms > 0;
        if !first {
            request.since_unix_ms = unix_ms();
        }
        let metrics = self.clone();
        Ok(response.map(|watching| {
            let from = (metrics, request, watching, first);
            stream::unfold(from, |(metrics, mut request, watching, is_first)| async move {
                loop {
                    if !is_first {
                        metrics.until_next().await;
                    }
                    let told = metrics.gather(&request).await;
                    match told {
                        Ok(told) => {
                            let newest_ms = newest_ms(&told);
                            if newest_ms == 0 && !is_first {
                                continue;
                            }
                            request.since_unix_ms = request.since_unix_ms.max(newest_ms);
                            return Some((Ok(told), (metrics, request, watching, false)));
                        }
                        Err(fault) => return Some((Err(fault.status(None)), (metrics, request, watching, false))),
                    }
                }
            })
            .boxed()
        }))
    }

    async fn objectives(
        &self,
        request: tonic::Request<pb::ObjectivesRequest>,
    ) -> Result<Response<pb::ObjectivesResponse>, Status> {
        let (call, request) = self.edge.receive("Metrics/Objectives", request)?;
        call.answer(self.gather_objectives(request.node).await)
    }

    async fn exemplars(
        &self,
        request: tonic::Request<pb::ExemplarsRequest>,
    ) -> Result<Response<pb::ExemplarsResponse>, Status> {
        let (call, request) = self.edge.receive("Metrics/Exemplars", request)?;
        call.answer(self.gather_exemplars(&request).await)
    }
}

/// When the newest point of an answer ended; 0 where there is none.
fn newest_ms(told: &pb::SeriesResponse) -> u64 {
    let ends = told.series.iter().filter(|series| !series.values.is_empty());
    let step_ms = u64::from(told.step_ms);
    ends.map(|series| series.first_unix_ms + (series.values.len() as u64 - 1) * step_ms)
        .max()
        .unwrap_or_default()
}

/// One who watches, until it is dropped.
struct Watching(Arc<AtomicUsize>);

impl Watching {
    fn begin(watchers: &Arc<AtomicUsize>) -> Option<Self> {
        let watching = Self(Arc::clone(watchers));
        (watchers.fetch_add(1, Ordering::Relaxed) < WATCHERS_MAX).then_some(watching)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self {
            edge,
            watchers: Arc::default(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.edge.cluster.node()
    }

    /// Resolves when all nodes have made another point.
    async fn until_next(&self) {
        if let Some(series) = self.edge.metrics.series() {
            let mut newest_ms = series.newest_ms();
            newest_ms.borrow_and_update();
            // A clock that was set back makes no new points for a while.
            let _ = timeout(STEP * 2, newest_ms.changed()).await;
            sleep(SETTLED).await;
        } else {
            sleep(STEP).await;
        }
    }

    /// The places of the series that are asked for.
    fn check(&self, request: &pb::SeriesRequest) -> Result<Vec<usize>, Fault> {
        self.check_node(request.node)?;
        if request.names.is_empty() {
            return Ok((0..SERIES.len()).collect());
        }
        let place = |name: &String| SERIES.iter().position(|about| about.name == name.as_str());
        let mut places = Vec::new();
        for (at, name) in request.names.iter().enumerate().take(SERIES.len() + 1) {
            let found = place(name).ok_or_else(|| {
                let known: Vec<_> = SERIES.iter().map(|about| about.name).collect();
                Fault::invalid(
                    format!("names[{at}]"),
                    format!("is no series; there are {}", known.join(", ")),
                )
            })?;
            if places.contains(&found) {
                return Err(Fault::invalid(format!("names[{at}]"), "was named before"));
            }
            places.push(found);
        }
        Ok(places)
    }

    pub(super) fn check_node(&self, node: u32) -> Result<(), Fault> {
        let is_member =
            |node: NodeId| node == self.node() || self.edge.cluster.peers().iter().any(|(id, _)| *id == node);
        if node == 0 || NodeId::try_from(node).is_ok_and(is_member) {
            return Ok(());
        }
        Err(Fault::invalid(
            "node",
            "is no member of the cluster; see `playhouse status`",
        ))
    }

    async fn gather(&self, request: &pb::SeriesRequest) -> Result<pb::SeriesResponse, Fault> {
        let places = self.check(request)?;
        let abouts: Vec<About> = places.iter().map(|place| SERIES[*place]).collect();
        let one = pb::SeriesRequest {
            names: abouts.iter().map(|about| about.name.to_owned()).collect(),
            since_unix_ms: request.since_unix_ms,
            node: 0,
            by_node: false,
        };
        let own = self
            .edge
            .metrics
            .series()
            .map(|series| series.since(request.since_unix_ms, &places));
        let (nodes, unanswered) = self
            .ask(request.node, own, |node, mut client| {
                let request = pb::SeriesRequest {
                    node: u32::from(node),
                    ..one.clone()
                };
                let names = one.names.clone();
                async move { Ok(points(&client.series(request).await?.into_inner(), &names)) }
            })
            .await;
        let merges: Vec<Merge> = abouts.iter().map(|about| about.merge).collect();
        let all: Vec<&Points> = nodes.iter().map(|(_, points)| points).collect();
        let node = request.node;
        let mut series = told(&abouts, node, &merged(&all, &merges));
        if request.by_node && node == 0 {
            for (node, points) in &nodes {
                series.extend(told(&abouts, u32::from(*node), &merged(&[points], &merges)));
            }
        }
        Ok(pb::SeriesResponse {
            now_unix_ms: unix_ms(),
            step_ms: STEP.as_millis() as u32,
            series,
            unanswered,
            names: (SERIES.iter())
                .map(|about| pb::SeriesName {
                    name: about.name.to_owned(),
                    unit: about.unit.to_owned(),
                    about: about.says.to_owned(),
                    merged_by: about.merge.as_str().to_owned(),
                })
                .collect(),
        })
    }

    async fn gather_objectives(&self, node: u32) -> Result<pb::ObjectivesResponse, Fault> {
        self.check_node(node)?;
        let own = (self.edge.metrics.objectives()).map(|objectives| objectives.windows(unix_ms()));
        let (nodes, unanswered) = self
            .ask(node, own, |node, mut client| async move {
                let request = pb::ObjectivesRequest { node: u32::from(node) };
                Ok(windows(&client.objectives(request).await?.into_inner()))
            })
            .await;
        let mut sums: BTreeMap<Name, [Part; 3]> = BTreeMap::new();
        let mut covered_s = 0;
        for (_, (parts, covered)) in &nodes {
            covered_s = covered_s.max(*covered);
            for (name, windows) in parts {
                for (sum, part) in sums.entry(*name).or_default().iter_mut().zip(windows) {
                    sum.add(*part);
                }
            }
        }
        let objectives = sums.into_iter().map(|(name, windows)| pb::Objective {
            name: name.as_str().to_owned(),
            about: name.about().to_owned(),
            target: name.target(),
            threshold_ms: name.threshold_ms(),
            state: objectives::state(name.target(), &windows).to_owned(),
            windows: (WINDOWS_S.into_iter().zip(windows))
                .map(|(length_s, part)| pb::ObjectiveWindow {
                    length_s,
                    covered_s: covered_s.min(length_s),
                    good: part.good,
                    total: part.total,
                    burn_rate: part.burn_rate(name.target()),
                })
                .collect(),
        });
        Ok(pb::ObjectivesResponse {
            objectives: objectives.collect(),
            unanswered,
        })
    }

    /// What one node says of itself, or what all of them say, this one's own among it.
    pub(super) async fn ask<T, F>(
        &self,
        node: u32,
        own: Option<T>,
        ask: impl Fn(NodeId, MetricsClient<Channel>) -> F,
    ) -> Told<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let off = || Status::unavailable("metrics are turned off on this node; start it without PLAYHOUSE_METRICS=off");
        let is_meant = |id: NodeId| node == 0 || u32::from(id) == node;
        let there = |id, channel| {
            ask(
                id,
                MetricsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            )
        };
        let here = async { own.ok_or_else(off) };
        let said = members::ask(&self.edge.cluster, is_meant, ANSWER_MAX, here, there).await;
        let unanswered = said.unanswered.into_iter().map(|(node, reason)| pb::UnansweredNode {
            node: u32::from(node),
            reason,
        });
        (said.answers, unanswered.collect())
    }
}

/// Points as series: one value for each step from the first point on, NaN where a step has none.
fn told(abouts: &[About], node: u32, points: &Points) -> Vec<pb::Series> {
    let step_ms = STEP.as_millis() as u64;
    let first_ms = points.first().map_or(0, |(at_ms, _)| *at_ms);
    let len = points.last().map_or(0, |(at_ms, _)| (at_ms - first_ms) / step_ms + 1);
    let series = abouts.iter().enumerate().map(|(place, about)| {
        let mut values = vec![f64::NAN; usize::try_from(len).unwrap_or_default()];
        for (at_ms, point) in points {
            values[((at_ms - first_ms) / step_ms) as usize] = point[place];
        }
        pb::Series {
            name: about.name.to_owned(),
            node,
            first_unix_ms: first_ms,
            values,
        }
    });
    series.collect()
}

/// What another node has told as points, with the values of these series; NaN where it does not know one.
fn points(told: &pb::SeriesResponse, names: &[String]) -> Points {
    let step_ms = u64::from(told.step_ms.max(1));
    let mut points: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for series in &told.series {
        let Some(place) = names.iter().position(|name| *name == series.name) else {
            continue;
        };
        for (at, value) in series.values.iter().enumerate() {
            let at_ms = series.first_unix_ms + at as u64 * step_ms;
            points.entry(at_ms).or_insert_with(|| vec![f64::NAN; names.len()])[place] = *value;
        }
    }
    points.into_iter().collect()
}

/// What another node has told of the objectives that this build knows.
fn windows(told: &pb::ObjectivesResponse) -> (BTreeMap<Name, [Part; 3]>, u32) {
    let mut covered_s = 0;
    let known = told.objectives.iter().filter_map(|objective| {
        let name = Name::ALL.into_iter().find(|name| name.as_str() == objective.name)?;
        let mut parts = [Part::default(); 3];
        for window in &objective.windows {
            covered_s = covered_s.max(window.covered_s);
            if let Some(place) = WINDOWS_S.iter().position(|length_s| *length_s == window.length_s) {
                let (good, total) = (window.good, window.total);
                parts[place] = Part { good, total };
            }
        }
        Some((name, parts))
    });
    (known.collect(), covered_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_survive_the_way_to_another_node() {
        let abouts = [SERIES[0], SERIES[4]];
        let names: Vec<String> = abouts.iter().map(|about| about.name.to_owned()).collect();
        let before: Points = vec![(5_000, vec![1.0, 2.0]), (7_000, vec![3.0, 4.0])];
        let response = pb::SeriesResponse {
            step_ms: 1_000,
            series: told(&abouts, 2, &before),
            ..pb::SeriesResponse::default()
        };
        assert_eq!(newest_ms(&response), 7_000);
        let after = points(&response, &names);
        assert_eq!((&after[0], &after[2]), (&before[0], &before[1]));
        assert_eq!(after[1].0, 6_000);
        assert!(
            after[1].1.iter().all(|value| value.is_nan()),
            "nothing is known of this second"
        );
    }

    #[test]
    fn what_another_build_tells_is_left_out() {
        let response = pb::SeriesResponse {
            step_ms: 1_000,
            series: vec![pb::Series {
                name: "of_tomorrow".to_owned(),
                values: vec![1.0],
                ..pb::Series::default()
            }],
            ..pb::SeriesResponse::default()
        };
        assert!(points(&response, &["orders_per_s".to_owned()]).is_empty());
        assert_eq!(newest_ms(&pb::SeriesResponse::default()), 0);
    }
}
