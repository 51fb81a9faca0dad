//! Making things go wrong, for trials, and seeing what comes of it. Refused where the node's configuration does not allow it.
//!
//! [`faults`] are those of a node itself, [`local`] what the launcher of a local cluster and the payment provider are asked for,
//! [`probe`] tells which shards do not answer, and for how long they did not.

mod faults;
mod local;
mod probe;

use cluster::faults::Faults;
use proto::chaos::v1 as pb;
use tonic::{Response, Status};

use self::probe::WatchStream;
use super::{request::Edge, status};

/// The chaos service.
#[derive(Clone)]
pub(crate) struct Chaos {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::chaos_server::Chaos for Chaos {
    type WatchShardsStream = WatchStream;

    async fn set_faults(
        &self,
        request: tonic::Request<pb::SetFaultsRequest>,
    ) -> Result<Response<pb::SetFaultsResponse>, Status> {
        let (call, request) = self.edge.receive("Chaos/SetFaults", request)?;
        call.answer(self.allowed().and_then(|standing| faults::set(standing, &request)))
    }

    async fn clear_faults(
        &self,
        request: tonic::Request<pb::ClearFaultsRequest>,
    ) -> Result<Response<pb::ClearFaultsResponse>, Status> {
        let (call, _) = self.edge.receive("Chaos/ClearFaults", request)?;
        call.answer(self.allowed().map(|faults| pb::ClearFaultsResponse {
            cleared: u32::try_from(faults.clear()).unwrap_or(u32::MAX),
        }))
    }

    async fn list_faults(
        &self,
        request: tonic::Request<pb::ListFaultsRequest>,
    ) -> Result<Response<pb::ListFaultsResponse>, Status> {
        let (call, _) = self.edge.receive("Chaos/ListFaults", request)?;
        call.answer(self.allowed().map(|standing| {
            pb::ListFaultsResponse {
                faults: (standing.standing().iter())
                    .map(|(fault, left)| pb::StandingFault {
                        fault: Some(faults::shown(fault)),
                        left_ms: faults::millis(*left),
                    })
                    .collect(),
            }
        }))
    }

    async fn order_node(
        &self,
        request: tonic::Request<pb::OrderNodeRequest>,
    ) -> Result<Response<pb::OrderNodeResponse>, Status> {
        let (call, request) = self.edge.receive("Chaos/OrderNode", request)?;
        let done = match self.allowed() {
            Ok(_) => local::order(&self.edge.local, &request).await,
            Err(refused) => Err(refused),
        };
        call.answer(done)
    }

    async fn set_provider(
        &self,
        request: tonic::Request<pb::SetProviderRequest>,
    ) -> Result<Response<pb::SetProviderResponse>, Status> {
        let (call, request) = self.edge.receive("Chaos/SetProvider", request)?;
        let done = match self.allowed() {
            Ok(_) => local::set_provider(&self.edge.local, &request).await,
            Err(refused) => Err(refused),
        };
        call.answer(done)
    }

    async fn watch_shards(
        &self,
        request: tonic::Request<pb::WatchShardsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let (call, _) = self.edge.receive("Chaos/WatchShards", request)?;
        call.answer(self.allowed().and_then(|_| probe::watch(&self.edge)))
    }
}

impl Chaos {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    fn allowed(&self) -> Result<&Faults, status::Fault> {
        self.edge.cluster.faults().ok_or_else(|| status::Fault::Refused {
            reason: "CHAOS_NOT_ALLOWED".into(),
            subject: "node".to_owned(),
            message: "this node takes no faults; set `chaos = true` under `[cluster]` in its config file, as `playhouse up` does, \
                      and start it again"
                .to_owned(),
        })
    }
}
