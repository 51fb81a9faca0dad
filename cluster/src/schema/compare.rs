//! What is incompatible about two shapes: whether what was written as one can be read as the other, and what is lost by it.

use std::collections::{BTreeMap, BTreeSet};

use super::shape::{Field, Shape, Types};

/// Findings of one comparison that are kept; the rest would not be read.
const FINDINGS_MAX: usize = 100;

/// How much a difference matters to values that were written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// They are read as ever.
    Fine,
    /// They can be read, and a part of them is passed over.
    Loses,
    /// They cannot be read.
    Breaks,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The field, with those around it: `lines[].price`; empty for the value itself.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) weight: Weight,
}

impl Finding {
    /// In a sentence.
    pub(crate) fn say(&self) -> String {
        if self.path.is_empty() {
            format!("it {}", self.text)
        } else {
            format!("field {} {}", self.path, self.text)
        }
    }
}

/// A shape and the types that it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) types: &'a Types,
}

impl<'a> Side<'a> {
    fn with(self, shape: &'a Shape) -> Self {
        Self { shape, ..self }
    }
}

/// What is different for values that were written as `old` and are read as `new`.
pub(crate) fn compare(old: Side<'_>, new: Side<'_>) -> Vec<Finding> {
    let mut comparison = Comparison::default();
    comparison.go(old, new, "");
    comparison.findings
}

/// The same, if any of it matters.
pub(crate) fn weight(findings: &[Finding]) -> Weight {
    findings
        .iter()
        .map(|finding| finding.weight)
        .max()
        .unwrap_or(Weight::Fine)
}

#[derive(Default)]
struct Comparison {
    findings: Vec<Finding>,
    /// Pairs of names that are being compared: a type may be part of itself.
    under_way: BTreeSet<(String, String)>,
}

