//! Nothing is written that a member cannot read.
//!
//! While the members of a cluster run different builds, what a decision writes is compared with what all of them can read. What
//! goes beyond is taken back to the version before, where its upcast has a way back; otherwise the command has to wait until
//! the last member is upgraded.

use std::sync::Arc;

use bytes::Bytes;

use super::{Part, WHOLE, card::Card, versioned};
use crate::entity::{
    Registry,
    decision::EffectRequest,
    kind::{Kind, RawDecision},
};

/// What may be written.
#[derive(Debug, Clone, Default)]
pub(crate) enum Restraint {
    /// Whatever this build writes: every member reads it.
    #[default]
    None,
    /// It is not known yet what the members read: nothing but first versions.
    FirstVersions,
    /// What all members read.
    Floor(Arc<Card>),
}

impl Restraint {
    /// The last version of a name that may be written; 0 for none.
    fn allowed(&self, kind: &str, part: Part, name: &str) -> u32 {
        match self {
            Self::None => u32::MAX,
            Self::FirstVersions => 1,
            Self::Floor(floor) => floor.reads(kind, part, name),
        }
    }

    /// Whether nothing is held back.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// A decision in a form that may be written; or what in it may not.
    pub(crate) fn apply(
        &self,
        registry: &Registry,
        name: &str,
        mut decision: RawDecision,
    ) -> Result<RawDecision, String> {
        let Some(kind) = registry.get(name).filter(|_| !self.is_none()) else {
            return Ok(decision);
        };
        let fit = |part, bytes: &Bytes| self.fit(&**kind, name, part, bytes);
        for event in &mut decision.events {
            *event = fit(Part::Event, event)?;
        }
        decision.reply = match decision.reply {
            Ok(reply) => Ok(fit(Part::Reply, &reply)?),
            Err(rejection) => Err(fit(Part::Rejection, &rejection)?),
        };
        for effect in &mut decision.effects {
            if let Some(token) = &mut effect.token {
                *token = fit(Part::Token, token)?;
            }
            if let EffectRequest::Command { to, command } = &mut effect.request
                && let Some(kind) = registry.get(&to.kind)
            {
                *command = self.fit(&**kind, &to.kind, Part::Command, command)?;
            }
        }
        Ok(decision)
    }

    /// One stored value in a form that may be written.
    pub(crate) fn fit(&self, kind: &dyn Kind, name: &str, part: Part, bytes: &Bytes) -> Result<Bytes, String> {
        if self.is_none() {
            return Ok(bytes.clone());
        }
        let (head, value) = versioned::split(bytes)?;
        let variant = if kind.described().is_whole(part) {
            WHOLE
        } else {
            versioned::variant(value).unwrap_or(WHOLE)
        };
        if head.version <= self.allowed(name, part, variant) {
            return Ok(bytes.clone());
        }
        versioned::downcast(kind.steps(), part, bytes, &|variant| self.allowed(name, part, variant))
            .map_err(|what| format!("{what} of {name}"))
    }
}
