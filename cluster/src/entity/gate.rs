//! The output gate of an entity: what waits for its records to be committed, and what is told of them then.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{RequestId, activation::Undelivered, release::Releaser};
use crate::{
    journal::{Reply, keys::Head},
    replication::Failure,
    shard::mailbox::{Committed, Fate, OnFate},
    spans::Span,
};

/// What a command was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    /// A position of the journal that holds the record of the answer.
    pub(crate) index: u64,
}

/// The end of a command at the leader.
pub(crate) type Delivered = Result<Answered, Undelivered>;

/// A state that was read.
#[derive(Debug, Clone)]
pub(crate) struct ReadState {
    pub(crate) head: Head,
    pub(crate) state: Bytes,
}

/// What of an entity is on its way: messages to it, and records with those who wait for them.
#[derive(Default)]
pub(crate) struct Gate {
    /// Messages in its mailbox, the one it is working on included.
    waiting: AtomicUsize,
    pub(super) inner: Mutex<GateInner>,
    /// Told when a record has left.
    opened: Notify,
}

#[derive(Default)]
pub(super) struct GateInner {
    pub(super) pending: VecDeque<Pending>,
    /// A record failed: what was decided after it is void.
    pub(super) broken: bool,
}

pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) request: RequestId,
    pub(super) fingerprint: u64,
    pub(super) answer: Result<Reply, Undelivered>,
    /// Who has asked for a quarantine to be lifted by it.
    pub(super) releaser: Option<Releaser>,
    pub(super) callers: Vec<oneshot::Sender<Delivered>>,
    pub(super) readers: Vec<(oneshot::Sender<Result<ReadState, Undelivered>>, ReadState)>,
}

impl Gate {
    /// Waits until fewer than `max` records are on their way; or until it no longer matters.
    pub(super) async fn has_room(&self, max: usize) {
        let has_room = || {
            let inner = self.inner.lock();
            inner.broken || inner.pending.len() < max
        };
        while !has_room() {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if has_room() {
                return;
            }
            opened.await;
        }
    }

    /// Whether no record of it is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().pending.is_empty()
    }

    /// Whether the entity has nothing to do and nothing under way, and so may be sent away. To be asked while nobody can send
    /// to it.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.is_empty()
    }

    /// Counts a message in, unless so many wait already.
    pub(crate) fn enter(&self, max: usize) -> bool {
        let enters = self.waiting.fetch_add(1, Ordering::Relaxed) < max;
        if !enters {
            self.leave();
        }
        enters
    }

    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// What is to happen when the fate of the record `seq` is known.
    pub(super) fn on_fate(self: &Arc<Self>, seq: u64, mut commit: Span) -> OnFate {
        let gate = Arc::clone(self);
        Box::new(move |fate| {
            match &fate {
                Err(failure) => commit.fail(&format!("{failure:?}")),
                Ok(committed) => committed.trace(&commit),
            }
            drop(commit);
            gate.settle(seq, fate);
        })
    }

    fn settle(&self, seq: u64, fate: Fate) {
        let pending = {
            let mut inner = self.inner.lock();
            inner.broken |= fate.is_err();
            let place = inner.pending.iter().position(|pending| pending.seq == seq);
            place.and_then(|place| inner.pending.remove(place))
        };
        self.opened.notify_waiters();
        let Some(pending) = pending else { return };
        let committed = fate.map_err(|failure| match failure {
            Failure::NotLeader => Undelivered::NotLeader,
            Failure::Unknown => Undelivered::Unknown,
        });
        let outcome: Delivered = committed.clone().and_then(|Committed { index, .. }| {
            let reply = pending.answer.clone()?;
            Ok(Answered { reply, index })
        });
        // Callers may have gone; what they asked for is done all the same.
        for caller in pending.callers {
            let _ = caller.send(outcome.clone());
        }
        if let Some(releaser) = pending.releaser {
            releaser.settle(&pending.answer, committed.clone().err());
        }
        for (reader, state) in pending.readers {
            let _ = reader.send(match &committed {
                Ok(_) => Ok(state),
                Err(_) => Err(Undelivered::NotLeader),
            });
        }
    }
}
