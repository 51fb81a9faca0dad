//! Sagas for people: list, show, explain, nudge. What there is to tell comes from the engine, whatever the saga is about.

use cluster::{AskError, EntityKey, saga::Rejection};
use proto::saga::v1 as pb;
use tonic::{Response, Status};

use super::{
    request::{Call, Edge},
    status::Fault,
};

/// The sagas service.
#[derive(Clone)]
pub(crate) struct Sagas {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::sagas_server::Sagas for Sagas {
    async fn list_sagas(
        &self,
        request: tonic::Request<pb::ListSagasRequest>,
    ) -> Result<Response<pb::ListSagasResponse>, Status> {
        let (call, request) = self.edge.receive("Sagas/ListSagas", request)?;
        let listed = self.edge.cluster.sagas(&request).await;
        call.answer(listed.map_err(Fault::from))
    }

    async fn show_saga(
        &self,
        request: tonic::Request<pb::ShowSagaRequest>,
    ) -> Result<Response<pb::ShowSagaResponse>, Status> {
        let (call, request) = self.edge.receive("Sagas/ShowSaga", request)?;
        call.answer(self.show(&call, &request.saga).await)
    }

    async fn explain_saga(
        &self,
        request: tonic::Request<pb::ExplainSagaRequest>,
    ) -> Result<Response<pb::ExplainSagaResponse>, Status> {
        let (call, request) = self.edge.receive("Sagas/ExplainSaga", request)?;
        call.answer(self.explain(&call, &request.saga).await)
    }

    async fn nudge_saga(
        &self,
        request: tonic::Request<pb::NudgeSagaRequest>,
    ) -> Result<Response<pb::NudgeSagaResponse>, Status> {
        let (call, request) = self.edge.receive("Sagas/NudgeSaga", request)?;
        call.answer(self.nudge(&call, &request.saga).await)
    }
}

impl Sagas {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn named(&self, call: &Call, saga: &str) -> Result<EntityKey, Fault> {
        let named = self.edge.cluster.saga_named(saga, &call.request()).await?;
        named.ok_or_else(|| not_found(saga))
    }

    async fn show(&self, call: &Call, saga: &str) -> Result<pb::ShowSagaResponse, Fault> {
        let key = self.named(call, saga).await?;
        let shown = self.edge.cluster.show_saga(&key, &call.request()).await?;
        shown.ok_or_else(|| not_found(saga))
    }

    async fn explain(&self, call: &Call, saga: &str) -> Result<pb::ExplainSagaResponse, Fault> {
        let key = self.named(call, saga).await?;
        let explained = self.edge.cluster.explain_saga(&key, &call.request()).await?;
        explained.ok_or_else(|| not_found(saga))
    }

    async fn nudge(&self, call: &Call, saga: &str) -> Result<pb::NudgeSagaResponse, Fault> {
        let key = self.named(call, saga).await?;
        let nudged = self.edge.cluster.nudge_saga(&key, &call.request()).await;
        nudged.map_err(|error| match error {
            AskError::Engine(error) => Fault::Engine(error),
            AskError::Rejected(Rejection::NotStarted) => not_found(saga),
            AskError::Rejected(rejection) => Fault::Refused {
                reason: "NOTHING_TO_RETRY".into(),
                subject: key.to_string(),
                message: rejection.to_string(),
            },
        })
    }
}

fn not_found(saga: &str) -> Fault {
    Fault::NotFound {
        kind: "saga",
        id: saga.to_owned(),
    }
}
