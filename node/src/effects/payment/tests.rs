//! The policy on the wire: against the real provider, and against servers that misbehave in ways it cannot.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use actors::Currency;
use axum::{Router, http::HeaderMap, routing::post};
use cluster::{
    TraceContext,
    supervision::{self, Phase},
};
use tokio::net::TcpListener;

use super::*;
use crate::provider::{self, client, wire::Control};

/// On a port that nobody else takes once it is dropped.
async fn listen() -> (TcpListener, String) {
    let address = cluster::local::free_addresses(1)[0];
    let listener = TcpListener::bind(address).await.expect("a free port");
    (listener, format!("http://{address}"))
}

async fn real_provider() -> String {
    let (listener, url) = listen().await;
    let options = provider::Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        latency_ms: 0,
        decline_over_minor: Some(100_000),
        data: None,
        spans_to: Vec::new(),
    };
    tokio::spawn(async move { provider::serve(listener, &options, std::future::pending()).await });
    url
}

/// A server that counts calls and answers each with this status.
async fn answering(status: StatusCode) -> (String, Arc<AtomicU32>) {
    let (listener, url) = listen().await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let answer = move |_: HeaderMap| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { (status, [(header::RETRY_AFTER, "7")], "?") }
    };
    let app = Router::new().route("/v1/{*path}", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, calls)
}

fn service(url: &str, change: impl FnOnce(&mut Policy)) -> PaymentProvider {
    supervised(url, change, |_| {})
}

fn supervised(
    url: &str,
    change: impl FnOnce(&mut Policy),
    supervise: impl FnOnce(&mut supervision::Policy),
) -> PaymentProvider {
    let mut policy = Policy::new(url);
    change(&mut policy);
    let mut supervised = supervision::Policy::OUTSIDE;
    supervise(&mut supervised);
    let guard = Guard::new(actors::payment::provider::SERVICE, supervised);
    PaymentProvider::new(policy, guard).expect("a client")
}

/// Where the breaker stands, and the failures in a row.
fn breaker(service: &PaymentProvider) -> (Phase, u32) {
    let state = service.guard().state();
    (state.phase, state.failures)
}

fn call(effect: &str, request: &Request) -> ServiceCall {
    ServiceCall {
        effect_id: effect.to_owned(),
        attempt: 0,
        recorded_at_ms: now_ms(),
        request: serde_json::to_vec(request).expect("JSON").into(),
        trace: TraceContext::random(false),
    }
}

fn authorise(order: &str, amount_minor: i64) -> Request {
    Request::Authorise {
        order: order.to_owned(),
        amount_minor,
        currency: Currency::GBP,
        card: "4242424242424242".to_owned(),
    }
}

fn capture() -> Request {
    Request::Capture {
        authorisation: "auth-1".to_owned(),
        amount_minor: 1,
        currency: Currency::GBP,
    }
}

async fn answer(service: &PaymentProvider, call: ServiceCall) -> Answer {
    let body = service.call(call).await.expect("an answer");
    serde_json::from_slice(&body).expect("an answer")
}

async fn later(service: &PaymentProvider, call: ServiceCall) -> (Duration, String) {
    match service.call(call).await {
        Err(CallError::Later { after, reason }) => (after, reason),
        other => panic!("not later: {other:?}"),
    }
}

fn old(mut call: ServiceCall) -> ServiceCall {
    call.recorded_at_ms -= 15_000;
    call
}

#[tokio::test]
async fn a_payment_goes_its_way_and_a_repetition_takes_effect_once() {
    let url = real_provider().await;
    let service = service(&url, |_| {});
    let first = answer(&service, call("payment/é 1#0", &authorise("é 1", 765))).await;
    let Answer::Authorised { authorisation } = first.clone() else {
        panic!("not authorised: {first:?}");
    };
    assert_eq!(
        answer(&service, call("payment/é 1#0", &authorise("é 1", 765))).await,
        first
    );
    let capture = Request::Capture {
        authorisation,
        amount_minor: 765,
        currency: Currency::GBP,
    };
    for _ in 0..3 {
        assert_eq!(
            answer(&service, call("payment/é 1#1", &capture)).await,
            Answer::Captured
        );
    }
    assert!(matches!(
        answer(&service, call("2", &authorise("2", 100_001))).await,
        Answer::Declined { .. }
    ));
    assert!(matches!(
        answer(&service, call("3", &self::capture())).await,
        Answer::Refused { .. }
    ));
    let ledger = client::ledger(&url).await.expect("a ledger");
    assert_eq!((ledger[0].captures, ledger[0].captured_minor), (1, 765));
}

