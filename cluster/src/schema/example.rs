//! A value that has a shape, every field of it filled: what an upcast is tried with.

use serde_json::{Map, Value, json};

use super::{
    WHOLE,
    described::Entry,
    shape::{Shape, Types},
};

/// How deep an example goes; what lies deeper is left out where it can be.
const DEPTH_MAX: usize = 6;

/// An example of a stored value.
pub(crate) fn example(name: &str, entry: &Entry, types: &Types) -> Value {
    let body = value(&entry.shape, types, 0);
    match &entry.shape {
        _ if name == WHOLE => body,
        Shape::Unit => json!(name),
        _ => json!({ name: body }),
    }
}

fn value(shape: &Shape, types: &Types, depth: usize) -> Value {
    let is_deep = depth > DEPTH_MAX;
    if depth > DEPTH_MAX + 2 {
        return Value::Null;
    }
    let inner = |shape: &Shape| value(shape, types, depth + 1);
    match shape.resolve(types) {
        Shape::Any | Shape::Null | Shape::Unit | Shape::Named(_) | Shape::Other(_) => Value::Null,
        Shape::Bool => json!(true),
        Shape::Number(name) if name.starts_with('f') => json!(1.5),
        Shape::Number(_) => json!(1),
        Shape::Text { like } => json!(like.as_deref().unwrap_or("text")),
        Shape::Option(_) if is_deep => Value::Null,
        Shape::Option(shape) => inner(shape),
        Shape::List(_) if is_deep => json!([]),
        Shape::List(shape) => json!([inner(shape)]),
        Shape::Map(_) if is_deep => json!({}),
        Shape::Map(shape) => json!({ "1": inner(shape) }),
        Shape::Tuple(items) => items.iter().map(inner).collect(),
        Shape::Record(fields) => {
            let fields = fields.iter().filter(|(_, field)| field.is_required || !is_deep);
            let fields: Map<String, Value> = fields
                .map(|(name, field)| (name.clone(), inner(&field.shape)))
                .collect();
            Value::Object(fields)
        }
        Shape::Variants(variants) => match variants
            .iter()
            .min_by_key(|(_, shape)| is_deep && **shape != Shape::Unit)
        {
            Some((name, Shape::Unit)) => json!(name),
            Some((name, shape)) => json!({ name: inner(shape) }),
            None => Value::Null,
        },
        Shape::OneOf(shapes) => shapes.first().map_or(Value::Null, inner),
    }
}
