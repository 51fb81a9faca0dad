//! The last ten minutes second by second, of a few figures that people look at; and how those of several nodes become one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cluster::{
    metrics::{CommandEnd, Figures},
    supervision::Phase,
};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{STEP, process, recorder::Counts};

/// Points that are kept: ten minutes.
pub(crate) const POINTS_MAX: usize = 600;

/// How the cluster's figure comes from those of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Sum,
    /// For percentiles the worst of the nodes: those of all commands together are at most that.
    Max,
    /// For running times of parts of a commit.
    Mean,
}

impl Merge {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }

    /// NaN where there is nothing to merge.
    fn of(self, values: impl Iterator<Item = f64>) -> f64 {
        let known: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        if known.is_empty() {
            return f64::NAN;
        }
        match self {
            Self::Sum => known.iter().sum(),
            Self::Max => known.iter().copied().fold(f64::MIN, f64::max),
            Self::Mean => known.iter().sum::<f64>() / known.len() as f64,
        }
    }
}

/// What is known of a series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// What it says.
    pub(crate) says: &'static str,
    pub(crate) merge: Merge,
}

const fn about(name: &'static str, unit: &'static str, merge: Merge, says: &'static str) -> About {
    About {
        name,
        unit,
        says,
        merge,
    }
}

/// All series, in the order of their places in a point.
pub(crate) const SERIES: [About; 24] = [
    about("orders_per_s", "1/s", Merge::Sum, "orders placed"),
    about(
        "commands_per_s",
        "1/s",
        Merge::Sum,
        "commands of clients that were answered or failed",
    ),
    about(
        "command_errors_per_s",
        "1/s",
        Merge::Sum,
        "commands that the platform failed to answer",
    ),
    about(
        "command_rejections_per_s",
        "1/s",
        Merge::Sum,
        "commands that the domain said no to",
    ),
    about(
        "command_p50_ms",
        "ms",
        Merge::Max,
        "half of the commands took at most so long",
    ),
    about(
        "command_p95_ms",
        "ms",
        Merge::Max,
        "95 of 100 commands took at most so long",
    ),
    about(
        "command_p99_ms",
        "ms",
        Merge::Max,
        "99 of 100 commands took at most so long",
    ),
    about(
        "sagas_completed_per_s",
        "1/s",
        Merge::Sum,
        "sagas that came to their end",
    ),
    about("sagas_undone_per_s", "1/s", Merge::Sum, "sagas that were undone"),
    about(
        "breakers_open",
        "",
        Merge::Max,
        "breakers to the outside that are open or half-open",
    ),
    about("quarantined", "", Merge::Sum, "entities that are quarantined"),
    about(
        "failing",
        "",
        Merge::Sum,
        "entities that failed lately and come back after a pause",
    ),
    about(
        "commit_queue_ms",
        "ms",
        Merge::Mean,
        "mean time from a proposal until it was in an entry",
    ),
    about(
        "commit_sync_ms",
        "ms",
        Merge::Mean,
        "mean time from there until the leader's log was synced",
    ),
    about(
        "commit_network_ms",
        "ms",
        Merge::Mean,
        "mean time from there until a majority had the entry",
    ),
    about(
        "commit_apply_ms",
        "ms",
        Merge::Mean,
        "mean time from there until the entry was applied",
    ),
    about("outbox", "", Merge::Sum, "effects that are not acknowledged yet"),
    about("outbox_age_s", "s", Merge::Max, "age of the oldest of them"),
    about(
        "timers_late_s",
        "s",
        Merge::Max,
        "how long the most urgent timer has been due",
    ),
    about("live_entities", "", Merge::Sum, "entities that are live"),
    about("refused_per_s", "1/s", Merge::Sum, "calls that got no credit"),
    about("shards_led", "", Merge::Sum, "shards that have a leader"),
    about("cpu_cores", "cores", Merge::Sum, "processors that the nodes keep busy"),
    about("resident_bytes", "bytes", Merge::Sum, "memory that the nodes hold"),
];

/// The figures of one second, by the places of [`SERIES`]. NaN where nothing is known.
pub(crate) type Point = [f64; SERIES.len()];

