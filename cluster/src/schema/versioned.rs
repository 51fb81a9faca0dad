//! How stored bytes say their version.
//!
//! | bytes | what |
//! | --- | --- |
//! | a MessagePack value | version 1 |
//! | `c1`, a MessagePack number, a MessagePack value | that version |
//! | `c1`, `92`, a MessagePack number, `cf` and 8 bytes, a MessagePack value | that version, made by a build of that fingerprint |
//!
//! No MessagePack value begins with `c1`, so one is never taken for the other.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{Part, Stored, WHOLE, upcast::Steps};
use crate::{
    codec::{self, DecodeError},
    entity::Entity,
};

pub(crate) use crate::codec::MARK;

/// What stands before a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: u32,
    /// Of the schema that the build which wrote it had; only snapshots have it.
    pub(crate) fingerprint: Option<u64>,
}

impl Head {
    /// Of what has nothing before it.
    pub(crate) const PLAIN: Self = Self {
        version: 1,
        fingerprint: None,
    };
}

/// Divides stored bytes into what stands before the value, and the value.
pub(crate) fn split(bytes: &[u8]) -> Result<(Head, &[u8]), String> {
    let Some(rest) = bytes.strip_prefix(&[MARK]) else {
        return Ok((Head::PLAIN, bytes));
    };
    let (rest, has_fingerprint) = match rest.strip_prefix(&[0x92]) {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let (version, rest) = number(rest).ok_or(DAMAGED)?;
    if version == 0 {
        return Err(DAMAGED.to_owned());
    }
    if !has_fingerprint {
        return Ok((Head { version, ..Head::PLAIN }, rest));
    }
    let (fingerprint, rest) = rest
        .strip_prefix(&[0xcf])
        .and_then(|rest| rest.split_first_chunk::<8>())
        .ok_or(DAMAGED)?;
    let head = Head {
        version,
        fingerprint: Some(u64::from_be_bytes(*fingerprint)),
    };
    Ok((head, rest))
}

const DAMAGED: &str = "what says its version is damaged";

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        0..=0x7f => Some((u32::from(*first), rest)),
        0xcc => rest.split_first().map(|(byte, rest)| (u32::from(*byte), rest)),
        0xcd => rest
            .split_first_chunk::<2>()
            .map(|(bytes, rest)| (u32::from(u16::from_be_bytes(*bytes)), rest)),
        0xce => rest
            .split_first_chunk::<4>()
            .map(|(bytes, rest)| (u32::from_be_bytes(*bytes), rest)),
        _ => None,
    }
}

/// Puts the version before a value.
pub(crate) fn join(head: Head, value: &[u8]) -> Bytes {
    if head == Head::PLAIN {
        return Bytes::copy_from_slice(value);
    }
    let mut out = Vec::with_capacity(value.len() + 15);
    out.push(MARK);
    if head.fingerprint.is_some() {
        out.push(0x92);
    }
    match head.version {
        version @ 0..=0x7f => out.push(version as u8),
        version => {
            out.push(0xce);
            out.extend_from_slice(&version.to_be_bytes());
        }
    }
    if let Some(fingerprint) = head.fingerprint {
        out.push(0xcf);
        out.extend_from_slice(&fingerprint.to_be_bytes());
    }
    out.extend_from_slice(value);
    out.into()
}

/// The variant of a value that is one of an enum, as serde writes it.
pub(crate) fn variant(value: &[u8]) -> Option<&str> {
    let rest = value.strip_prefix(&[0x81]).unwrap_or(value);
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0xa0..=0xbf => (usize::from(first & 0x1f), rest),
        0xd9 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0xda => rest
            .split_first_chunk::<2>()
            .map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        _ => return None,
    };
    std::str::from_utf8(rest.get(..len)?).ok()
}

/// The name under which a value is versioned.
pub(crate) fn name_in(steps: Steps, part: Part, value: &[u8]) -> &str {
    if steps.is_whole(part) {
        WHOLE
    } else {
        variant(value).unwrap_or(WHOLE)
    }
}

