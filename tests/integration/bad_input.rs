//! Bad input of every kind on every call: the answer is a clear refusal, and the node goes on.

use harness::TestCluster;
use proto::{
    catalog::v1::{
        GetProductRequest, GetStockRequest, PutProductRequest, ReceiveStockRequest, WriteOffStockRequest,
        products_client::ProductsClient, stock_client::StockClient,
    },
    cluster::v1::{ScanEntitiesRequest, ShowEntityRequest, admin_client::AdminClient},
    common::v1::Money,
    order::v1::{
        CancelOrderRequest, GetOrderRequest, Order, OrderLine, PlaceOrderRequest, ReturnItemsRequest, ReturnLine,
        WatchOrderRequest, orders_client::OrdersClient,
    },
    payment::v1::{GetPaymentRequest, payments_client::PaymentsClient},
};
use tonic::{
    Code, Request, Response, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// A text that is not one.
#[derive(Clone, PartialEq, prost::Message)]
struct RawId {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
}

fn money(minor: i64, currency: &str) -> Money {
    Money {
        minor,
        currency: currency.to_owned(),
    }
}

fn line(sku: &str, quantity: u32) -> OrderLine {
    OrderLine {
        sku: sku.to_owned(),
        quantity,
        unit_price: None,
    }
}

fn order(lines: Vec<OrderLine>) -> PlaceOrderRequest {
    PlaceOrderRequest {
        lines,
        ..Default::default()
    }
}

/// The caller's fault, with words.
fn assert_refused<R: std::fmt::Debug>(what: &str, result: Result<Response<R>, Status>) {
    let status = result.expect_err(what);
    let expected = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::ResourceExhausted,
    ];
    assert!(expected.contains(&status.code()), "{what}: {status:?}");
    assert!(!status.message().is_empty(), "{what}: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_nonsense_and_the_node_goes_on() {
    let cluster = TestCluster::start(harness::program!(), 1).await;
    let channel = Endpoint::from_shared(format!("http://{}", cluster.grpc(1)))
        .expect("is an address")
        .connect()
        .await
        .expect("the node listens");
    products(&channel).await;
    stock(&channel).await;
    orders(&channel).await;
    order_lines(&channel).await;
    reads(&channel).await;
    not_text(&channel).await;
    request_ids(&channel).await;

    // The same process still takes orders.
    let pid = cluster.ready()["nodes"][0]["pid"].as_u64();
    assert_eq!(cluster.pid(1).map(u64::from), pid);
    let _ = cluster.run("product put tea --name Tea --price 2.55").await.ok();
    let _ = cluster.run("stock receive tea 10").await.ok();
    let placed = cluster
        .run("order place --customer ann --line tea:3 --json")
        .await
        .ok()
        .json();
    assert_eq!(placed["total_minor"], 765);
    cluster.verify().await;
}

async fn products(channel: &Channel) {
    let mut products = ProductsClient::new(channel.clone());
    let huge = "x".repeat(100_000);
    for (what, sku, name, price) in [
        ("no sku", "", "Tea", Some(money(1, "GBP"))),
        ("no name", "bad-1", "", Some(money(1, "GBP"))),
        ("no price", "bad-2", "Tea", None),
        ("a negative price", "bad-3", "Tea", Some(money(-1, "GBP"))),
        ("no currency", "bad-4", "Tea", Some(money(1, ""))),
        ("a made-up currency", "bad-5", "Tea", Some(money(1, "pounds"))),
        ("a huge sku", huge.as_str(), "Tea", Some(money(1, "GBP"))),
        ("a huge name", "bad-6", huge.as_str(), Some(money(1, "GBP"))),
        ("a control character", "bad\u{7}", "Tea", Some(money(1, "GBP"))),
    ] {
        let request = PutProductRequest {
            sku: sku.to_owned(),
            name: name.to_owned(),
            price,
        };
        assert_refused(what, products.put_product(request).await);
    }
}

async fn stock(channel: &Channel) {
    let mut stock = StockClient::new(channel.clone());
    for (what, sku, quantity) in [
        ("no sku", "", 1),
        ("nothing", "bad-1", 0),
        ("too much", "bad-1", u64::MAX),
    ] {
        let sku = sku.to_owned();
        assert_refused(
            what,
            stock
                .receive_stock(ReceiveStockRequest {
                    sku: sku.clone(),
                    quantity,
                })
                .await,
        );
        let reason = String::new();
        assert_refused(
            what,
            stock
                .write_off_stock(WriteOffStockRequest { sku, quantity, reason })
                .await,
        );
    }
    let more_than_there_is = WriteOffStockRequest {
        sku: "bad-1".to_owned(),
        quantity: 1,
        reason: "lost".to_owned(),
    };
    assert_refused("more than there is", stock.write_off_stock(more_than_there_is).await);
}

async fn orders(channel: &Channel) {
    let mut orders = OrdersClient::new(channel.clone());
    let id = "no-such-order".to_owned();
    assert_refused(
        "unknown",
        orders.get_order(GetOrderRequest { order_id: id.clone() }).await,
    );
    assert_refused(
        "unknown",
        orders.watch_order(WatchOrderRequest { order_id: id.clone() }).await,
    );
    let cancel = CancelOrderRequest {
        order_id: id,
        reason: String::new(),
    };
    assert_refused("unknown", orders.cancel_order(cancel).await);
    assert_refused("no id", orders.get_order(GetOrderRequest::default()).await);
    assert_refused("no id", orders.cancel_order(CancelOrderRequest::default()).await);
    assert_refused("no id", orders.watch_order(WatchOrderRequest::default()).await);
    assert_refused("nobody", orders.return_items(ReturnItemsRequest::default()).await);
    let never_bought = ReturnItemsRequest {
        return_id: String::new(),
        customer_id: "ann".to_owned(),
        lines: vec![ReturnLine {
            sku: "tea".to_owned(),
            quantity: 1,
        }],
    };
    assert_refused("never bought", orders.return_items(never_bought.clone()).await);
    let none = ReturnItemsRequest {
        lines: vec![ReturnLine {
            sku: "tea".to_owned(),
            quantity: 0,
        }],
        ..never_bought
    };
    assert_refused("none of it", orders.return_items(none).await);
}

async fn order_lines(channel: &Channel) {
    let mut orders = OrdersClient::new(channel.clone());
    let at = |price| OrderLine {
        unit_price: price,
        ..line("tea", 1)
    };
    for (what, request) in [
        ("no lines", order(vec![])),
        ("no sku", order(vec![line("", 1)])),
        ("none of it", order(vec![line("tea", 0)])),
        ("a negative price", order(vec![at(Some(money(-1, "GBP")))])),
        (
            "two currencies",
            order(vec![at(Some(money(1, "GBP"))), at(Some(money(1, "EUR")))]),
        ),
        (
            "an endless total",
            order(vec![OrderLine {
                quantity: u32::MAX,
                ..at(Some(money(i64::MAX, "GBP")))
            }]),
        ),
        (
            "100,000 lines",
            order((0..100_000).map(|n| line(&format!("sku-{n}"), 1)).collect()),
        ),
        (
            "a huge customer",
            PlaceOrderRequest {
                customer_id: "x".repeat(100_000),
                ..order(vec![line("tea", 1)])
            },
        ),
        (
            "a huge order id",
            PlaceOrderRequest {
                order_id: "x".repeat(100_000),
                ..order(vec![line("tea", 1)])
            },
        ),
        (
            "10 MB",
            PlaceOrderRequest {
                card: "x".repeat(10 << 20),
                ..order(vec![line("tea", 1)])
            },
        ),
    ] {
        assert_refused(what, orders.place_order(request).await);
    }
}

async fn reads(channel: &Channel) {
    let sku = "no-such-thing".to_owned();
    let mut products = ProductsClient::new(channel.clone());
    assert_refused(
        "unknown",
        products.get_product(GetProductRequest { sku: sku.clone() }).await,
    );
    assert_refused("no sku", products.get_product(GetProductRequest::default()).await);
    let mut stock = StockClient::new(channel.clone());
    assert_refused("no sku", stock.get_stock(GetStockRequest::default()).await);
    let mut payments = PaymentsClient::new(channel.clone());
    assert_refused(
        "unknown",
        payments.get_payment(GetPaymentRequest { order_id: sku }).await,
    );
    assert_refused("no id", payments.get_payment(GetPaymentRequest::default()).await);
    let mut admin = AdminClient::new(channel.clone());
    for key in ["", "order", "/", "no-such-kind/1"] {
        assert_refused(key, admin.show_entity(ShowEntityRequest { key: key.to_owned() }).await);
    }
    let request = ScanEntitiesRequest {
        shard: 1_000_000,
        kind: String::new(),
    };
    let scanned = match admin.scan_entities(request).await {
        Ok(response) => response.into_inner().message().await.map(Response::new),
        Err(status) => Err(status),
    };
    assert_refused("no such shard", scanned);
}

/// Bytes that are not UTF-8, where the contract has a text.
async fn not_text(channel: &Channel) {
    for path in [
        "/playhouse.order.v1.Orders/GetOrder",
        "/playhouse.order.v1.Orders/PlaceOrder",
        "/playhouse.order.v1.Orders/CancelOrder",
        "/playhouse.catalog.v1.Products/PutProduct",
        "/playhouse.catalog.v1.Stock/ReceiveStock",
        "/playhouse.payment.v1.Payments/GetPayment",
    ] {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("the node is there");
        let codec: ProstCodec<RawId, Order> = ProstCodec::default();
        let request = RawId {
            id: vec![0xff, 0xfe, 0x00, 0x80],
        };
        let result = client
            .unary(Request::new(request), PathAndQuery::from_static(path), codec)
            .await;
        let status = result.expect_err(path);
        // The message cannot be read at all, which the library under the service answers by itself.
        assert!(
            matches!(status.code(), Code::InvalidArgument | Code::Internal),
            "{path}: {status:?}"
        );
    }
}

async fn request_ids(channel: &Channel) {
    let mut stock = StockClient::new(channel.clone());
    for id in [String::new(), "x".repeat(4_000)] {
        let mut request = Request::new(ReceiveStockRequest {
            sku: "tea".to_owned(),
            quantity: 1,
        });
        request
            .metadata_mut()
            .insert("x-request-id", id.parse().expect("is ASCII"));
        assert_refused("a request id of a wrong length", stock.receive_stock(request).await);
    }
}