/// Points with their times.
pub(crate) type Points = Vec<(u64, Vec<f64>)>;

/// A node's own last ten minutes.
#[derive(Debug)]
pub(crate) struct Series {
    points: RwLock<VecDeque<(u64, Point)>>,
    newest_ms: watch::Sender<u64>,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            points: RwLock::default(),
            newest_ms: watch::Sender::new(0),
        }
    }
}

impl Series {
    /// Adds a point; the oldest makes place.
    pub(super) fn push(&self, at_ms: u64, point: Point) {
        let mut points = self.points.write();
        // A clock that was set back must not bring them out of order.
        while points.back().is_some_and(|(newest_ms, _)| *newest_ms >= at_ms) {
            points.pop_back();
        }
        points.push_back((at_ms, point));
        if points.len() > POINTS_MAX {
            points.pop_front();
        }
        drop(points);
        self.newest_ms.send_replace(at_ms);
    }

    /// The points after a time, of the series at these places.
    pub(crate) fn since(&self, since_ms: u64, places: &[usize]) -> Points {
        let points = self.points.read();
        let newer = points.iter().filter(|(at_ms, _)| *at_ms > since_ms);
        newer
            .map(|(at_ms, point)| (*at_ms, places.iter().map(|place| point[*place]).collect()))
            .collect()
    }

    /// Changes with each new point: the time of the newest.
    pub(crate) fn newest_ms(&self) -> watch::Receiver<u64> {
        self.newest_ms.subscribe()
    }
}

/// The cluster's points from those of its nodes, each with as many values as there are `merges`.
pub(crate) fn merged(nodes: &[&Points], merges: &[Merge]) -> Points {
    let by_time: Vec<BTreeMap<u64, &Vec<f64>>> = (nodes.iter())
        .map(|points| points.iter().map(|(at_ms, values)| (*at_ms, values)).collect())
        .collect();
    let times: BTreeSet<u64> = by_time.iter().flat_map(BTreeMap::keys).copied().collect();
    let value = |at_ms: u64, place: usize, merge: Merge| {
        merge.of(by_time
            .iter()
            .filter_map(|points| points.get(&at_ms)?.get(place).copied()))
    };
    (times.into_iter())
        .map(|at_ms| {
            let values = merges
                .iter()
                .enumerate()
                .map(|(place, merge)| value(at_ms, place, *merge));
            (at_ms, values.collect())
        })
        .collect()
}

/// Makes points: what has changed from one look to the next.
#[derive(Default)]
pub(super) struct Sampler {
    before: Option<(Counts, u64, process::Taken)>,
}

