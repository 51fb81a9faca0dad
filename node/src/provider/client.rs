//! What `verify` and the tests ask of a provider: its ledger, and its switches.

use std::time::Duration;

use super::wire::{Control, LedgerPage, OrderLedger};

/// How long one page may take.
const PAGE_TIMEOUT_MS: u64 = 10_000;

/// What moved for every order, in the order of their ids.
pub async fn ledger(url: &str) -> Result<Vec<OrderLedger>, reqwest::Error> {
    let client = client()?;
    let (mut orders, mut after): (_, Option<String>) = (Vec::new(), None);
    loop {
        let request = client.get(format!("{}/v1/ledger", url.trim_end_matches('/')));
        let page: LedgerPage = match &after {
            Some(after) => request.query(&[("after", after)]),
            None => request,
        }
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
        orders.extend(page.orders);
        after = page.next_after;
        if after.is_none() {
            return Ok(orders);
        }
    }
}

/// Changes the provider's switches and gives all of them back.
pub async fn control(url: &str, change: &Control) -> Result<Control, reqwest::Error> {
    let request = client()?.put(format!("{}/control", url.trim_end_matches('/')));
    request.json(change).send().await?.error_for_status()?.json().await
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(Duration::from_millis(PAGE_TIMEOUT_MS))
        .build()
}