/// Encodes a value of an entity, with its version.
pub(crate) fn encode<E: Entity>(part: Part, value: &impl Serialize) -> Bytes {
    let bytes = codec::encode(value);
    let steps = Steps(E::UPCASTS);
    if !steps.has(part) {
        return bytes;
    }
    let version = steps.version(part, name_in(steps, part, &bytes));
    let head = Head {
        version,
        fingerprint: None,
    };
    if version == 1 { bytes } else { join(head, &bytes) }
}

/// Reads a value of an entity back, whichever version it was written in.
pub(crate) fn decode<E: Entity, T: DeserializeOwned>(part: Part, bytes: &[u8]) -> Result<T, DecodeError> {
    let steps = Steps(E::UPCASTS);
    if bytes.first() != Some(&MARK) && !steps.has(part) {
        return codec::decode(bytes);
    }
    match upcast(steps, part, bytes) {
        Ok(Upcasted::AsItIs(value)) => codec::decode(value),
        Ok(Upcasted::Changed(value)) => codec::decode(&value),
        Err(reason) => Err(DecodeError::Syntax(reason)),
    }
}

/// A value in the version of this build.
#[derive(Debug)]
pub(crate) enum Upcasted<'a> {
    AsItIs(&'a [u8]),
    Changed(Vec<u8>),
}

impl Upcasted<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::AsItIs(bytes) => bytes,
            Self::Changed(bytes) => bytes,
        }
    }
}

/// Takes a stored value through all steps that follow its version.
pub(crate) fn upcast(steps: Steps, part: Part, bytes: &[u8]) -> Result<Upcasted<'_>, String> {
    let (head, value) = split(bytes)?;
    let name = name_in(steps, part, value);
    if steps.next(part, name, head.version).is_none() {
        let known = steps.version(part, name);
        if head.version != known {
            return Err(unread(&super::title(part, name), head.version, known));
        }
        return Ok(Upcasted::AsItIs(value));
    }
    let mut stored = Stored::read(value, steps.is_whole(part))?;
    let (mut name, mut version) = (name.to_owned(), head.version);
    while let Some(step) = steps.next(part, &name, version) {
        (step.up)(&mut stored).map_err(|error| {
            format!(
                "{} version {version} cannot be upcast: {error}",
                super::title(part, &name)
            )
        })?;
        stored.set_variant(step.to.0);
        (name, version) = (step.to.0.to_owned(), step.to.1);
    }
    Ok(Upcasted::Changed(stored.write()?))
}

/// Takes a value of this build back to the last version up to `allowed` that a step leads from, if all steps on the way have
/// a way back. `allowed` says for a name which version may be written; 0 for none.
pub(crate) fn downcast(steps: Steps, part: Part, bytes: &[u8], allowed: &dyn Fn(&str) -> u32) -> Result<Bytes, String> {
    let (head, value) = split(bytes)?;
    let mut stored = Stored::read(value, steps.is_whole(part))?;
    let (mut name, mut version) = (name_in(steps, part, value).to_owned(), head.version);
    while version > allowed(&name) {
        let step = steps.last(part, &name, version);
        let Some((step, down)) = step.and_then(|step| Some((step, step.down?))) else {
            return Err(format!("{} version {version}", super::title(part, &name)));
        };
        down(&mut stored).map_err(|error| format!("{} version {version} ({error})", super::title(part, &name)))?;
        stored.set_variant(step.from.0);
        (name, version) = (step.from.0.to_owned(), step.from.1);
    }
    let head = Head {
        version,
        fingerprint: None,
    };
    Ok(join(head, &stored.write()?))
}

/// What is said of a version that this build does not know.
pub(crate) fn unread(title: &str, version: u32, known: u32) -> String {
    if version > known {
        format!("{title} has version {version}, and this build reads it up to version {known}: run a newer build")
    } else {
        format!("{title} has version {version}, and no upcast leads on from it")
    }
}
