//! A trace as text: one line a span, below what caused it, with a bar for when it was.

use std::fmt::Write as _;

use proto::telemetry::v1::{Span, Trace};

use super::duration;
use crate::{cli::entity::time_text, telemetry::traces::path::Tree};

/// Letters of a bar.
const BAR_LEN: usize = 40;
/// Letters of a name with its indentation; a deeper one is cut.
const NAME_LEN_MAX: usize = 44;
/// Spans that are shown; a trace has rarely more.
const SPANS_MAX: usize = 1_000;
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) is_coloured: bool,
    pub(super) has_details: bool,
}

/// The trace for people.
pub(super) fn text(trace: &Trace, look: Look) -> String {
    let tree = Tree::new(&trace.spans);
    let begin = trace
        .spans
        .iter()
        .map(|span| span.start_unix_ns)
        .min()
        .unwrap_or_default();
    let end = trace
        .spans
        .iter()
        .map(|span| span.end_unix_ns)
        .max()
        .unwrap_or_default();
    let errors = trace.spans.iter().filter(|span| span.status == "error").count();
    let mut text = format!(
        "trace {}  {}  took {}  {} spans  {errors} errors\n\n",
        trace.trace_id,
        time_text(begin / 1_000_000),
        duration(end - begin),
        trace.spans.len()
    );
    let order = tree.depth_first();
    let name_len = order
        .iter()
        .map(|(place, depth)| 2 * depth + label(&trace.spans[*place]).chars().count())
        .max()
        .unwrap_or_default()
        .clamp(8, NAME_LEN_MAX);
    let _ = writeln!(
        text,
        "  {:<name_len$}  node  {:<BAR_LEN$}  {:>9}",
        "span", "when", "took"
    );
    for (place, depth) in order.iter().take(SPANS_MAX) {
        let span = &trace.spans[*place];
        line(&mut text, span, *depth, (begin, end), name_len, look);
    }
    if order.len() > SPANS_MAX {
        let _ = writeln!(text, "  and {} more; see --json", order.len() - SPANS_MAX);
    }
    text.push_str("\n* is what everything waited for");
    if trace.dropped_spans > 0 {
        let _ = write!(
            text,
            "\n{} spans were not kept: the trace has too many",
            trace.dropped_spans
        );
    }
    if trace.spans.iter().any(|span| span.is_lost) {
        text.push_str("\nlost: whoever did it was gone before it could tell; its times are those of what it caused");
    }
    if !trace.events.is_empty() {
        text.push_str("\n\nevents written\n");
        for event in &trace.events {
            let _ = writeln!(
                text,
                "  +{:<9} {} {} {}",
                duration(event.at_unix_ns.saturating_sub(begin)),
                event.entity,
                event.version,
                event.name
            );
        }
    }
    if !trace.logs.is_empty() {
        text.push_str("\nlog lines\n");
        for line in &trace.logs {
            let at = if line.at_unix_ns >= begin {
                duration(line.at_unix_ns - begin)
            } else {
                "before".to_owned()
            };
            let _ = writeln!(
                text,
                "  +{at:<9} node {} {:>5} {}",
                line.node,
                line.level.to_uppercase(),
                line.text
            );
        }
    }
    text.trim_end().to_owned()
}

