//! The one encoding of domain values: MessagePack with field names, so that a field can be added without breaking what
//! is stored.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Why bytes could not be read back.
pub(crate) type DecodeError = rmp_serde::decode::Error;

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
