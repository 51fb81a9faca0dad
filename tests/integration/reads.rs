//! Reads that another node than the leader answers, as clients ask for them: by metadata, and on the command line.

use std::time::Duration;

use harness::TestCluster;
use proto::{
    catalog::v1::{GetStockRequest, ReceiveStockRequest, StockItem, stock_client::StockClient},
    cluster::v1::{ShowEntityRequest, admin_client::AdminClient},
    gateway::v1::{
        CommandRequest, command_request::Command, command_response::Result as Outcome, gateway_client::GatewayClient,
    },
};
use tonic::{Code, Request, Response, Status, transport::Channel};

const SKU: &str = "tea";

async fn channel(cluster: &TestCluster, node: u8) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", cluster.grpc(node))).expect("an address");
    endpoint.connect().await.expect("the node listens")
}

fn get(metadata: &[(&'static str, &str)]) -> Request<GetStockRequest> {
    let mut request = Request::new(GetStockRequest { sku: SKU.to_owned() });
    request.set_timeout(Duration::from_secs(2));
    for (key, value) in metadata {
        request.metadata_mut().append(*key, value.parse().expect("ASCII"));
    }
    request
}

async fn read(channel: &Channel, metadata: &[(&'static str, &str)]) -> Result<Response<StockItem>, Status> {
    StockClient::new(channel.clone()).get_stock(get(metadata)).await
}

fn told<T>(response: &Response<T>, key: &str) -> String {
    let value = response.metadata().get(key).unwrap_or_else(|| panic!("no {key}"));
    value.to_str().expect("ASCII").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_choose_how_new_what_they_read_must_be() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let mut channels = Vec::new();
    for node in cluster.node_ids() {
        channels.push(channel(&cluster, node).await);
    }

    // A command's token makes the next read see it, on every node and over a stream as well.
    let mut last = String::new();
    for n in 0..30_u64 {
        let receive = ReceiveStockRequest {
            sku: SKU.to_owned(),
            quantity: 1,
        };
        let writer = channels[n as usize % 3].clone();
        let received = StockClient::new(writer).receive_stock(receive).await.expect("accepted");
        last = told(&received, "x-version-token");
        for reader in &channels {
            let seen = read(reader, &[("x-read-after", &last)]).await.expect("readable");
            assert!(seen.get_ref().on_hand > n, "{n} were received, {:?}", seen.get_ref());
            assert!(!told(&seen, "x-version-token").is_empty());
        }
    }
    let command = CommandRequest {
        read_after: vec![last.clone()],
        command: Some(Command::GetStock(GetStockRequest { sku: SKU.to_owned() })),
        ..CommandRequest::default()
    };
    let mut answers = GatewayClient::new(channels[1].clone())
        .commands(futures::stream::iter([command]))
        .await
        .expect("a stream")
        .into_inner();
    let answer = answers.message().await.expect("a stream").expect("an answer");
    assert!(!answer.version_token.is_empty());
    assert!(matches!(answer.result, Some(Outcome::StockItem(item)) if item.on_hand == 30));

    // What cannot be is refused with the key.
    for (key, value) in [
        ("x-read", "stale=soon"),
        ("x-read", "any"),
        ("x-read-after", "v1-0-1-2-3"),
    ] {
        let refused = read(&channels[0], &[(key, value)]).await.expect_err("nonsense");
        assert_eq!(refused.code(), Code::InvalidArgument, "{key}: {value}");
        assert!(refused.message().contains(key), "{}", refused.message());
    }

    // Every node shows what it has, and how old it may be.
    for reader in &channels {
        let seen = read(reader, &[("x-read", "stale=60s")]).await.expect("readable");
        let age: u64 = told(&seen, "x-staleness-ms").parse().expect("a number");
        assert!(age <= 60_000);
        let seen = read(reader, &[]).await.expect("readable");
        assert_eq!(told(&seen, "x-staleness-ms"), "0");
    }

    // Without a majority one node goes on showing what it has, and says that it cannot show what is true now.
    cluster.pause(2).await;
    cluster.pause(3).await;
    let seen = read(&channels[0], &[("x-read", "stale=3600s")])
        .await
        .expect("readable");
    assert_eq!(seen.get_ref().on_hand, 30);
    let none = read(&channels[0], &[("x-read", "linearizable")])
        .await
        .expect_err("no majority");
    assert!(
        matches!(none.code(), Code::Unavailable | Code::DeadlineExceeded),
        "{none:?}"
    );
    let none = read(&channels[0], &[("x-read", "stale=1ms")])
        .await
        .expect_err("cannot be shown");
    assert!(
        matches!(none.code(), Code::Unavailable | Code::DeadlineExceeded),
        "{none:?}"
    );
    let mut show = Request::new(ShowEntityRequest {
        key: format!("stock/{SKU}"),
    });
    show.metadata_mut()
        .insert("x-read", "stale=3600s".parse().expect("ASCII"));
    let shown = AdminClient::new(channels[0].clone())
        .show_entity(show)
        .await
        .expect("readable");
    let shown = shown.into_inner();
    assert_eq!((shown.answered_by, shown.version), (1, 30));
    assert!(shown.staleness_us.is_some_and(|age| age > 0));
    let node = cluster.grpc(1);
    let key = format!("stock/{SKU}");
    let words = ["entity", "show", &key, "--stale", "3600s", "--address", &node, "--json"];
    let typed = harness::playhouse(harness::program!(), words).await.ok().json();
    assert_eq!(typed["state"]["on_hand"], 30, "{typed:#}");
    assert_eq!(typed["answered_by"], 1);
    cluster.resume(2).await;
    cluster.resume(3).await;
    let typed = cluster.run(&format!("stock show {SKU} --after {last} --json")).await;
    assert_eq!(typed.ok().json()["on_hand"], 30);
}
