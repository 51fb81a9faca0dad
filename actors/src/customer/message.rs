//! What a customer can be told, what happens, and why it says no.

use std::collections::{BTreeMap, BTreeSet};

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{OrderId, ReturnId, Sku},
    money::Currency,
};

/// Which quantities of which products are returned against which order.
pub type Allocation = BTreeMap<OrderId, BTreeMap<Sku, u64>>;

/// What a customer can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Remembers an order. Saying it again changes nothing.
    RecordOrder {
        /// The order.
        order: OrderId,
        /// What it holds.
        lines: BTreeMap<Sku, u64>,
        /// What it is paid in.
        currency: Currency,
    },
    /// Forgets an order that came to nothing, or was cancelled.
    ForgetOrder {
        /// The order.
        order: OrderId,
    },
    /// Finds the orders that a return is taken back against, and sets the quantities aside.
    AllocateReturn {
        /// The return; saying it again gives the same allocation.
        return_id: ReturnId,
        /// What comes back.
        lines: BTreeMap<Sku, u64>,
        /// Orders that have said no to this return.
        except: BTreeSet<OrderId>,
    },
    /// The return came to nothing: what was set aside can be returned again.
    ReleaseReturn {
        /// The return.
        return_id: ReturnId,
    },
}

/// What happened to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// An order is remembered.
    OrderRecorded {
        /// The order.
        order: OrderId,
        /// What it holds.
        lines: BTreeMap<Sku, u64>,
        /// What it is paid in.
        currency: Currency,
    },
    /// An order is forgotten.
    OrderForgotten {
        /// The order.
        order: OrderId,
    },
    /// Quantities are set aside for a return.
    ReturnAllocated {
        /// The return.
        return_id: ReturnId,
        /// What is set aside.
        allocation: Allocation,
    },
    /// What was set aside can be returned again.
    ReturnReleased {
        /// The return.
        return_id: ReturnId,
    },
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reply {
    /// It is so.
    Noted,
    /// The return goes against these orders.
    Allocated {
        /// By order.
        allocation: Allocation,
    },
}

/// Why a customer says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// The customer's latest orders hold too few of a product.
    #[error("{wanted} of {sku} are to be returned, but the latest orders hold {held}")]
    NothingToReturn {
        /// The product.
        sku: Sku,
        /// What was to come back.
        wanted: u64,
        /// What can come back.
        held: u64,
    },
}
