//! Entities brought to life of what may be another build's writing: snapshots that are not to be trusted, and what this
//! build cannot read at all.

use bytes::Bytes;

use super::replica::Replica;
use crate::{
    codec::DecodeError,
    entity::{
        EntityKey,
        activation::Undelivered,
        kind::{Kind, Live},
    },
    journal::{LoadedEntity, quarantine::Stage, rebuild, shard::whole_history},
    replication::Input,
    schema::{Part, fleet::Fleet},
    supervision::contain::{self, Fault},
};

/// After how long those come again whose command needs a build that leads nothing yet.
pub(crate) const AGAIN_MS: u64 = 500;

impl Replica {
    /// What is known of the builds of other members.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.surroundings.fleet
    }

    /// The live form of a loaded entity; or why its code cannot make one.
    pub(crate) fn revive(&self, key: &EntityKey, loaded: &LoadedEntity) -> Result<Box<dyn Live>, Fault> {
        let kind = self.surroundings.registry.get(&key.kind);
        let kind = kind.ok_or_else(|| Fault::unknown_kind(&key.kind))?;
        contain::run(Stage::Revive, || {
            if let Some(rebuilt) = self.rebuilt(&**kind, key, loaded) {
                return rebuilt;
            }
            let mut live = kind.load(loaded.snapshot.as_deref())?;
            for event in &loaded.events {
                live.evolve(event)?;
            }
            Ok(live)
        })
    }

    /// The live form of an entity whose snapshot another build has made, from all of its events; `None` where the snapshot is to
    /// be used. Slow for a long history; the next checkpoint of the entity ends it.
    fn rebuilt(
        &self,
        kind: &dyn Kind,
        key: &EntityKey,
        loaded: &LoadedEntity,
    ) -> Option<Result<Box<dyn Live>, DecodeError>> {
        if kind.trusts(loaded.snapshot.as_deref()?) {
            return None;
        }
        let (store, tail) = self.state().history_parts(key, 1);
        // Where it cannot be read, whoever needs more than the snapshot will meet the same fault.
        let mut history = whole_history(&*store, tail, key, 1).ok()?;
        history.retain(|record| record.seq <= loaded.head.seq);
        rebuild::from_all(kind, &history, loaded.head.version)
    }

    /// Why this build must not decide a command, or resume from a token, that another build may have written: it would pass
    /// over a part of it.
    pub(crate) fn passes_over(&self, key: &EntityKey, part: Part, bytes: &Bytes) -> Option<String> {
        let kind = self.registry().get(&key.kind)?;
        let reason = match kind.unknown_fields(part, bytes) {
            Ok(unknown) => format!("has the field {}, which this build does not know", unknown.first()?),
            Err(error) => format!("cannot be read by this build: {error}"),
        };
        Some(format!("the {} {reason}", part.name()))
    }

    /// What is said of something that this build cannot do and another member's build can: that one is to lead the shard.
    pub(crate) fn give_to_newer(&self, reason: &str) -> Undelivered {
        match self.fleet().heir(self.shard()) {
            Some(to) => {
                tracing::info!(shard = self.shard(), to, reason, "leadership goes to a newer build");
                self.mailbox().input(Input::Transfer {
                    group: self.shard(),
                    to,
                });
                Undelivered::NotLeader
            }
            None => Undelivered::Restarting {
                after_ms: AGAIN_MS,
                reason: format!(
                    "{reason}; no node with a newer build can lead shard {} now: go on with the upgrade",
                    self.shard()
                ),
            },
        }
    }

    /// The same for a fault, if that is what it is about: the builds of the members differ, and no code has failed.
    pub(crate) fn excuse(&self, fault: &Fault) -> Option<Undelivered> {
        let is_foreign = self.fleet().is_mixed() && !fault.is_panic();
        is_foreign.then(|| self.give_to_newer(&fault.reason))
    }
}
