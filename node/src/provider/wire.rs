//! What goes over the wire to and from the payment provider as JSON, beside the requests and answers themselves, which
//! stand in [`actors::payment::provider`].
//!
//! | call | request | answer |
//! | --- | --- | --- |
//! | `POST /v1/authorisations` | `Authorise` | 200 `Authorised`, 402 `Declined` |
//! | `POST /v1/captures` | `Capture` | 200 `Captured`, 409 `Refused` |
//! | `POST /v1/voids` | `Void` | 200 `Voided` |
//! | `POST /v1/refunds` | `Refund` | 200 `Refunded`, 409 `Refused` |
//! | `GET /v1/ledger` | | 200 [`LedgerPage`] |
//! | `GET`, `PUT /control` | [`Control`] | 200 [`Control`] |
//!
//! Everything else is a [`Problem`]: 400 for what is malformed or has no key, 422 for a key that was used for another
//! request, 503 and 504 on a bad day, 507 when the books are full.

use actors::{Currency, payment::provider::Request};
use serde::{Deserialize, Serialize};

/// The header with the idempotency key; required for every call that moves money.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The path of a request.
pub fn path_of(request: &Request) -> &'static str {
    match request {
        Request::Authorise { .. } => "/v1/authorisations",
        Request::Capture { .. } => "/v1/captures",
        Request::Void { .. } => "/v1/voids",
        Request::Refund { .. } => "/v1/refunds",
    }
}

/// The body of an answer to a call that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub error: String,
}

/// What moved for one order, over all of its authorisations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLedger {
    /// The order.
    pub order_id: String,
    /// What it is paid in; `XXX` where nothing was ever authorised.
    pub currency: Currency,
    /// Authorisations that were granted; more than one means that a card was asked twice.
    pub authorisations: u32,
    /// Calls that took money; more than one for an authorisation means that a card was charged twice.
    pub captures: u32,
    /// Reserved, in the smallest unit, voided amounts included.
    pub authorised_minor: i64,
    /// Taken.
    pub captured_minor: i64,
    /// Let go.
    pub voided_minor: i64,
    /// Given back.
    pub refunded_minor: i64,
}

/// `GET /v1/ledger?after=ORDER&limit=N`: orders in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The orders after the asked one.
    pub orders: Vec<OrderLedger>,
    /// Where the next page begins; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<String>,
}

/// `PUT /control`: what is given changes, the rest stays. `GET /control` shows all of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Every call is answered with 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<bool>,
    /// Every call hangs, as behind a dead line, and is answered with 504 at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang: Option<bool>,
    /// The part of calls, from 0 to 1, that is answered with 503; half of those take effect first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// How long an answer takes, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Amounts above this are declined; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline_over_minor: Option<i64>,
}
