//! Which traces are recorded, by the standard variables `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.

use std::env;

use cluster::TraceContext;

/// Decides once a trace, at the first node that it reaches; the others follow its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampler {
    /// Whether a caller's decision stands.
    parent_based: bool,
    /// New traces whose id's lower half is below this are recorded.
    recorded_below: u64,
}

impl Sampler {
    /// As the environment says; like every OpenTelemetry library, `parentbased_always_on` where it says nothing.
    pub(crate) fn from_environment() -> Self {
        let name = env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
        let ratio = env::var("OTEL_TRACES_SAMPLER_ARG").ok();
        Self::named(&name, ratio.as_deref())
    }

    fn named(name: &str, argument: Option<&str>) -> Self {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (name.is_empty(), name),
        };
        let recorded_below = match root {
            "always_off" => 0,
            "traceidratio" => {
                let ratio = argument.and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
                // The cast saturates: a ratio of 1 and more records everything, a negative one nothing.
                (ratio * u64::MAX as f64) as u64
            }
            _ => u64::MAX,
        };
        Self {
            parent_based,
            recorded_below,
        }
    }

    /// The trace of a call that came with this parent.
    pub(crate) fn decide(&self, parent: Option<TraceContext>) -> TraceContext {
        let context = match parent {
            Some(parent) if self.parent_based => return parent,
            Some(parent) => parent,
            // A root has no span above it; its first span is the edge's own.
            None => TraceContext {
                span_id: 0,
                ..TraceContext::random(false)
            },
        };
        let sampled = (context.trace_id as u64) <= self.recorded_below && self.recorded_below > 0;
        TraceContext { sampled, ..context }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_decision_stands_unless_told_otherwise() {
        let refused = TraceContext::random(false);
        assert_eq!(Sampler::named("", None).decide(Some(refused)), refused);
        assert!(Sampler::named("always_on", None).decide(Some(refused)).sampled);
        assert!(
            !Sampler::named("always_off", None)
                .decide(Some(TraceContext::random(true)))
                .sampled
        );
    }

    #[test]
    fn a_ratio_records_about_its_part_of_new_traces() {
        let sampler = Sampler::named("parentbased_traceidratio", Some("0.1"));
        let recorded = (0..10_000).filter(|_| sampler.decide(None).sampled).count();
        assert!((700..1300).contains(&recorded), "{recorded}");
        assert!(Sampler::named("", None).decide(None).sampled);
        assert!(!Sampler::named("parentbased_always_off", None).decide(None).sampled);
    }
}
