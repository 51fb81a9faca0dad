//! An event as projections get it.

use std::cell::RefCell;

use bytes::Bytes;

use crate::{
    entity::Entity,
    journal::feed::FeedRecord,
    schema::{Part, versioned},
};

/// An event on its way into a model. All of it is recorded: another replica, or a rebuild in a year, sees the same.
pub struct ProjectedEvent<'a> {
    record: &'a FeedRecord,
    version: u64,
    raw: &'a Bytes,
    fault: RefCell<Option<String>>,
}

impl<'a> ProjectedEvent<'a> {
    /// The events of a record, in order.
    pub(crate) fn of_record(record: &'a FeedRecord) -> impl Iterator<Item = Self> {
        let numbered = (record.first_version..).zip(&record.events);
        numbered.map(move |(version, raw)| Self {
            record,
            version,
            raw,
            fault: RefCell::new(None),
        })
    }

    /// The kind of its entity.
    pub fn kind(&self) -> &str {
        &self.record.entity.kind
    }

    /// The id of its entity within the kind.
    pub fn id(&self) -> &str {
        &self.record.entity.id
    }

    /// The entity's version after it; the first event of an entity has 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was decided, by the leader's clock, in milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        self.record.at_ms
    }

    /// The request that caused it.
    pub fn request_id(&self) -> &str {
        self.record.request_id.as_str()
    }

    /// The event, if it is one of this kind of entity; written by an earlier build, it is upcast. One that this build cannot read
    /// stops the projection, and nothing of the event is kept.
    pub fn of<E: Entity>(&self) -> Option<E::Event> {
        if self.kind() != E::KIND {
            return None;
        }
        match versioned::decode::<E, E::Event>(Part::Event, self.raw) {
            Ok(event) => Some(event),
            Err(error) => {
                self.fault.replace(Some(error.to_string()));
                None
            }
        }
    }

    /// Why it could not be read, if it could not.
    pub(crate) fn fault(self) -> Option<String> {
        self.fault.into_inner()
    }
}
