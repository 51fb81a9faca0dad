//! The replay against a small real gRPC server that keeps what it was sent, and that loses answers: what arrives, how
//! often, and in which order.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};

use proto::{
    catalog::v1::{
        GetProductRequest, GetStockRequest, Product, StockItem,
        products_server::{Products, ProductsServer},
        stock_server::{Stock, StockServer},
    },
    order::v1::{
        CancelOrderRequest, OrderEvent, PlaceOrderResponse, ReturnItemsResponse, WatchOrderRequest,
        orders_server::{Orders, OrdersServer},
    },
    payment::v1::{
        GetPaymentRequest, Payment,
        payments_server::{Payments, PaymentsServer},
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, service::Routes, transport::Server};

use super::*;
use crate::cli::{price::parse_minor, shop::rows::Row};

/// What the server has been sent.
#[derive(Default)]
struct Books {
    /// Request ids that took effect.
    done: HashSet<String>,
    received: BTreeMap<String, u64>,
    written_off: u64,
    orders: BTreeMap<String, Order>,
    refunded: BTreeMap<String, i64>,
    /// The invoices of each customer as they began and ended.
    journal: Vec<String>,
    calls: usize,
}

#[derive(Clone, Default)]
struct Backend(Arc<Mutex<Books>>);

impl Backend {
    /// Lets `effect` happen once for each request id. Every third call loses its answer after the effect.
    fn once<M>(&self, request: &Request<M>, effect: impl FnOnce(&mut Books)) -> Result<(), Status> {
        let id = request
            .metadata()
            .get("x-request-id")
            .expect("has a request id")
            .to_str()
            .expect("is ASCII");
        let mut books = self.0.lock().expect("not poisoned");
        if books.done.insert(id.to_owned()) {
            effect(&mut books);
        }
        books.calls += 1;
        if books.calls.is_multiple_of(3) {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Products for Backend {
    async fn put_product(&self, request: Request<PutProductRequest>) -> Result<Response<Product>, Status> {
        self.once(&request, |_| {})?;
        Ok(Response::new(Product::default()))
    }
    async fn get_product(&self, _: Request<GetProductRequest>) -> Result<Response<Product>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl Stock for Backend {
    async fn receive_stock(&self, request: Request<ReceiveStockRequest>) -> Result<Response<StockItem>, Status> {
        let delivery = request.get_ref().clone();
        self.once(&request, |books| {
            *books.received.entry(delivery.sku).or_default() += delivery.quantity;
        })?;
        Ok(Response::new(StockItem::default()))
    }
    async fn write_off_stock(&self, request: Request<WriteOffStockRequest>) -> Result<Response<StockItem>, Status> {
        let quantity = request.get_ref().quantity;
        self.once(&request, |books| books.written_off += quantity)?;
        Ok(Response::new(StockItem::default()))
    }
    async fn get_stock(&self, _: Request<GetStockRequest>) -> Result<Response<StockItem>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl Orders for Backend {
    async fn place_order(&self, request: Request<PlaceOrderRequest>) -> Result<Response<PlaceOrderResponse>, Status> {
        let placed = request.get_ref().clone();
        let total: i64 = placed
            .lines
            .iter()
            .map(|l| i64::from(l.quantity) * l.unit_price.as_ref().map_or(0, |p| p.minor))
            .sum();
        let is_refused = placed.lines.iter().any(|line| line.sku == "scarce");
        let status = if is_refused {
            OrderStatus::Refused
        } else {
            OrderStatus::Confirmed
        };
        let order = Order {
            order_id: placed.order_id.clone(),
            customer_id: placed.customer_id.clone(),
            status: status.into(),
            total: Some(pounds(total)),
            reason: if is_refused {
                "out of stock: scarce".to_owned()
            } else {
                String::new()
            },
            ..Default::default()
        };
        let journal = |what: &str| {
            let line = format!("{} {what} {}", placed.customer_id, placed.order_id);
            self.0.lock().expect("not poisoned").journal.push(line);
        };
        journal("begins");
        sleep(Duration::from_millis(5)).await;
        let result = self.once(&request, |books| {
            drop(books.orders.insert(order.order_id.clone(), order.clone()));
        });
        journal("ends");
        result?;
        Ok(Response::new(PlaceOrderResponse {
            order: Some(order),
            trace_id: String::new(),
        }))
    }
    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    async fn cancel_order(&self, _: Request<CancelOrderRequest>) -> Result<Response<Order>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    type WatchOrderStream = tokio_stream::Empty<Result<OrderEvent, Status>>;
    async fn watch_order(&self, _: Request<WatchOrderRequest>) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    async fn return_items(
        &self,
        request: Request<ReturnItemsRequest>,
    ) -> Result<Response<ReturnItemsResponse>, Status> {
        if request.get_ref().lines.iter().any(|line| line.sku == "never bought") {
            return Err(Status::failed_precondition("no confirmed order holds it"));
        }
        self.once(&request, |books| {
            *books.refunded.entry("1".to_owned()).or_default() += 255;
        })?;
        let reply = ReturnItemsResponse {
            refunded: Some(pounds(255)),
            order_ids: vec!["1".to_owned()],
            ..Default::default()
        };
        Ok(Response::new(reply))
    }
}

#[tonic::async_trait]
impl Payments for Backend {
    async fn get_payment(&self, request: Request<GetPaymentRequest>) -> Result<Response<Payment>, Status> {
        let books = self.0.lock().expect("not poisoned");
        let id = &request.get_ref().order_id;
        let order = books
            .orders
            .get(id)
            .ok_or_else(|| Status::not_found("no such payment"))?;
        let refunded = pounds(books.refunded.get(id).copied().unwrap_or(0));
        Ok(Response::new(Payment {
            captured: order.total.clone(),
            refunded: Some(refunded),
            ..Default::default()
        }))
    }
}

fn row(invoice: &str, sku: &str, quantity: i64, price: &str, customer: &str) -> Row {
    Row {
        number: 1,
        invoice: invoice.to_owned(),
        sku: sku.to_owned(),
        description: String::new(),
        quantity,
        price: parse_minor(price),
        customer: customer.to_owned(),
        fault: None,
    }
}

async fn replay(rows: &[Row], run: Option<&str>, backend: &Backend) -> serde_json::Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound").to_string();
    let mut routes = Routes::builder();
    routes.add_service(ProductsServer::new(backend.clone()));
    routes.add_service(StockServer::new(backend.clone()));
    routes.add_service(OrdersServer::new(backend.clone()));
    routes.add_service(PaymentsServer::new(backend.clone()));
    tokio::spawn(
        Server::builder()
            .add_routes(routes.routes())
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let replay = Replay {
        client: Client::new(&[address], Duration::from_secs(20)).expect("is an address"),
        file_hash: 7,
        run: run.map(str::to_owned),
        rate: None,
        concurrency: 8,
        bar: ProgressBar::hidden(),
    };
    replay
        .carry_out(Plan::of(rows), rows.len())
        .await
        .expect("is carried out")
        .json()
}

#[tokio::test]
async fn every_invoice_counts_once_although_answers_are_lost() {
    let rows = [
        row("1", "tea", 3, "2.55", "ann"),
        row("2", "scarce", 1, "1.00", "ben"),
        row("3", "tea", 1, "2.55", ""),
        row("C4", "tea", -1, "2.55", "ann"),
        row("C5", "never bought", -1, "2.55", "ann"),
        row("6", "tea", -2, "0", ""),
        row("6", "cup", -5, "0", ""),
        row("7", "tea", 1, "0.001", ""),
    ];
    let backend = Backend::default();
    let report = replay(&rows, None, &backend).await;
    let refused =
        serde_json::json!({"out of stock": 1, "no confirmed order holds it": 1, "a price is finer than a penny": 1});
    assert_eq!(report["orders"]["placed"], 3);
    assert_eq!(report["orders"]["confirmed"], 2);
    assert_eq!(report["orders"]["refused"], refused);
    assert_eq!(report["refused_invoices"]["2"], "out of stock: scarce");
    assert_eq!((&report["returned"], &report["write_offs"]), (&1.into(), &1.into()));
    assert_eq!(report["captured_minor"], 4 * 255);
    assert_eq!(report["refunded_minor"], 255);
    {
        let books = backend.0.lock().expect("not poisoned");
        assert_eq!(
            books.received,
            [("cup", 5), ("scarce", 1), ("tea", 6)]
                .map(|(s, q)| (s.to_owned(), q))
                .into()
        );
        assert_eq!(books.written_off, 7);
    }

    // Again, nothing changes; under another name it is new business.
    assert_eq!(replay(&rows, None, &backend).await["orders"], report["orders"]);
    assert_eq!(backend.0.lock().expect("not poisoned").orders.len(), 3);
    replay(&rows, Some("again"), &backend).await;
    let books = backend.0.lock().expect("not poisoned");
    assert_eq!(books.orders.len(), 6);
    assert_eq!(books.orders["again-1"].customer_id, "again-ann");
    assert_eq!(books.orders["again-3"].customer_id, "", "a guest stays a guest");
}

#[tokio::test]
async fn a_customer_is_served_in_order_and_different_ones_at_once() {
    let rows: Vec<Row> = (0..40)
        .map(|n| row(&format!("{n:02}"), "tea", 1, "1.00", ["ann", "ben"][n % 2]))
        .collect();
    let backend = Backend::default();
    replay(&rows, None, &backend).await;
    let books = backend.0.lock().expect("not poisoned");
    for customer in ["ann", "ben"] {
        let began: Vec<&str> = (books.journal.iter())
            .filter_map(|line| line.strip_prefix(&format!("{customer} begins ")))
            .collect();
        assert!(began.is_sorted(), "{customer}: {began:?}");
    }
    let together = books
        .journal
        .windows(2)
        .any(|pair| pair.iter().all(|line| line.contains("begins")));
    assert!(together, "{:?}", books.journal);
}
