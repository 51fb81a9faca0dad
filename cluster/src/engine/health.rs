//! Whether this node is well enough to lead. A node that answers pings but whose disk or scheduler is stuck is worse than a
//! dead one: nobody takes over. So it watches itself, and gives its leaderships away while it is unwell.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::Engine;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A node is unwell once it was over a limit at so many looks in a row, and well again after as many below all of them.
const UNWELL_LOOKS: u32 = 4;
const WELL_LOOKS: u32 = 100;

impl Engine {
    /// Why this node should lead nothing now, if so.
    pub(crate) fn unwell(&self) -> Option<String> {
        self.unwell.lock().clone()
    }

    /// Watches this node for as long as it runs.
    pub(super) async fn keep_watching_itself(self: Arc<Self>) {
        let (mut over, mut below) = (0, 0);
        loop {
            let before = Instant::now();
            sleep(LOOK_INTERVAL).await;
            let lag = before.elapsed().saturating_sub(LOOK_INTERVAL);
            if let Some(reason) = self.over_limit(lag) {
                (over, below) = (over + 1, 0);
                let mut unwell = self.unwell.lock();
                if over >= UNWELL_LOOKS && unwell.is_none() {
                    tracing::warn!(reason, "this node is unwell and gives its leaderships away");
                    *unwell = Some(reason);
                }
            } else {
                (over, below) = (0, below + 1);
                if below >= WELL_LOOKS && self.unwell.lock().take().is_some() {
                    tracing::info!("this node is well again");
                }
            }
        }
    }

    /// The first limit that this node is over, in words.
    fn over_limit(&self, scheduler_lag: Duration) -> Option<String> {
        let limit = Duration::from_millis(self.limits().scheduler_lag_ms_max);
        (scheduler_lag > limit).then(|| {
            format!(
                "tasks run {} ms late; at most {} ms are good",
                scheduler_lag.as_millis(),
                limit.as_millis()
            )
        })
    }
}
