//! Which traces are recorded: by the standard variables `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`, or, where they
//! say nothing, by the node's own ratio and budget.

use std::{env, sync::Arc};

use cluster::TraceContext;

use super::traces::budget::Budget;

/// Services that people and tools ask again and again. Their calls are recorded only for a caller who records them.
const QUIET: [&str; 7] = [
    "Admin/", "Traces/", "Logs/", "Metrics/", "Schemas/", "Chaos/", "Health/",
];

/// Decides once a trace, at the first node that it reaches; the others follow its flag.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    /// Whether a caller's decision stands.
    parent_based: bool,
    /// The part of new traces that are recorded.
    ratio: f64,
    /// While it is overdrawn no new trace is recorded.
    budget: Option<Arc<Budget>>,
}

impl Sampler {
    /// As the environment says; where it says nothing, this ratio of new traces, within the budget.
    pub(crate) fn from_environment(ratio: f64, budget: Arc<Budget>) -> Self {
        match env::var("OTEL_TRACES_SAMPLER").ok().filter(|name| !name.is_empty()) {
            Some(name) => Self::named(&name, env::var("OTEL_TRACES_SAMPLER_ARG").ok().as_deref()),
            None => Self {
                parent_based: true,
                ratio,
                budget: Some(budget),
            },
        }
    }

    fn named(name: &str, argument: Option<&str>) -> Self {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let ratio = match root {
            "always_off" => 0.0,
            "traceidratio" => argument.and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0),
            _ => 1.0,
        };
        Self {
            parent_based,
            ratio,
            budget: None,
        }
    }

    /// The part of new traces that are recorded.
    pub(crate) fn ratio(&self) -> f64 {
        self.ratio
    }

    /// The trace of a call of this name that came with this parent.
    pub(crate) fn decide(&self, name: &str, parent: Option<TraceContext>) -> TraceContext {
        let context = match parent {
            Some(parent) if self.parent_based => return parent,
            Some(parent) => parent,
            // A root has no span above it; its first span is the edge's own.
            None => TraceContext {
                span_id: 0,
                ..TraceContext::random(false)
            },
        };
        let is_quiet = QUIET.iter().any(|service| name.starts_with(service));
        // The cast saturates: a ratio of 1 and more records everything, a negative one nothing.
        let below = (self.ratio * u64::MAX as f64) as u64;
        let sampled = below > 0
            && (context.trace_id as u64) <= below
            && !(is_quiet && self.parent_based)
            && self.budget.as_ref().is_none_or(|budget| budget.has_any());
        TraceContext { sampled, ..context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "Orders/PlaceOrder";

    #[test]
    fn a_callers_decision_stands_unless_told_otherwise() {
        let refused = TraceContext::random(false);
        assert_eq!(
            Sampler::named("parentbased_always_on", None).decide(NAME, Some(refused)),
            refused
        );
        assert!(Sampler::named("always_on", None).decide(NAME, Some(refused)).sampled);
        let wanted = TraceContext::random(true);
        assert!(!Sampler::named("always_off", None).decide(NAME, Some(wanted)).sampled);
    }

    #[test]
    fn a_ratio_records_about_its_part_of_new_traces() {
        let sampler = Sampler::named("parentbased_traceidratio", Some("0.1"));
        let recorded = (0..10_000).filter(|_| sampler.decide(NAME, None).sampled).count();
        assert!((700..1300).contains(&recorded), "{recorded}");
        assert!(Sampler::named("parentbased_always_on", None).decide(NAME, None).sampled);
        assert!(
            !Sampler::named("parentbased_always_off", None)
                .decide(NAME, None)
                .sampled
        );
    }

    #[test]
    fn an_overdrawn_budget_ends_new_traces_and_not_those_under_way() {
        let budget = Arc::new(Budget::per_second(1));
        let sampler = Sampler {
            parent_based: true,
            ratio: 1.0,
            budget: Some(Arc::clone(&budget)),
        };
        assert!(sampler.decide(NAME, None).sampled);
        while budget.take() {}
        assert!(!sampler.decide(NAME, None).sampled);
        assert!(sampler.decide(NAME, Some(TraceContext::random(true))).sampled);
    }

    #[test]
    fn questions_about_the_cluster_itself_are_recorded_only_for_who_records_them() {
        let sampler = Sampler::named("parentbased_always_on", None);
        assert!(!sampler.decide("Admin/Status", None).sampled);
        assert!(sampler.decide("Admin/Status", Some(TraceContext::random(true))).sampled);
    }
}
