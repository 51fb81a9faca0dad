//! Commands and reads on their way to a leader: one bidirectional stream to each peer, many calls in one frame.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use proto::cluster::v1::{self as pb, peer_client::PeerClient};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    frames::{FRAME_LEN_MAX, Waiting, next_frame},
    outcome::Forwarded,
};
use crate::{codec, config::NodeId};

/// Bytes of calls that may wait for a peer.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Frames handed to the connection and not yet sent.
const FRAMES_MAX: usize = 8;
/// Time between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// The forwarding stream to one peer.
pub(crate) struct ForwardLink {
    calls: mpsc::Sender<pb::ForwardRequest>,
    waiting: Waiting,
    pending: Mutex<HashMap<u64, oneshot::Sender<Forwarded>>>,
    next: AtomicU64,
    is_up: AtomicBool,
    /// The shortest time in which a call was answered lately, in microseconds.
    nearness_us: AtomicU64,
    sent: AtomicU64,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A call under way; forgotten when it is dropped.
pub(crate) struct Call<'a> {
    link: &'a ForwardLink,
    correlation: u64,
    begun: Instant,
    answer: oneshot::Receiver<Forwarded>,
}

impl Call<'_> {
    /// The answer; unknown if the connection broke.
    pub(crate) async fn answer(&mut self) -> Forwarded {
        let answer = (&mut self.answer).await.unwrap_or(Forwarded::Unknown);
        if !matches!(answer, Forwarded::Unknown) {
            self.link.answered_within(self.begun.elapsed());
        }
        answer
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
            waiting: Waiting::new(WAITING_BYTES_MAX),
            pending: Mutex::default(),
            next: AtomicU64::new(1),
            is_up: AtomicBool::new(false),
            nearness_us: AtomicU64::new(0),
            sent: AtomicU64::new(0),
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

    /// How near the peer is: the shortest time in which it answered lately, in microseconds. One that has not been asked yet
    /// counts as the nearest.
    pub(crate) fn nearness(&self) -> u64 {
        self.nearness_us.load(Ordering::Relaxed)
    }

    /// Calls that were handed to the connection so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Calls without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.pending.lock().len()
    }

    /// Two that come at once may overwrite each other; it is only a guess.
    fn answered_within(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        // What was quick long ago is forgotten little by little.
        let known = self.nearness_us.load(Ordering::Relaxed);
        let nearness = if known == 0 { us } else { us.min(known + known / 64 + 1) };
        self.nearness_us.store(nearness, Ordering::Relaxed);
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
        if !self.waiting.enter(&request, request.is_effect) {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        self.pending.lock().insert(correlation, sender);
        let call = Call {
            link: self,
            correlation,
            begun: Instant::now(),
            answer,
        };
        match self.calls.try_send(request) {
            Ok(()) => Some(call),
            Err(refused) => {
                self.waiting.leave(&refused.into_inner());
                None
            }
        }
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
                        () = self.write(&mut queue, frames) => {}
                    }
                }
                Err(status) => tracing::debug!(peer, reason = status.message(), "no forwarding stream"),
            }
            self.is_up.store(false, Ordering::Relaxed);
            // Whoever waits is told that the outcome is unknown, and asks again.
            while let Ok(request) = queue.try_recv() {
                self.waiting.leave(&request);
            }
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

    async fn write(&self, queue: &mut mpsc::Receiver<pb::ForwardRequest>, frames: mpsc::Sender<pb::ForwardFrame>) {
        let mut taken = Vec::new();
        while queue.recv_many(&mut taken, FRAME_LEN_MAX).await > 0 {
            // Counted out as it is taken: should the stream break, what was taken is gone.
            for request in &taken {
                self.waiting.leave(request);
            }
            let mut waiting = VecDeque::from(std::mem::take(&mut taken));
            while !waiting.is_empty() {
                let requests = next_frame(&mut waiting, Message::encoded_len);
                let sent = requests.len() as u64;
                if frames.send(pb::ForwardFrame { requests }).await.is_err() {
                    return;
                }
                self.sent.fetch_add(sent, Ordering::Relaxed);
            }
        }
    }
}
