//! Stock items over gRPC: receive, write off, get.

use actors::{
    REASON_LEN_MAX, Sku,
    stock::{Command, StockItem},
};
use cluster::Entity as _;
use proto::catalog::v1 as pb;
use tonic::{Response, Status};

use super::{
    convert, rejection,
    request::{Call, Edge, sent},
    status::Fault,
};

/// The stock service.
#[derive(Clone)]
pub(crate) struct Stock {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::stock_server::Stock for Stock {
    async fn receive_stock(
        &self,
        request: tonic::Request<pb::ReceiveStockRequest>,
    ) -> Result<Response<pb::StockItem>, Status> {
        let (call, request) = self.edge.receive("Stock/ReceiveStock", request)?;
        call.answer(self.receive(&call, request).await)
    }

    async fn write_off_stock(
        &self,
        request: tonic::Request<pb::WriteOffStockRequest>,
    ) -> Result<Response<pb::StockItem>, Status> {
        let (call, request) = self.edge.receive("Stock/WriteOffStock", request)?;
        call.answer(self.write_off(&call, request).await)
    }

    async fn get_stock(&self, request: tonic::Request<pb::GetStockRequest>) -> Result<Response<pb::StockItem>, Status> {
        let (call, request) = self.edge.receive("Stock/GetStock", request)?;
        call.answer(self.get(&call, request).await)
    }
}

impl Stock {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    /// Takes in a delivery.
    pub(super) async fn receive(&self, call: &Call, request: pb::ReceiveStockRequest) -> Result<pb::StockItem, Fault> {
        let sent = sent("ReceiveStock", &request);
        let sku = convert::id("sku", request.sku, Sku::new)?;
        let quantity = convert::quantity("quantity", request.quantity)?;
        self.tell(call, sent, &sku, Command::Receive { quantity }).await
    }

    /// Takes goods out of what is on hand for good.
    pub(super) async fn write_off(
        &self,
        call: &Call,
        request: pb::WriteOffStockRequest,
    ) -> Result<pb::StockItem, Fault> {
        let sent = sent("WriteOffStock", &request);
        let sku = convert::id("sku", request.sku, Sku::new)?;
        let quantity = convert::quantity("quantity", request.quantity)?;
        let reason = convert::text("reason", request.reason, REASON_LEN_MAX)?;
        self.tell(call, sent, &sku, Command::WriteOff { quantity, reason })
            .await
    }

    /// A stock item as it stands.
    pub(super) async fn get(&self, call: &Call, request: pb::GetStockRequest) -> Result<pb::StockItem, Fault> {
        let sku = convert::id("sku", request.sku, Sku::new)?;
        let item = self.edge.show::<StockItem>(call, &sku).await?;
        if item.version == 0 {
            return Err(Fault::NotFound {
                kind: StockItem::KIND,
                id: sku.to_string(),
            });
        }
        Ok(convert::stock_state(&sku, item.version, &item.state))
    }

    async fn tell(&self, call: &Call, sent: u64, sku: &Sku, command: Command) -> Result<pb::StockItem, Fault> {
        let request = call.command(sent);
        let told = self.edge.ask::<StockItem>(call, sku, &command, &request).await;
        let reply = told.map_err(|error| rejection::of_stock(error, sku))?;
        Ok(convert::stock_item(sku, reply.version, &reply.levels))
    }
}
