//! Shapes out of types: the only place that knows schemars.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub use schemars::{self, JsonSchema};

use super::{
    Part,
    shape::{Field, Shape, Types},
};
use crate::entity::Entity;

/// What the stored types of an entity look like. Every author who derives [`JsonSchema`] for them declares it in one line, and
/// gets for it the [check](super::check) against the committed schema, and rolling upgrades in which nothing is written that
/// a member cannot read.
///
/// ```
/// use cluster::{Context, Decision, Entity, JsonSchema, NoToken, Outcome, Schema};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
/// # #[schemars(crate = "cluster::schemars")]
/// struct State { open: bool }
/// # #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
/// # #[schemars(crate = "cluster::schemars")]
/// # enum Event { Opened }
/// struct Door;
///
/// impl Entity for Door {
///     const KIND: &'static str = "door";
/// #   type State = State;
/// #   type Command = bool;
/// #   type Event = Event;
/// #   type Reply = bool;
/// #   type Rejection = bool;
/// #   type Token = NoToken;
///     fn schema() -> Schema {
///         Schema::of::<Self>()
///     }
///     // and the rest
/// #   fn decide(_: &State, _: bool, _: &Context) -> Result<Decision<Self>, bool> { Err(false) }
/// #   fn evolve(_: &mut State, _: &Event) {}
/// #   fn resume(token: NoToken, _: Outcome) -> bool { match token {} }
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Schema {
    pub(crate) parts: Vec<(Part, Shape)>,
    pub(crate) types: Types,
}

impl Schema {
    /// Nothing is said about the types. The engine can then only compare versions.
    pub fn undeclared() -> Self {
        Self::default()
    }

    /// What the types of `E` look like to serde.
    pub fn of<E: Entity>() -> Self
    where
        E::State: JsonSchema,
        E::Command: JsonSchema,
        E::Event: JsonSchema,
        E::Reply: JsonSchema,
        E::Rejection: JsonSchema,
        E::Token: JsonSchema,
    {
        let mut generator = schemars::generate::SchemaSettings::draft2020_12()
            .for_deserialize()
            .into_generator();
        let parts = [
            (Part::Command, generator.subschema_for::<E::Command>()),
            (Part::Event, generator.subschema_for::<E::Event>()),
            (Part::Rejection, generator.subschema_for::<E::Rejection>()),
            (Part::Reply, generator.subschema_for::<E::Reply>()),
            (Part::State, generator.subschema_for::<E::State>()),
            (Part::Token, generator.subschema_for::<E::Token>()),
        ];
        let definitions = generator.take_definitions(true);
        let types: Types = definitions
            .iter()
            .map(|(name, schema)| (name.clone(), shape_of(schema)))
            .collect();
        let parts: Vec<_> = parts
            .into_iter()
            .map(|(part, schema)| {
                let shape = simple(shape_of(schema.as_value()), &types);
                (part, simple(shape.resolve(&types).clone(), &types))
            })
            .collect();
        let mut used = BTreeSet::new();
        let types: Types = types
            .iter()
            .map(|(name, shape)| (name.clone(), simple(shape.clone(), &types)))
            .collect();
        for (_, shape) in &parts {
            shape.names(&types, &mut used);
        }
        let types = types.into_iter().filter(|(name, _)| used.contains(name)).collect();
        Self { parts, types }
    }
}

/// What a JSON Schema says about stored values.
fn shape_of(schema: &Value) -> Shape {
    let Some(object) = schema.as_object() else {
        return if schema == &Value::Bool(true) {
            Shape::Any
        } else {
            Shape::Other(schema.clone())
        };
    };
    if let Some(name) = object.get("$ref").and_then(Value::as_str) {
        return match name.strip_prefix("#/$defs/") {
            Some(name) => Shape::Named(name.to_owned()),
            None => Shape::Any,
        };
    }
    if let Some(text) = object.get("const").and_then(Value::as_str) {
        return Shape::Variants([(text.to_owned(), Shape::Unit)].into());
    }
    if let Some(values) = object.get("enum").and_then(Value::as_array) {
        let texts: Option<_> = values
            .iter()
            .map(|value| Some((value.as_str()?.to_owned(), Shape::Unit)))
            .collect();
        return texts.map_or_else(|| other(object), Shape::Variants);
    }
    if let Some([only]) = object.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        return shape_of(only);
    }
    let alternatives = object
        .get("oneOf")
        .or_else(|| object.get("anyOf"))
        .and_then(Value::as_array);
    if let Some(alternatives) = alternatives {
        return if object.contains_key("properties") {
            other(object)
        } else {
            one_of(alternatives)
        };
    }
    match object.get("type") {
        Some(Value::String(name)) => of_type(name, object),
        Some(Value::Array(names)) => {
            let mut shapes: Vec<_> = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null")
                .map(|name| of_type(name, object))
                .collect();
            let inner = match shapes.len() {
                1 => shapes.swap_remove(0),
                _ => Shape::OneOf(shapes),
            };
            if names.iter().any(|name| name == "null") {
                Shape::Option(Box::new(inner))
            } else {
                inner
            }
        }
        None if object.keys().all(|key| is_remark(key)) => Shape::Any,
        _ => other(object),
    }
}

/// What does not decide whether a value can be read.
fn is_remark(key: &str) -> bool {
    matches!(
        key,
        "$schema" | "title" | "description" | "default" | "examples" | "deprecated" | "readOnly" | "writeOnly"
    )
}