impl Sampler {
    pub(super) fn point(&mut self, counts: &Counts, figures: &Figures) -> Point {
        let refused: u64 = figures.refused.iter().map(|(_, count)| count).sum();
        let taken = process::taken();
        let is_first = self.before.is_none();
        let (before, refused_before, taken_before) = self.before.take().unwrap_or_default();
        let led = || figures.shards.iter().filter(|shard| shard.leads);
        let rate = |now: u64, before: u64| {
            if is_first {
                f64::NAN
            } else {
                now.saturating_sub(before) as f64 / STEP.as_secs_f64()
            }
        };
        let (all, errors) = counts.commands();
        let (all_before, errors_before) = before.commands();
        let rejected = |counts: &Counts| counts.ends[CommandEnd::Rejected as usize];
        let took = counts.took.since(&before.took);
        let commits = counts.commits - before.commits;
        let part_ms = |at: usize| match commits {
            0 => f64::NAN,
            commits => (counts.commit_ns[at] - before.commit_ns[at]) as f64 / commits as f64 / 1e6,
        };
        let percentile = |part: f64| if is_first { f64::NAN } else { took.percentile_ms(part) };
        let longest = |of: &dyn Fn(&cluster::metrics::ShardFigures) -> f64| led().map(of).fold(0.0, f64::max);
        let point = [
            rate(counts.domain.orders_placed, before.domain.orders_placed),
            rate(all, all_before),
            rate(errors, errors_before),
            rate(rejected(counts), rejected(&before)),
            percentile(0.5),
            percentile(0.95),
            percentile(0.99),
            rate(counts.domain.sagas_completed, before.domain.sagas_completed),
            rate(counts.domain.sagas_undone, before.domain.sagas_undone),
            figures
                .breakers
                .iter()
                .filter(|breaker| breaker.state.phase != Phase::Closed)
                .count() as f64,
            led().map(|shard| shard.quarantined).sum::<usize>() as f64,
            led().map(|shard| shard.failing).sum::<usize>() as f64,
            part_ms(0),
            part_ms(1),
            part_ms(2),
            part_ms(3),
            led().map(|shard| shard.outbox_len).sum::<usize>() as f64,
            longest(&|shard| shard.outbox_age.as_secs_f64()),
            longest(&|shard| shard.timers_late.as_secs_f64()),
            led().map(|shard| shard.live).sum::<usize>() as f64,
            rate(refused, refused_before),
            led().filter(|shard| !shard.is_system).count() as f64,
            if is_first {
                f64::NAN
            } else {
                taken.cpu.saturating_sub(taken_before.cpu).as_secs_f64() / STEP.as_secs_f64()
            },
            taken.resident_bytes as f64,
        ];
        self.before = Some((counts.clone(), refused, taken));
        point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_are_kept_in_order_even_when_the_clock_is_set_back() {
        let series = Series::default();
        for n in 0..POINTS_MAX as u64 + 10 {
            series.push(n * 1000, [n as f64; SERIES.len()]);
        }
        let points = series.since(0, &[0]);
        assert_eq!(points.len(), POINTS_MAX);
        assert_eq!(points[0], (10_000, vec![10.0]));
        series.push(605_000, [7.0; SERIES.len()]);
        let newest = series.since(603_000, &[0, 1]);
        assert_eq!(newest, [(604_000, vec![604.0; 2]), (605_000, vec![7.0; 2])]);
        assert_eq!(*series.newest_ms().borrow(), 605_000);
    }

    #[test]
    fn nodes_are_merged_second_by_second_with_what_is_known() {
        let (a, b) = (
            vec![(1000, vec![1.0, 5.0, 2.0]), (2000, vec![3.0, f64::NAN, 4.0])],
            vec![(2000, vec![4.0, f64::NAN, 8.0])],
        );
        let merged = merged(&[&a, &b], &[Merge::Sum, Merge::Max, Merge::Mean]);
        assert_eq!(merged[0], (1000, vec![1.0, 5.0, 2.0]));
        let (at_ms, values) = &merged[1];
        assert_eq!((*at_ms, values[0], values[2]), (2000, 7.0, 6.0));
        assert!(values[1].is_nan());
    }

    #[test]
    fn rates_are_of_one_second_and_nothing_is_made_up_at_the_beginning() {
        let place = |name: &str| SERIES.iter().position(|about| about.name == name).expect("a series");
        let mut sampler = Sampler::default();
        let mut counts = Counts::default();
        counts.ends[CommandEnd::Replied as usize] = 1000;
        let figures = Figures::default();
        let first = sampler.point(&counts, &figures);
        assert!(first[place("commands_per_s")].is_nan() && first[place("command_p99_ms")].is_nan());
        counts.ends[CommandEnd::Replied as usize] += 5;
        counts.ends[CommandEnd::Rejected as usize] += 2;
        counts.ends[CommandEnd::Unknown as usize] += 1;
        (counts.commits, counts.commit_ns[1]) = (4, 6_000_000);
        let point = sampler.point(&counts, &figures);
        let at = |name: &str| point[place(name)];
        assert_eq!((at("commands_per_s"), at("command_errors_per_s")), (8.0, 1.0));
        assert_eq!((at("command_rejections_per_s"), at("commit_sync_ms")), (2.0, 1.5));
        assert!(at("resident_bytes") > 0.0 && at("command_p50_ms").is_nan());
    }

    #[test]
    fn a_name_is_there_once() {
        let names: BTreeSet<_> = SERIES.iter().map(|about| about.name).collect();
        assert_eq!(names.len(), SERIES.len());
    }
}
