//! The client against small real gRPC servers that answer, refuse, hang or are not there.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use proto::catalog::v1::{
    GetStockRequest, ReceiveStockRequest, StockItem, WriteOffStockRequest,
    stock_server::{Stock, StockServer},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};
use tonic_types::ErrorDetails;

use super::*;

/// What a fake node does with a call.
#[derive(Clone, Copy)]
enum Behaviour {
    Answer,
    Hang,
    /// So many refusals with this code, then answers.
    Fail(usize, Code),
    /// Asks once for this delay, then answers.
    AskForDelay(Duration),
}

struct Fake {
    behaviour: Behaviour,
    calls: AtomicUsize,
    request_ids: Mutex<Vec<String>>,
    hangs: AtomicBool,
}

#[derive(Clone)]
struct Service(Arc<Fake>);

#[tonic::async_trait]
impl Stock for Service {
    async fn receive_stock(&self, request: Request<ReceiveStockRequest>) -> Result<Response<StockItem>, Status> {
        let id = request
            .metadata()
            .get(REQUEST_ID)
            .map(|id| id.to_str().expect("is ASCII").to_owned());
        self.0
            .request_ids
            .lock()
            .expect("not poisoned")
            .push(id.unwrap_or_default());
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        match self.0.behaviour {
            Behaviour::Hang if self.0.hangs.load(Ordering::SeqCst) => std::future::pending().await,
            Behaviour::Fail(times, code) if call < times => Err(Status::new(code, "planted")),
            Behaviour::AskForDelay(delay) if call == 0 => {
                let details = ErrorDetails::with_retry_info(Some(delay));
                Err(Status::with_error_details(Code::ResourceExhausted, "planted", details))
            }
            _ => Ok(Response::new(StockItem {
                on_hand: request.get_ref().quantity,
                ..Default::default()
            })),
        }
    }

    async fn write_off_stock(&self, _: Request<WriteOffStockRequest>) -> Result<Response<StockItem>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_stock(&self, _: Request<GetStockRequest>) -> Result<Response<StockItem>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

async fn fake(behaviour: Behaviour) -> (String, Arc<Fake>) {
    let fake = Arc::new(Fake {
        behaviour,
        calls: AtomicUsize::new(0),
        request_ids: Mutex::default(),
        hangs: AtomicBool::new(true),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("is bound").to_string();
    let routes = Routes::new(StockServer::new(Service(Arc::clone(&fake))));
    tokio::spawn(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (address, fake)
}

/// An address where nothing listens, nor will another test beside this one.
fn nowhere() -> String {
    cluster::local::free_addresses(1)[0].to_string()
}

fn client(addresses: &[&str]) -> Client {
    let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    Client::new(&addresses, Duration::from_secs(6)).expect("the addresses are well formed")
}

async fn receive(client: &Client) -> Result<StockItem, CallError> {
    client
        .receive_stock(
            "id-1",
            ReceiveStockRequest {
                sku: "tea".to_owned(),
                quantity: 5,
            },
        )
        .await
}

#[tokio::test]
async fn an_answer_comes_back_and_the_request_id_goes_along() {
    let (address, fake) = fake(Behaviour::Answer).await;
    assert_eq!(receive(&client(&[&address])).await.expect("an answer").on_hand, 5);
    assert_eq!(*fake.request_ids.lock().expect("not poisoned"), ["id-1"]);
}

#[tokio::test]
async fn every_retryable_code_is_repeated_under_the_same_id() {
    for code in [
        Code::Unavailable,
        Code::Aborted,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::Cancelled,
    ] {
        let (address, fake) = fake(Behaviour::Fail(3, code)).await;
        receive(&client(&[&address])).await.expect("an answer");
        assert_eq!(*fake.request_ids.lock().expect("not poisoned"), ["id-1"; 4], "{code:?}");
    }
}

#[tokio::test]
async fn a_definite_no_is_not_repeated() {
    let (address, fake) = fake(Behaviour::Fail(3, Code::FailedPrecondition)).await;
    let error = receive(&client(&[&address])).await.expect_err("refused");
    assert_eq!(error.code(), Some(Code::FailedPrecondition));
    assert_eq!(fake.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_delay_that_is_asked_for_is_kept() {
    let delay = Duration::from_millis(250);
    let (address, _) = fake(Behaviour::AskForDelay(delay)).await;
    let started = Instant::now();
    receive(&client(&[&address])).await.expect("an answer");
    assert!(started.elapsed() >= delay);
}

#[tokio::test]
async fn a_node_that_is_not_there_costs_next_to_nothing() {
    let (address, _) = fake(Behaviour::Answer).await;
    let client = client(&[&nowhere(), &nowhere(), &address]);
    for _ in 0..6 {
        let started = Instant::now();
        receive(&client).await.expect("an answer");
        assert!(started.elapsed() < HEDGE_AFTER, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_node_that_hangs_is_overtaken_once_and_then_asked_last() {
    let (stuck, stuck_fake) = fake(Behaviour::Hang).await;
    let (address, _) = fake(Behaviour::Answer).await;
    let client = client(&[&stuck, &address]);
    let mut slow = 0;
    for _ in 0..10 {
        let started = Instant::now();
        receive(&client).await.expect("an answer");
        assert!(started.elapsed() < ATTEMPT_TIMEOUT / 2, "{:?}", started.elapsed());
        slow += usize::from(started.elapsed() >= HEDGE_AFTER);
    }
    assert_eq!(slow, 1);
    // It is trusted again after it has answered.
    stuck_fake.hangs.store(false, Ordering::SeqCst);
    sleep(Duration::from_millis(600)).await;
    let before = stuck_fake.calls.load(Ordering::SeqCst);
    for _ in 0..4 {
        receive(&client).await.expect("an answer");
    }
    assert!(stuck_fake.calls.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_nobody_knows() {
    // It ends within the longest pause between two rounds over the nodes, far behind the last: what is under way then may have got
    // through, and is told as such.
    let patience = Duration::from_millis(900);
    let gone = Client::new(&[nowhere(), nowhere()], patience).expect("well formed");
    assert!(matches!(receive(&gone).await, Err(CallError::Unreachable { addresses }) if addresses.len() == 2));

    let (stuck, _) = fake(Behaviour::Hang).await;
    let hanging = Client::new(&[stuck], patience).expect("well formed");
    assert!(matches!(receive(&hanging).await, Err(CallError::Unknown { .. })));

    let (failing, _) = fake(Behaviour::Fail(usize::MAX, Code::Unavailable)).await;
    let unavailable = Client::new(&[failing], patience).expect("well formed");
    let error = receive(&unavailable).await.expect_err("no answer");
    assert!(matches!(error, CallError::Unknown { last: Some(status), .. } if status.message() == "planted"));
}