fn line(text: &mut String, span: &Span, depth: usize, times: (u64, u64), name_len: usize, look: Look) {
    let is_error = span.status == "error";
    let is_critical = span.critical_ns > 0;
    let mark = if is_critical { '*' } else { ' ' };
    let indented = format!("{}{}", " ".repeat(2 * depth.min(NAME_LEN_MAX / 4)), label(span));
    let name: String = indented.chars().take(name_len).collect();
    let node = if span.node == 0 {
        "-".to_owned()
    } else {
        span.node.to_string()
    };
    let bar = bar(span, times, if is_critical { '█' } else { '▒' });
    let (colour, plain) = match (look.is_coloured, is_error, is_critical) {
        (true, true, _) => (RED, PLAIN),
        (true, false, true) => (BOLD, PLAIN),
        _ => ("", ""),
    };
    let took = duration(span.end_unix_ns - span.start_unix_ns);
    let _ = write!(
        text,
        "{colour}{mark} {name:<name_len$}  {node:>4}  {bar}  {took:>9}{plain}"
    );
    if is_error {
        let _ = write!(text, "  {colour}error: {}{plain}", one_line(&span.error));
    }
    text.push('\n');
    if look.has_details {
        let mut known: Vec<_> = span.attributes.iter().collect();
        known.sort_unstable();
        for (name, value) in known {
            let _ = writeln!(
                text,
                "    {}{name}={}",
                " ".repeat(2 * depth.min(NAME_LEN_MAX / 4)),
                one_line(value)
            );
        }
        for link in &span.links {
            let _ = writeln!(text, "    {}caused by trace {}", " ".repeat(2 * depth), link.trace_id);
        }
    }
}

/// The name, and what it was done to.
fn label(span: &Span) -> String {
    let of = |key: &str| span.attributes.get(key).map(String::as_str);
    let subject = match (of("to"), of("entity")) {
        (Some(to), _) if to.contains('/') => Some(to),
        (Some(_), _) if span.name == "forward" => None,
        (_, entity) => entity.filter(|_| ["decide", "timer"].contains(&span.name.as_str()) || span.kind == "server"),
    };
    match subject {
        Some(subject) => format!("{} {subject}", span.name),
        None => span.name.clone(),
    }
}

fn bar(span: &Span, (begin, end): (u64, u64), letter: char) -> String {
    let whole = (end - begin).max(1) as f64;
    let at = |ns: u64| ((ns - begin) as f64 / whole * BAR_LEN as f64) as usize;
    let from = at(span.start_unix_ns).min(BAR_LEN - 1);
    let to = at(span.end_unix_ns).clamp(from + 1, BAR_LEN);
    let mut bar = " ".repeat(from);
    bar.extend(std::iter::repeat_n(letter, to - from));
    bar.extend(std::iter::repeat_n(' ', BAR_LEN - to));
    bar
}

/// What others have sent must not look like a line, or a colour, of our own.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, start: u64, end: u64) -> Span {
        Span {
            span_id: id.to_owned(),
            parent_span_id: parent.to_owned(),
            name: format!("span-{id}"),
            start_unix_ns: start * 1_000_000,
            end_unix_ns: end * 1_000_000,
            status: "ok".to_owned(),
            node: 2,
            ..Span::default()
        }
    }

    #[test]
    fn a_trace_is_a_waterfall_without_colours_in_a_pipe() {
        let mut failed = span("b", "a", 50, 100);
        failed.status = "error".to_owned();
        failed.error = "no\nroom \x1b[31m".to_owned();
        failed.critical_ns = 5;
        failed.attributes = [("entity".to_owned(), "order/1".to_owned())].into();
        let trace = Trace {
            trace_id: "ab".repeat(16),
            spans: vec![span("a", "", 0, 100), failed],
            ..Trace::default()
        };
        let plain = text(
            &trace,
            Look {
                is_coloured: false,
                has_details: true,
            },
        );
        assert!(!plain.contains('\x1b'), "{plain}");
        let line = plain.lines().find(|line| line.contains("span-b")).expect("a line");
        assert!(
            line.starts_with("*   span-b") && line.contains("50.0 ms  error: no room"),
            "{line}"
        );
        let half = format!("{}{}", " ".repeat(20), "█".repeat(20));
        assert!(line.contains(&half), "{line}");
        assert!(plain.contains("entity=order/1"), "{plain}");
        let coloured = text(
            &trace,
            Look {
                is_coloured: true,
                has_details: false,
            },
        );
        assert!(coloured.contains(RED));
    }
}
