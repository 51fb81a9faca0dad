//! What a value looks like: the part of a JSON Schema that decides whether stored values can be read, in a few words.
//!
//! | in a file | what |
//! | --- | --- |
//! | `"u64"`, `"i32"`, `"f64"`, `"bool"`, `"null"`, `"any"` | a number of that size, ... |
//! | `"string"`, `"string like GBP"` | a text, with an example where not every text will do |
//! | `"#Money"` | a type with a name, which stands under `types` |
//! | `{"option": ..}` | that or null |
//! | `{"list": ..}`, `{"map": ..}`, `{"tuple": [..]}` | many of them, many with a key, one of each |
//! | `{"fields": {"a": .., "b?": ..}}` | a record; a `?` marks what may be missing |
//! | `{"variants": {"A": .., "B": "unit"}}` | an enum |
//! | `{"one of": [..]}` | an enum without names |
//! | `{"other": ..}` | what this notation has no words for, as JSON Schema |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// How deep a shape may be nested.
const DEPTH_MAX: usize = 64;

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Any,
    Null,
    Bool,
    /// Nothing beside the name of its variant.
    Unit,
    /// A number, by the name of its Rust type.
    Number(String),
    Text {
        /// An example, where not every text will do.
        like: Option<String>,
    },
    Named(String),
    Option(Box<Self>),
    List(Box<Self>),
    Map(Box<Self>),
    Tuple(Vec<Self>),
    Record(BTreeMap<String, Field>),
    Variants(BTreeMap<String, Self>),
    OneOf(Vec<Self>),
    /// What this notation has no words for, as JSON Schema.
    Other(Value),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    pub(crate) is_required: bool,
}

/// Shapes that have a name.
pub(crate) type Types = BTreeMap<String, Shape>;

impl Shape {
    /// As it stands in a file.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Any => json!("any"),
            Self::Null => json!("null"),
            Self::Bool => json!("bool"),
            Self::Unit => json!("unit"),
            Self::Number(name) => json!(name),
            Self::Text { like: None } => json!("string"),
            Self::Text { like: Some(like) } => json!(format!("string like {like}")),
            Self::Named(name) => json!(format!("#{name}")),
            Self::Option(inner) => json!({ "option": inner.to_json() }),
            Self::List(inner) => json!({ "list": inner.to_json() }),
            Self::Map(inner) => json!({ "map": inner.to_json() }),
            Self::Tuple(items) => json!({ "tuple": items.iter().map(Self::to_json).collect::<Vec<_>>() }),
            Self::Record(fields) => {
                let fields = fields.iter().map(|(name, field)| {
                    let mark = if field.is_required { "" } else { "?" };
                    (format!("{name}{mark}"), field.shape.to_json())
                });
                json!({ "fields": fields.collect::<Map<_, _>>() })
            }
            Self::Variants(variants) => {
                let variants = variants.iter().map(|(name, shape)| (name.clone(), shape.to_json()));
                json!({ "variants": variants.collect::<Map<_, _>>() })
            }
            Self::OneOf(shapes) => json!({ "one of": shapes.iter().map(Self::to_json).collect::<Vec<_>>() }),
            Self::Other(schema) => json!({ "other": schema }),
        }
    }

    /// Reads what stands in a file, or says what is wrong with it.
    pub(crate) fn of_json(value: &Value) -> Result<Self, String> {
        Self::of_nested(value, 0)
    }

    fn of_nested(value: &Value, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        let inner = |value: &Value| Self::of_nested(value, depth + 1);
        let boxed = |value: &Value| inner(value).map(Box::new);
        let unknown = || format!("{value} is no shape");
        if let Some(word) = value.as_str() {
            return Self::of_word(word).ok_or_else(unknown);
        }
        let entries = value.as_object().filter(|entries| entries.len() == 1);
        let (key, value) = entries.and_then(|entries| entries.iter().next()).ok_or_else(unknown)?;
        let list = || value.as_array().ok_or_else(unknown);
        let map = || value.as_object().ok_or_else(unknown);
        Ok(match key.as_str() {
            "option" => Self::Option(boxed(value)?),
            "list" => Self::List(boxed(value)?),
            "map" => Self::Map(boxed(value)?),
            "tuple" => Self::Tuple(list()?.iter().map(inner).collect::<Result<_, _>>()?),
            "one of" => Self::OneOf(list()?.iter().map(inner).collect::<Result<_, _>>()?),
            "variants" => Self::Variants(
                map()?
                    .iter()
                    .map(|(name, shape)| Ok((name.clone(), inner(shape)?)))
                    .collect::<Result<_, String>>()?,
            ),
            "fields" => Self::Record(
                map()?
                    .iter()
                    .map(|(name, shape)| {
                        let field = Field {
                            shape: inner(shape)?,
                            is_required: !name.ends_with('?'),
                        };
                        Ok((name.trim_end_matches('?').to_owned(), field))
                    })
                    .collect::<Result<_, String>>()?,
            ),
            "other" => Self::Other(value.clone()),
            _ => return Err(unknown()),
        })
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "any" => Self::Any,
            "null" => Self::Null,
            "bool" => Self::Bool,
            "unit" => Self::Unit,
            "string" => Self::Text { like: None },
            _ => {
                if let Some(name) = word.strip_prefix('#') {
                    Self::Named(name.to_owned())
                } else if let Some(like) = word.strip_prefix("string like ") {
                    Self::Text {
                        like: Some(like.to_owned()),
                    }
                } else {
                    is_number(word).then(|| Self::Number(word.to_owned()))?
                }
            }
        })
    }

    /// In a word, for people.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Record(fields) => {
                let names: Vec<_> = fields.keys().map(String::as_str).collect();
                format!("a record of {}", names.join(", "))
            }
            Self::Variants(variants) => {
                let names: Vec<_> = variants.keys().map(String::as_str).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Option(inner) => format!("{} or null", inner.word()),
            Self::List(inner) => format!("a list of {}", inner.word()),
            Self::Map(inner) => format!("a map of {}", inner.word()),
            Self::Text { .. } => "string".to_owned(),
            Self::Named(name) => name.clone(),
            Self::Tuple(items) => format!("a tuple of {}", items.len()),
            Self::OneOf(_) => "one of several".to_owned(),
            Self::Unit => "nothing".to_owned(),
            other => other.to_json().as_str().unwrap_or("something else").to_owned(),
        }
    }

    /// The names that it uses, and those that they use.
    pub(crate) fn names(&self, types: &Types, found: &mut BTreeSet<String>) {
        match self {
            Self::Named(name) => {
                if found.insert(name.clone())
                    && let Some(shape) = types.get(name)
                {
                    shape.names(types, found);
                }
            }
            Self::Option(inner) | Self::List(inner) | Self::Map(inner) => inner.names(types, found),
            Self::Tuple(items) | Self::OneOf(items) => items.iter().for_each(|item| item.names(types, found)),
            Self::Record(fields) => fields.values().for_each(|field| field.shape.names(types, found)),
            Self::Variants(variants) => variants.values().for_each(|shape| shape.names(types, found)),
            Self::Any | Self::Null | Self::Bool | Self::Unit | Self::Number(_) | Self::Text { .. } | Self::Other(_) => {
            }
        }
    }

    /// What it is where it has only a name.
    pub(crate) fn resolve<'a>(&'a self, types: &'a Types) -> &'a Self {
        let mut shape = self;
        // A name may stand for another one; a circle of nothing but names is no shape.
        for _ in 0..=types.len() {
            match shape {
                Self::Named(name) => match types.get(name) {
                    Some(next) => shape = next,
                    None => return &Self::Any,
                },
                other => return other,
            }
        }
        &Self::Any
    }
}

