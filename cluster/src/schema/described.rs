//! All that is known of one kind's stored values: their shapes and versions. This is what is committed, and what nodes tell
//! each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    Part, Schema, WHOLE,
    compare::Side,
    shape::{Shape, Types},
    upcast::Steps,
};
use crate::journal::keys::fnv;

/// A variant of a part, or the whole of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The version that is written.
    pub(crate) version: u32,
    pub(crate) shape: Shape,
}

/// The stored values of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Described {
    /// Its author has said what they look like.
    pub(crate) is_declared: bool,
    pub(crate) entries: BTreeMap<(Part, String), Entry>,
    /// Names that are read and no longer written, with the last version of them.
    pub(crate) retired: BTreeMap<(Part, String), u32>,
    pub(crate) types: Types,
}

impl Described {
    /// What this build has of a kind.
    pub(crate) fn new(schema: Schema, steps: Steps) -> Self {
        let is_declared = !schema.parts.is_empty();
        let mut entries = BTreeMap::new();
        for (part, shape) in schema.parts {
            let mut add = |name: &str, shape: Shape| {
                let version = steps.version(part, name);
                entries.insert((part, name.to_owned()), Entry { version, shape });
            };
            match shape {
                Shape::Variants(variants) if !steps.is_whole(part) => {
                    for (name, shape) in variants {
                        add(&name, shape);
                    }
                }
                shape => add(WHOLE, shape),
            }
        }
        let mut retired = BTreeMap::new();
        for part in Part::ALL {
            for step in steps.of(part) {
                for (name, _) in [step.from, step.to] {
                    let key = (part, name.to_owned());
                    let version = steps.version(part, name);
                    if steps.next(part, name, version).is_some() {
                        retired.insert(key, version);
                    } else if !is_declared {
                        let shape = Shape::Any;
                        entries.insert(key, Entry { version, shape });
                    }
                }
            }
        }
        Self {
            is_declared,
            entries,
            retired,
            types: schema.types,
        }
    }

    pub(crate) fn entry(&self, part: Part, name: &str) -> Option<&Entry> {
        self.entries.get(&(part, name.to_owned()))
    }

    /// Whether a part has no variants.
    pub(crate) fn is_whole(&self, part: Part) -> bool {
        part == Part::State || self.entry(part, WHOLE).is_some()
    }

    /// The last version of a name that can be read; 0 for none.
    pub(crate) fn reads(&self, part: Part, name: &str) -> u32 {
        let written = self.entry(part, name).map(|entry| entry.version);
        let retired = self.retired.get(&(part, name.to_owned())).copied();
        let unsaid = u32::from(!self.is_declared);
        written.or(retired).unwrap_or(unsaid)
    }

    pub(crate) fn side<'a>(&'a self, shape: &'a Shape) -> Side<'a> {
        Side {
            shape,
            types: &self.types,
        }
    }

    /// Tells builds apart whose states may differ after the same events; `None` where nothing is known of them.
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        if !self.is_declared {
            return None;
        }
        let mut used = BTreeSet::new();
        let mut text = String::new();
        for ((part, name), entry) in &self.entries {
            if matches!(part, Part::State | Part::Event) {
                entry.shape.names(&self.types, &mut used);
                let (part, shape) = (part.name(), entry.shape.to_json());
                let _ = writeln!(text, "{part} {name} {} {shape}", entry.version);
            }
        }
        for name in used {
            if let Some(shape) = self.types.get(&name) {
                let _ = writeln!(text, "{name} {}", shape.to_json());
            }
        }
        Some(fnv(text.as_bytes()))
    }

    /// As it is committed and sent.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        for part in Part::ALL {
            let entries: Map<String, Value> = self
                .entries
                .iter()
                .filter(|((of, _), _)| *of == part)
                .map(|((_, name), entry)| {
                    (
                        name.clone(),
                        json!({ "shape": entry.shape.to_json(), "version": entry.version }),
                    )
                })
                .collect();
            if !entries.is_empty() {
                object.insert(part.name().to_owned(), Value::Object(entries));
            }
        }
        if self.is_declared {
            object.insert("declared".to_owned(), Value::Bool(true));
        }
        if !self.retired.is_empty() {
            let retired = self
                .retired
                .iter()
                .map(|((part, name), version)| (format!("{} {name}", part.name()), json!(version)));
            object.insert("retired".to_owned(), Value::Object(retired.collect()));
        }
        if !self.types.is_empty() {
            let types = self.types.iter().map(|(name, shape)| (name.clone(), shape.to_json()));
            object.insert("types".to_owned(), Value::Object(types.collect()));
        }
        Value::Object(sorted(object))
    }

    /// Reads it back, or says what is wrong with it.
    pub(crate) fn of_json(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("it is no object")?;
        let mut described = Self {
            is_declared: object.get("declared") == Some(&Value::Bool(true)),
            ..Self::default()
        };
        for (key, value) in object {
            let entries = || value.as_object().ok_or_else(|| format!("{key:?} is no object"));
            if let Some(part) = Part::of_name(key) {
                for (name, entry) in entries()? {
                    let fault = |reason: &str| format!("{key} {name}: {reason}");
                    let version = version_of(entry.get("version")).ok_or_else(|| fault("it has no version"))?;
                    let shape = entry.get("shape").ok_or_else(|| fault("it has no shape"))?;
                    let shape = Shape::of_json(shape).map_err(|reason| fault(&reason))?;
                    described.entries.insert((part, name.clone()), Entry { version, shape });
                }
            } else if key == "retired" {
                for (name, version) in entries()? {
                    let (part, name) = parted(name).ok_or_else(|| format!("{name:?} is no part and name"))?;
                    let version = version_of(Some(version)).ok_or_else(|| format!("{name}: it has no version"))?;
                    described.retired.insert((part, name.to_owned()), version);
                }
            } else if key == "types" {
                for (name, shape) in entries()? {
                    let shape = Shape::of_json(shape).map_err(|reason| format!("type {name}: {reason}"))?;
                    described.types.insert(name.clone(), shape);
                }
            }
        }
        Ok(described)
    }
}

/// `event Deposited` as its two words.
pub(crate) fn parted(text: &str) -> Option<(Part, &str)> {
    let (part, name) = text.split_once(' ')?;
    Some((Part::of_name(part)?, name))
}

fn version_of(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok().filter(|version| *version > 0)
}

/// In the order of its keys, whatever order the map keeps.
pub(crate) fn sorted(object: Map<String, Value>) -> Map<String, Value> {
    let sorted: BTreeMap<_, _> = object.into_iter().collect();
    sorted.into_iter().collect()
}

impl Serialize for Described {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Described {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_json(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
