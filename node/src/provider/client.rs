//! Stand-in until the edge is merged.

use super::wire::OrderLedger;

/// Stand-in with the signature of the real one.
pub(crate) async fn ledger(url: &str) -> Result<Vec<OrderLedger>, reqwest::Error> {
    reqwest::get(url).await?.json().await
}
