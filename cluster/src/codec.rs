//! The one encoding of domain values: MessagePack with field names, so that a field can be added without breaking what
//! is stored. What stands before a value to say its version is the business of [`versioned`](crate::schema::versioned).

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes could not be read back.
pub(crate) type DecodeError = rmp_serde::decode::Error;

/// No MessagePack value begins with this byte: what begins with it says its version first.
pub(crate) const MARK: u8 = 0xc1;

/// Encodes a domain value.
pub(crate) fn encode(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(value)
        .expect("domain values are plain data, which always has a MessagePack form")
        .into()
}

/// Reads a domain value back.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes)
}

/// Reads a domain value back, and says which of its fields the type does not know.
pub(crate) fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    let value = serde_ignored::deserialize(&mut reader, |path| unknown.push(path.to_string()))?;
    Ok((value, unknown))
}
