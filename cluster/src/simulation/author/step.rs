//! One step of a workload: a command of a client.

use bytes::Bytes;

use crate::{
    entity::{Entity, EntityKey},
    schema::{Part, versioned},
};

/// What a client wants: a command for an entity. Clients repeat it under the same request id until they are answered, on any
/// node, and some of them arrive twice.
#[derive(Debug, Clone)]
pub struct Step {
    pub(super) key: EntityKey,
    pub(super) command: Bytes,
}

impl Step {
    /// A command for the entity of kind `E` with this id.
    ///
    /// # Panics
    /// When it is no id of an entity.
    #[allow(clippy::needless_pass_by_value, reason = "workloads read better without references")]
    pub fn ask<E: Entity>(id: &str, command: E::Command) -> Self {
        Self {
            key: EntityKey::new(E::KIND, id).unwrap_or_else(|error| panic!("a step names {id:?}: {error}")),
            command: versioned::encode::<E>(Part::Command, &command),
        }
    }
}
