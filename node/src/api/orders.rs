//! Orders over gRPC: place, get, cancel, watch, take goods back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use actors::{
    Money, OrderId, Sku,
    order::{Command, Event, Line, Order, State},
    product::Product,
};
use cluster::{Entity as _, ReadOptions, Versioned};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use proto::order::v1 as pb;
use tonic::{Response, Status};

use super::{
    convert::{self, Wanted, WantedLine},
    reading::Newness,
    rejection,
    request::{Call, Edge, REQUEST_ID_KEY, sent},
    status::Fault,
    wait,
};

/// Products of one order that are read at the same time.
const PRICE_READS_MAX: usize = 64;
/// How long a cancellation is waited for before the order is shown as it stands.
const CANCEL_WAIT_MS: u64 = 2_000;
/// How long one poll of a watch lasts.
const WATCH_POLL_MS: u64 = 10_000;

/// The orders service.
#[derive(Clone)]
pub(crate) struct Orders {
    pub(super) edge: Edge,
}

/// The events of one order, as they happen.
type EventStream = std::pin::Pin<Box<dyn Stream<Item = Result<pb::OrderEvent, Status>> + Send>>;

#[tonic::async_trait]
impl pb::orders_server::Orders for Orders {
    type WatchOrderStream = EventStream;

    async fn place_order(
        &self,
        request: tonic::Request<pb::PlaceOrderRequest>,
    ) -> Result<Response<pb::PlaceOrderResponse>, Status> {
        let (call, request) = self.edge.receive("Orders/PlaceOrder", request)?;
        call.answer(self.place(&call, request).await)
    }

    async fn get_order(&self, request: tonic::Request<pb::GetOrderRequest>) -> Result<Response<pb::Order>, Status> {
        let (call, request) = self.edge.receive("Orders/GetOrder", request)?;
        call.answer(self.get(&call, request).await)
    }

    async fn cancel_order(
        &self,
        request: tonic::Request<pb::CancelOrderRequest>,
    ) -> Result<Response<pb::Order>, Status> {
        let (call, request) = self.edge.receive("Orders/CancelOrder", request)?;
        call.answer(self.cancel(&call, request).await)
    }

    async fn watch_order(
        &self,
        request: tonic::Request<pb::WatchOrderRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let (call, request) = self.edge.receive("Orders/WatchOrder", request)?;
        let begun = self.watch(&call, request).await;
        let response = call.answer(begun)?;
        let orders = self.clone();
        Ok(response.map(|(order, first)| orders.events(call, order, first).boxed()))
    }

    async fn return_items(
        &self,
        request: tonic::Request<pb::ReturnItemsRequest>,
    ) -> Result<Response<pb::ReturnItemsResponse>, Status> {
        let (call, request) = self.edge.receive("Orders/ReturnItems", request)?;
        call.answer(self.return_items(&call, request).await)
    }
}

impl Orders {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    /// Places an order and waits until it is decided, or until the caller's deadline: then it is shown as pending.
    pub(super) async fn place(
        &self,
        call: &Call,
        mut request: pb::PlaceOrderRequest,
    ) -> Result<pb::PlaceOrderResponse, Fault> {
        // Whether the caller waits is no part of the order: a repetition may ask otherwise.
        let no_wait = std::mem::take(&mut request.no_wait);
        let sent = sent("PlaceOrder", &request);
        let mut wanted = convert::wanted(request)?;
        let order = match wanted.order.take() {
            Some(order) => order,
            None => derived_id("order_id", call, OrderId::new)?,
        };
        if let Some(customer) = &wanted.customer {
            call.tell("customer", customer.to_string());
        }
        let placed = Placed::new(&wanted, self.price(call, wanted.lines.clone()).await?);
        self.edge
            .ask::<Order>(call, &order, &placed.command(&wanted), &call.command(sent))
            .await
            .map_err(|error| rejection::of_order(error, &order))?;
        let seen = if no_wait {
            // A repetition must show what was recorded, not what today's prices would make of it.
            self.read(call, &order, ReadOptions::default()).await.ok()
        } else {
            wait::until::<Order>(&self.edge, call, call.time_left(), &order, 1, State::is_decided).await?
        };
        let shown = match seen {
            Some(seen) => convert::order(&order, seen.version, &seen.state),
            None => convert::order(&order, 1, &placed.pending()),
        };
        Ok(pb::PlaceOrderResponse {
            order: Some(shown),
            trace_id: call.trace().trace_hex(),
        })
    }

    /// An order as it stands.
    pub(super) async fn get(&self, call: &Call, request: pb::GetOrderRequest) -> Result<pb::Order, Fault> {
        let order = convert::id("order_id", request.order_id, OrderId::new)?;
        let seen = self.read(call, &order, call.read_options()).await?;
        Ok(convert::order(&order, seen.version, &seen.state))
    }

    /// Calls an order off.
    pub(super) async fn cancel(&self, call: &Call, request: pb::CancelOrderRequest) -> Result<pb::Order, Fault> {
        let sent = sent("CancelOrder", &request);
        let order = convert::id("order_id", request.order_id, OrderId::new)?;
        let reason = convert::text("reason", request.reason, actors::REASON_LEN_MAX)?;
        self.edge
            .ask::<Order>(call, &order, &Command::Cancel { reason }, &call.command(sent))
            .await
            .map_err(|error| rejection::of_order(error, &order))?;
        let longest = call.time_left().min(Duration::from_millis(CANCEL_WAIT_MS));
        // The cancellation is durable; where it cannot be seen in time, the order is read once more as it stands.
        let seen = match wait::until::<Order>(&self.edge, call, longest, &order, 0, State::is_at_rest).await? {
            Some(seen) => seen,
            None => self.read(call, &order, ReadOptions::default()).await?,
        };
        Ok(convert::order(&order, seen.version, &seen.state))
    }

