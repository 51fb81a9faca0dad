//! What differs between two JSON values, by path.
//!
//! Objects are compared key by key. Lists are compared from both ends: what they begin and end with alike is left aside, the
//! rest is compared place by place, and what one of them has more is added or removed.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where, for example `lines[2].quantity`; empty for the whole value. Places of a list are those of the list that has it:
    /// of the later one for what was added or changed, of the earlier one for what was removed.
    pub path: String,
    /// What it was; absent where it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent where it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(all)" } else { &self.path };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {path}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "+ {path}: {after}"),
            (Some(before), None) => write!(f, "- {path}: {before}"),
            (None, None) => write!(f, "  {path}"),
        }
    }
}

/// What differs between two values, in the order of their paths; nothing where they are equal.
pub fn diff(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), before, after, &mut changes);
    changes
}

fn compare(path: String, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => compare_objects(&path, before, after, changes),
        (Value::Array(before), Value::Array(after)) => compare_lists(&path, before, after, changes),
        _ => changes.push(Change {
            path,
            before: Some(before.clone()),
            after: Some(after.clone()),
        }),
    }
}

fn compare_objects(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, changes: &mut Vec<Change>) {
    let added = after.keys().filter(|key| !before.contains_key(*key));
    let mut keys: Vec<&String> = before.keys().chain(added).collect();
    keys.sort_unstable();
    for key in keys {
        let path = member(path, key);
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) => compare(path, before, after, changes),
            (before, after) => changes.push(Change {
                path,
                before: before.cloned(),
                after: after.cloned(),
            }),
        }
    }
}

fn compare_lists(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<Change>) {
    let alike = |(a, b): &(&Value, &Value)| a == b;
    let first = before.iter().zip(after).take_while(alike).count();
    let (before_rest, after_rest) = (&before[first..], &after[first..]);
    let last = (before_rest.iter().rev())
        .zip(after_rest.iter().rev())
        .take_while(alike)
        .count();
    let before_rest = &before_rest[..before_rest.len() - last];
    let after_rest = &after_rest[..after_rest.len() - last];
    for place in 0..before_rest.len().max(after_rest.len()) {
        let path = format!("{path}[{}]", first + place);
        match (before_rest.get(place), after_rest.get(place)) {
            (Some(before), Some(after)) => compare(path, before, after, changes),
            (before, after) => changes.push(Change {
                path,
                before: before.cloned(),
                after: after.cloned(),
            }),
        }
    }
}

/// A member's path; keys that are no plain words are quoted.
fn member(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match (path.is_empty(), is_plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", Value::String(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: &Value, after: &Value) -> Vec<String> {
        diff(before, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_added_removed_and_changed_is_told_by_path() {
        let before = json!({"status": "placed", "lines": [{"sku": "tea", "n": 3}], "old": 1, "a b": {"x.y": 1}});
        let after = json!({"status": "paid", "lines": [{"sku": "tea", "n": 2}], "paid": 765, "a b": {"x.y": 2}});
        assert_eq!(
            told(&before, &after),
            [
                r#"~ ["a b"]["x.y"]: 1 -> 2"#,
                "~ lines[0].n: 3 -> 2",
                "- old: 1",
                "+ paid: 765",
                r#"~ status: "placed" -> "paid""#,
            ]
        );
        assert_eq!(told(&before, &before), Vec::<String>::new());
    }

    #[test]
    fn one_more_at_the_front_of_a_list_is_one_change() {
        assert_eq!(told(&json!([1, 2, 3]), &json!([0, 1, 2, 3])), ["+ [0]: 0"]);
        assert_eq!(told(&json!([1, 2, 3]), &json!([1, 3])), ["- [1]: 2"]);
        assert_eq!(
            told(&json!({"l": [1, 2]}), &json!({"l": [1, 5, 6]})),
            ["~ l[1]: 2 -> 5", "+ l[2]: 6"]
        );
    }

    #[test]
    fn values_of_different_shape_differ_as_a_whole() {
        assert_eq!(told(&json!(null), &json!({"a": 1})), [r#"~ (all): null -> {"a":1}"#]);
        assert_eq!(
            told(&json!({"a": [1]}), &json!({"a": {"b": 1}})),
            [r#"~ a: [1] -> {"b":1}"#]
        );
    }

    /// The changes are complete: applied to the one side they would give the other, so no unequal pair may be without any.
    #[test]
    fn unequal_values_never_have_an_empty_diff() {
        let values = [
            json!(null),
            json!(0),
            json!(""),
            json!([]),
            json!({}),
            json!([null]),
            json!([0, 0]),
            json!([0]),
            json!({"a": null}),
            json!({"a": []}),
            json!({"": 0}),
            json!([[0], [0]]),
            json!([[0]]),
        ];
        for before in &values {
            for after in &values {
                assert_eq!(diff(before, after).is_empty(), before == after, "{before} {after}");
            }
        }
    }
}
