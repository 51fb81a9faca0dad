//! How new a replica's state is: since when it is known to have had everything, and who waits for it to come further.
//!
//! The replica asks the leader for all that is committed (`replication::catch_up`) and remembers when it asked, by its own
//! steady clock. Once it has applied the answer, its state has everything that was acknowledged before it asked. No other
//! node's clock is looked at. Why this holds stands in `docs/decisions/2026-11-21-stale-reads.md`.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use crate::clock::steady_ns;

/// What a replica knows of its own age.
#[derive(Default)]
pub(crate) struct Freshness {
    /// When the question was asked whose answer is applied, by the steady clock; 0 for never.
    proven_ns: AtomicU64,
    /// A question is under way.
    asking: AtomicBool,
    /// Questions that came to nothing.
    failures: AtomicU64,
    ended: Notify,
    /// Who waits for which position.
    positions: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
}

/// Everything that was acknowledged before this time of the steady clock is part of the state. Taken before the state it is
/// said of: one that is taken later may be about a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof(u64);

impl Proof {
    /// How long ago that time is.
    pub(crate) fn age(self) -> Duration {
        Duration::from_nanos(steady_ns().saturating_sub(self.0))
    }
}

impl Freshness {
    /// What is known of the state now, and so of every state that is taken after this; `None` where nothing is.
    pub(crate) fn proof(&self) -> Option<Proof> {
        let proven_ns = self.proven_ns.load(Ordering::SeqCst);
        (proven_ns != 0).then_some(Proof(proven_ns))
    }

    /// How old the state may be at most; `None` where nothing is known.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.proof().map(Proof::age)
    }

    /// The state has everything that was acknowledged before this time.
    pub(crate) fn prove(&self, asked_ns: u64) {
        self.proven_ns.fetch_max(asked_ns, Ordering::SeqCst);
    }

    /// Whether the caller is now the one who asks; it must call [`Self::end`].
    pub(crate) fn begin(&self) -> bool {
        !self.asking.swap(true, Ordering::SeqCst)
    }

    /// The question that was under way has been answered and applied, or came to nothing.
    pub(crate) fn end(&self, asked_ns: Option<u64>) {
        match asked_ns {
            Some(asked_ns) => self.prove(asked_ns),
            None => drop(self.failures.fetch_add(1, Ordering::SeqCst)),
        }
        self.asking.store(false, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// Waits until the state is at most so old, at most until `until`; `ask` is called where a question is needed. Says
    /// whether it is.
    pub(crate) async fn within(&self, bound: Duration, until: Instant, ask: impl Fn()) -> bool {
        let failures = self.failures.load(Ordering::SeqCst);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            match self.age() {
                Some(age) if age <= bound => {
                    // The next readers shall not have to wait.
                    if age > bound / 2 {
                        ask();
                    }
                    return true;
                }
                _ if self.failures.load(Ordering::SeqCst) != failures => return false,
                _ => ask(),
            }
            tokio::select! {
                () = ended => {}
                () = sleep_until(until) => return false,
            }
        }
    }

    /// Begins to wait for a position; resolves at the first [`Self::applied`] that has reached it.
    pub(crate) fn wait_for(&self, index: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut positions = self.positions.lock();
        positions.retain(|(_, waiter)| !waiter.is_closed());
        positions.push((index, sender));
        receiver
    }

    /// Waits for what [`Self::wait_for`] gave, at most until `until`. A follower learns of a commit with the leader's next
    /// message; a question's answer comes at once, but one that was asked before the commit may not be enough.
    pub(crate) async fn until_reached(
        &self,
        mut reached: oneshot::Receiver<()>,
        until: Instant,
        ask: impl Fn(),
    ) -> bool {
        for _ in 0..2 {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            ask();
            tokio::select! {
                biased;
                reached = &mut reached => return reached.is_ok(),
                () = ended => {}
                () = sleep_until(until) => return false,
            }
        }
        reached.try_recv().is_ok()
    }

    /// So much is applied.
    pub(crate) fn applied(&self, applied: u64) {
        let mut positions = self.positions.lock();
        for (_, waiter) in positions.extract_if(.., |(index, _)| *index <= applied) {
            // Whoever waited may have gone.
            let _ = waiter.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_state_of_unknown_age_is_asked_for_and_no_promise_is_made_when_nobody_answers() {
        let freshness = Freshness::default();
        let asked = AtomicUsize::new(0);
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            assert!(freshness.begin());
            freshness.end(None);
        };
        assert!(!freshness.within(Duration::from_hours(1), soon(), ask).await);
        assert_eq!((asked.load(Ordering::SeqCst), freshness.age()), (1, None));
    }

    #[tokio::test]
    async fn an_answer_counts_from_when_it_was_asked_for() {
        let freshness = Freshness::default();
        let long_ago = steady_ns()
            .saturating_sub(Duration::from_secs(10).as_nanos() as u64)
            .max(1);
        freshness.prove(long_ago);
        let ask = || {
            if freshness.begin() {
                freshness.end(Some(steady_ns()));
            }
        };
        assert!(
            freshness
                .within(Duration::from_mins(5), soon(), || panic!("young enough"))
                .await
        );
        assert!(freshness.within(Duration::from_secs(9), soon(), ask).await);
        assert!(freshness.age() < Some(Duration::from_secs(9)));
        // What was asked earlier says nothing new.
        freshness.prove(long_ago);
        assert!(freshness.age() < Some(Duration::from_secs(9)));
    }

    /// A reader takes what is known, then the state; what is learnt in between is about a state that it has not got.
    #[tokio::test]
    async fn a_proof_that_comes_later_says_nothing_of_a_state_taken_before() {
        let freshness = Freshness::default();
        let long_ago = steady_ns()
            .saturating_sub(Duration::from_secs(10).as_nanos() as u64)
            .max(1);
        freshness.prove(long_ago);
        let proof = freshness.proof().expect("known");
        freshness.prove(steady_ns());
        assert!(proof.age() >= Duration::from_secs(9).min(Duration::from_nanos(steady_ns() - long_ago)));
        assert!(freshness.age() < Some(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn whoever_waits_for_a_position_hears_when_it_is_reached() {
        let freshness = Freshness::default();
        let (mut five, mut nine) = (freshness.wait_for(5), freshness.wait_for(9));
        freshness.applied(7);
        assert!(five.try_recv().is_ok() && nine.try_recv().is_err());
        freshness.applied(9);
        assert!(nine.try_recv().is_ok());
    }
}