/// Whether it is the name of a type of numbers.
fn is_number(word: &str) -> bool {
    matches!(
        word,
        "u8" | "u16" | "u32" | "u64" | "u128" | "i8" | "i16" | "i32" | "i64" | "i128" | "int" | "f32" | "f64"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let text = json!({"fields": {
            "a": "u64", "b?": {"option": "string"}, "c": {"list": {"map": "#Money"}}, "d": {"tuple": ["bool", "f64"]},
            "e": {"variants": {"On": "unit", "Off": {"fields": {}}}}, "f": {"one of": ["any", "null"]},
            "g": "string like GBP", "h": {"other": {"not": {}}},
        }});
        let shape = Shape::of_json(&text).expect("a shape");
        assert_eq!(shape.to_json(), text);
        let mut names = BTreeSet::new();
        shape.names(&Types::new(), &mut names);
        assert_eq!(names, ["Money".to_owned()].into());
    }

    #[test]
    fn what_is_no_shape_says_so() {
        for text in [
            json!("u65"),
            json!(5),
            json!({}),
            json!({"list": 1}),
            json!({"a": 1, "b": 2}),
        ] {
            assert!(Shape::of_json(&text).is_err(), "{text}");
        }
        let deep = (0..1_000).fold(json!("u8"), |inner, _| json!({ "list": inner }));
        assert!(Shape::of_json(&deep).expect_err("too deep").contains("nested"));
        // Serde's own way of taking it apart is recursive too, and has to come to an end.
        drop(deep);
    }

    #[test]
    fn a_circle_of_names_ends() {
        let types: Types = [("A", "B"), ("B", "A")]
            .map(|(from, to)| (from.to_owned(), Shape::Named(to.to_owned())))
            .into();
        assert_eq!(types["A"].resolve(&types), &Shape::Any);
    }
}
