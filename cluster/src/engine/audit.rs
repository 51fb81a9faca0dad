//! Notes who has looked at what and who has changed what by hand, and tells it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::Engine;
use crate::{
    codec,
    entity::{Entity, EntityKey, RequestId, envelope::Envelope},
    history::audit::{Audit, AuditEntry, Command},
    trace::TraceContext,
};

/// Entries that may wait to be noted. More reads are not noted, and counted; who changes something waits.
const WAITING_MAX: usize = 1_024;
/// Entries of one record.
const BATCH_LEN_MAX: usize = 64;
/// How long one attempt to note them may take, and the pause before the next.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long whoever changes something waits for it to be noted. It is done by then, and stays in the queue.
const DONE_WAIT_MAX: Duration = Duration::from_secs(2);

/// An entry, and who waits for it to be noted.
type Waiting = (AuditEntry, Option<oneshot::Sender<()>>);

/// What is to be noted.
pub(crate) struct Auditor {
    sender: mpsc::Sender<Waiting>,
    queue: Mutex<Option<mpsc::Receiver<Waiting>>>,
    /// Reads that came too fast.
    missed: AtomicU64,
}

impl Default for Auditor {
    fn default() -> Self {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            queue: Mutex::new(Some(queue)),
            missed: AtomicU64::new(0),
        }
    }
}

impl Engine {
    /// Notes a read, some time soon; one that comes when too many wait is only counted.
    pub(crate) fn note_read(&self, entry: AuditEntry) {
        if self.auditor.sender.try_send((entry, None)).is_err() {
            self.auditor.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what was done; resolves when that is durable, or after a while.
    pub(crate) async fn note_done(&self, entry: AuditEntry) {
        let (done, noted) = oneshot::channel();
        let note = async {
            // The receiver lives as long as the engine.
            if self.auditor.sender.send((entry, Some(done))).await.is_ok() {
                let _ = noted.await;
            }
        };
        if timeout(DONE_WAIT_MAX, note).await.is_err() {
            tracing::warn!("what was done by hand is not noted in the audit yet: its shard does not answer");
        }
    }

    /// Notes what waits, for as long as the node runs.
    pub(super) async fn keep_audit(self: Arc<Self>) {
        let Some(mut queue) = self.auditor.queue.lock().take() else {
            return;
        };
        let id = format!("node-{}", self.node());
        let Ok(key) = EntityKey::new(Audit::KIND, &id) else {
            return;
        };
        let mut batch: Vec<Waiting> = Vec::new();
        loop {
            tokio::select! {
                count = queue.recv_many(&mut batch, BATCH_LEN_MAX) => if count == 0 { return },
                () = self.until_stopping() => return,
            }
            let (entries, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let missed = self.auditor.missed.swap(0, Ordering::Relaxed);
            let command = codec::encode(&Command::Note { entries, missed });
            let request = format!("audit/{:016x}", rand::random::<u64>());
            let request = RequestId::new(&request).expect("it is short and plain");
            while !self.is_stopping() {
                let envelope = Envelope::new(request.clone(), TraceContext::default());
                match self.ask_effect(&key, command.clone(), envelope, ATTEMPT_MAX).await {
                    Ok(_) => break,
                    Err(error) if error.is_retryable() => sleep(AGAIN_AFTER).await,
                    Err(error) => {
                        tracing::error!(%error, "the audit takes no entries");
                        break;
                    }
                }
            }
            for done in waiting.into_iter().flatten() {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
    }
}