impl Comparison {
    fn find(&mut self, path: &str, weight: Weight, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                path: path.to_owned(),
                text,
                weight,
            });
        }
    }

    fn go(&mut self, old: Side<'_>, new: Side<'_>, path: &str) {
        let pair = match (old.shape, new.shape) {
            (Shape::Named(a), b) => Some((a.clone(), b.word())),
            (a, Shape::Named(b)) => Some((a.word(), b.clone())),
            _ => None,
        };
        if let Some(pair) = &pair
            && !self.under_way.insert(pair.clone())
        {
            return;
        }
        self.resolved(
            old.with(old.shape.resolve(old.types)),
            new.with(new.shape.resolve(new.types)),
            path,
        );
        if let Some(pair) = pair {
            self.under_way.remove(&pair);
        }
    }

    fn resolved(&mut self, old: Side<'_>, new: Side<'_>, path: &str) {
        match (old.shape, new.shape) {
            (_, Shape::Any) => {}
            (Shape::Option(a), Shape::Option(b)) => self.go(old.with(a), new.with(b), path),
            (Shape::Null, Shape::Option(_)) => {}
            (_, Shape::Option(b)) => self.go(old, new.with(b), path),
            (Shape::Option(_), _) => {
                let text = format!("could be null, and is {} now", new.shape.word());
                self.find(path, Weight::Breaks, text);
            }
            (Shape::List(a), Shape::List(b)) => self.go(old.with(a), new.with(b), &format!("{path}[]")),
            (Shape::Map(a), Shape::Map(b)) => self.go(old.with(a), new.with(b), &format!("{path}{{}}")),
            (Shape::Tuple(a), Shape::Tuple(b)) if a.len() == b.len() => {
                for (place, (a, b)) in a.iter().zip(b).enumerate() {
                    self.go(old.with(a), new.with(b), &join(path, &place.to_string()));
                }
            }
            (Shape::Record(a), Shape::Record(b)) => self.fields((old, a), (new, b), path),
            (Shape::Variants(a), Shape::Variants(b)) => self.variants((old, a), (new, b), path),
            (Shape::OneOf(a), _) => {
                for a in a {
                    self.go(old.with(a), new, path);
                }
            }
            (_, Shape::OneOf(b)) => {
                // The one that fits best; what is read as none of them cannot be read.
                let best = b
                    .iter()
                    .map(|b| compare(old, new.with(b)))
                    .min_by_key(|found| weight(found));
                match best {
                    Some(findings) if weight(&findings) < Weight::Breaks => {
                        for finding in findings {
                            self.find(&join(path, &finding.path), finding.weight, finding.text);
                        }
                    }
                    _ => self.find(
                        path,
                        Weight::Breaks,
                        format!("was {}, which is none of its forms now", old.shape.word()),
                    ),
                }
            }
            (Shape::Number(a), Shape::Number(b)) if holds(b, a) => {}
            (Shape::Text { .. }, Shape::Text { .. }) => {}
            (a, b) if a == b => {}
            (Shape::Unit, _) => self.find(
                path,
                Weight::Breaks,
                format!("carried nothing, and is {} now", new.shape.word()),
            ),
            (a, b) => self.find(
                path,
                Weight::Breaks,
                format!("was {}, and is {} now", a.word(), b.word()),
            ),
        }
    }

    fn fields(
        &mut self,
        (old, a): (Side<'_>, &BTreeMap<String, Field>),
        (new, b): (Side<'_>, &BTreeMap<String, Field>),
        path: &str,
    ) {
        let came: Vec<_> = b.iter().filter(|(name, _)| !a.contains_key(*name)).collect();
        for (name, field) in a {
            let at = join(path, name);
            let Some(now) = b.get(name) else {
                let alike = came.iter().find(|(_, other)| {
                    let findings = compare(old.with(&field.shape), new.with(&other.shape));
                    findings.is_empty() && other.is_required == field.is_required
                });
                let text = match alike {
                    Some((other, _)) => format!("is removed; was it renamed to {other}?"),
                    None => "is removed".to_owned(),
                };
                self.find(&at, Weight::Loses, text);
                continue;
            };
            if now.is_required && !field.is_required {
                let text = "could be missing, and is required now: give it a default".to_owned();
                self.find(&at, Weight::Breaks, text);
            }
            self.go(old.with(&field.shape), new.with(&now.shape), &at);
        }
        for (name, field) in came {
            let at = join(path, name);
            if field.is_required {
                let text = "is new and required: make it an Option, or give it #[serde(default)]".to_owned();
                self.find(&at, Weight::Breaks, text);
            } else {
                self.find(&at, Weight::Fine, "is new".to_owned());
            }
        }
    }

    fn variants(
        &mut self,
        (old, a): (Side<'_>, &BTreeMap<String, Shape>),
        (new, b): (Side<'_>, &BTreeMap<String, Shape>),
        path: &str,
    ) {
        for (name, shape) in a {
            match b.get(name) {
                Some(now) => self.go(old.with(shape), new.with(now), &join(path, name)),
                None => self.find(
                    &join(path, name),
                    Weight::Breaks,
                    "is a variant that is gone".to_owned(),
                ),
            }
        }
        for name in b.keys().filter(|name| !a.contains_key(*name)) {
            self.find(&join(path, name), Weight::Fine, "is a new variant".to_owned());
        }
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

/// Whether every number of one type is one of the other.
fn holds(outer: &str, inner: &str) -> bool {
    let bits = |word: &str| word[1..].parse::<u32>().unwrap_or(0);
    let sign = |word: &str| word.as_bytes().first().copied();
    match (sign(outer), sign(inner)) {
        _ if outer == inner => true,
        (Some(b'u'), Some(b'u')) | (Some(b'f'), Some(b'f')) => bits(outer) >= bits(inner),
        (Some(b'i'), Some(b'i')) if inner != "int" && outer != "int" => bits(outer) >= bits(inner),
        (Some(b'i'), Some(b'u')) if outer != "int" => bits(outer) > bits(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn findings(old: &Value, new: &Value) -> Vec<String> {
        let types = Types::new();
        let shape = |value: &Value| Shape::of_json(value).expect("a shape");
        let (old, new) = (shape(old), shape(new));
        let side = |shape| Side { shape, types: &types };
        compare(side(&old), side(&new))
            .iter()
            .map(|finding| format!("{:?} {}", finding.weight, finding.say()))
            .collect()
    }

    #[test]
    fn what_changed_is_named_with_its_weight() {
        for (old, new, expected) in [
            (json!({"fields": {"a": "u32"}}), json!({"fields": {"a": "u64"}}), None),
            (json!({"fields": {"a": "u32"}}), json!({"fields": {"a": "i64"}}), None),
            (
                json!({"fields": {"a": "u8"}}),
                json!({"fields": {"a": {"option": "u8"}}}),
                None,
            ),
            (
                json!({"fields": {"a": "u64"}}),
                json!({"fields": {"a": "u32"}}),
                Some("Breaks field a was u64, and is u32 now"),
            ),
            (
                json!({"fields": {"a": "u64", "b": "string"}}),
                json!({"fields": {"a": "u64"}}),
                Some("Loses field b is removed"),
            ),
            (
                json!({"fields": {"sum": "u64"}}),
                json!({"fields": {"amount?": "u64"}}),
                Some("Loses field sum is removed"),
            ),
            (
                json!({"fields": {}}),
                json!({"fields": {"b?": "u8"}}),
                Some("Fine field b is new"),
            ),
            (
                json!({"fields": {}}),
                json!({"fields": {"b": "u8"}}),
                Some("Breaks field b is new and required: make it an Option, or give it #[serde(default)]"),
            ),
            (
                json!({"fields": {"b?": "u8"}}),
                json!({"fields": {"b": "u8"}}),
                Some("Breaks field b could be missing, and is required now: give it a default"),
            ),
            (
                json!({"fields": {"l": {"list": {"fields": {"p": "u8"}}}}}),
                json!({"fields": {"l": {"list": {"fields": {"p": "string"}}}}}),
                Some("Breaks field l[].p was u8, and is string now"),
            ),
            (
                json!({"variants": {"A": "unit", "B": "unit"}}),
                json!({"variants": {"A": "unit"}}),
                Some("Breaks field B is a variant that is gone"),
            ),
            (
                json!({"variants": {"A": "unit"}}),
                json!({"variants": {"A": "unit", "C": "u8"}}),
                Some("Fine field C is a new variant"),
            ),
            (
                json!({"variants": {"A": "unit"}}),
                json!({"variants": {"A": {"fields": {"b": "u8"}}}}),
                Some("Breaks field A carried nothing, and is a record of b now"),
            ),
            (
                json!({"option": "u8"}),
                json!("u8"),
                Some("Breaks it could be null, and is u8 now"),
            ),
            (json!("string"), json!({"one of": ["u8", "string"]}), None),
            (
                json!("bool"),
                json!({"one of": ["u8", "string"]}),
                Some("Breaks it was bool, which is none of its forms now"),
            ),
        ] {
            let found = findings(&old, &new);
            assert_eq!(found.first().map(String::as_str), expected, "{old} {new}");
        }
        let renamed = findings(
            &json!({"fields": {"sum": "u64"}}),
            &json!({"fields": {"amount": "u64"}}),
        );
        assert_eq!(renamed[0], "Loses field sum is removed; was it renamed to amount?");
    }

    #[test]
    fn a_type_that_is_part_of_itself_is_compared_once() {
        let tree = |leaf: &str| -> Types {
            let shape = json!({"fields": {"leaf": leaf, "below": {"list": "#Tree"}}});
            [("Tree".to_owned(), Shape::of_json(&shape).expect("a shape"))].into()
        };
        let (old, new) = (tree("u8"), tree("bool"));
        let root = Shape::Named("Tree".to_owned());
        let found = compare(
            Side {
                shape: &root,
                types: &old,
            },
            Side {
                shape: &root,
                types: &new,
            },
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "leaf");
    }
}