#[tokio::test]
async fn lost_answers_charge_nobody_twice() {
    let url = real_provider().await;
    let service = supervised(
        &url,
        |policy| policy.retries_per_s_min = 10_000.try_into().expect("not 0"),
        |policy| policy.breaker_failures_max = 1_000,
    );
    let half_fail = Control {
        error_rate: Some(0.5),
        ..Control::default()
    };
    client::control(&url, &half_fail).await.expect("changed");
    for order in 0..50 {
        let order = format!("o{order:02}");
        let mut reference = String::new();
        for step in 0..2 {
            let request = match step {
                0 => authorise(&order, 100),
                _ => Request::Capture {
                    authorisation: reference.clone(),
                    amount_minor: 100,
                    currency: Currency::GBP,
                },
            };
            let mut call = call(&format!("{order}#{step}"), &request);
            let body = loop {
                match service.call(call.clone()).await {
                    Ok(body) => break body,
                    Err(CallError::Later { .. }) => call.attempt += 1,
                    Err(CallError::GivenUp(reason)) => panic!("given up: {reason}"),
                }
            };
            if let Ok(Answer::Authorised { authorisation }) = serde_json::from_slice(&body) {
                reference = authorisation;
            }
        }
    }
    let ledger = client::ledger(&url).await.expect("a ledger");
    assert_eq!(ledger.len(), 50);
    assert!(
        ledger
            .iter()
            .all(|order| (order.authorisations, order.captures) == (1, 1))
    );
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_then_nothing_touches_the_network() {
    let (url, calls) = answering(StatusCode::SERVICE_UNAVAILABLE).await;
    let service = service(&url, |_| {});
    for effect in 0..20 {
        later(&service, call(&effect.to_string(), &capture())).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    assert_eq!(breaker(&service).0, Phase::Open);
    let (after, reason) = later(&service, call("20", &capture())).await;
    assert!(reason.contains("breaker"));
    assert!(
        (Duration::from_secs(50)..=Duration::from_mins(1)).contains(&after),
        "{after:?}"
    );
}

#[tokio::test]
async fn one_call_probes_and_closes_the_breaker() {
    let url = real_provider().await;
    let service = Arc::new(supervised(&url, |_| {}, |policy| policy.breaker_open_ms = 100));
    let outage = |on| Control {
        outage: Some(on),
        latency_ms: Some(50),
        ..Control::default()
    };
    client::control(&url, &outage(true)).await.expect("changed");
    for effect in 0..5 {
        later(&service, call(&effect.to_string(), &capture())).await;
    }
    assert_eq!(breaker(&service).0, Phase::Open);
    client::control(&url, &outage(false)).await.expect("changed");
    tokio::time::sleep(Duration::from_millis(150)).await;

    let calls: Vec<_> = (0..10)
        .map(|order| {
            let service = Arc::clone(&service);
            tokio::spawn(async move {
                let order = format!("p{order}");
                service.call(call(&order, &authorise(&order, 1))).await
            })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        answered += u32::from(call.await.expect("no panic").is_ok());
    }
    assert_eq!(answered, 1);
    assert_eq!(breaker(&service).0, Phase::Closed);
}

#[tokio::test]
async fn with_refuse_an_authorisation_is_given_up_in_time_and_nothing_else_ever() {
    let (url, _) = answering(StatusCode::SERVICE_UNAVAILABLE).await;
    let service = service(&url, |_| {});
    let (after, _) = later(&service, call("1", &authorise("1", 1))).await;
    assert!(after <= Duration::from_secs(15));
    let given_up = service.call(old(call("1", &authorise("1", 1)))).await;
    assert_eq!(given_up, Err(CallError::GivenUp(GIVEN_UP.to_owned())));
    later(&service, old(call("2", &capture()))).await;
    later(&service, old(call("3", &Request::Void { order: "1".to_owned() }))).await;
}

#[tokio::test]
async fn with_refuse_an_open_breaker_does_not_hold_an_authorisation_beyond_its_time() {
    let (url, _) = answering(StatusCode::SERVICE_UNAVAILABLE).await;
    let service = service(&url, |_| {});
    for effect in 0..5 {
        later(&service, call(&effect.to_string(), &capture())).await;
    }
    let (after, _) = later(&service, call("6", &authorise("1", 1))).await;
    assert!(after <= Duration::from_secs(15), "{after:?}");
}

#[tokio::test]
async fn with_wait_an_authorisation_waits_however_long_it_takes() {
    let (url, _) = answering(StatusCode::SERVICE_UNAVAILABLE).await;
    let service = service(&url, |policy| policy.when_down = WhenDown::Wait);
    later(&service, old(call("1", &authorise("1", 1)))).await;
}

#[tokio::test]
async fn a_provider_that_says_nothing_is_left_after_the_time_out() {
    let (listener, url) = listen().await;
    let service = service(&url, |policy| policy.timeout_ms = 50);
    let (_, reason) = later(&service, call("1", &capture())).await;
    assert!(reason.contains("no answer in time"), "{reason}");
    assert_eq!(breaker(&service).1, 1);
    drop(listener);
    let (_, reason) = later(&service, call("1", &capture())).await;
    assert!(
        reason.contains("cannot connect") || reason.contains("broke"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_provider_that_slows_us_down_is_no_failure_and_is_obeyed() {
    let (url, calls) = answering(StatusCode::TOO_MANY_REQUESTS).await;
    let service = service(&url, |_| {});
    for effect in 0..10 {
        let (after, _) = later(&service, call(&effect.to_string(), &capture())).await;
        assert_eq!(after, Duration::from_secs(7));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 10);
    assert_eq!(breaker(&service).0, Phase::Closed);
}

#[tokio::test]
async fn repetitions_stop_when_their_budget_is_spent() {
    let (url, calls) = answering(StatusCode::TOO_MANY_REQUESTS).await;
    let service = service(&url, |policy| policy.retries_per_s_min = 1.try_into().expect("not 0"));
    let mut repeated = call("1", &capture());
    repeated.attempt = 3;
    for _ in 0..10 {
        later(&service, repeated.clone()).await;
    }
    assert!(calls.load(Ordering::SeqCst) <= 2);
}
