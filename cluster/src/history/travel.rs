//! The state of an entity at a version or a time: its kept beginning, and the events up to there.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use super::{Base, History, HistoryError, Recorded};
use crate::{
    entity::{
        Entity, EntityKey, Registry,
        kind::{Kind, Live},
    },
    journal::quarantine::Stage,
    schema::{Part, versioned},
    supervision::contain,
};

/// A point in an entity's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// After so many events.
    Version(u64),
    /// At a time, in milliseconds since 1970: everything up to the first record that is later. Times are those of the leaders that
    /// decided; the order of the records counts where two leaders' clocks disagree.
    Time(u64),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "at version {version}"),
            Self::Time(ms) => write!(f, "at {ms} (unix ms)"),
        }
    }
}

/// An entity as it was at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment<S> {
    /// The number of events by then.
    pub version: u64,
    /// The number of its last record by then.
    pub seq: u64,
    /// When that was decided, in milliseconds since 1970; 0 where there was none.
    pub at_ms: u64,
    /// What the events add up to.
    pub state: S,
}

/// The state of an entity of kind `E` at a point.
pub fn at<E: Entity>(history: &History, point: Point) -> Result<Moment<E::State>, HistoryError> {
    let registry = Registry::new().with::<E>();
    let key = key_of(history, E::KIND);
    let moment = at_in(&registry, &key, history, point)?;
    let state = versioned::decode::<E, _>(Part::State, &moment.state).map_err(|error| HistoryError::Unreadable {
        entity: key,
        seq: moment.seq,
        reason: error.to_string(),
    })?;
    Ok(Moment {
        version: moment.version,
        seq: moment.seq,
        at_ms: moment.at_ms,
        state,
    })
}

/// The state of an entity of any registered kind at a point, in its own encoding.
pub fn at_in(
    registry: &Registry,
    key: &EntityKey,
    history: &History,
    point: Point,
) -> Result<Moment<Bytes>, HistoryError> {
    let mut course = Course::begin(registry, key, &history.base, point)?;
    for record in &history.records {
        if !course.take(record)? {
            break;
        }
    }
    course.end()
}

/// The entity that a history is of; one that is empty says only the kind.
pub(super) fn key_of(history: &History, kind: &str) -> EntityKey {
    history.records.first().map_or_else(
        || EntityKey {
            kind: kind.into(),
            id: "".into(),
        },
        |record| record.entity.clone(),
    )
}

/// An entity on its way to a point, record by record.
pub(crate) struct Course {
    key: EntityKey,
    kind: Arc<dyn Kind>,
    live: Box<dyn Live>,
    base: Base,
    point: Point,
    version: u64,
    seq: u64,
    at_ms: u64,
    /// When the first record after the point was decided.
    later_ms: Option<u64>,
}

impl Course {
    pub(crate) fn begin(registry: &Registry, key: &EntityKey, base: &Base, point: Point) -> Result<Self, HistoryError> {
        let (kind, live) = revive(registry, key, base)?;
        Ok(Self {
            key: key.clone(),
            kind,
            live,
            version: base.version,
            seq: base.seq,
            at_ms: base.at_ms,
            base: base.clone(),
            point,
            later_ms: None,
        })
    }

    /// Takes the next record; says whether more are needed.
    pub(crate) fn take(&mut self, record: &Recorded) -> Result<bool, HistoryError> {
        follows(&self.key, self.seq, record)?;
        let events = match self.point {
            Point::Time(ms) if record.at_ms > ms => {
                self.later_ms = Some(record.at_ms);
                return Ok(false);
            }
            Point::Time(_) => record.events.len(),
            Point::Version(version) if self.version >= version => {
                self.later_ms = Some(record.at_ms);
                return Ok(false);
            }
            Point::Version(version) => {
                let missing = usize::try_from(version - self.version).unwrap_or(usize::MAX);
                record.events.len().min(missing)
            }
        };
        evolve(&mut *self.live, record, &record.events[..events])?;
        self.version += events as u64;
        (self.seq, self.at_ms) = (record.seq, record.at_ms);
        Ok(true)
    }

    /// The state, once no more is needed or there is no more.
    pub(crate) fn end(self) -> Result<Moment<Bytes>, HistoryError> {
        let Self { point, base, .. } = &self;
        let entity = self.key.clone();
        match *point {
            Point::Version(version) if version < base.version => {
                return Err(HistoryError::NotKept {
                    entity,
                    point: *point,
                    first: base.version,
                    first_ms: base.at_ms,
                });
            }
            Point::Version(version) if version > self.version => {
                return Err(match self.version {
                    0 if self.seq == 0 => HistoryError::Nothing(entity),
                    head => HistoryError::Beyond { entity, version, head },
                });
            }
            Point::Time(ms) if self.seq == base.seq => match (base.seq, self.later_ms) {
                (0, None) => return Err(HistoryError::Nothing(entity)),
                (0, Some(first_ms)) => {
                    return Err(HistoryError::BeforeFirst {
                        entity,
                        point: *point,
                        first_ms,
                    });
                }
                _ if ms < base.at_ms => {
                    return Err(HistoryError::NotKept {
                        entity,
                        point: *point,
                        first: base.version,
                        first_ms: base.at_ms,
                    });
                }
                _ => {}
            },
            Point::Version(_) | Point::Time(_) => {}
        }
        Ok(Moment {
            version: self.version,
            seq: self.seq,
            at_ms: self.at_ms,
            state: self.live.snapshot(),
        })
    }

    /// As far as it has come, as the beginning of what comes after.
    pub(crate) fn here(&self) -> Base {
        Base {
            seq: self.seq,
            version: self.version,
            at_ms: self.at_ms,
            state: Some(self.live.snapshot()),
        }
    }

    /// The kind that it is of.
    pub(crate) fn kind(&self) -> &Arc<dyn Kind> {
        &self.kind
    }
}

/// A kind, and an entity of it.
type Revived = (Arc<dyn Kind>, Box<dyn Live>);

/// The live form of an entity at the beginning of its kept history.
pub(super) fn revive(registry: &Registry, key: &EntityKey, base: &Base) -> Result<Revived, HistoryError> {
    let kind = registry
        .get(&key.kind)
        .ok_or_else(|| HistoryError::UnknownKind(key.kind.to_string()))?;
    let live = contain::run(Stage::Revive, || kind.load(base.state.as_deref()));
    let live = live.map_err(|fault| HistoryError::Unreadable {
        entity: key.clone(),
        seq: base.seq,
        reason: fault.reason,
    })?;
    Ok((Arc::clone(kind), live))
}

/// Takes events of a record into a live entity.
pub(super) fn evolve(live: &mut dyn Live, record: &Recorded, events: &[Bytes]) -> Result<(), HistoryError> {
    let evolved = contain::run(Stage::Revive, || events.iter().try_for_each(|event| live.evolve(event)));
    evolved.map_err(|fault| HistoryError::Unreadable {
        entity: record.entity.clone(),
        seq: record.seq,
        reason: fault.reason,
    })
}

/// Makes sure that a record is the one that comes after number `seq` of an entity.
pub(super) fn follows(key: &EntityKey, seq: u64, record: &Recorded) -> Result<(), HistoryError> {
    if record.seq == seq + 1 {
        return Ok(());
    }
    Err(HistoryError::Gap {
        entity: key.clone(),
        expected: seq + 1,
        found: record.seq,
    })
}
