//! A log line: how it is written, and whether a reader wants it.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::telemetry::v1::{LogEntry, LogFilter};
use serde_json::{Map, Value};

/// The levels, the gravest first.
pub(crate) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A time for people and machines.
pub(crate) fn time_text(unix_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.6}")
}

/// For people, without the node: `2026-11-21T10:30:00.000000Z  INFO target: message field=value`.
pub(crate) fn human(line: &LogEntry) -> String {
    let mut text = format!(
        "{} {:>5} {}: {}",
        time_text(line.at_unix_ns),
        line.level.to_uppercase(),
        line.target,
        line.message
    );
    let mut fields: Vec<_> = line.fields.iter().collect();
    fields.sort_unstable();
    let ids = [
        ("entity", &line.entity),
        ("request_id", &line.request_id),
        ("trace_id", &line.trace_id),
    ];
    let ids = ids.into_iter().filter(|(_, id)| !id.is_empty());
    for (name, value) in fields
        .into_iter()
        .map(|(name, value)| (name.as_str(), value))
        .chain(ids)
    {
        let is_plain = !value.is_empty() && !value.contains(|letter: char| letter.is_whitespace() || letter == '"');
        // Nothing that a client has sent may look like a line of its own.
        let _ = if is_plain {
            write!(text, " {name}={value}")
        } else {
            write!(text, " {name}={value:?}")
        };
    }
    text.replace('\n', "\\n")
}

/// One JSON object.
pub(crate) fn json(line: &LogEntry) -> Value {
    let mut object = Map::new();
    object.insert("timestamp".to_owned(), time_text(line.at_unix_ns).into());
    object.insert("level".to_owned(), line.level.to_uppercase().into());
    object.insert("target".to_owned(), line.target.clone().into());
    object.insert("message".to_owned(), line.message.clone().into());
    if line.node != 0 {
        object.insert("node".to_owned(), line.node.into());
    }
    for (name, id) in [
        ("trace_id", &line.trace_id),
        ("entity", &line.entity),
        ("request_id", &line.request_id),
    ] {
        if !id.is_empty() {
            object.insert(name.to_owned(), id.clone().into());
        }
    }
    let mut fields: Vec<_> = line.fields.iter().collect();
    fields.sort_unstable();
    for (name, value) in fields {
        object.entry(name.clone()).or_insert_with(|| value.clone().into());
    }
    Value::Object(object)
}

/// What is wrong with a filter; `None` if nothing is.
pub(crate) fn fault(filter: &LogFilter) -> Option<(&'static str, String)> {
    if !filter.level.is_empty() && !LEVELS.contains(&filter.level.as_str()) {
        let reason = format!("is {:?}; there are {}", filter.level, LEVELS.join(", "));
        return Some(("filter.level", reason));
    }
    None
}

/// Whether a reader wants a line.
pub(crate) fn is_wanted(line: &LogEntry, filter: &LogFilter) -> bool {
    let grave = |level: &str| LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len());
    (filter.level.is_empty() || grave(&line.level) <= grave(&filter.level))
        && (filter.nodes.is_empty() || filter.nodes.contains(&line.node))
        && line.target.starts_with(&filter.target)
        && (filter.trace_id.is_empty() || line.trace_id == filter.trace_id)
        && (filter.entity.is_empty() || line.entity == filter.entity)
        && line.at_unix_ns / 1_000_000 >= filter.since_unix_ms
        && has_text(line, &filter.text)
}

fn has_text(line: &LogEntry, text: &str) -> bool {
    text.is_empty() || human(line).to_lowercase().contains(&text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogEntry {
        LogEntry {
            node: 2,
            at_unix_ns: 1_795_257_000_000_001_000,
            level: "warn".to_owned(),
            target: "cluster::shard".to_owned(),
            message: "a call failed".to_owned(),
            fields: [("reason", "no\nroom"), ("ms", "7")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            trace_id: "ab".to_owned(),
            entity: "order/1".to_owned(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn a_line_is_one_line_for_people_and_machines() {
        let text = human(&line());
        assert!(
            text.ends_with(r#"WARN cluster::shard: a call failed ms=7 reason="no\nroom" entity=order/1 trace_id=ab"#),
            "{text}"
        );
        let json = json(&line());
        assert_eq!(
            (&json["trace_id"], &json["ms"], &json["node"]),
            (&"ab".into(), &"7".into(), &2.into())
        );
        assert!(!json.to_string().contains('\n'));
    }

    #[test]
    fn a_reader_gets_what_matches_all_it_asked_for() {
        let wants = |change: &dyn Fn(&mut LogFilter)| {
            let mut filter = LogFilter::default();
            change(&mut filter);
            assert_eq!(fault(&filter), None);
            is_wanted(&line(), &filter)
        };
        assert!(wants(&|_| {}));
        assert!(wants(&|f| f.level = "warn".to_owned()) && wants(&|f| f.level = "debug".to_owned()));
        assert!(!wants(&|f| f.level = "error".to_owned()));
        assert!(wants(&|f| f.nodes = vec![1, 2]) && !wants(&|f| f.nodes = vec![1]));
        assert!(wants(&|f| f.target = "cluster".to_owned()) && !wants(&|f| f.target = "node".to_owned()));
        assert!(wants(&|f| f.text = "FAILED ms=7".to_owned()) && !wants(&|f| f.text = "kettle".to_owned()));
        assert!(wants(&|f| f.trace_id = "ab".to_owned()) && !wants(&|f| f.trace_id = "cd".to_owned()));
        assert!(wants(&|f| f.since_unix_ms = 1_795_257_000_000) && !wants(&|f| f.since_unix_ms = 1_795_257_000_001));
        let loud = LogFilter {
            level: "loud".to_owned(),
            ..LogFilter::default()
        };
        assert!(fault(&loud).is_some());
    }
}
