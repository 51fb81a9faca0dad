//! Stand-in until the edge is merged.

/// Stand-in with the fields that are used.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct OrderLedger {
    pub(crate) order_id: String,
    pub(crate) captures: u32,
    pub(crate) captured_minor: i64,
    pub(crate) refunded_minor: i64,
}
