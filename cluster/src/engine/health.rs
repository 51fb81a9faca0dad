//! Whether this node is well enough to lead. A node that answers pings but whose disk or scheduler is stuck is worse than a
//! dead one: nobody takes over. So it watches itself, and gives its leaderships away while it is unwell. One that has found
//! its own state damaged cannot serve what is damaged, nor make a snapshot of it for a replica that needs one: others can.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::Engine;
use crate::config::Limits;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A node is unwell once it was over a limit at so many looks in a row, and well again after as many below all of them.
const UNWELL_LOOKS: u32 = 4;
const WELL_LOOKS: u32 = 100;

/// What one look has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// How late this task ran.
    scheduler_lag: Duration,
    /// How long writes of the log take down to the device, or the one that is under way has taken.
    sync: Duration,
    /// How long what is sent to the driver waits.
    mailbox_wait: Duration,
}

impl Look {
    /// The first limit that it is over, in words.
    fn over(&self, limits: &Limits) -> Option<String> {
        let seen = [
            ("its tasks run late by", self.scheduler_lag, limits.scheduler_lag_ms_max),
            ("its log takes for a sync", self.sync, limits.sync_ms_max),
            ("consensus is behind by", self.mailbox_wait, limits.mailbox_wait_ms_max),
        ];
        let (what, seen, max) = seen
            .into_iter()
            .find(|(_, seen, max)| *seen > Duration::from_millis(*max))?;
        Some(format!("{what} {} ms; at most {max} ms are good", seen.as_millis()))
    }
}

/// Many looks.
#[derive(Debug, Default)]
struct Health {
    over: u32,
    below: u32,
    unwell: bool,
}

impl Health {
    /// Takes a look in; says whether the node is unwell.
    fn take(&mut self, is_over: bool) -> bool {
        (self.over, self.below) = if is_over {
            (self.over + 1, 0)
        } else {
            (0, self.below + 1)
        };
        self.unwell = if self.unwell {
            self.below < WELL_LOOKS
        } else {
            self.over >= UNWELL_LOOKS
        };
        self.unwell
    }
}

impl Engine {
    /// Why this node should lead nothing now, if so.
    pub(crate) fn unwell(&self) -> Option<String> {
        let damage = self.mailbox.damage();
        damage
            .map(|what| format!("its folder is damaged: {what}; stop it, delete the folder and start it again"))
            .or_else(|| self.unwell.lock().clone())
    }

    /// Watches this node for as long as it runs.
    pub(super) async fn keep_watching_itself(self: Arc<Self>) {
        let mut health = Health::default();
        loop {
            let before = Instant::now();
            sleep(LOOK_INTERVAL).await;
            let look = self.look(before.elapsed().saturating_sub(LOOK_INTERVAL));
            let over = look.over(self.limits());
            let is_unwell = health.take(over.is_some());
            let mut unwell = self.unwell.lock();
            match (is_unwell, over) {
                (true, Some(reason)) if unwell.is_none() => {
                    tracing::warn!(reason, "this node is unwell and gives its leaderships away");
                    *unwell = Some(reason);
                }
                (false, _) if unwell.take().is_some() => tracing::info!("this node is well again"),
                _ => {}
            }
        }
    }

    fn look(&self, scheduler_lag: Duration) -> Look {
        let last = self.mailbox.timings().sync().mean().unwrap_or_default();
        Look {
            scheduler_lag,
            sync: self.mailbox.timings().sync_age().unwrap_or_default().max(last),
            mailbox_wait: self.mailbox.timings().wait().mean().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_passed_is_named() {
        let limits = Limits::default();
        assert_eq!(Look::default().over(&limits), None);
        let stuck = Look {
            sync: Duration::from_secs(7),
            ..Look::default()
        };
        let reason = stuck.over(&limits).expect("over the limit");
        assert!(reason.contains("7000 ms") && reason.contains("sync"), "{reason}");
    }

    #[test]
    fn one_bad_look_is_none_and_one_good_look_is_no_cure() {
        let mut health = Health::default();
        assert!((1..UNWELL_LOOKS).all(|_| !health.take(true)));
        assert!(!health.take(false), "it was over by itself");
        assert!((0..UNWELL_LOOKS).map(|_| health.take(true)).last().expect("looks"));
        assert!((1..WELL_LOOKS).all(|_| health.take(false)));
        assert!(!health.take(false), "well again");
    }
}
