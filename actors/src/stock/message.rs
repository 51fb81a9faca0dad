//! What a stock item can be told, what happens to it, and why it says no.

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

/// What a stock item can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Takes in a delivery.
    Receive {
        /// Pieces.
        quantity: u64,
    },
    /// Promises pieces to an order. Saying it again for the same order and quantity changes nothing.
    Reserve {
        /// For whom.
        order: OrderId,
        /// Pieces; all lines of the order together.
        quantity: u64,
    },
    /// Takes the promise back. Without a promise there is nothing to do, which is accepted.
    Release {
        /// Whose promise.
        order: OrderId,
    },
    /// Makes the promise good: the pieces are sold.
    Commit {
        /// Whose promise.
        order: OrderId,
    },
    /// Takes sold pieces back on hand.
    Restock {
        /// The return or the cancelled order that they come from.
        reference: String,
        /// Pieces.
        quantity: u64,
    },
    /// Takes pieces out of what is on hand for good.
    WriteOff {
        /// Pieces.
        quantity: u64,
        /// Why, for people.
        reason: String,
    },
    /// From the item's own timer: some reservations may have been held for their time.
    Expire,
    /// From the checkout of an order whose reservation has been held for its time.
    CheckoutSaid {
        /// Whose reservation.
        order: OrderId,
        /// Nobody wants it any more.
        is_over: bool,
    },
}

/// What the item waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Token {
    /// The time of its timer.
    Expiry,
    /// What a checkout says about its reservation.
    Asked {
        /// Whose reservation.
        order: OrderId,
    },
}

/// What happened to a stock item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// A delivery came in.
    Received {
        /// Pieces.
        quantity: u64,
    },
    /// Pieces are promised.
    Reserved {
        /// To whom.
        order: OrderId,
        /// Pieces.
        quantity: u64,
        /// Until when, in milliseconds since 1970; `None` for ever, as reservations once were.
        #[serde(default)]
        expires_ms: Option<u64>,
    },
    /// A promise was taken back.
    Released {
        /// Whose.
        order: OrderId,
        /// Pieces.
        quantity: u64,
    },
    /// Promised pieces are sold.
    Committed {
        /// To whom.
        order: OrderId,
        /// Pieces.
        quantity: u64,
    },
    /// Sold pieces came back.
    Restocked {
        /// The return or the cancelled order that they come from.
        reference: String,
        /// Pieces.
        quantity: u64,
    },
    /// Pieces are gone for good.
    WrittenOff {
        /// Pieces.
        quantity: u64,
        /// Why, for people.
        reason: String,
    },
    /// Promises have been held for their time; the orders' checkouts are asked whether they still want them.
    HeldForItsTime {
        /// Whose.
        orders: Vec<OrderId>,
        /// When they are asked again, in milliseconds since 1970.
        again_ms: u64,
    },
}

/// How many pieces are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Levels {
    /// Can be reserved.
    pub on_hand: u64,
    /// Promised to orders whose checkout has not ended.
    pub reserved: u64,
    /// Belongs to confirmed orders.
    pub sold: u64,
    /// Damaged or lost.
    pub written_off: u64,
    /// All that ever came in.
    pub received: u64,
}

impl Levels {
    /// Each event moves pieces from one place to another; `decide` has made sure that they are there.
    #[must_use]
    pub(super) fn after(mut self, event: &Event) -> Self {
        match event {
            Event::Received { quantity } => {
                self.received += quantity;
                self.on_hand += quantity;
            }
            Event::Reserved { quantity, .. } => {
                self.on_hand -= quantity;
                self.reserved += quantity;
            }
            Event::Released { quantity, .. } => {
                self.reserved -= quantity;
                self.on_hand += quantity;
            }
            Event::Committed { quantity, .. } => {
                self.reserved -= quantity;
                self.sold += quantity;
            }
            Event::Restocked { quantity, .. } => {
                self.sold -= quantity;
                self.on_hand += quantity;
            }
            Event::WrittenOff { quantity, .. } => {
                self.on_hand -= quantity;
                self.written_off += quantity;
            }
            Event::HeldForItsTime { .. } => {}
        }
        self
    }
}

/// The item as it is after the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// How many pieces are where.
    pub levels: Levels,
    /// The number of events so far.
    pub version: u64,
}

/// Why a stock item says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// Nothing is to be moved.
    #[error("the quantity is zero; it must be at least 1")]
    ZeroQuantity,
    /// More than a delivery may have, or than can be counted.
    #[error("the quantity {quantity} is too large; at most {max} can be taken in")]
    QuantityTooLarge {
        /// What was wanted.
        quantity: u64,
        /// The most that can be.
        max: u64,
    },
    /// There is not enough.
    #[error("{wanted} wanted, but only {on_hand} on hand")]
    OutOfStock {
        /// What is there.
        on_hand: u64,
        /// What was wanted.
        wanted: u64,
    },
    /// The order holds another quantity already.
    #[error("the order already holds {held} of this; release them first")]
    AlreadyReserved {
        /// What it holds.
        held: u64,
    },
    /// More orders than [`super::RESERVATIONS_MAX`] hold a reservation.
    #[error("{max} orders hold a reservation at the moment; try again later")]
    TooManyReservations {
        /// The limit.
        max: usize,
    },
    /// The order holds nothing that could be sold to it.
    #[error("the order holds no reservation")]
    UnknownReservation,
    /// More would come back than was ever sold.
    #[error("{wanted} would come back, but only {sold} are sold")]
    NotSold {
        /// What is sold.
        sold: u64,
        /// What would come back.
        wanted: u64,
    },
    /// Longer than [`crate::REASON_LEN_MAX`].
    #[error("the reason is {len} bytes long; at most {max} are allowed")]
    ReasonTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}
