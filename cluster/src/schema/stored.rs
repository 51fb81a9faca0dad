//! A stored value without its type, as an upcast sees it.

use rmpv::Value;
use serde::{Serialize, de::DeserializeOwned};

/// How deep stored values may be nested to be upcast. Deeper ones are refused: nothing that is read may end the process.
const DEPTH_MAX: usize = 128;

/// A stored value on its way to a later version: the fields of an event's variant, or those of a whole state.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The variant; none for what is no enum.
    variant: Option<String>,
    /// `None` for a variant that carries nothing.
    body: Option<Value>,
}

impl Stored {
    /// Reads a value in its stored encoding.
    pub(crate) fn read(bytes: &[u8], is_whole: bool) -> Result<Self, String> {
        let mut rest = bytes;
        let value = rmpv::decode::read_value_with_max_depth(&mut rest, DEPTH_MAX).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes too many", rest.len()));
        }
        if is_whole {
            return Ok(Self {
                variant: None,
                body: Some(value),
            });
        }
        match value {
            Value::String(name) => Ok(Self {
                variant: Some(text(name)?),
                body: None,
            }),
            Value::Map(mut entries) if entries.len() == 1 => match entries.swap_remove(0) {
                (Value::String(name), body) => Ok(Self {
                    variant: Some(text(name)?),
                    body: Some(body),
                }),
                _ => Err("it is no variant of an enum".to_owned()),
            },
            _ => Err("it is no variant of an enum".to_owned()),
        }
    }

    /// In its stored encoding.
    pub(crate) fn write(&self) -> Result<Vec<u8>, String> {
        let value = match (&self.variant, &self.body) {
            (Some(name), None) => Value::from(name.as_str()),
            (Some(name), Some(body)) => Value::Map(vec![(Value::from(name.as_str()), body.clone())]),
            (None, body) => body.clone().unwrap_or(Value::Nil),
        };
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, &value).map_err(|error| error.to_string())?;
        Ok(out)
    }

    /// The same without fields that hold nothing.
    pub(crate) fn without_nothing(mut self) -> Self {
        if let Some(body) = &mut self.body {
            drop_nothing(body);
        }
        self
    }

    pub(crate) fn set_variant(&mut self, name: &str) {
        if self.variant.is_some() {
            self.variant = Some(name.to_owned());
        }
    }

    /// Gives a field another name. One that is not there is left alone: it may be optional.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<(), String> {
        let fields = self.fields()?;
        if fields.iter().any(|(name, _)| is(name, new)) {
            return Err(format!("there is a field {new} already"));
        }
        if let Some((name, _)) = fields.iter_mut().find(|(name, _)| is(name, old)) {
            *name = Value::from(new);
        }
        Ok(())
    }

    /// The value of a field.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<T, String> {
        let value = self.field(field).ok_or_else(|| format!("there is no field {field}"))?;
        decoded(value).map_err(|error| format!("field {field}: {error}"))
    }

    /// Takes a field out and gives its value.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, String> {
        let value = self.get(field)?;
        self.remove(field)?;
        Ok(value)
    }

    /// Whether there is such a field.
    pub fn has(&self, field: &str) -> bool {
        self.field(field).is_some()
    }

    /// Takes a field out, if it is there.
    pub fn remove(&mut self, field: &str) -> Result<(), String> {
        self.fields()?.retain(|(name, _)| !is(name, field));
        Ok(())
    }

    /// Sets a field. A variant that carried nothing gets its first one.
    pub fn set(&mut self, field: &str, value: &impl Serialize) -> Result<(), String> {
        let value = encoded(value)?;
        let body = self.body.get_or_insert_with(|| Value::Map(Vec::new()));
        let Value::Map(fields) = body else {
            return Err(NO_FIELDS.to_owned());
        };
        match fields.iter_mut().find(|(name, _)| is(name, field)) {
            Some((_, before)) => *before = value,
            None => fields.push((Value::from(field), value)),
        }
        Ok(())
    }

    /// Sets a field that is not there.
    pub fn default(&mut self, field: &str, value: &impl Serialize) -> Result<(), String> {
        if self.has(field) {
            Ok(())
        } else {
            self.set(field, value)
        }
    }

    /// All of it, for what has no fields: `Deposited(5)` carries a number.
    pub fn whole<T: DeserializeOwned>(&self) -> Result<T, String> {
        decoded(self.body.as_ref().unwrap_or(&Value::Nil))
    }

    /// Puts another value in place of all of it.
    pub fn replace(&mut self, value: &impl Serialize) -> Result<(), String> {
        self.body = Some(encoded(value)?);
        Ok(())
    }

    /// Takes all of it away: what is left is a variant that carries nothing.
    pub fn clear(&mut self) {
        self.body = None;
    }

    fn field(&self, field: &str) -> Option<&Value> {
        let fields = self.body.as_ref()?.as_map()?;
        fields.iter().find(|(name, _)| is(name, field)).map(|(_, value)| value)
    }

    fn fields(&mut self) -> Result<&mut Vec<(Value, Value)>, String> {
        match &mut self.body {
            Some(Value::Map(fields)) => Ok(fields),
            _ => Err(NO_FIELDS.to_owned()),
        }
    }
}

