//! The provider on the wire, as clients see it.

use std::path::Path;

use actors::{
    Currency,
    payment::provider::{Answer, Request},
};
use reqwest::{Response, StatusCode};
use serde_json::json;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    wire::{Control, IDEMPOTENCY_KEY, path_of},
    *,
};

struct Running {
    url: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

async fn start(data: Option<&Path>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let options = Options {
        spans_to: Vec::new(),
        listen: address,
        latency_ms: 0,
        decline_over_minor: None,
        data: data.map(Path::to_owned),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let told = async move {
            let _ = stopped.await;
        };
        serve(listener, &options, told).await
    });
    Running {
        url: format!("http://{address}"),
        stop,
        served,
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.served.await.expect("no panic").expect("stopped");
    }

    async fn post(&self, path: &str, key: Option<&str>, body: impl Into<reqwest::Body>) -> Response {
        let mut request = reqwest::Client::new()
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        request.send().await.expect("an answer")
    }

    async fn call(&self, key: &str, request: &Request) -> (StatusCode, Answer) {
        let body = serde_json::to_vec(request).expect("JSON");
        let response = self.post(path_of(request), Some(key), body).await;
        (response.status(), response.json().await.expect("an answer"))
    }
}

fn authorise(order: &str, card: &str) -> Request {
    Request::Authorise {
        order: order.to_owned(),
        amount_minor: 500,
        currency: Currency::GBP,
        card: card.to_owned(),
    }
}

fn capture(authorisation: &str) -> Request {
    Request::Capture {
        authorisation: authorisation.to_owned(),
        amount_minor: 500,
        currency: Currency::GBP,
    }
}

#[tokio::test]
async fn what_is_not_a_proper_call_is_refused_with_its_status() {
    let provider = start(None).await;
    let good = serde_json::to_vec(&authorise("1", "4242")).expect("JSON");
    let status = |path, key, body: Vec<u8>| {
        let provider = &provider;
        async move { provider.post(path, key, body).await.status() }
    };
    let path = "/v1/authorisations";
    assert_eq!(status(path, None, good.clone()).await, 400);
    assert_eq!(status(path, Some(""), good.clone()).await, 400);
    assert_eq!(status(path, Some("k"), b"{".to_vec()).await, 400);
    assert_eq!(status(path, Some("k"), b"\xff\xfe".to_vec()).await, 400);
    assert_eq!(
        status(path, Some("k"), br#"{"operation":"authorise"}"#.to_vec()).await,
        400
    );
    assert_eq!(status("/v1/captures", Some("k"), good.clone()).await, 400);
    assert_eq!(status("/v1/nothing", Some("k"), good.clone()).await, 404);
    assert_eq!(status(path, Some("k"), vec![b' '; 10 << 20]).await, 413);
    assert_eq!(status(path, Some("k"), good.clone()).await, 200);
    assert_eq!(status(path, Some("k"), good).await, 200);
    let other = serde_json::to_vec(&authorise("2", "4242")).expect("JSON");
    assert_eq!(status(path, Some("k"), other).await, 422);
}

#[tokio::test]
async fn declines_and_refusals_have_their_own_status() {
    let provider = start(None).await;
    let (status, answer) = provider.call("1", &authorise("1", "4000000000009995")).await;
    assert_eq!(status, 402);
    let reason = "insufficient funds".to_owned();
    assert_eq!(answer, Answer::Declined { reason });
    let (status, answer) = provider.call("2", &capture("auth-7")).await;
    assert_eq!(status, 409);
    assert!(matches!(answer, Answer::Refused { .. }));
}

#[tokio::test]
async fn the_switches_do_what_they_say() {
    let provider = start(None).await;
    let outage = Control {
        outage: Some(true),
        ..Control::default()
    };
    let shown = client::control(&provider.url, &outage).await.expect("changed");
    assert_eq!((shown.outage, shown.latency_ms), (Some(true), Some(0)));
    let body = serde_json::to_vec(&authorise("1", "4242")).expect("JSON");
    let response = provider.post("/v1/authorisations", Some("k"), body).await;
    assert_eq!(response.status(), 503);
    assert!(client::ledger(&provider.url).await.expect("a ledger").is_empty());
    for wrong in [
        json!({"error_rate": 2}),
        json!({"unheard_of": true}),
        json!({"latency_ms": -1}),
    ] {
        let put = reqwest::Client::new()
            .put(format!("{}/control", provider.url))
            .json(&wrong);
        assert_eq!(put.send().await.expect("an answer").status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_ledger_survives_a_restart_and_a_torn_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("ledger.jsonl");
    let provider = start(Some(&data)).await;
    let (_, answer) = provider.call("a", &authorise("1", "4242")).await;
    let Answer::Authorised { authorisation } = answer else {
        panic!("not authorised: {answer:?}");
    };
    provider.call("b", &capture(&authorisation)).await;
    let before = client::ledger(&provider.url).await.expect("a ledger");
    provider.stop().await;
    let mut torn = std::fs::read(&data).expect("the file");
    torn.extend_from_slice(br#"{"key":"c","requ"#);
    std::fs::write(&data, torn).expect("written");

    let provider = start(Some(&data)).await;
    assert_eq!(client::ledger(&provider.url).await.expect("a ledger"), before);
    assert_eq!(provider.call("b", &capture(&authorisation)).await.1, Answer::Captured);
    provider.call("c", &authorise("2", "4242")).await;
    provider.stop().await;

    let provider = start(Some(&data)).await;
    let after = client::ledger(&provider.url).await.expect("a ledger");
    assert_eq!((after.len(), after[0].captures), (2, 1));
    provider.stop().await;

    std::fs::write(&data, "not a ledger\n").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let options = Options {
        spans_to: Vec::new(),
        listen: listener.local_addr().expect("bound"),
        latency_ms: 0,
        decline_over_minor: None,
        data: Some(data),
    };
    let refused = serve(listener, &options, std::future::pending()).await;
    assert!(refused.expect_err("no ledger").to_string().contains("line 1"));
}
