//! What happens to an order.

use std::fmt;

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Line;
use crate::{
    ids::{CustomerId, ReturnId, Sku},
    money::Money,
};

/// What happened to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// It is placed; its checkout begins.
    Placed {
        /// Who wants it; nobody for a guest.
        customer: Option<CustomerId>,
        /// What is wanted.
        lines: Vec<Line>,
        /// What it costs.
        total: Money,
    },
    /// Everything is promised.
    Confirmed,
    /// It came to nothing.
    Refused {
        /// A word that machines know, a colon, and the detail.
        reason: String,
    },
    /// Stock is committed and money is taken.
    Settled,
    /// Stock is committed, but money could not be taken: the order is called off.
    SettledUnpaid {
        /// Why.
        reason: String,
    },
    /// It is called off; what was taken is still to be given back.
    CancelRequested {
        /// Why.
        reason: String,
    },
    /// Giving back has begun.
    GivingBack {
        /// What is given back.
        parts: Vec<Part>,
    },
    /// A part is given back.
    GivenBack {
        /// Which.
        part: Part,
    },
    /// A part could not be given back. It stays visible in the state.
    GiveBackFailed {
        /// Which.
        part: Part,
        /// Why.
        reason: String,
    },
    /// It is called off, and nothing is left to be given back.
    Cancelled,
    /// Pieces came back from the customer.
    LinesReturned {
        /// The return.
        return_id: ReturnId,
        /// From which lines.
        taken: Vec<Taken>,
        /// What they cost.
        refund: Money,
    },
    /// The return came to nothing: the pieces are the customer's again.
    ReturnUndone {
        /// The return.
        return_id: ReturnId,
    },
}

/// Pieces of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// The line's place in the order, from 0.
    pub line: usize,
    /// Pieces.
    pub quantity: u64,
}

/// A part of what a cancelled order gives back; also the token of the effect that does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Part {
    /// Money, to the customer.
    Refund {
        /// Names the intention to the payment.
        reference: String,
        /// How much.
        amount: Money,
    },
    /// Pieces, to the stock.
    Restock {
        /// Names the intention to the stock item.
        reference: String,
        /// The product.
        sku: Sku,
        /// Pieces.
        quantity: u64,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refund { reference, amount } => write!(f, "refund of {amount} as {reference}"),
            Self::Restock {
                reference,
                sku,
                quantity,
            } => write!(f, "restock of {quantity} {sku} as {reference}"),
        }
    }
}
