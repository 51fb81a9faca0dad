//! The payment provider loses answers, and then is gone: nobody is charged twice, and orders are refused rather than lost.

use std::{fs, time::Duration};

use harness::{TestCluster, invoices};
use serde_json::{Value, json};
use tokio::time::sleep;

/// One call in ten fails, half of them after they took effect.
const ERROR_RATE: f64 = 0.1;
/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u64 = 5;
/// An authorisation is given up after 15 s; the order is undone right after that.
const REFUSED_WITHIN: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_charged_twice_by_a_provider_that_fails() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let made_up = invoices(60);
    let file = cluster.scratch("invoices.csv");
    fs::write(&file, &made_up.csv).expect("the file can be written");

    control(&cluster, json!({"error_rate": ERROR_RATE})).await;
    let shop = ["shop", "--json", "--orders", file.to_str().expect("is UTF-8")];
    let report = cluster.run_words(&shop).await.ok().json();
    assert_eq!(report["orders"]["confirmed"], made_up.orders, "{report:#}");
    assert_eq!(report["captured_minor"], made_up.total_minor);
    cluster.verify().await;

    drop(cluster.run("product put tea --name Tea --price 2.50").await.ok());
    drop(cluster.run("stock receive tea 10").await.ok());
    control(&cluster, json!({"error_rate": 0.0, "outage": true})).await;
    // The answer comes with the deadline, whatever has become of the order by then.
    drop(
        cluster
            .run("order place --customer ann --line tea:1 --id outage-1")
            .await,
    );
    assert!(most_failures(&cluster.run("status --json").await.ok().json()) >= FAILURES_TO_OPEN);
    let order = refused(&cluster, "outage-1").await;
    assert!(
        order["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("payment_unavailable")),
        "{order:#}"
    );
    control(&cluster, json!({"outage": false})).await;
    let stock = cluster.run("stock show tea --json").await.ok().json();
    assert_eq!(
        (&stock["on_hand"], &stock["reserved"]),
        (&json!(10), &json!(0)),
        "{stock:#}"
    );
}

async fn control(cluster: &TestCluster, switches: Value) {
    let url = format!("{}/control", cluster.provider());
    let answer = reqwest::Client::new().put(url).json(&switches).send().await;
    let answer = answer.expect("the provider answers");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The failures in a row of the breaker that has most of them, which must be open.
fn most_failures(status: &Value) -> u64 {
    let breakers = status["breakers"].as_array().expect("a list");
    let open = breakers.iter().filter(|breaker| breaker["state"] != "closed");
    open.filter_map(|breaker| breaker["failures"].as_u64())
        .max()
        .unwrap_or_default()
}

async fn refused(cluster: &TestCluster, id: &str) -> Value {
    let ends = tokio::time::Instant::now() + REFUSED_WITHIN;
    loop {
        let order = cluster.run(&format!("order show {id} --json")).await.ok().json();
        if order["status"] == "refused" {
            return order;
        }
        assert!(tokio::time::Instant::now() < ends, "{order:#}");
        sleep(Duration::from_millis(200)).await;
    }
}