fn other(object: &Map<String, Value>) -> Shape {
    let kept = object.iter().filter(|(key, _)| !is_remark(key));
    Shape::Other(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn of_type(name: &str, object: &Map<String, Value>) -> Shape {
    let format = object.get("format").and_then(Value::as_str);
    match name {
        "null" => Shape::Null,
        "boolean" => Shape::Bool,
        "integer" => Shape::Number(
            match format {
                Some("uint8") => "u8",
                Some("uint16") => "u16",
                Some("uint32") => "u32",
                Some("uint64" | "uint") => "u64",
                Some("uint128") => "u128",
                Some("int8") => "i8",
                Some("int16") => "i16",
                Some("int32") => "i32",
                Some("int64" | "int") => "i64",
                Some("int128") => "i128",
                _ => "int",
            }
            .to_owned(),
        ),
        "number" => Shape::Number(if format == Some("float") { "f32" } else { "f64" }.to_owned()),
        "string" => {
            let example = object.get("examples").and_then(Value::as_array);
            let example = example.and_then(|examples| examples.first()).and_then(Value::as_str);
            let usual = match format {
                Some("uuid") => Some("00000000-0000-0000-0000-000000000000"),
                Some("date-time") => Some("2000-01-01T00:00:00Z"),
                Some("date") => Some("2000-01-01"),
                Some("ip" | "ipv4") => Some("127.0.0.1"),
                Some("ipv6") => Some("::1"),
                _ => None,
            };
            Shape::Text {
                like: example.or(usual).map(str::to_owned),
            }
        }
        "array" => {
            let many = |key: &str| object.get(key).and_then(Value::as_array);
            match (many("prefixItems"), object.get("items")) {
                (Some(items), _) => Shape::Tuple(items.iter().map(shape_of).collect()),
                (None, Some(items)) => Shape::List(Box::new(shape_of(items))),
                (None, None) => Shape::List(Box::new(Shape::Any)),
            }
        }
        "object" => match (object.get("properties"), object.get("additionalProperties")) {
            (Some(Value::Object(properties)), _) => record(properties, object),
            (None, Some(values @ (Value::Object(_) | Value::Bool(true)))) => Shape::Map(Box::new(shape_of(values))),
            (None, _) if object.contains_key("patternProperties") => {
                // A map whose keys are no plain texts.
                let values = object["patternProperties"]
                    .as_object()
                    .and_then(|all| all.values().next());
                values.map_or_else(|| other(object), |values| Shape::Map(Box::new(shape_of(values))))
            }
            (None, _) => Shape::Record([].into()),
            (Some(_), _) => other(object),
        },
        _ => other(object),
    }
}

fn record(properties: &Map<String, Value>, object: &Map<String, Value>) -> Shape {
    let required = object.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|other| other == name));
    Shape::Record(
        properties
            .iter()
            .map(|(name, schema)| {
                let field = Field {
                    shape: shape_of(schema),
                    is_required: is_required(name),
                };
                (name.clone(), field)
            })
            .collect(),
    )
}

/// An enum: with the names of its variants where serde writes them outside of their content, which is its usual way.
fn one_of(alternatives: &[Value]) -> Shape {
    let shapes: Vec<_> = alternatives.iter().map(shape_of).collect();
    if let [Shape::Null, inner] | [inner, Shape::Null] = &shapes[..] {
        return Shape::Option(Box::new(inner.clone()));
    }
    let mut variants = std::collections::BTreeMap::new();
    for (alternative, shape) in alternatives.iter().zip(&shapes) {
        let is_closed = alternative.get("additionalProperties") == Some(&Value::Bool(false));
        match shape {
            Shape::Variants(names) => variants.extend(names.clone()),
            Shape::Record(fields) if fields.len() == 1 && is_closed => {
                variants.extend(fields.iter().map(|(name, field)| (name.clone(), field.shape.clone())));
            }
            _ => return Shape::OneOf(shapes),
        }
    }
    Shape::Variants(variants)
}

/// The same with names replaced by what they stand for where that is a word: a name more would only be longer.
fn simple(shape: Shape, types: &Types) -> Shape {
    let inner = |shape: Box<Shape>| Box::new(simple(*shape, types));
    match shape {
        Shape::Named(name) => match types.get(&name).map(|shape| shape.resolve(types)) {
            Some(word @ (Shape::Any | Shape::Null | Shape::Bool | Shape::Number(_) | Shape::Text { .. })) => {
                word.clone()
            }
            _ => Shape::Named(name),
        },
        Shape::Option(shape) => Shape::Option(inner(shape)),
        Shape::List(shape) => Shape::List(inner(shape)),
        Shape::Map(shape) => Shape::Map(inner(shape)),
        Shape::Tuple(items) => Shape::Tuple(items.into_iter().map(|item| simple(item, types)).collect()),
        Shape::OneOf(items) => Shape::OneOf(items.into_iter().map(|item| simple(item, types)).collect()),
        Shape::Record(fields) => Shape::Record(
            fields
                .into_iter()
                .map(|(name, field)| {
                    let shape = simple(field.shape, types);
                    (name, Field { shape, ..field })
                })
                .collect(),
        ),
        Shape::Variants(variants) => Shape::Variants(
            variants
                .into_iter()
                .map(|(name, shape)| (name, simple(shape, types)))
                .collect(),
        ),
        other => other,
    }
}
