//! What the engine measures of itself, for whoever exports it. It knows no library for that.
//!
//! Two ways lead out. What has a duration is handed to a [`Meter`] at the moment it is over; without one it costs a comparison.
//! Everything else is counted in plain atomics where it happens, and read when it is asked for: [`Figures`].
//!
//! Reading order: this file (what a meter is told), [`figures`] (what can be asked for), [`shard`] (what is counted for each
//! replica), [`witness`] (the events that a meter is shown, each once).

mod figures;
pub(crate) mod shard;
pub(crate) mod witness;

use std::{sync::Arc, time::Duration};

use crate::{error::Error, projection::ProjectedEvent};

pub use figures::{BreakerFigures, Figures, ShardFigures};

/// Takes in what the engine measures. Called on the threads that do the work: it must neither wait nor take long.
pub trait Meter: Send + Sync + 'static {
    /// A client's command was answered at the node that heard it.
    fn command(&self, _end: CommandEnd, _took: Duration) {}
    /// An entry that this node proposed is applied.
    fn committed(&self, _commit: &Commit) {}
    /// A command has waited so long for its entity.
    fn waited(&self, _wait: Duration) {}
    /// A call to a dependency outside has ended.
    fn called(&self, _dependency: &str, _end: CallEnd, _took: Duration) {}
    /// A timer has fired, so long after it was due.
    fn fired(&self, _late: Duration) {}
    /// An event of a shard that this node leads. Each is shown by one node at most, and not again after a failover or a restart;
    /// what was decided in the last half second before a node was killed may be shown by none. In order for each shard. Called
    /// apart from the work of the shards, so that it may decode.
    fn saw(&self, _event: &ProjectedEvent<'_>) {}
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandEnd {
    /// It was taken.
    Replied,
    /// The domain said no.
    Rejected,
    /// A limit was reached.
    Overloaded,
    /// Its shard has no leader or no majority.
    Unavailable,
    /// Whether it took effect is not known.
    Unknown,
    /// The caller's time was over.
    TimedOut,
    /// The call itself was wrong.
    Invalid,
    /// The entity's own code failed.
    Failed,
    /// The entity is quarantined.
    Quarantined,
    /// The command is skipped for good.
    Skipped,
    /// The entity is forgotten.
    Forgotten,
}

impl CommandEnd {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Replied,
        Self::Rejected,
        Self::Overloaded,
        Self::Unavailable,
        Self::Unknown,
        Self::TimedOut,
        Self::Invalid,
        Self::Failed,
        Self::Quarantined,
        Self::Skipped,
        Self::Forgotten,
    ];

    /// How an answer of the engine ended; a reply and a rejection are told apart by `is_reply`.
    pub(crate) fn of<T>(answer: &Result<T, Error>, is_reply: impl FnOnce(&T) -> bool) -> Self {
        match answer {
            Ok(answer) if is_reply(answer) => Self::Replied,
            Ok(_) => Self::Rejected,
            Err(Error::Overloaded { .. }) => Self::Overloaded,
            Err(Error::Unavailable { .. }) => Self::Unavailable,
            Err(Error::Unknown { .. }) => Self::Unknown,
            Err(Error::TimedOut { .. }) => Self::TimedOut,
            Err(Error::Invalid { .. }) => Self::Invalid,
            Err(Error::Failed { .. }) => Self::Failed,
            Err(Error::Quarantined { .. }) => Self::Quarantined,
            Err(Error::Skipped { .. }) => Self::Skipped,
            Err(Error::Forgotten { .. }) => Self::Forgotten,
        }
    }

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replied => "replied",
            Self::Rejected => "rejected",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::TimedOut => "timed_out",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Skipped => "skipped",
            Self::Forgotten => "forgotten",
        }
    }

    /// Whether the platform has let its caller down: it is none of the caller's own making, nor the domain's answer.
    pub fn is_error(self) -> bool {
        match self {
            Self::Overloaded
            | Self::Unavailable
            | Self::Unknown
            | Self::TimedOut
            | Self::Failed
            | Self::Quarantined => true,
            Self::Replied | Self::Rejected | Self::Invalid | Self::Skipped | Self::Forgotten => false,
        }
    }
}

/// How long the parts of a commit took, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// From the proposal until it was in an entry.
    pub queue: Duration,
    /// From there until the entry was on the leader's device, or committed without it.
    pub sync: Duration,
    /// From there until a majority had it: mostly the network.
    pub network: Duration,
    /// From there until it was applied.
    pub apply: Duration,
}

/// How a call to a dependency outside ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallEnd {
    /// It was answered.
    Answered,
    /// It is to be made again later.
    Later,
    /// It was given up.
    GivenUp,
}

impl CallEnd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Answered, Self::Later, Self::GivenUp];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Later => "later",
            Self::GivenUp => "given_up",
        }
    }
}

/// Where the engine's measurements go, if anywhere.
#[derive(Clone, Default)]
pub(crate) struct Meters(pub(crate) Option<Arc<dyn Meter>>);

impl Meters {
    /// Hands something in.
    pub(crate) fn tell(&self, tell: impl FnOnce(&dyn Meter)) {
        if let Some(meter) = &self.0 {
            tell(&**meter);
        }
    }
}
