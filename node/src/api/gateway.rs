//! One stream for many commands in flight. Each command goes the way of the unary call of the same name; only the
//! envelope differs.
//!
//! At most [`IN_FLIGHT_MAX`] commands of a stream are under way. While they are, or while the client does not read its
//! replies, nothing more is read from the stream, and HTTP/2 flow control slows the client down.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, future};
use proto::gateway::v1::{self as pb, command_request::Command, command_response::Result as Outcome};
use tonic::{Response, Status, Streaming};

use super::{
    decode,
    orders::Orders,
    products::Products,
    request::{Call, Edge},
    status::Fault,
    stock::Stock,
};

/// Commands of one stream that may be under way.
const IN_FLIGHT_MAX: usize = 1024;

/// The gateway service.
#[derive(Clone)]
pub(crate) struct Gateway {
    edge: Edge,
    orders: Orders,
    products: Products,
    stock: Stock,
}

type ResponseStream = Pin<Box<dyn Stream<Item = Result<pb::CommandResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::gateway_server::Gateway for Gateway {
    type CommandsStream = ResponseStream;

    async fn commands(
        &self,
        request: tonic::Request<Streaming<pb::CommandRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        let traceparent = request.metadata().get("traceparent");
        let traceparent = traceparent.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let gateway = self.clone();
        let responses = request
            .into_inner()
            .map(move |command| match command {
                Ok(command) => future::Either::Left(gateway.clone().respond(command, traceparent.clone())),
                Err(status) => future::Either::Right(future::ready(Err(decode::as_callers_fault(status)))),
            })
            .buffer_unordered(IN_FLIGHT_MAX);
        Ok(Response::new(responses.boxed()))
    }
}

impl Gateway {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self {
            orders: Orders::new(edge.clone()),
            products: Products::new(edge.clone()),
            stock: Stock::new(edge.clone()),
            edge,
        }
    }

    async fn respond(
        self,
        request: pb::CommandRequest,
        traceparent: Option<String>,
    ) -> Result<pb::CommandResponse, Status> {
        let correlation = request.correlation;
        let outcome = match self.carry_out(request, traceparent.as_deref()).await {
            Ok(outcome) => outcome,
            Err(fault) => Outcome::Failure(fault.failure()),
        };
        Ok(pb::CommandResponse {
            correlation,
            result: Some(outcome),
        })
    }

    async fn carry_out(&self, request: pb::CommandRequest, traceparent: Option<&str>) -> Result<Outcome, Fault> {
        let Some(command) = request.command else {
            return Err(Fault::invalid("command", "is missing, or not known to this version"));
        };
        let request_id = (!request.request_id.is_empty()).then_some(request.request_id.as_str());
        if request_id.is_none() && changes_something(&command) {
            return Err(Fault::invalid(
                "request_id",
                "is empty; a command that changes something needs one",
            ));
        }
        let call = self.edge.call("Gateway/Commands", request_id, traceparent, None)?;
        let outcome = self.dispatch(&call, command).await;
        call.finish(outcome.as_ref().err());
        outcome
    }

    async fn dispatch(&self, call: &Call, command: Command) -> Result<Outcome, Fault> {
        Ok(match command {
            Command::PlaceOrder(request) => Outcome::PlaceOrder(self.orders.place(call, request).await?),
            Command::GetOrder(request) => Outcome::Order(self.orders.get(call, request).await?),
            Command::CancelOrder(request) => Outcome::Order(self.orders.cancel(call, request).await?),
            Command::ReturnItems(request) => Outcome::ReturnItems(self.orders.return_items(call, request).await?),
            Command::PutProduct(request) => Outcome::Product(self.products.put(call, request).await?),
            Command::ReceiveStock(request) => Outcome::StockItem(self.stock.receive(call, request).await?),
            Command::WriteOffStock(request) => Outcome::StockItem(self.stock.write_off(call, request).await?),
            Command::GetStock(request) => Outcome::StockItem(self.stock.get(call, request).await?),
        })
    }
}

fn changes_something(command: &Command) -> bool {
    match command {
        Command::GetOrder(_) | Command::GetStock(_) => false,
        Command::PlaceOrder(_)
        | Command::CancelOrder(_)
        | Command::ReturnItems(_)
        | Command::PutProduct(_)
        | Command::ReceiveStock(_)
        | Command::WriteOffStock(_) => true,
    }
}