    async fn watch(&self, call: &Call, request: pb::WatchOrderRequest) -> Result<(OrderId, Versioned<State>), Fault> {
        let order = convert::id("order_id", request.order_id, OrderId::new)?;
        let options = ReadOptions {
            events_after: Some(0),
            ..ReadOptions::default()
        };
        let first = self.read(call, &order, options).await?;
        Ok((order, first))
    }

    /// The events that were read, then those of one long poll after the other, until the order is at rest.
    fn events(
        self,
        call: Call,
        order: OrderId,
        first: Versioned<State>,
    ) -> impl Stream<Item = Result<pb::OrderEvent, Status>> {
        let next = Some((self, call, order, 0, Some(first)));
        stream::try_unfold(next, |state| async move {
            let Some((orders, call, order, seen, ready)) = state else {
                return Ok::<_, Status>(None);
            };
            let polled = match ready {
                Some(first) => first,
                None => orders
                    .poll(&call, &order, seen)
                    .await
                    .map_err(|fault| fault.status(Some(&call)))?,
            };
            let at_rest = polled.state.is_at_rest();
            let seen = polled.events.last().map_or(seen, |event| event.version);
            let batch = stream::iter(polled.events.into_iter().map(|event| Ok(convert::event(event))));
            let next = (!at_rest).then_some((orders, call, order, seen, None));
            Ok(Some((batch, next)))
        })
        .try_flatten()
    }

    /// One long poll of a watch; comes back only with something new, or when the caller's deadline has passed.
    async fn poll(&self, call: &Call, order: &OrderId, seen: u64) -> Result<Versioned<State>, Fault> {
        loop {
            let within = call.poll(Duration::from_millis(WATCH_POLL_MS))?;
            let options = ReadOptions {
                newer_than: Some(seen),
                events_after: Some(seen),
                ..ReadOptions::default()
            };
            match self.edge.cluster.read::<Order>(order, options, &within).await {
                Ok(polled) if !polled.events.is_empty() || polled.state.is_at_rest() => return Ok(polled),
                Ok(_) => {}
                Err(error) if error.is_retryable() => wait::pause_after(&error, within.timeout).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn read(&self, call: &Call, order: &OrderId, options: ReadOptions) -> Result<Versioned<State>, Fault> {
        let seen = self.edge.cluster.read::<Order>(order, options, &call.request()).await?;
        call.note(Newness::of(&seen));
        if seen.state.exists() {
            return Ok(seen);
        }
        Err(Fault::NotFound {
            kind: Order::KIND,
            id: order.to_string(),
        })
    }

    /// The lines with their prices: those that were given, or the product's at this moment.
    async fn price(&self, call: &Call, lines: Vec<WantedLine>) -> Result<Vec<Line>, Fault> {
        let unpriced: BTreeSet<Sku> = (lines.iter())
            .filter(|line| line.unit_price.is_none())
            .map(|line| line.sku.clone())
            .collect();
        let prices: BTreeMap<Sku, Money> = stream::iter(unpriced)
            .map(|sku| self.price_of(call, sku))
            .buffer_unordered(PRICE_READS_MAX)
            .try_collect()
            .await?;
        Ok((lines.into_iter())
            .map(|line| Line {
                unit_price: line.unit_price.unwrap_or_else(|| prices[&line.sku]),
                sku: line.sku,
                quantity: line.quantity,
            })
            .collect())
    }

    async fn price_of(&self, call: &Call, sku: Sku) -> Result<(Sku, Money), Fault> {
        let product = self.edge.read::<Product>(call, &sku).await?.state;
        if product.exists() {
            return Ok((sku, product.price));
        }
        Err(Fault::Refused {
            reason: "UNKNOWN_PRODUCT".into(),
            subject: format!("{}/{sku}", Product::KIND),
            message: format!("there is no product {sku}; put it first, or give the line a unit_price"),
        })
    }
}

/// An order that was placed, as far as its caller knows.
struct Placed {
    lines: Vec<Line>,
    event: Event,
}

impl Placed {
    fn new(wanted: &Wanted, lines: Vec<Line>) -> Self {
        // Only shown where the order could not be read again; the domain has refused what cannot be summed by then.
        let total = lines.iter().fold(Money::zero(wanted.currency), |total, line| {
            let price = line.unit_price.times(line.quantity);
            price.and_then(|price| total.plus(price)).unwrap_or(total)
        });
        Self {
            event: Event::Placed {
                customer: wanted.customer.clone(),
                lines: lines.clone(),
                total,
            },
            lines,
        }
    }

    fn command(&self, wanted: &Wanted) -> Command {
        Command::Place {
            customer: wanted.customer.clone(),
            lines: self.lines.clone(),
            currency: wanted.currency,
            card: wanted.card.clone(),
        }
    }

    fn pending(&self) -> State {
        let mut state = State::default();
        Order::evolve(&mut state, &self.event);
        state
    }
}

/// An id that follows from the request id, so that a repetition means the same thing.
pub(super) fn derived_id<T>(
    field: &str,
    call: &Call,
    new: impl FnOnce(String) -> Result<T, actors::IdError>,
) -> Result<T, Fault> {
    new(call.id().to_string()).map_err(|error| {
        let reason = format!("must be given, because none can be derived from {REQUEST_ID_KEY}, which {error}");
        Fault::invalid(field, reason)
    })
}
