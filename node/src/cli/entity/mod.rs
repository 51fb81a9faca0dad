//! `playhouse entity`: any entity's state and history.
//!
//! [`show`] (now or at any time before), [`diff`] (between two times), [`replay`] (every recorded command decided once more by this
//! build), [`forget`] (all of it is let go, with proof). [`point`] reads versions and times, [`records`] fetches what was recorded.

mod diff;
mod forget;
mod point;
mod records;
mod replay;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use super::failure::Failure;

pub(crate) use point::{parse_time, time_text};
pub(crate) use show::{parse_key, parsed};

/// Look at any entity, as it is and as it was.
#[derive(Debug, Subcommand)]
pub(crate) enum Entity {
    /// Show state, version, leader and events; or the state at an earlier version or time.
    Show(show::Show),
    /// Show what differs between two versions or times, and the events between them.
    Diff(diff::Diff),
    /// Decide the recorded commands once more with this build, and show where that differs. Changes nothing. Exit code 4: it differs.
    Replay(replay::Replay),
    /// Forget an entity for good, or prove that it is forgotten: ask every node what it still has of it.
    Forget(forget::Forget),
}

impl Entity {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Show(show) => show.run().await,
            Self::Diff(diff) => diff.run().await,
            Self::Replay(replay) => replay.run().await,
            Self::Forget(forget) => forget.run().await,
        }
    }
}
