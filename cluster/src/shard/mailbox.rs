//! How anything reaches the driver's thread.

use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

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

/// The queue in front of the driver. What is in it is bounded by the calls that a node admits, and by what peers may have
/// under way.
#[derive(Default)]
pub(crate) struct Mailbox {
    queue: Mutex<Vec<Event>>,
    wake: Condvar,
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

    /// Waits for something to come, at most until `until`, and takes all of it.
    pub(crate) fn take(&self, into: &mut Vec<Event>, until: Instant) {
        let mut queue = self.queue.lock();
        while queue.is_empty() {
            if self.wake.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut *queue, into);
    }
}
