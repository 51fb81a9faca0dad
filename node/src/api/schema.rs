//! What is stored, in which version, and which nodes can read it.

use cluster::schema::{SchemaFinding, SchemaView};
use proto::schema::v1 as pb;
use tonic::{Response, Status};

use super::{request::Edge, status::Fault};

/// The schema service.
#[derive(Clone)]
pub(crate) struct Schemas {
    edge: Edge,
}

impl Schemas {
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }
}

#[tonic::async_trait]
impl pb::schemas_server::Schemas for Schemas {
    async fn describe(
        &self,
        request: tonic::Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        let (call, _) = self.edge.receive("Schemas/Describe", request)?;
        call.answer(Ok(described(self.edge.cluster.schema())))
    }

    async fn check(&self, request: tonic::Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        let (call, request) = self.edge.receive("Schemas/Check", request)?;
        let checked = self.edge.cluster.check_schema(&request.schema_json);
        let checked = checked.map(|check| pb::CheckResponse {
            is_known: check.is_known,
            unreadable: check.unreadable.into_iter().map(finding).collect(),
            passed_over: check.passed_over.into_iter().map(finding).collect(),
            held_back: check.held_back.into_iter().map(finding).collect(),
        });
        call.answer(checked.map_err(Fault::from))
    }
}

fn described(view: SchemaView) -> pb::DescribeResponse {
    let mut fingerprints: Vec<_> = view.builds.iter().map(|(_, build)| *build).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    pb::DescribeResponse {
        is_known: view.is_known,
        is_mixed: fingerprints.len() > 1,
        builds: (view.builds.into_iter())
            .map(|(node, build)| pb::Build {
                node: u32::from(node),
                fingerprint: build.map_or_else(String::new, |build| format!("{build:016x}")),
            })
            .collect(),
        entries: (view.entries.into_iter())
            .map(|entry| pb::Entry {
                kind: entry.kind,
                part: entry.part.name().to_owned(),
                name: entry.name,
                version: entry.version,
                is_retired: entry.shape.is_none(),
                shape_json: entry.shape.map_or_else(String::new, |shape| shape.to_string()),
            })
            .collect(),
    }
}

fn finding(finding: SchemaFinding) -> pb::Finding {
    pb::Finding {
        kind: finding.kind,
        part: finding.part.map_or("", |part| part.name()).to_owned(),
        name: finding.name,
        version: finding.version,
        reason: finding.reason,
    }
}
