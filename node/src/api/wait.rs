//! Waits for an entity to come where it should be, by linearizable long polls.

use std::time::{Duration, Instant};

use cluster::{Entity, Error, ReadOptions, Versioned};

use super::{
    reading::Newness,
    request::{Call, Edge},
    status::Fault,
};

/// The shortest pause after a read that failed.
const READ_RETRY_MIN_MS: u64 = 20;

/// Waits at most `longest` until the entity, after `version`, is as it should be; then gives it as it was last seen.
/// `None` where it was not seen at all in that time.
pub(super) async fn until<E: Entity>(
    edge: &Edge,
    call: &Call,
    longest: Duration,
    id: &str,
    mut version: u64,
    is_there: impl Fn(&E::State) -> bool,
) -> Result<Option<Versioned<E::State>>, Fault> {
    let end = Instant::now() + longest;
    let mut last = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(last);
        }
        let options = ReadOptions {
            newer_than: Some(version),
            ..ReadOptions::default()
        };
        let read = edge.cluster.read::<E>(id, options, &call.request_within(left)).await;
        if let Ok(seen) = &read {
            call.note(Newness::of(seen));
        }
        match read {
            Ok(seen) if is_there(&seen.state) => return Ok(Some(seen)),
            Ok(seen) => {
                version = version.max(seen.version);
                last = Some(seen);
            }
            Err(error) if error.is_retryable() => pause_after(&error, left).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits as long as the engine asks for, within what is left.
pub(super) async fn pause_after(error: &Error, left: Duration) {
    let pause = match error {
        Error::Overloaded { retry_after, .. } | Error::Unavailable { retry_after, .. } => *retry_after,
        Error::Unknown { .. }
        | Error::TimedOut { .. }
        | Error::Invalid { .. }
        | Error::Failed { .. }
        | Error::Quarantined { .. }
        | Error::Skipped { .. }
        | Error::Forgotten { .. } => Duration::ZERO,
    };
    tokio::time::sleep(pause.max(Duration::from_millis(READ_RETRY_MIN_MS)).min(left)).await;
}
