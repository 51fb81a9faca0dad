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

/// What is stored as JSON, whatever its type: for what this build has no type for. Bytes that are no MessagePack are shown in
/// hexadecimal.
pub(crate) fn json_of(bytes: &[u8]) -> serde_json::Value {
    rmp_serde::from_slice(bytes).unwrap_or_else(|_| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::Value::String(hex.concat())
    })
}
