//! How the things of the domain are named. An id is checked when it is made, so that whoever holds one need not ask.

use std::{fmt, ops::Deref, str::FromStr};

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest id, in bytes. Shorter than the engine's limit, because ids are built into references to other things.
pub const ID_LEN_MAX: usize = 120;
/// The longest article number, in bytes.
pub const SKU_LEN_MAX: usize = 64;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
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
    /// Would break keys, logs or terminals.
    #[error("contains {0:?}; control characters are not allowed")]
    Character(char),
    /// White space at an end is not seen, and makes two ids of what looks like one.
    #[error("must not begin or end with white space")]
    WhiteSpace,
}

fn check(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > max {
        return Err(IdError::TooLong { len: text.len(), max });
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(IdError::Character(c));
    }
    if text.trim() != text {
        return Err(IdError::WhiteSpace);
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a text.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text, $max)?;
                Ok(Self(text))
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The article number that a product and its stock item share.
    Sku, SKU_LEN_MAX
}
id! {
    /// An order, and with it its checkout and its payment.
    OrderId, ID_LEN_MAX
}
id! {
    /// A customer.
    CustomerId, ID_LEN_MAX
}
id! {
    /// One taking-back of goods.
    ReturnId, ID_LEN_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_checked_when_it_is_made() {
        assert_eq!(
            Sku::new("BANK CHARGES").map(String::from),
            Ok("BANK CHARGES".to_owned())
        );
        assert_eq!(Sku::new(""), Err(IdError::Empty));
        assert_eq!(Sku::new("a "), Err(IdError::WhiteSpace));
        assert_eq!(Sku::new("a\u{7}"), Err(IdError::Character('\u{7}')));
        assert_eq!(Sku::new("x".repeat(65)), Err(IdError::TooLong { len: 65, max: 64 }));
    }
}
