//! Calls that stand for others that took about as long, of all nodes put together.

use cluster::config::NodeId;
use proto::telemetry::v1 as pb;

use super::{metrics::Metrics, status::Fault};
use crate::telemetry::metrics::exemplars::Exemplar;

impl Metrics {
    pub(super) async fn gather_exemplars(
        &self,
        request: &pb::ExemplarsRequest,
    ) -> Result<pb::ExemplarsResponse, Fault> {
        self.check_node(request.node)?;
        let node = self.node();
        let own = self.edge.telemetry.exemplars().all();
        let own = own.iter().map(|exemplar| told(node, exemplar)).collect();
        let since_unix_ms = request.since_unix_ms;
        let (nodes, unanswered) = self
            .ask(request.node, Some(own), |node, mut client| async move {
                let request = pb::ExemplarsRequest {
                    node: u32::from(node),
                    since_unix_ms,
                };
                Ok(client.exemplars(request).await?.into_inner().exemplars)
            })
            .await;
        let all = nodes.into_iter().flat_map(|(_, exemplars)| exemplars);
        let mut exemplars: Vec<_> = all.filter(|exemplar| exemplar.ended_unix_ms > since_unix_ms).collect();
        exemplars.sort_unstable_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(pb::ExemplarsResponse { exemplars, unanswered })
    }
}

fn told(node: NodeId, exemplar: &Exemplar) -> pb::Exemplar {
    pb::Exemplar {
        method: exemplar.method.to_owned(),
        trace_id: exemplar.trace.trace_hex(),
        span_id: format!("{:016x}", exemplar.trace.span_id),
        seconds: exemplar.took.as_secs_f64(),
        ended_unix_ms: exemplar.at_ms,
        node: u32::from(node),
    }
}
