//! Exemplars: of each method, and of each bucket of its durations, the last call whose trace is kept. They lead from a figure to
//! what stands behind it.
//!
//! OpenTelemetry's library for Rust has none, so they are kept beside its instruments and meet them where Prometheus reads
//! ([`super::openmetrics`]).

use std::{collections::BTreeMap, time::Duration};

use cluster::TraceContext;
use parking_lot::Mutex;

use super::{SECONDS, unix_ms};

/// A call that stands for others that took about as long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exemplar {
    /// For example `Orders/PlaceOrder`.
    pub(crate) method: &'static str,
    pub(crate) trace: TraceContext,
    pub(crate) took: Duration,
    /// When it ended.
    pub(crate) at_ms: u64,
}

/// As many as there are methods and buckets.
#[derive(Debug, Default)]
pub(crate) struct Exemplars(Mutex<BTreeMap<(&'static str, usize), Exemplar>>);

impl Exemplars {
    /// Takes a call that ends now.
    pub(crate) fn take(&self, method: &'static str, trace: TraceContext, took: Duration) {
        let exemplar = Exemplar {
            method,
            trace,
            took,
            at_ms: unix_ms(),
        };
        self.0.lock().insert((method, exemplar.bucket()), exemplar);
    }

    /// All of them, by method and duration.
    pub(crate) fn all(&self) -> Vec<Exemplar> {
        self.0.lock().values().cloned().collect()
    }
}

impl Exemplar {
    /// The place of its bucket's upper bound in [`SECONDS`]; behind all of them for the one without.
    fn bucket(&self) -> usize {
        let seconds = self.took.as_secs_f64();
        SECONDS.partition_point(|bound| *bound < seconds)
    }

    /// The upper bound of its bucket, in seconds; none for the last one.
    pub(super) fn bound(&self) -> Option<f64> {
        SECONDS.get(self.bucket()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_bucket_stands_for_it() {
        let exemplars = Exemplars::default();
        let traces = [1, 2, 3, 4].map(|_| TraceContext::random(true));
        for (trace, ms) in traces.into_iter().zip([6, 10, 11, 60_000]) {
            exemplars.take("Orders/PlaceOrder", trace, Duration::from_millis(ms));
        }
        let all = exemplars.all();
        let told: Vec<_> = all.iter().map(|exemplar| (exemplar.trace, exemplar.bound())).collect();
        assert_eq!(
            told,
            [(traces[1], Some(0.01)), (traces[2], Some(0.025)), (traces[3], None)],
            "a bound belongs to its bucket"
        );
        exemplars.take("Orders/GetOrder", traces[0], Duration::ZERO);
        assert_eq!(exemplars.all().len(), 4, "each method has its own");
    }
}
