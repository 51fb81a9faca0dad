//! The other end: what a node does for its peers.

use std::{collections::VecDeque, pin::Pin, sync::Weak, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use proto::{
    cluster::v1::{self as pb, peer_server},
    history::v1 as history,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    consensus,
    frames::{ANSWER_BYTES_MAX, ByteCredits, FRAME_LEN_MAX, next_frame},
    outcome::{Forwarded, status_of},
};
use crate::{
    codec,
    engine::{Engine, status::Detail},
    entity::EntityKey,
    error::{AskError, Error},
    shard::snapshot,
};

/// Replies of one stream that may wait to be sent.
const REPLIES_MAX: usize = 32_768;
/// Bytes of them.
const REPLIES_BYTES_MAX: usize = 64 << 20;
/// Bytes of forwarded calls of one stream that may be under way here. Beyond, nothing is read from it.
const CALLS_BYTES_MAX: usize = 128 << 20;

/// The service that peers talk to.
pub(crate) struct PeerServer {
    pub(crate) engine: Weak<Engine>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An answer on the wire; one that is too large for it says so.
fn encoded(outcome: &Forwarded) -> Bytes {
    let bytes = codec::encode(outcome);
    if bytes.len() <= ANSWER_BYTES_MAX {
        return bytes;
    }
    let reason = format!(
        "the answer has {} bytes; at most {ANSWER_BYTES_MAX} go from one node to another",
        bytes.len()
    );
    codec::encode(&Forwarded::Failed(reason))
}

impl PeerServer {
    fn engine(&self) -> Result<std::sync::Arc<Engine>, Status> {
        self.engine
            .upgrade()
            .filter(|engine| !engine.is_stopping())
            .ok_or_else(|| Status::unavailable("the node is stopping"))
    }
}

#[tonic::async_trait]
impl peer_server::Peer for PeerServer {
    async fn consensus(
        &self,
        request: Request<Streaming<pb::ConsensusFrame>>,
    ) -> Result<Response<pb::ConsensusEnd>, Status> {
        let engine = self.engine()?;
        let mailbox = engine.mailbox();
        tokio::select! {
            () = consensus::receive(request.into_inner(), &mailbox) => {}
            () = engine.until_stopping() => {}
        }
        Ok(Response::new(pb::ConsensusEnd {}))
    }

    type ForwardStream = Answers<pb::ForwardReplyFrame>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::ForwardFrame>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let engine = self.engine()?;
        let mut calls = request.into_inner();
        let (replies, queue) = mpsc::channel::<(pb::ForwardReply, OwnedSemaphorePermit)>(REPLIES_MAX);
        let (call_bytes, reply_bytes) = (ByteCredits::new(CALLS_BYTES_MAX), ByteCredits::new(REPLIES_BYTES_MAX));
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = calls.next() => frame,
                    () = engine.until_stopping() => None,
                };
                let Some(Ok(frame)) = frame else { return };
                for call in frame.requests {
                    let (engine, replies, reply_bytes) = (engine.clone(), replies.clone(), reply_bytes.clone());
                    let held = call_bytes.take(call.encoded_len()).await;
                    tokio::spawn(async move {
                        let correlation = call.correlation;
                        let timeout = Duration::from_millis(u64::from(call.timeout_ms));
                        let outcome = tokio::time::timeout(timeout, engine.serve(call))
                            .await
                            .unwrap_or(Forwarded::Unknown);
                        drop(held);
                        let outcome = encoded(&outcome);
                        let credit = reply_bytes.take(outcome.len()).await;
                        // The caller's node may have gone.
                        let _ = replies.send((pb::ForwardReply { correlation, outcome }, credit)).await;
                    });
                }
            }
        });
        let begun = (queue, VecDeque::new());
        let frames = futures::stream::unfold(begun, |(mut queue, mut waiting)| async move {
            if waiting.is_empty() {
                let mut taken = Vec::new();
                if queue.recv_many(&mut taken, FRAME_LEN_MAX).await == 0 {
                    return None;
                }
                waiting.extend(taken);
            }
            let frame = next_frame(&mut waiting, |(reply, _)| reply.encoded_len());
            // Their credits go back here: from now on HTTP/2 bounds them.
            let replies = frame.into_iter().map(|(reply, _)| reply).collect();
            Some((Ok(pb::ForwardReplyFrame { replies }), (queue, waiting)))
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        self.engine()?
            .introduce(&request.into_inner())
            .map(Response::new)
            .map_err(Status::failed_precondition)
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let joined = self.engine()?.let_in(request.into_inner()).await;
        joined.map(Response::new).map_err(|error| match error {
            AskError::Rejected(reason) => Status::failed_precondition(reason),
            AskError::Engine(error @ Error::Invalid { .. }) => Status::failed_precondition(error.to_string()),
            AskError::Engine(error) => Status::unavailable(error.to_string()),
        })
    }

    type FetchSnapshotStream = Answers<pb::SnapshotChunk>;

    async fn fetch_snapshot(
        &self,
        request: Request<pb::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let folder = self.engine()?.snapshot_folder();
        let pb::FetchSnapshotRequest { shard, index } = request.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let failed = |error: std::io::Error| Err(Status::not_found(error.to_string()));
            match snapshot::read(&folder, shard, index) {
                Ok(chunks) => {
                    for chunk in chunks {
                        if sender.blocking_send(chunk.or_else(failed)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => drop(sender.blocking_send(failed(error))),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn node_status(
        &self,
        request: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        let detail = if request.get_ref().is_brief {
            Detail::Brief
        } else {
            Detail::Full
        };
        Ok(Response::new(self.engine()?.node_status(detail).await))
    }

    async fn timers(&self, request: Request<pb::TimersRequest>) -> Result<Response<pb::TimersResponse>, Status> {
        let answer = self.engine()?.timers_here(&request.into_inner()).await;
        let answer = answer.ok_or_else(|| Status::unavailable("the shard is not led by this node"))?;
        Ok(Response::new(answer))
    }

    async fn quarantined(
        &self,
        _request: Request<pb::QuarantinedRequest>,
    ) -> Result<Response<pb::QuarantinedResponse>, Status> {
        Ok(Response::new(self.engine()?.own_quarantine()))
    }

    async fn read_feed(&self, request: Request<pb::ReadFeedRequest>) -> Result<Response<pb::ReadFeedResponse>, Status> {
        let pb::ReadFeedRequest { shard, question } = request.into_inner();
        let question = codec::decode(&question).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = codec::encode(&self.engine()?.feed_here(shard, question).await);
        Ok(Response::new(pb::ReadFeedResponse { answer }))
    }

    type HistoryStream = Answers<history::RecordsPage>;

    async fn history(
        &self,
        request: Request<history::RecordsRequest>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        let engine = self.engine()?;
        let request = request.into_inner();
        let key = EntityKey::parse(&request.key).map_err(|error| status_of(&Error::key("key", &error)))?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(async move {
            if let Err(error) = engine.history_here(&key, &request, &sender).await {
                // Whoever asked may have gone.
                let _ = sender.send(Err(error)).await;
            }
        });
        let pages = ReceiverStream::new(receiver).map(|page| page.map_err(|error| status_of(&error)));
        Ok(Response::new(Box::pin(pages)))
    }

    async fn forgotten(
        &self,
        request: Request<history::ForgottenRequest>,
    ) -> Result<Response<history::NodeRemains>, Status> {
        let key = EntityKey::parse(&request.get_ref().key).map_err(|error| status_of(&Error::key("key", &error)))?;
        let remains = self.engine()?.remains_here(&key).await;
        remains.map(Response::new).map_err(Status::unavailable)
    }

    async fn ask_models(
        &self,
        request: Request<pb::AskModelsRequest>,
    ) -> Result<Response<pb::AskModelsResponse>, Status> {
        let question = codec::decode(&request.get_ref().question);
        let question = question.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = codec::encode(&self.engine()?.models_here(question).await);
        Ok(Response::new(pb::AskModelsResponse { answer }))
    }

    type ScanStream = Answers<pb::ScanResponse>;

    async fn scan(&self, request: Request<pb::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let engine = self.engine()?;
        let pb::ScanRequest { shard, kind, after_id } = request.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let result = engine.scan_here(shard, &kind, &after_id, &sender).await;
            if let Err(status) = result {
                // Whoever asked may have gone.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
