//! All projections behind one interface of bytes, so that the engine can carry any of them.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use bytes::Bytes;

use super::{ProjectedEvent, Projection, Rows};
use crate::codec;

/// The longest name of a projection, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 64;

/// A projection, for the engine.
pub(crate) trait Carried: Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    fn kinds(&self) -> &'static [&'static str];
    fn apply(&self, rows: &mut Rows<'_>, event: &ProjectedEvent<'_>);
    /// A shard's part of an answer, encoded; or what is wrong with the question.
    fn query(&self, rows: &Rows<'_>, query: &[u8]) -> Result<Bytes, String>;
    /// The answer, encoded.
    fn merge(&self, parts: Vec<Bytes>, query: &[u8]) -> Result<Bytes, String>;
    /// What is wrong with a question, if anything is.
    fn check(&self, query: &[u8]) -> Result<(), String>;
    /// A question from JSON, encoded.
    fn query_of_json(&self, json: &str) -> Result<Bytes, String>;
    /// An answer as JSON.
    fn answer_json(&self, answer: &[u8]) -> Result<serde_json::Value, String>;
}

/// Projections by name and version.
pub(crate) type All = BTreeMap<(&'static str, u32), Arc<dyn Carried>>;

/// Adds a projection.
///
/// # Panics
/// When its name cannot be, or the same version of it is there already.
pub(crate) fn add<P: Projection>(all: &mut All) {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!(
        !P::NAME.is_empty() && P::NAME.len() <= NAME_LEN_MAX && P::NAME.bytes().all(is_letter),
        "the projection {:?} needs a name of 1 to {NAME_LEN_MAX} of a-z, 0-9 and -",
        P::NAME
    );
    assert!(
        !P::KINDS.is_empty(),
        "the projection {} is fed by no kind of entity",
        P::NAME
    );
    let before = all.insert((P::NAME, P::VERSION), Arc::new(Typed::<P>(PhantomData)));
    assert!(
        before.is_none(),
        "version {} of the projection {} is there twice",
        P::VERSION,
        P::NAME
    );
}

struct Typed<P>(PhantomData<fn() -> P>);

impl<P: Projection> Typed<P> {
    fn question(query: &[u8]) -> Result<P::Query, String> {
        codec::decode(query).map_err(|error| format!("is no question of the projection {}: {error}", P::NAME))
    }
}

impl<P: Projection> Carried for Typed<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> u32 {
        P::VERSION
    }

    fn kinds(&self) -> &'static [&'static str] {
        P::KINDS
    }

    fn apply(&self, rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        P::apply(rows, event);
    }

    fn query(&self, rows: &Rows<'_>, query: &[u8]) -> Result<Bytes, String> {
        Ok(codec::encode(&P::query(rows, &Self::question(query)?)))
    }

    fn merge(&self, parts: Vec<Bytes>, query: &[u8]) -> Result<Bytes, String> {
        let query = Self::question(query)?;
        let parts: Result<Vec<P::Partial>, _> = parts.iter().map(|part| codec::decode(part)).collect();
        let parts = parts.map_err(|error| format!("a part of the answer cannot be read: {error}"))?;
        Ok(codec::encode(&P::merge(parts, &query)))
    }

    fn check(&self, query: &[u8]) -> Result<(), String> {
        P::check(&Self::question(query)?)
    }

    fn query_of_json(&self, json: &str) -> Result<Bytes, String> {
        let query: P::Query = serde_json::from_str(json)
            .map_err(|error| format!("is no question of the projection {}: {error}", P::NAME))?;
        Ok(codec::encode(&query))
    }

    fn answer_json(&self, answer: &[u8]) -> Result<serde_json::Value, String> {
        let answer: P::Answer = codec::decode(answer).map_err(|error| error.to_string())?;
        serde_json::to_value(&answer).map_err(|error| error.to_string())
    }
}
