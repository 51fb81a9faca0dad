//! Commands and reads on their way to a leader: one bidirectional stream to each peer, many calls in one frame.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use proto::cluster::v1::{self as pb, peer_client::PeerClient};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::outcome::Forwarded;
use crate::{codec, config::NodeId};

/// Calls in one frame.
pub(super) const FRAME_LEN_MAX: usize = 256;
/// Frames handed to the connection and not yet sent.
const FRAMES_MAX: usize = 8;
/// Time between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// The forwarding stream to one peer.
pub(crate) struct ForwardLink {
    calls: mpsc::Sender<pb::ForwardRequest>,
    pending: Mutex<HashMap<u64, oneshot::Sender<Forwarded>>>,
    next: AtomicU64,
    is_up: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A call under way; forgotten when it is dropped.
pub(crate) struct Call<'a> {
    link: &'a ForwardLink,
    correlation: u64,
    answer: oneshot::Receiver<Forwarded>,
}

impl Call<'_> {
    /// The answer; unknown if the connection broke.
    pub(crate) async fn answer(&mut self) -> Forwarded {
        (&mut self.answer).await.unwrap_or(Forwarded::Unknown)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.link.pending.lock().remove(&self.correlation);
    }
}

impl ForwardLink {
    /// Connects, and goes on trying until it is closed.
    pub(crate) fn spawn(peer: NodeId, client: PeerClient<Channel>, calls_max: usize) -> Arc<Self> {
        let (calls, queue) = mpsc::channel(calls_max);
        let link = Arc::new(Self {
            calls,
            pending: Mutex::default(),
            next: AtomicU64::new(1),
            is_up: AtomicBool::new(false),
            task: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&link).keep_connected(peer, client, queue));
        *link.task.lock() = Some(task);
        link
    }

    /// Whether the peer has answered on this stream, and it still stands.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    /// Sends a call; `None` if too many wait for this peer.
    pub(crate) fn call(&self, mut request: pb::ForwardRequest) -> Option<Call<'_>> {
        let correlation = self.next.fetch_add(1, Ordering::Relaxed);
        request.correlation = correlation;
        let (sender, answer) = oneshot::channel();
        self.pending.lock().insert(correlation, sender);
        let call = Call {
            link: self,
            correlation,
            answer,
        };
        self.calls.try_send(request).ok().map(|()| call)
    }

    async fn keep_connected(
        self: Arc<Self>,
        peer: NodeId,
        mut client: PeerClient<Channel>,
        mut queue: mpsc::Receiver<pb::ForwardRequest>,
    ) {
        loop {
            let (frames, stream) = mpsc::channel(FRAMES_MAX);
            // The call begins with its first frame.
            let _ = frames.try_send(pb::ForwardFrame::default());
            match client.forward(ReceiverStream::new(stream)).await {
                Ok(replies) => {
                    self.is_up.store(true, Ordering::Relaxed);
                    tokio::select! {
                        () = self.read(replies.into_inner()) => {}
                        () = write(&mut queue, frames) => {}
                    }
                }
                Err(status) => tracing::debug!(peer, reason = status.message(), "no forwarding stream"),
            }
            self.is_up.store(false, Ordering::Relaxed);
            // Whoever waits is told that the outcome is unknown, and asks again.
            while queue.try_recv().is_ok() {}
            self.pending.lock().clear();
            sleep(RECONNECT_INTERVAL).await;
        }
    }

    async fn read(&self, mut replies: tonic::Streaming<pb::ForwardReplyFrame>) {
        while let Some(Ok(frame)) = replies.next().await {
            for reply in frame.replies {
                let waiting = self.pending.lock().remove(&reply.correlation);
                if let Some(waiting) = waiting {
                    // Whoever waited may have gone.
                    let _ = waiting.send(codec::decode(&reply.outcome).unwrap_or(Forwarded::Unknown));
                }
            }
        }
    }
}

async fn write(queue: &mut mpsc::Receiver<pb::ForwardRequest>, frames: mpsc::Sender<pb::ForwardFrame>) {
    let mut requests = Vec::new();
    while queue.recv_many(&mut requests, FRAME_LEN_MAX).await > 0 {
        let frame = pb::ForwardFrame {
            requests: std::mem::take(&mut requests),
        };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}
