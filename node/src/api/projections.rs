//! Read models: how they stand, what they answer, building them anew.

use cluster::projection::{GenerationView, ProjectionView, ReplicaModel};
use proto::projection::v1 as pb;
use tonic::{Response, Status};

use super::{reading::Newness, request::Edge, status::Fault};

/// The longest question, in bytes.
const QUERY_BYTES_MAX: usize = 64 << 10;

/// The projections service.
#[derive(Clone)]
pub(crate) struct Projections {
    edge: Edge,
}

impl Projections {
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }
}

#[tonic::async_trait]
impl pb::projections_server::Projections for Projections {
    async fn list_projections(
        &self,
        request: tonic::Request<pb::ListProjectionsRequest>,
    ) -> Result<Response<pb::ListProjectionsResponse>, Status> {
        let (call, _) = self.edge.receive("Projections/List", request)?;
        let views = self.edge.cluster.projections().await;
        let projections = views.into_iter().map(projection).collect();
        call.answer(Ok(pb::ListProjectionsResponse { projections }))
    }

    async fn show_projection(
        &self,
        request: tonic::Request<pb::ShowProjectionRequest>,
    ) -> Result<Response<pb::ShowProjectionResponse>, Status> {
        let (call, request) = self.edge.receive("Projections/Show", request)?;
        let mut views = self.edge.cluster.projections().await;
        views.retain(|view| view.name == request.name);
        let versions: Vec<_> = views.into_iter().map(projection).collect();
        call.answer(if versions.is_empty() {
            Err(Fault::NotFound {
                kind: "projection",
                id: request.name,
            })
        } else {
            Ok(pb::ShowProjectionResponse { versions })
        })
    }

    async fn query_projection(
        &self,
        request: tonic::Request<pb::QueryRequest>,
    ) -> Result<Response<pb::QueryResponse>, Status> {
        let (call, request) = self.edge.receive("Projections/Query", request)?;
        if request.query_json.len() > QUERY_BYTES_MAX {
            let len = request.query_json.len();
            return call.answer(Err(Fault::invalid(
                "query_json",
                format!("is {len} bytes long; at most {QUERY_BYTES_MAX} are allowed"),
            )));
        }
        let options = call.query_options();
        let cluster = &self.edge.cluster;
        let asking = call.request();
        let asked = cluster.query_json(&request.name, &request.query_json, &options, &asking);
        let answer = asked.await.map(|projected| {
            call.note(Newness {
                token: None,
                staleness: projected.staleness,
            });
            pb::QueryResponse {
                answer_json: projected.answer.to_string(),
                version: projected.version,
                staleness_us: projected
                    .staleness
                    .map(|staleness| u64::try_from(staleness.as_micros()).unwrap_or(u64::MAX)),
                version_tokens: projected.tokens.iter().map(ToString::to_string).collect(),
            }
        });
        call.answer(answer.map_err(Fault::from))
    }

    async fn rebuild_projection(
        &self,
        request: tonic::Request<pb::RebuildRequest>,
    ) -> Result<Response<pb::RebuildResponse>, Status> {
        let (call, request) = self.edge.receive("Projections/Rebuild", request)?;
        let begun = self.edge.cluster.rebuild_projection(&request.name).await;
        let begun = begun.map(|begun| pb::RebuildResponse {
            version: begun.version,
            building: (begun.building.into_iter())
                .map(|(shard, node, generation)| pb::Building {
                    shard,
                    node: u32::from(node),
                    generation,
                })
                .collect(),
            not_told: (begun.not_told.into_iter())
                .map(|(node, reason)| pb::NotTold {
                    node: u32::from(node),
                    reason,
                })
                .collect(),
        });
        call.answer(begun.map_err(Fault::from))
    }
}

fn projection(view: ProjectionView) -> pb::Projection {
    pb::Projection {
        name: view.name,
        version: view.version,
        is_former: view.is_former,
        kinds: view.kinds,
        copies: view.replicas.into_iter().map(copy).collect(),
    }
}

fn copy(copy: ReplicaModel) -> pb::ModelCopy {
    pb::ModelCopy {
        shard: copy.shard,
        node: u32::from(copy.node),
        applied: copy.applied,
        lag: copy.lag(),
        serving: copy.serving.map(generation),
        building: copy.building.map(generation),
        removing: copy.removing,
        same_as_before: copy.compared,
        fault: copy.fault,
    }
}

fn generation(view: GenerationView) -> pb::Generation {
    pb::Generation {
        generation: view.generation,
        reached: view.reached,
        last_index: view.last.index,
        last_place: view.last.place,
        events: view.events,
        rows: view.rows,
        bytes: view.bytes,
        digest: format!("{:016x}", view.digest),
    }
}
