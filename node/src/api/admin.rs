//! What people and the command line ask of a running cluster.

use std::{pin::Pin, time::Duration};

use cluster::{AskError, EntityKey};
use futures::{Stream, StreamExt as _, stream};
use proto::cluster::v1 as pb;
use tonic::{Response, Status};

use super::{
    certificates,
    reading::Newness,
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
        self.edge.looked(&call, "show", &request.key);
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
        let action = format!("set standing {}", request.standing().as_str_name());
        let subject = format!("node/{}", request.node);
        self.edge.did(&call, &action, &subject, changed.as_ref().err()).await;
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

    async fn show_config(
        &self,
        request: tonic::Request<pb::ShowConfigRequest>,
    ) -> Result<Response<pb::ShowConfigResponse>, Status> {
        let (call, _) = self.edge.receive("Admin/ShowConfig", request)?;
        call.answer(Ok(pb::ShowConfigResponse {
            node: u32::from(self.edge.cluster.node()),
            toml: self.edge.config.to_string(),
        }))
    }

    async fn show_certificates(
        &self,
        request: tonic::Request<pb::ShowCertificatesRequest>,
    ) -> Result<Response<pb::ShowCertificatesResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/ShowCertificates", request)?;
        call.answer(Ok(certificates::show(&self.edge, request.own_only).await))
    }

    async fn supervision(
        &self,
        request: tonic::Request<pb::SupervisionRequest>,
    ) -> Result<Response<pb::SupervisionResponse>, Status> {
        let (call, _) = self.edge.receive("Admin/Supervision", request)?;
        call.answer(Ok(self.edge.cluster.policies()))
    }

    async fn list_quarantine(
        &self,
        request: tonic::Request<pb::ListQuarantineRequest>,
    ) -> Result<Response<pb::ListQuarantineResponse>, Status> {
        let (call, _) = self.edge.receive("Admin/ListQuarantine", request)?;
        call.answer(Ok(self.edge.cluster.quarantined().await))
    }

    async fn show_quarantine(
        &self,
        request: tonic::Request<pb::ShowQuarantineRequest>,
    ) -> Result<Response<pb::ShowQuarantineResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/ShowQuarantine", request)?;
        self.edge.looked(&call, "show quarantine", &request.key);
        call.answer(self.show_quarantined(&call, &request).await)
    }

    async fn retry_quarantined(
        &self,
        request: tonic::Request<pb::LiftQuarantineRequest>,
    ) -> Result<Response<pb::LiftQuarantineResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/RetryQuarantined", request)?;
        let lifted = self.lift(&call, &request, false).await;
        self.edge
            .did(&call, "retry quarantined", &request.key, lifted.as_ref().err())
            .await;
        call.answer(lifted)
    }

    async fn skip_quarantined(
        &self,
        request: tonic::Request<pb::LiftQuarantineRequest>,
    ) -> Result<Response<pb::LiftQuarantineResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/SkipQuarantined", request)?;
        let lifted = self.lift(&call, &request, true).await;
        self.edge
            .did(&call, "skip quarantined", &request.key, lifted.as_ref().err())
            .await;
        call.answer(lifted)
    }

    async fn force_breaker(
        &self,
        request: tonic::Request<pb::ForceBreakerRequest>,
    ) -> Result<Response<pb::ForceBreakerResponse>, Status> {
        let (call, request) = self.edge.receive("Admin/ForceBreaker", request)?;
        let forced = self.force(&call, &request).await;
        let (action, subject) = (
            format!("force breaker {}", request.forced),
            format!("breaker/{}", request.dependency),
        );
        self.edge.did(&call, &action, &subject, forced.as_ref().err()).await;
        call.answer(forced)
    }
}

impl Admin {
    async fn lift(
        &self,
        call: &Call,
        request: &pb::LiftQuarantineRequest,
        skip: bool,
    ) -> Result<pb::LiftQuarantineResponse, Fault> {
        let key = key_of(&request.key)?;
        let cluster = &self.edge.cluster;
        let lifted = if skip {
            cluster.skip_quarantined(&key, &call.request()).await?
        } else {
            cluster.retry_quarantined(&key, &call.request()).await?
        };
        lifted.ok_or_else(|| no_quarantine(&key))
    }

    async fn show_quarantined(
        &self,
        call: &Call,
        request: &pb::ShowQuarantineRequest,
    ) -> Result<pb::ShowQuarantineResponse, Fault> {
        let key = key_of(&request.key)?;
        let shown = self.edge.cluster.show_quarantine(&key, &call.request()).await?;
        shown.ok_or_else(|| no_quarantine(&key))
    }

    async fn force(&self, call: &Call, request: &pb::ForceBreakerRequest) -> Result<pb::ForceBreakerResponse, Fault> {
        let forced = request
            .forced
            .parse()
            .map_err(|reason: String| Fault::invalid("forced", reason))?;
        let cluster = &self.edge.cluster;
        cluster
            .force_breaker(&request.dependency, forced, &call.request())
            .await?;
        Ok(pb::ForceBreakerResponse {})
    }

    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn show(&self, call: &Call, request: &pb::ShowEntityRequest) -> Result<pb::ShowEntityResponse, Fault> {
        let key = key_of(&request.key)?;
        let options = call.read_options();
        let (shown, token) = self.edge.cluster.show_with(&key, options, &call.request()).await?;
        call.note(Newness {
            token: Some(token),
            staleness: shown.staleness_us.map(Duration::from_micros),
        });
        if shown.version == 0 {
            return Err(Fault::NotFound {
                kind: "entity",
                id: key.to_string(),
            });
        }
        Ok(shown)
    }
}

fn key_of(text: &str) -> Result<EntityKey, Fault> {
    EntityKey::parse(text).map_err(|error| Fault::invalid("key", error))
}

fn no_quarantine(key: &EntityKey) -> Fault {
    Fault::NotFound {
        kind: "quarantine of",
        id: key.to_string(),
    }
}
