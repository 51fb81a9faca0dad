//! When a process is told to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on SIGINT or SIGTERM; never where signals cannot be waited for.
pub(crate) async fn stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be waited for; only SIGKILL ends this process");
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tracing::info!(signal = name, "told to stop");
}
