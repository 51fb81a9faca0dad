//! What others do for a trial: the launcher kills, pauses and starts processes, the payment provider has bad days.

use proto::chaos::v1 as pb;

use super::super::{request::Local, status::Fault};
use crate::{
    local::control::{self, Order},
    provider::{client, wire::Control},
};

/// Has the launcher do something to a node.
pub(super) async fn order(local: &Local, request: &pb::OrderNodeRequest) -> Result<pb::OrderNodeResponse, Fault> {
    let node = u8::try_from(request.node)
        .ok()
        .filter(|node| *node != 0)
        .ok_or_else(|| Fault::invalid("node", "is no number of a node that `playhouse up` started"))?;
    let order = match request.order() {
        pb::NodeOrder::Kill => Order::Kill,
        pb::NodeOrder::Pause => Order::Pause,
        pb::NodeOrder::Resume => Order::Resume,
        pb::NodeOrder::Start => Order::Start,
        pb::NodeOrder::Restart => Order::Restart,
        pb::NodeOrder::Wipe => Order::Wipe,
        pb::NodeOrder::Unspecified => return Err(Fault::invalid("order", "is missing")),
    };
    let Some(socket) = &local.control else {
        return Err(refused(
            "NO_LAUNCHER",
            "node",
            "no launcher started this node: what runs under another supervisor is killed and started there".to_owned(),
        ));
    };
    match control::carry_out(socket, order, node).await {
        Ok(Ok(done)) => Ok(pb::OrderNodeResponse { pid: done.pid }),
        Ok(Err(reason)) => Err(refused("ORDER_REFUSED", &format!("node/{node}"), reason)),
        Err(error) => Err(refused(
            "NO_LAUNCHER",
            "node",
            format!("the launcher gives no answer: {error}"),
        )),
    }
}

/// Gives the provider a bad day, or a good one.
pub(super) async fn set_provider(
    local: &Local,
    request: &pb::SetProviderRequest,
) -> Result<pb::SetProviderResponse, Fault> {
    if request.error_percent > 100 {
        return Err(Fault::invalid("error_percent", "goes from 0 to 100"));
    }
    let wanted = Control {
        outage: Some(request.outage),
        error_rate: Some(f64::from(request.error_percent) / 100.0),
        ..Control::default()
    };
    match client::control(&local.provider, &wanted).await {
        Ok(now) => Ok(pb::SetProviderResponse {
            outage: now.outage.unwrap_or_default(),
            error_percent: (now.error_rate.unwrap_or_default() * 100.0).round() as u32,
        }),
        Err(error) => Err(refused(
            "NO_PROVIDER",
            "provider",
            format!("the payment provider takes no orders: {error}"),
        )),
    }
}

fn refused(reason: &'static str, subject: &str, message: String) -> Fault {
    Fault::Refused {
        reason: reason.into(),
        subject: subject.to_owned(),
        message,
    }
}
