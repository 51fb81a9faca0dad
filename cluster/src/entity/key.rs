//! How entities and requests are named.

use std::{cell::RefCell, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

/// The longest entity id, in bytes.
pub const ENTITY_ID_LEN_MAX: usize = 200;
/// The longest request id, in bytes.
pub const REQUEST_ID_LEN_MAX: usize = 300;

/// The address of one entity: its kind and its id within the kind, written `kind/id`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityKey {
    /// The kind's name, [`crate::Entity::KIND`].
    #[serde(deserialize_with = "shared_kind")]
    pub kind: Arc<str>,
    /// The id within the kind.
    pub id: Arc<str>,
}

/// Why a text is no entity key or request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing.
    #[error("must not be empty")]
    Empty,
    /// Longer than the limit.
    #[error("is {len} bytes long; at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Contains a character that would break keys, logs or terminals.
    #[error("contains {0:?}; control characters are not allowed")]
    Character(char),
    /// Not of the form `kind/id`.
    #[error("is not of the form kind/id")]
    Form,
}

/// Whether a text can be a key, an id or a name of at most so many bytes.
pub(crate) fn check(text: &str, max: usize) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.len() > max {
        return Err(KeyError::TooLong { len: text.len(), max });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(KeyError::Character(c)),
        None => Ok(()),
    }
}

/// Names of kinds that a thread has in mind.
const SHARED_KINDS_MAX: usize = 64;

/// Reads the name of a kind. There are few of them and every stored key has one, so keys share the text.
fn shared_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    thread_local! {
        static SHARED: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
    }
    struct Kind;
    impl Visitor<'_> for Kind {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of a kind")
        }

        fn visit_str<E>(self, name: &str) -> Result<Arc<str>, E> {
            SHARED.with_borrow_mut(|shared| {
                if let Some(kind) = shared.iter().find(|kind| &***kind == name) {
                    return Ok(Arc::clone(kind));
                }
                let kind: Arc<str> = name.into();
                if shared.len() < SHARED_KINDS_MAX {
                    shared.push(Arc::clone(&kind));
                }
                Ok(kind)
            })
        }
    }
    deserializer.deserialize_str(Kind)
}

impl EntityKey {
    /// A checked key.
    pub fn new(kind: &str, id: &str) -> Result<Self, KeyError> {
        check(id, ENTITY_ID_LEN_MAX)?;
        if kind.is_empty() || kind.contains('/') {
            return Err(KeyError::Form);
        }
        Ok(Self {
            kind: kind.into(),
            id: id.into(),
        })
    }

    /// Parses `kind/id`; the id may contain further slashes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (kind, id) = text.split_once('/').ok_or(KeyError::Form)?;
        Self::new(kind, id)
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The caller's idempotency key: for one entity, the same id gives the same reply and one effect.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A checked request id.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        check(text, REQUEST_ID_LEN_MAX)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a part of this request, for calls that touch several entities of one kind.
    #[must_use]
    pub fn part(&self, part: &str) -> Self {
        Self(format!("{}:{part}", self.0).into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        let key = EntityKey::parse("order/2026/42").expect("a key");
        assert_eq!((&*key.kind, &*key.id), ("order", "2026/42"));
        assert_eq!(EntityKey::parse(&key.to_string()), Ok(key));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        assert_eq!(EntityKey::parse("order"), Err(KeyError::Form));
        assert_eq!(EntityKey::parse("order/"), Err(KeyError::Empty));
        assert_eq!(EntityKey::new("order", "a\nb"), Err(KeyError::Character('\n')));
        let long = "x".repeat(ENTITY_ID_LEN_MAX + 1);
        assert_eq!(
            EntityKey::new("order", &long),
            Err(KeyError::TooLong { len: 201, max: 200 })
        );
    }
}
