//! What is sent, and what counts as success.

use proto::{
    catalog::v1::{PutProductRequest, ReceiveStockRequest},
    common::v1::Money,
    gateway::v1::{command_request::Command, command_response::Result as Outcome},
    order::v1::{OrderLine, OrderStatus, PlaceOrderRequest},
};
use tonic::Code;

/// So much of each product is received at first that no order runs out of it.
const QUANTITY_RECEIVED: u64 = 1_000_000_000;
/// Lines of an order.
const LINES: u64 = 3;
/// Customers that orders are spread over.
const CUSTOMERS: u64 = 1_000;
/// A stride that visits items in no order that a cache would like.
const STRIDE: u64 = 7_919;

/// Commands by their number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Workload {
    /// Products and their stock, two commands for each.
    Stock,
    /// One delivery after the other, spread over items.
    Receive { items: u64 },
    /// Orders of three lines.
    Place { items: u64, no_wait: bool },
}

impl Workload {
    /// The command with this number.
    pub(crate) fn command(self, number: u64) -> Command {
        match self {
            Self::Stock if number.is_multiple_of(2) => Command::PutProduct(PutProductRequest {
                sku: sku(number / 2),
                name: format!("Product {}", number / 2),
                price: Some(Money {
                    minor: 99 + (number / 2 % 1_000) as i64,
                    currency: "GBP".to_owned(),
                }),
            }),
            Self::Stock => Command::ReceiveStock(ReceiveStockRequest {
                sku: sku(number / 2),
                quantity: QUANTITY_RECEIVED,
            }),
            Self::Receive { items } => Command::ReceiveStock(ReceiveStockRequest {
                sku: sku(number.wrapping_mul(STRIDE) % items),
                quantity: 1,
            }),
            Self::Place { items, no_wait } => Command::PlaceOrder(PlaceOrderRequest {
                customer_id: format!("C{}", number % CUSTOMERS),
                lines: (0..LINES)
                    .map(|line| OrderLine {
                        sku: sku((number.wrapping_mul(STRIDE) + line * (items / LINES)) % items),
                        quantity: 1 + (number % 3) as u32,
                        unit_price: None,
                    })
                    .collect(),
                no_wait,
                ..PlaceOrderRequest::default()
            }),
        }
    }

    /// Why this answer is no success, if it is none.
    pub(crate) fn fault(self, outcome: &Outcome) -> Option<String> {
        match (self, outcome) {
            (_, Outcome::Failure(failure)) => Some(format!("{:?}: {}", Code::from_i32(failure.code), failure.message)),
            (Self::Place { no_wait: false, .. }, Outcome::PlaceOrder(placed)) => {
                let order = placed.order.as_ref()?;
                let status = order.status();
                (status != OrderStatus::Confirmed).then(|| format!("{} {}", status.as_str_name(), order.reason))
            }
            _ => None,
        }
    }
}

pub(crate) fn sku(item: u64) -> String {
    format!("S{item}")
}
