//! What people and the command line ask of a running cluster.

use std::pin::Pin;

use cluster::{AskError, EntityKey};
use futures::{Stream, StreamExt as _, stream};
use proto::cluster::v1 as pb;
use tonic::{Response, Status};

use super::{
    request::{Call, Edge},
    status::Fault,
};

/// The admin service.
#[derive(Clone)]
pub(crate) struct Admin {
    edge: Edge,
}

type EntityStream = Pin<Box<dyn Stream<Item = Result<pb::ScannedEntity, Status>> + Send>>;

#[tonic::async_trait]
impl pb::admin_server::Admin for Admin {
    type ScanEntitiesStream = EntityStream;

    async fn status(&self, request: tonic::Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let (call, _) = self.edge.receive("Admin/Status", request)?;
        call.answer(Ok(self.edge.cluster.status().await))
    }

    async fn show_entity(
        &self,
        request: tonic::Request<pb::ShowEntityRequest>,
    ) -> Result<Response<pb::ShowEntityResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/ShowEntity", request)?;
        call.answer(self.show(&call, &request).await)
    }

    async fn scan_entities(
        &self,
        request: tonic::Request<pb::ScanEntitiesRequest>,
    ) -> Result<Response<EntityStream>, Status> {
        let (call, request) = self.edge.receive("Admin/ScanEntities", request)?;
        let scanned = self.edge.cluster.scan(request.shard, &request.kind).await;
        let response = call.answer(scanned.map_err(Fault::from))?;
        Ok(response.map(|entities| {
            stream::unfold(entities, |mut entities| async move {
                Some((entities.recv().await?, entities))
            })
            .map(move |entity| entity.map_err(|error| Fault::from(error).status(Some(&call))))
            .boxed()
        }))
    }

    async fn list_timers(
        &self,
        request: tonic::Request<pb::ListTimersRequest>,
    ) -> Result<Response<pb::ListTimersResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/ListTimers", request)?;
        call.answer(Ok(self.edge.cluster.timers(request.limit).await))
    }

    async fn digests(
        &self,
        request: tonic::Request<pb::DigestsRequest>,
    ) -> Result<Response<pb::DigestsResponse>, Status> {
        let (call, _) = self.edge.receive("Admin/Digests", request)?;
        call.answer(Ok(self.edge.cluster.digests().await))
    }

    async fn set_standing(
        &self,
        request: tonic::Request<pb::SetStandingRequest>,
    ) -> Result<Response<pb::SetStandingResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/SetStanding", request)?;
        let changed = self.edge.cluster.set_standing(request).await;
        call.answer(match changed {
            Ok(()) => Ok(pb::SetStandingResponse {}),
            Err(AskError::Rejected(message)) => Err(Fault::Refused {
                reason: "STANDING_REFUSED".into(),
                subject: format!("node/{}", request.node),
                message,
            }),
            Err(AskError::Engine(error)) => Err(error.into()),
        })
    }
}

impl Admin {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn show(&self, call: &Call, request: &pb::ShowEntityRequest) -> Result<pb::ShowEntityResponse, Fault> {
        let key = EntityKey::parse(&request.key).map_err(|error| Fault::invalid("key", error))?;
        let shown = self.edge.cluster.show(&key, &call.request()).await?;
        if shown.version == 0 {
            return Err(Fault::NotFound {
                kind: "entity",
                id: key.to_string(),
            });
        }
        Ok(shown)
    }
}
