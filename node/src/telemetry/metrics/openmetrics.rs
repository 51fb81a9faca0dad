//! Prometheus' text format as OpenMetrics 1.0: the same lines with exemplars on the buckets of calls' durations.
//!
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>. What differs: a family of counters is named
//! without `_total`, quotation marks are escaped in help too, there are no empty lines, and the text says where it ends.

use std::{collections::HashMap, fmt::Write as _};

use super::exemplars::Exemplar;

/// The lines that exemplars belong to.
const BUCKETS: &str = "playhouse_grpc_server_call_duration_seconds_bucket";

/// A text in Prometheus' format with these exemplars.
pub(super) fn with_exemplars(text: &str, exemplars: &[Exemplar]) -> String {
    let by_line: HashMap<String, &Exemplar> = exemplars
        .iter()
        .map(|exemplar| {
            let bound = exemplar.bound().map_or("+Inf".to_owned(), |bound| bound.to_string());
            (
                format!("{BUCKETS}{{method=\"{}\",le=\"{bound}\"}}", exemplar.method),
                exemplar,
            )
        })
        .collect();
    let mut told = String::with_capacity(text.len() + 256 * exemplars.len());
    let mut is_counter = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(about) = line.strip_prefix("# ") {
            let (word, rest) = about.split_once(' ').unwrap_or((about, ""));
            let (name, says) = rest.split_once(' ').unwrap_or((rest, ""));
            if word == "TYPE" {
                is_counter = says == "counter";
            }
            let family = name.strip_suffix("_total").filter(|_| is_counter).unwrap_or(name);
            let _ = writeln!(told, "# {word} {family} {}", says.replace('"', "\\\""));
            continue;
        }
        told.push_str(line);
        let exemplar = line.rsplit_once(' ').and_then(|(series, _)| by_line.get(series));
        if let Some(exemplar) = exemplar {
            let Exemplar { trace, took, at_ms, .. } = exemplar;
            let ids = format!("trace_id=\"{}\",span_id=\"{:016x}\"", trace.trace_hex(), trace.span_id);
            let _ = write!(told, " # {{{ids}}} {} {}", took.as_secs_f64(), *at_ms as f64 / 1000.0);
        }
        told.push('\n');
    }
    told.push_str("# EOF\n");
    told
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::TraceContext;

    use super::*;

    #[test]
    fn counters_lose_their_ending_and_buckets_get_their_exemplar() {
        let text = "# TYPE playhouse_orders_placed_total counter\n\
                    # HELP playhouse_orders_placed_total Orders that were \"placed\".\n\
                    playhouse_orders_placed_total 3\n\n\
                    # TYPE playhouse_grpc_server_call_duration_seconds histogram\n\
                    # UNIT playhouse_grpc_server_call_duration_seconds seconds\n\
                    playhouse_grpc_server_call_duration_seconds_count{method=\"Orders/PlaceOrder\"} 2\n\
                    playhouse_grpc_server_call_duration_seconds_bucket{method=\"Orders/PlaceOrder\",le=\"0.005\"} 1\n\
                    playhouse_grpc_server_call_duration_seconds_bucket{method=\"Orders/PlaceOrder\",le=\"+Inf\"} 2\n\n";
        let exemplar = |seconds, span_id| Exemplar {
            method: "Orders/PlaceOrder",
            trace: TraceContext {
                trace_id: 0xa,
                span_id,
                sampled: true,
            },
            took: Duration::from_secs_f64(seconds),
            at_ms: 1_700_000_000_500,
        };
        let told = with_exemplars(text, &[exemplar(0.004, 0xb), exemplar(99.0, 0xc)]);
        let zeros = "0".repeat(31);
        let expected = format!(
            "# TYPE playhouse_orders_placed counter\n\
             # HELP playhouse_orders_placed Orders that were \\\"placed\\\".\n\
             playhouse_orders_placed_total 3\n\
             # TYPE playhouse_grpc_server_call_duration_seconds histogram\n\
             # UNIT playhouse_grpc_server_call_duration_seconds seconds\n\
             playhouse_grpc_server_call_duration_seconds_count{{method=\"Orders/PlaceOrder\"}} 2\n\
             playhouse_grpc_server_call_duration_seconds_bucket{{method=\"Orders/PlaceOrder\",le=\"0.005\"}} 1 \
             # {{trace_id=\"{zeros}a\",span_id=\"000000000000000b\"}} 0.004 1700000000.5\n\
             playhouse_grpc_server_call_duration_seconds_bucket{{method=\"Orders/PlaceOrder\",le=\"+Inf\"}} 2 \
             # {{trace_id=\"{zeros}a\",span_id=\"000000000000000c\"}} 99 1700000000.5\n\
             # EOF\n"
        );
        assert_eq!(told, expected);
    }
}
