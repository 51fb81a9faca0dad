//! Event streams: subscriptions, consumer groups, dead letters.
//!
//! [`wire`] turns messages into what the engine understands and back. A stream counts as a call under way only until it has
//! begun: it goes on for as long as its reader wants, and a node that stops ends it.

mod wire;

use std::{pin::Pin, time::Duration};

use cluster::feed::{Acknowledger, Consumer, Subscription};
use futures::{Stream, StreamExt as _, stream};
use proto::events::v1::{self as pb, consume_request::Say};
use tonic::{Response, Status, Streaming};

use super::{decode, request::Edge, status::Fault};

/// How long the first message of a consumer may take to come.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// The events service.
#[derive(Clone)]
pub(crate) struct Events {
    edge: Edge,
}

type BatchStream = Pin<Box<dyn Stream<Item = Result<pb::EventBatch, Status>> + Send>>;
type WorkStream = Pin<Box<dyn Stream<Item = Result<pb::ConsumeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::events_server::Events for Events {
    type SubscribeStream = BatchStream;

    async fn subscribe(&self, request: tonic::Request<pb::SubscribeRequest>) -> Result<Response<BatchStream>, Status> {
        let (call, request) = self.edge.receive("Events/Subscribe", request)?;
        let stops_at_end = request.stop_at_end;
        let begun = async {
            let options = wire::subscribe_options(request)?;
            Ok::<_, Fault>(self.edge.cluster.subscribe(options).await?)
        };
        let response = call.answer(begun.await)?;
        Ok(response.map(|subscription| batches(subscription, stops_at_end)))
    }

    type ConsumeStream = WorkStream;

    async fn consume(
        &self,
        request: tonic::Request<Streaming<pb::ConsumeRequest>>,
    ) -> Result<Response<WorkStream>, Status> {
        let (call, mut says) = self.edge.receive("Events/Consume", request)?;
        let begun = async {
            let first = tokio::time::timeout(JOIN_MAX, says.message()).await;
            let join = match first {
                Ok(Ok(Some(pb::ConsumeRequest {
                    say: Some(Say::Join(join)),
                }))) => join,
                Ok(Err(status)) => return Err(Fault::invalid("join", status.message())),
                _ => return Err(Fault::invalid("join", "must be the first message of the stream")),
            };
            let options = wire::consume_options(join)?;
            Ok(self.edge.cluster.consume(options).await?)
        };
        let consumer: Consumer = call.answer(begun.await)?.into_inner();
        Ok(Response::new(work(consumer, says)))
    }

    async fn list_groups(
        &self,
        request: tonic::Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let (call, _) = self.edge.receive("Events/ListGroups", request)?;
        let groups = self.edge.cluster.groups().await;
        call.answer(groups.map_err(Fault::from).map(|groups| pb::ListGroupsResponse {
            groups: groups.into_iter().map(wire::group).collect(),
        }))
    }

    async fn get_group(&self, request: tonic::Request<pb::GetGroupRequest>) -> Result<Response<pb::Group>, Status> {
        let (call, request) = self.edge.receive("Events/GetGroup", request)?;
        let group = self.edge.cluster.group(&request.group).await;
        call.answer(match group {
            Ok(Some(group)) => Ok(wire::group(group)),
            Ok(None) => Err(no_group(request.group)),
            Err(error) => Err(error.into()),
        })
    }

    async fn reset_group(
        &self,
        request: tonic::Request<pb::ResetGroupRequest>,
    ) -> Result<Response<pb::ResetGroupResponse>, Status> {
        let (call, request) = self.edge.receive("Events/ResetGroup", request)?;
        let pb::ResetGroupRequest { group, start, shards } = request;
        let reset = async {
            let start = wire::start(start)?.ok_or_else(|| Fault::invalid("start", "must be given"))?;
            Ok(self.edge.cluster.reset_group(&group, &start, &shards).await?)
        };
        call.answer(reset.await.map(|()| pb::ResetGroupResponse {}))
    }

    async fn delete_group(
        &self,
        request: tonic::Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (call, request) = self.edge.receive("Events/DeleteGroup", request)?;
        let deleted = self.edge.cluster.delete_group(&request.group).await;
        call.answer(deleted.map(|()| pb::DeleteGroupResponse {}).map_err(Fault::from))
    }

    async fn list_dead_letters(
        &self,
        request: tonic::Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let (call, request) = self.edge.receive("Events/ListDeadLetters", request)?;
        let letters = self.edge.cluster.dead_letters(&request.group).await;
        call.answer(match letters {
            Ok(Some(letters)) => Ok(pb::ListDeadLettersResponse {
                dead_letters: letters.into_iter().map(wire::dead_letter).collect(),
            }),
            Ok(None) => Err(no_group(request.group)),
            Err(error) => Err(error.into()),
        })
    }

    async fn get_dead_letter(
        &self,
        request: tonic::Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::DeadLetter>, Status> {
        let (call, request) = self.edge.receive("Events/GetDeadLetter", request)?;
        let letter = self.edge.cluster.dead_letter(&request.group, request.id).await;
        call.answer(match letter {
            Ok(Some(letter)) => Ok(wire::dead_letter(letter)),
            Ok(None) => Err(Fault::NotFound {
                kind: "dead letter",
                id: format!("{} of group {}", request.id, request.group),
            }),
            Err(error) => Err(error.into()),
        })
    }

    async fn retry_dead_letter(
        &self,
        request: tonic::Request<pb::LiftDeadLetterRequest>,
    ) -> Result<Response<pb::LiftDeadLetterResponse>, Status> {
        self.lift("Events/RetryDeadLetter", request, false).await
    }

    async fn skip_dead_letter(
        &self,
        request: tonic::Request<pb::LiftDeadLetterRequest>,
    ) -> Result<Response<pb::LiftDeadLetterResponse>, Status> {
        self.lift("Events/SkipDeadLetter", request, true).await
    }
}

impl Events {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn lift(
        &self,
        name: &'static str,
        request: tonic::Request<pb::LiftDeadLetterRequest>,
        skip: bool,
    ) -> Result<Response<pb::LiftDeadLetterResponse>, Status> {
        let (call, request) = self.edge.receive(name, request)?;
        let lifted = self
            .edge
            .cluster
            .lift_dead_letter(&request.group, request.id, skip)
            .await;
        call.answer(lifted.map(|()| pb::LiftDeadLetterResponse {}).map_err(Fault::from))
    }
}

fn no_group(id: String) -> Fault {
    Fault::NotFound {
        kind: "consumer group",
        id,
    }
}

/// The end of a stream whose reader should go to another node.
fn stopping() -> Status {
    Status::unavailable("the node is stopping; go on at another one")
}

fn batches(subscription: Subscription, stops_at_end: bool) -> BatchStream {
    stream::unfold(Some(subscription), move |reading| async move {
        let mut subscription = reading?;
        match subscription.next().await {
            Some(Ok(delivery)) => {
                let is_last = stops_at_end && delivery.caught_up;
                let next = (!is_last).then_some(subscription);
                Some((Ok(wire::batch(delivery)), next))
            }
            Some(Err(error)) => Some((Err(Fault::from(error).status(None)), None)),
            None => Some((Err(stopping()), None)),
        }
    })
    .boxed()
}

/// Hands out work while the reader says what is done. When either direction ends, the member leaves.
fn work(consumer: Consumer, says: Streaming<pb::ConsumeRequest>) -> WorkStream {
    let acknowledger = consumer.acknowledger();
    let hears = tokio::spawn(hear(acknowledger, says));
    let state = Some((consumer, hears));
    stream::unfold(state, |state| async move {
        let (mut consumer, mut hears) = state?;
        tokio::select! {
            handed = consumer.next() => match handed {
                Some(Ok(handed)) => Some((Ok(wire::handed(handed)), Some((consumer, hears)))),
                Some(Err(error)) => {
                    hears.abort();
                    Some((Err(Fault::from(error).status(None)), None))
                }
                None => {
                    hears.abort();
                    Some((Err(stopping()), None))
                }
            },
            // What was said last is still taken: the member reports it when it leaves.
            heard = &mut hears => match heard {
                Ok(Err(fault)) => Some((Err(fault.status(None)), None)),
                Ok(Ok(())) | Err(_) => None,
            },
        }
    })
    .boxed()
}

/// Takes what a member says, until it has said everything.
async fn hear(acknowledger: Acknowledger, mut says: Streaming<pb::ConsumeRequest>) -> Result<(), Fault> {
    loop {
        let said = match says.message().await {
            Ok(Some(request)) => request.say,
            Ok(None) => return Ok(()),
            Err(status) => {
                let status = decode::as_callers_fault(status);
                return Err(Fault::invalid("message", status.message()));
            }
        };
        match said {
            Some(Say::Done(done)) => acknowledger.done(done.shard, wire::position(done.position)?).await,
            Some(Say::Refuse(refuse)) => {
                let position = wire::position(refuse.position)?;
                acknowledger.refuse(refuse.shard, position, &refuse.reason).await;
            }
            Some(Say::Settle(settle)) if settle.refused.is_empty() => acknowledger.dead_done(settle.dead_letter).await,
            Some(Say::Settle(settle)) => acknowledger.dead_refused(settle.dead_letter, &settle.refused).await,
            Some(Say::Join(_)) => return Err(Fault::invalid("join", "was said already")),
            None => return Err(Fault::invalid("say", "is missing, or not known to this version")),
        }
    }
}
