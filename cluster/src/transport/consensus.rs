//! Raft messages to one peer: one stream, a frame for whatever waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use proto::cluster::v1::{self as pb, peer_client::PeerClient};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::{config::NodeId, replication::Input, shard::mailbox::Mailbox};

/// Bytes that may wait for a peer. What comes on top is dropped: consensus sends again what matters.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Bytes of messages in one frame.
const FRAME_BYTES: usize = 4 << 20;
/// Frames handed to the connection and not yet sent.
const FRAMES_MAX: usize = 4;
/// Time between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// The consensus stream to one peer.
pub(crate) struct ConsensusLink {
    waiting: Mutex<Vec<pb::GroupMessage>>,
    waiting_bytes: AtomicUsize,
    wake: Notify,
    is_up: AtomicBool,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ConsensusLink {
    /// Connects, and goes on trying until it is closed.
    pub(crate) fn spawn(node: NodeId, peer: NodeId, client: PeerClient<Channel>, mailbox: Arc<Mailbox>) -> Arc<Self> {
        let link = Arc::new(Self {
            waiting: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            wake: Notify::new(),
            is_up: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            task: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&link).keep_connected(node, peer, client, mailbox));
        *link.task.lock() = Some(task);
        link
    }

    /// Whether messages are taken for the peer: a stream stands, or is being tried.
    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The messages that were handed to the connection so far, and their bytes.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.sent_bytes.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn close(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }

    pub(crate) fn send(&self, messages: Vec<pb::GroupMessage>) {
        if !self.is_up() {
            return;
        }
        let bytes: usize = messages.iter().map(size).sum();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.is_empty();
        waiting.extend(messages);
        drop(waiting);
        if was_empty {
            self.wake.notify_one();
        }
    }

    async fn keep_connected(
        self: Arc<Self>,
        node: NodeId,
        peer: NodeId,
        mut client: PeerClient<Channel>,
        mailbox: Arc<Mailbox>,
    ) {
        loop {
            let (frames, stream) = mpsc::channel(FRAMES_MAX);
            // The first frame is empty: it opens the stream at the other side.
            let hello = pb::ConsensusFrame {
                from_node: u32::from(node),
                messages: Vec::new(),
            };
            let _ = frames.try_send(hello);
            let connected = async {
                let call = client.consensus(ReceiverStream::new(stream));
                // Answers only at the end; until then the stream stands.
                call.await.err().map(|status| status.message().to_owned())
            };
            self.is_up.store(true, Ordering::Relaxed);
            let reason = tokio::select! {
                reason = connected => reason,
                () = self.write(node, frames) => None,
            };
            if self.is_up.swap(false, Ordering::Relaxed) {
                tracing::debug!(peer, reason, "no consensus stream");
            }
            self.waiting.lock().clear();
            self.waiting_bytes.store(0, Ordering::Relaxed);
            mailbox.input(Input::LinkDown(peer));
            sleep(RECONNECT_INTERVAL).await;
        }
    }

    async fn write(&self, node: NodeId, frames: mpsc::Sender<pb::ConsensusFrame>) {
        loop {
            let messages = std::mem::take(&mut *self.waiting.lock());
            if messages.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let mut frame = Vec::new();
            let mut bytes = 0;
            for message in messages {
                let size = size(&message);
                self.waiting_bytes
                    .fetch_sub(size.min(self.waiting_bytes.load(Ordering::Relaxed)), Ordering::Relaxed);
                bytes += size;
                frame.push(message);
                if bytes >= FRAME_BYTES {
                    let full = (std::mem::take(&mut frame), std::mem::take(&mut bytes));
                    if self.write_frame(node, &frames, full).await.is_err() {
                        return;
                    }
                }
            }
            if !frame.is_empty() && self.write_frame(node, &frames, (frame, bytes)).await.is_err() {
                return;
            }
        }
    }

    async fn write_frame(
        &self,
        node: NodeId,
        frames: &mpsc::Sender<pb::ConsensusFrame>,
        (messages, bytes): (Vec<pb::GroupMessage>, usize),
    ) -> Result<(), ()> {
        let from_node = u32::from(node);
        let sent = messages.len() as u64;
        let frame = pb::ConsensusFrame { from_node, messages };
        frames.send(frame).await.map_err(|_| ())?;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn size(message: &pb::GroupMessage) -> usize {
    message.encoded_len()
}

/// Takes a peer's frames until its stream ends.
pub(crate) async fn receive(mut stream: tonic::Streaming<pb::ConsensusFrame>, mailbox: &Mailbox) {
    while let Some(Ok(frame)) = stream.next().await {
        if !frame.messages.is_empty() {
            let bytes = frame.encoded_len();
            // Meanwhile nothing is read, and HTTP/2 flow control holds the peer back.
            mailbox.room_for_peers().await;
            mailbox.peer_sent(frame.messages, bytes);
        }
    }
}
