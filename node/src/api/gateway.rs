//! One stream for many commands in flight. Each command goes the way of the unary call of the same name; only the
//! envelope differs.
//!
//! At most [`IN_FLIGHT_MAX`] commands of a stream are under way. While they are, or while the client does not read its
//! replies, nothing more is read from the stream, and HTTP/2 flow control slows the client down. So it is for a moment after a command
//! of the stream was refused for want of room.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::{Caller, Error, Tenant};
use futures::{Stream, StreamExt as _, future};
use proto::gateway::v1::{self as pb, command_request::Command, command_response::Result as Outcome};
use tonic::{Response, Status, Streaming};

use super::{
    decode,
    orders::Orders,
    products::Products,
    reading::{Newness, Reading},
    request::{Call, Edge, whose},
    status::Fault,
    stock::Stock,
};
use crate::telemetry::logs::context;

/// Commands of one stream that may be under way.
const IN_FLIGHT_MAX: usize = 1024;
/// A stream is not read for so long at most after a refusal: other commands of it may find room.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Until when a stream is not read.
struct Pause {
    begun: Instant,
    until_ms: AtomicU64,
}

impl Pause {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            until_ms: AtomicU64::new(0),
        }
    }

    fn after(&self, retry_after: Duration) {
        let until = self.begun.elapsed() + retry_after.min(PAUSE_MAX);
        let until_ms = u64::try_from(until.as_millis()).unwrap_or_default();
        self.until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    async fn over(&self) {
        let until = Duration::from_millis(self.until_ms.load(Ordering::Relaxed));
        let left = until.saturating_sub(self.begun.elapsed());
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }
}

/// The gateway service.
#[derive(Clone)]
pub(crate) struct Gateway {
    edge: Edge,
    orders: Orders,
    products: Products,
    stock: Stock,
}

/// What a command takes over from its stream.
struct Of {
    traceparent: Option<String>,
    whose: (Tenant, Caller),
    pause: Arc<Pause>,
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
        let whose = whose(request.metadata()).map_err(|fault| fault.status(None))?;
        let gateway = self.clone();
        let pause = Arc::new(Pause::new());
        let paused = Arc::clone(&pause);
        let responses = request
            .into_inner()
            .then(move |command| {
                let paused = Arc::clone(&paused);
                async move {
                    paused.over().await;
                    command
                }
            })
            .map(move |command| match command {
                Ok(command) => {
                    let of = Of {
                        traceparent: traceparent.clone(),
                        whose: whose.clone(),
                        pause: Arc::clone(&pause),
                    };
                    future::Either::Left(gateway.clone().respond(command, of))
                }
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

    async fn respond(self, request: pb::CommandRequest, of: Of) -> Result<pb::CommandResponse, Status> {
        let correlation = request.correlation;
        // Many commands share the task of their stream.
        let (outcome, newness) = match context::scoped(self.carry_out(request, &of)).await {
            Ok(answered) => answered,
            Err(fault) => (Err(fault), Newness::default()),
        };
        if let Err(Fault::Engine(Error::Overloaded { retry_after, .. })) = &outcome {
            of.pause.after(*retry_after);
        }
        Ok(pb::CommandResponse {
            correlation,
            version_token: newness.token.map(|token| token.to_string()).unwrap_or_default(),
            staleness_ms: newness.staleness_ms(),
            result: Some(outcome.unwrap_or_else(|fault| Outcome::Failure(fault.failure()))),
        })
    }

    async fn carry_out(
        &self,
        request: pb::CommandRequest,
        of: &Of,
    ) -> Result<(Result<Outcome, Fault>, Newness), Fault> {
        let reading = Reading::parse(&request.read, &request.read_after)?;
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
        let call = self
            .edge
            .call("Gateway/Commands", request_id, of.traceparent.as_deref(), None)?
            .reading(reading)
            .on_behalf_of(of.whose.clone());
        let outcome = self.dispatch(&call, command).await;
        call.finish(outcome.as_ref().err());
        Ok((outcome, call.newness()))
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
