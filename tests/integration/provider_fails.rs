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
    drop(
        cluster
            .run("order place --customer ann --line tea:1 --id outage-2 --no-wait")
            .await
            .ok(),
    );
    explained(&cluster, "outage-2").await;
    let order = refused(&cluster, "outage-1").await;
    assert!(
        order["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("payment_unavailable")),
        "{order:#}"
    );
    drop(refused(&cluster, "outage-2").await);
    let listed = cluster.run("saga list --state undone --json").await.ok().json();
    let keys: Vec<_> = listed["sagas"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|saga| &saga["key"])
        .collect();
    assert_eq!(keys.len(), 2, "{listed:#}");
    let text = cluster.run("saga explain checkout/outage-1").await.ok().stdout;
    assert!(
        text.contains("checkout/outage-1 is undone") && text.contains("turned back because of payment_unavailable"),
        "{text}"
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

/// A checkout that cannot charge says through whom it waits for the provider, until when, what comes next, and what undo would do.
async fn explained(cluster: &TestCluster, id: &str) {
    let ends = tokio::time::Instant::now() + REFUSED_WITHIN;
    let explained = loop {
        let explained = cluster.run(&format!("saga explain {id} --json")).await.ok().json();
        let links = explained["waiting"][0]["links"].as_array().cloned().unwrap_or_default();
        let to_provider = links.iter().find(|link| link["to_service"] == true);
        if to_provider.is_some_and(|link| link["attempts"] != 0 || link["trouble"] != "") {
            break explained;
        }
        assert_eq!(explained["state"], "running", "it was over before: {explained:#}");
        assert!(tokio::time::Instant::now() < ends, "{explained:#}");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        (&explained["key"], &explained["stage"]),
        (&json!(format!("checkout/{id}")), &json!("authorise"))
    );
    let step = &explained["waiting"][0];
    assert_eq!(step["target"], format!("payment/{id}"));
    let links = step["links"].as_array().expect("a list");
    let path: Vec<_> = links
        .iter()
        .map(|link| link["to"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        path,
        [format!("payment/{id}").as_str(), "payment-provider"],
        "{explained:#}"
    );
    assert_eq!(links[0]["timers"][0]["name"], "deadline", "{explained:#}");
    let names = |stages: &Value| -> Vec<String> {
        let stages = stages.as_array().expect("a list").iter();
        stages
            .map(|stage| stage["stage"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&explained["next"]), ["record", "confirm", "commit", "capture"]);
    assert_eq!(names(&explained["undo"]), ["authorise", "reserve", "place"]);
    let sentences = explained["sentences"].to_string();
    assert!(
        sentences.contains(&format!("It waits for authorise, asked of payment/{id}.")),
        "{sentences}"
    );
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
