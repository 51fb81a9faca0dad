//! What an order can be told, what it answers, and why it says no.

use std::collections::BTreeMap;

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, Status};
use crate::{
    ids::{CustomerId, ReturnId, Sku},
    money::{Currency, Money},
    payment::Notice,
};

/// A line as it is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The product.
    pub sku: Sku,
    /// Pieces.
    pub quantity: u64,
    /// What one of them costs.
    pub unit_price: Money,
}

/// What an order can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Places the order and starts its checkout.
    Place {
        /// Who wants it; nobody for a guest.
        customer: Option<CustomerId>,
        /// What is wanted; a product may stand in several lines.
        lines: Vec<Line>,
        /// What it is paid in.
        currency: Currency,
        /// What it is paid with.
        card: String,
    },
    /// From the checkout: everything is promised.
    Confirm,
    /// From the checkout: it comes to nothing.
    Refuse {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
    /// From the checkout: stock is committed, and money is taken or could not be.
    Settle {
        /// Why the money could not be taken.
        unpaid: Option<String>,
    },
    /// Calls the order off. Saying it again changes nothing.
    Cancel {
        /// Why, for people.
        reason: String,
    },
    /// From a return: takes pieces back at the price that was paid. Saying it again changes nothing.
    ReturnLines {
        /// The return.
        return_id: ReturnId,
        /// Pieces of each product.
        lines: BTreeMap<Sku, u64>,
    },
    /// From a return that came to nothing: the pieces are the customer's again.
    UndoReturn {
        /// The return.
        return_id: ReturnId,
    },
    /// From the payment: what came of a refund.
    Payment(Notice),
    /// What came of giving a part back.
    PartAnswered {
        /// Which part.
        part: Part,
        /// What came of it.
        result: PartResult,
    },
}

/// What came of giving a part back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartResult {
    /// It is given back.
    Done,
    /// It is on its way; a notice follows.
    Underway,
    /// It could not be given back.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reply {
    /// Where the order stands after the command.
    Status(Status),
    /// The pieces are taken back.
    Returned {
        /// What they cost.
        refund: Money,
        /// Whether money and stock can go back at once. If not, the order tells the return when they can.
        settled: bool,
    },
}

/// Why an order says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// The id is no order id.
    #[error("the order id {reason}")]
    InvalidId {
        /// What is wrong with it.
        reason: String,
    },
    /// The id is taken.
    #[error("an order with this id is already placed; choose another id")]
    AlreadyPlaced,
    /// There is no such order.
    #[error("no order with this id was placed")]
    NotPlaced,
    /// Nothing is ordered.
    #[error("the order has no lines; order at least one product")]
    EmptyOrder,
    /// More than [`super::ORDER_LINES_MAX`].
    #[error("the order has {lines} lines; at most {max} are allowed")]
    TooManyLines {
        /// How many it has.
        lines: usize,
        /// The limit.
        max: usize,
    },
    /// A line of nothing.
    #[error("the quantity of {sku} is zero; it must be at least 1")]
    ZeroQuantity {
        /// The product.
        sku: Sku,
    },
    /// More than [`crate::QUANTITY_MAX`].
    #[error("the quantity of {sku} is {quantity}; at most {max} are allowed")]
    QuantityTooLarge {
        /// The product.
        sku: Sku,
        /// What was wanted.
        quantity: u64,
        /// The limit.
        max: u64,
    },
    /// Nobody is paid for taking a product.
    #[error("the price of {sku} is {price}; it must be zero or more")]
    NegativePrice {
        /// The product.
        sku: Sku,
        /// The price.
        price: Money,
    },
    /// A line in another currency than the order's.
    #[error("the price of {sku} is in {line}, but the order is in {order}; use one currency")]
    CurrencyMismatch {
        /// The product.
        sku: Sku,
        /// The line's currency.
        line: Currency,
        /// The order's currency.
        order: Currency,
    },
    /// The total cannot be counted.
    #[error("the order's total is too large to be counted")]
    TotalTooLarge,
    /// Longer than [`crate::payment::CARD_LEN_MAX`].
    #[error("the card is {len} bytes long; at most {max} are allowed")]
    CardTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Longer than [`crate::REASON_LEN_MAX`].
    #[error("the reason is {len} bytes long; at most {max} are allowed")]
    ReasonTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The order does not stand where the command is possible.
    #[error("not possible for an order that is {status}")]
    WrongStatus {
        /// Where it stands.
        status: Status,
    },
    /// The customer does not have so many.
    #[error("{wanted} of {sku} would come back, but only {held} of this order are with the customer")]
    NotHeld {
        /// The product.
        sku: Sku,
        /// How many could come back.
        held: u64,
        /// How many would.
        wanted: u64,
    },
    /// The return has taken other pieces back.
    #[error("this return has already taken other pieces back")]
    ReturnReused,
    /// More than [`super::ORDER_RETURNS_MAX`].
    #[error("the order has {max} returns, which is the limit")]
    TooManyReturns {
        /// The limit.
        max: usize,
    },
}
