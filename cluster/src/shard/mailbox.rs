//! How anything reaches the driver's thread.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::cluster::v1 as pb;
use tokio::sync::{Notify, oneshot};

use crate::replication::{Failure, GroupStatus, Input};

/// Told what became of a record.
pub(crate) type OnFate = Box<dyn FnOnce(Result<(), Failure>) + Send>;

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
    Status(oneshot::Sender<Vec<GroupStatus>>),
    Stop,
}

/// Bytes of peers' messages that may wait for the driver.
const PEERS_BYTES_MAX: usize = 64 << 20;

/// The queue in front of the driver. What is in it is bounded by the calls that a node admits, by the effects of its outboxes, and
/// by [`PEERS_BYTES_MAX`].
#[derive(Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Vec<Event>>,
    wake: Condvar,
    peers_bytes: AtomicUsize,
    taken: Notify,
}

impl Mailbox {
    pub(crate) fn send(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.push(event);
        if queue.len() == 1 {
            self.wake.notify_one();
        }
    }

    pub(crate) fn input(&self, input: Input) {
        self.send(Event::Input(input));
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

    /// Waits for something to come, at most until `until`, and takes all of it.
    pub(crate) fn take(&self, into: &mut Vec<Event>, until: Instant) {
        let mut queue = self.queue.lock();
        while queue.is_empty() {
            if self.wake.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut *queue, into);
        drop(queue);
        if self.peers_bytes.swap(0, Ordering::Relaxed) >= PEERS_BYTES_MAX {
            self.taken.notify_waiters();
        }
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
