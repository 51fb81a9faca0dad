//! How anything reaches the driver's thread.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::cluster::v1 as pb;
use tokio::sync::{Notify, oneshot};

use super::timings::{Stages, Timings, us};
use crate::{
    replication::{Failure, GroupStatus, Input},
    spans::Span,
};

/// A record that is committed and applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    /// Its place in the shard's journal.
    pub(crate) index: u64,
    /// When it passed each stage on its way; `None` where that is not known.
    pub(crate) stages: Option<Stages>,
}

impl Committed {
    /// Hands in the parts of a commit's span.
    pub(crate) fn trace(&self, commit: &Span) {
        if let (Some(begun), Some(stages)) = (commit.begun(), &self.stages) {
            commit.part("commit.queue", begun, stages.appended);
            commit.part("commit.sync", stages.appended, stages.written);
            commit.part("commit.majority", stages.written, stages.committed);
            commit.part("commit.apply", stages.committed, Instant::now());
        }
    }
}

/// What became of a record.
pub(crate) type Fate = Result<Committed, Failure>;

/// Told what became of a record.
pub(crate) type OnFate = Box<dyn FnOnce(Fate) + Send>;

/// What the driver's thread is told.
pub(crate) enum Event {
    Input(Input),
    Propose {
        group: u32,
        term: u64,
        record: Bytes,
        on_fate: OnFate,
    },
    Read {
        group: u32,
        done: oneshot::Sender<bool>,
    },
    /// Told when this replica has applied all that is committed now.
    Catch {
        group: u32,
        done: oneshot::Sender<bool>,
    },
    Status(oneshot::Sender<Vec<GroupStatus>>),
    Stop,
}

/// Bytes of peers' messages that may wait for the driver.
const PEERS_BYTES_MAX: usize = 64 << 20;

/// The queue in front of the driver. What is in it is bounded by the calls that a node admits, by the effects of its outboxes, and
/// by [`PEERS_BYTES_MAX`].
#[derive(Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    wake: Condvar,
    peers_bytes: AtomicUsize,
    taken: Notify,
    timings: Timings,
    damage: Mutex<Option<String>>,
}

#[derive(Default)]
struct Queue {
    events: Vec<Event>,
    /// When the oldest of them came.
    since: Option<Instant>,
}

impl Mailbox {
    pub(crate) fn send(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.events.push(event);
        if queue.events.len() == 1 {
            queue.since = Some(Instant::now());
            self.wake.notify_one();
        }
    }

    pub(crate) fn input(&self, input: Input) {
        self.send(Event::Input(input));
    }

    /// A value of this node's state is not what was written: from now on others lead, as far as they can.
    pub(crate) fn found_damage(&self, what: &impl ToString) {
        self.damage.lock().get_or_insert_with(|| what.to_string());
    }

    /// What is damaged of this node's state, as far as it was read since the node started.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// Waits until the driver can take more from peers.
    pub(crate) async fn room_for_peers(&self) {
        loop {
            let taken = self.taken.notified();
            if self.peers_bytes.load(Ordering::Relaxed) < PEERS_BYTES_MAX {
                return;
            }
            taken.await;
        }
    }

    /// Messages of a peer, with their size.
    pub(crate) fn peer_sent(&self, messages: Vec<pb::GroupMessage>, bytes: usize) {
        self.peers_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.input(Input::Messages(messages));
    }

    /// Waits for something to come, at most until `until`, and takes all of it; says when the oldest of it came.
    pub(crate) fn take(&self, into: &mut Vec<Event>, until: Instant) -> Option<Instant> {
        let mut queue = self.queue.lock();
        while queue.events.is_empty() {
            if self.wake.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut queue.events, into);
        let since = queue.since.take();
        drop(queue);
        if self.peers_bytes.swap(0, Ordering::Relaxed) >= PEERS_BYTES_MAX {
            self.taken.notify_waiters();
        }
        if let Some(since) = since {
            self.timings.taken(since);
        }
        since
    }

    /// For how long the oldest of what waits has waited; `None` while nothing does.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.queue.lock().since.map(|since| since.elapsed())
    }

    /// The figures of the driver and the log, for people.
    pub(crate) fn times_told(&self) -> pb::NodeTimes {
        let (sync, wait) = (self.timings.sync(), self.timings.wait());
        pb::NodeTimes {
            sync_last_us: us(sync.last()),
            sync_mean_us: us(sync.mean()),
            sync_age_us: us(self.timings.sync_age()),
            wait_last_us: us(wait.last()),
            wait_mean_us: us(wait.mean()),
            wait_age_us: us(self.age()),
        }
    }

    /// How long the driver and the log take.
    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_driver_that_does_not_keep_up_holds_its_peers_back() {
        let mailbox = std::sync::Arc::new(Mailbox::default());
        mailbox.room_for_peers().await;
        mailbox.peer_sent(Vec::new(), PEERS_BYTES_MAX);
        let waiting = tokio::spawn({
            let mailbox = std::sync::Arc::clone(&mailbox);
            async move { mailbox.room_for_peers().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        mailbox.take(&mut Vec::new(), Instant::now());
        waiting.await.expect("there is room again");
    }
}