const NO_FIELDS: &str = "it has no fields; see `whole` and `replace`";

fn drop_nothing(value: &mut Value) {
    match value {
        Value::Map(entries) => {
            entries.retain(|(name, value)| !name.is_str() || !value.is_nil());
            for (_, value) in entries {
                drop_nothing(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nothing),
        _ => {}
    }
}

fn is(name: &Value, field: &str) -> bool {
    name.as_str() == Some(field)
}

fn text(name: rmpv::Utf8String) -> Result<String, String> {
    name.into_str()
        .ok_or_else(|| "its variant's name is no text".to_owned())
}

fn encoded(value: &impl Serialize) -> Result<Value, String> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| error.to_string())?;
    rmpv::decode::read_value_with_max_depth(&mut &bytes[..], DEPTH_MAX).map_err(|error| error.to_string())
}

fn decoded<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|error| error.to_string())?;
    rmp_serde::from_slice(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Old {
        Paid { sum: u64, note: String },
        Tipped(u32),
        Closed,
    }

    fn of(value: &Old) -> Stored {
        let bytes = rmp_serde::to_vec_named(value).expect("plain data");
        let stored = Stored::read(&bytes, false).expect("a variant");
        assert_eq!(
            stored.write().expect("plain data"),
            bytes,
            "it is written as it was read"
        );
        stored
    }

    #[test]
    fn fields_are_renamed_taken_and_set() {
        let mut paid = of(&Old::Paid {
            sum: 7,
            note: "tip".to_owned(),
        });
        paid.rename("sum", "amount").expect("a field");
        paid.rename("never", "there").expect("nothing to do");
        assert!(paid.rename("amount", "note").is_err(), "it would hide the other");
        assert_eq!(paid.take::<String>("note").as_deref(), Ok("tip"));
        assert!(paid.take::<String>("note").expect_err("gone").contains("no field note"));
        assert!(
            paid.get::<String>("amount")
                .expect_err("a number")
                .contains("field amount")
        );
        paid.set("minor", &vec![1_u8, 2]).expect("a field");
        paid.default("amount", &9).expect("it is there");
        assert_eq!((paid.get("amount"), paid.get("minor")), (Ok(7_u64), Ok(vec![1_u8, 2])));
    }

    #[test]
    fn what_has_no_fields_is_replaced_as_a_whole() {
        let mut tipped = of(&Old::Tipped(3));
        assert!(tipped.set("amount", &1).is_err());
        let amount: u32 = tipped.whole().expect("a number");
        tipped
            .replace(&std::collections::BTreeMap::from([("amount", amount)]))
            .expect("a map");
        assert_eq!(tipped.get("amount"), Ok(3_u32));
        let mut closed = of(&Old::Closed);
        closed.set("why", &"late").expect("its first field");
        assert_eq!(closed.get("why"), Ok("late".to_owned()));
        closed.clear();
        assert_eq!(closed, of(&Old::Closed));
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        let mut deep = vec![0x91; 4096];
        deep.push(0xc0);
        assert!(Stored::read(&deep, true).is_err());
        let huge = [0xdd, 0xff, 0xff, 0xff, 0xff];
        assert!(Stored::read(&huge, true).is_err(), "an array that claims to be endless");
    }
}
