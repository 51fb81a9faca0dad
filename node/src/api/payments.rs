//! Payments over gRPC: get.

use actors::{
    OrderId,
    payment::{Payment, Status as PaymentStatus},
};
use cluster::Entity as _;
use proto::payment::v1 as pb;
use tonic::{Response, Status};

use super::{
    convert,
    request::{Call, Edge},
    status::Fault,
};

/// The payments service.
#[derive(Clone)]
pub(crate) struct Payments {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::payments_server::Payments for Payments {
    async fn get_payment(
        &self,
        request: tonic::Request<pb::GetPaymentRequest>,
    ) -> Result<Response<pb::Payment>, Status> {
        let (call, request) = self.edge.receive("Payments/GetPayment", request)?;
        call.answer(self.get(&call, request).await)
    }
}

impl Payments {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    async fn get(&self, call: &Call, request: pb::GetPaymentRequest) -> Result<pb::Payment, Fault> {
        let order = convert::id("order_id", request.order_id, OrderId::new)?;
        let payment = self.edge.show::<Payment>(call, &order).await?;
        if payment.state.status == PaymentStatus::New {
            return Err(Fault::NotFound {
                kind: Payment::KIND,
                id: order.to_string(),
            });
        }
        Ok(convert::payment(&order, payment.version, &payment.state))
    }
}
