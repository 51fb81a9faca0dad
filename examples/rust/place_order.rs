//! Places one order, and repeats the call under the same request id until the answer is definite.
//!
//! Start a cluster with `playhouse up`, then `cargo run -p examples --bin place_order -- 127.0.0.1:7001 127.0.0.1:7002`.
//! Kill a node meanwhile: the order is placed once all the same.

use std::{env, error::Error, time::Duration};

use proto::{
    catalog::v1::{PutProductRequest, ReceiveStockRequest, products_client::ProductsClient, stock_client::StockClient},
    common::v1::Money,
    order::v1::{OrderLine, PlaceOrderRequest, PlaceOrderResponse, orders_client::OrdersClient},
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use ulid::Ulid;

/// The nodes that `playhouse up` starts.
const NODES: [&str; 3] = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a call is repeated.
const ATTEMPTS_MAX: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut nodes: Vec<String> = env::args().skip(1).collect();
    if nodes.is_empty() {
        nodes = NODES.map(str::to_owned).to_vec();
    }
    let nodes = Nodes::new(&nodes)?;

    let run = Ulid::generate();
    nodes.stock_up(&run.to_string()).await?;

    let order = PlaceOrderRequest {
        customer_id: "ann".to_owned(),
        lines: vec![OrderLine {
            sku: "example-tea".to_owned(),
            quantity: 3,
            unit_price: None,
        }],
        ..PlaceOrderRequest::default()
    };
    // Chosen once for what is wanted, not for each attempt. Write it down first, and you may even repeat after a crash.
    let request_id = format!("example-{run}");
    let first = nodes.place(&request_id, &order).await?;
    show(&first);
    let again = nodes.place(&request_id, &order).await?;
    assert_eq!(
        order_id(&first),
        order_id(&again),
        "the same request id means the same order"
    );
    println!("asked again under {request_id}: the same order, placed once");
    Ok(())
}

/// Connections to several nodes. Any node takes any call.
struct Nodes {
    channels: Vec<Channel>,
}

impl Nodes {
    fn new(addresses: &[String]) -> Result<Self, Box<dyn Error>> {
        let channel = |address: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            Ok(endpoint.connect_timeout(Duration::from_millis(500)).connect_lazy())
        };
        let channels: Result<_, Box<dyn Error>> = addresses.iter().map(channel).collect();
        Ok(Self { channels: channels? })
    }

    /// Makes sure that there is something to sell.
    async fn stock_up(&self, run: &str) -> Result<(), Status> {
        let product = PutProductRequest {
            sku: "example-tea".to_owned(),
            name: "Tea".to_owned(),
            price: Some(Money {
                minor: 255,
                currency: "GBP".to_owned(),
            }),
        };
        let delivery = ReceiveStockRequest {
            sku: "example-tea".to_owned(),
            quantity: 10,
        };
        self.until_definite(&format!("product-{run}"), &product, |channel, request| async move {
            ProductsClient::new(channel).put_product(request).await
        })
        .await?;
        self.until_definite(&format!("delivery-{run}"), &delivery, |channel, request| async move {
            StockClient::new(channel).receive_stock(request).await
        })
        .await?;
        Ok(())
    }

    async fn place(&self, request_id: &str, order: &PlaceOrderRequest) -> Result<PlaceOrderResponse, Status> {
        self.until_definite(request_id, order, |channel, request| async move {
            OrdersClient::new(channel).place_order(request).await
        })
        .await
    }

    /// Repeats a call, on one node after the other, until its answer is definite.
    async fn until_definite<Q: Clone, R, F>(
        &self,
        request_id: &str,
        message: &Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let id = (request_id.parse()).map_err(|_| Status::invalid_argument("the request id must be ASCII"))?;
        let mut last = Status::unavailable("no attempt was made");
        for channel in self.channels.iter().cycle().take(ATTEMPTS_MAX) {
            let mut request = Request::new(message.clone());
            request.set_timeout(ATTEMPT_TIMEOUT);
            request.metadata_mut().insert("x-request-id", Clone::clone(&id));
            match call(channel.clone(), request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if !may_succeed_later(&status) => return Err(status),
                Err(status) => {
                    let told = status
                        .get_error_details()
                        .retry_info()
                        .and_then(|retry| retry.retry_delay);
                    tokio::time::sleep(told.unwrap_or(Duration::from_millis(100))).await;
                    last = status;
                }
            }
        }
        Err(last)
    }
}

/// Every other code is a definite no.
fn may_succeed_later(status: &Status) -> bool {
    matches!(
        status.code(),
        // Nobody there or a full queue, or an outcome that is unknown; the request id makes the repetition safe.
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted
            // What the gRPC library says of a connection that broke under the call.
            | Code::Unknown | Code::Cancelled
    )
}

fn order_id(response: &PlaceOrderResponse) -> Option<&str> {
    response.order.as_ref().map(|order| order.order_id.as_str())
}

fn show(response: &PlaceOrderResponse) {
    let Some(order) = &response.order else { return };
    let total = order.total.clone().unwrap_or_default();
    println!(
        "order {}: {}, {}.{:02} {}",
        order.order_id,
        order.status().as_str_name(),
        total.minor / 100,
        total.minor % 100,
        total.currency
    );
    if !order.reason.is_empty() {
        println!("  because: {}", order.reason);
    }
    println!("  trace {}", response.trace_id);
}
