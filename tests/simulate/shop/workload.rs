//! What customers and the warehouse do: orders over little stock, cancellations, returns, deliveries, pieces that break.

use std::collections::BTreeMap;

use actors::{
    Currency, CustomerId, Money, Sku,
    order::{self, Line, Order},
    returns::{self, Return},
    stock::{self, StockItem},
};
use cluster::simulation::{Rng, Step};

/// The products.
const SKUS: [&str; 3] = ["tea", "cup", "pot"];
/// Guests are nobody.
const CUSTOMERS: [&str; 3] = ["", "c-1", "c-2"];
/// Most cards are good; [`super::provider`] says what the others do.
const CARDS: [&str; 7] = ["4242", "4242", "4242", "4242", "declined", "unclear", "away"];
/// Pieces of each product at the beginning: less than what is wanted.
const DELIVERED: u64 = 14;

/// The step of that number.
pub(super) fn step(rng: &mut Rng, number: u64) -> Step {
    if let Some(sku) = SKUS.get(number as usize) {
        return Step::ask::<StockItem>(sku, stock::Command::Receive { quantity: DELIVERED });
    }
    match rng.below(10) {
        0..5 => place(rng, number),
        5..7 => {
            let reason = "changed my mind".to_owned();
            Step::ask::<Order>(&an_order(rng, number), order::Command::Cancel { reason })
        }
        7..9 => bring_back(rng, number),
        _ => warehouse(rng),
    }
}

fn place(rng: &mut Rng, number: u64) -> Step {
    let customer = rng.pick(&CUSTOMERS);
    let lines = (0..rng.between(1, 3)).map(|_| Line {
        sku: a_sku(rng),
        quantity: rng.between(1, 4),
        // Some things are free.
        unit_price: Money::new(rng.below(3) as i64 * 50, Currency::GBP),
    });
    let place = order::Command::Place {
        lines: lines.collect(),
        customer: (!customer.is_empty()).then(|| CustomerId::new(customer).expect("a customer")),
        currency: Currency::GBP,
        card: rng.pick(&CARDS).to_owned(),
    };
    Step::ask::<Order>(&format!("o-{number}"), place)
}

/// One that may have been placed.
fn an_order(rng: &mut Rng, number: u64) -> String {
    format!("o-{}", rng.between(number.saturating_sub(12), number))
}

fn bring_back(rng: &mut Rng, number: u64) -> Step {
    let mut lines = BTreeMap::new();
    for _ in 0..2 {
        *lines.entry(a_sku(rng)).or_insert(0) += rng.between(1, 3);
    }
    let customer = CustomerId::new(rng.pick(&CUSTOMERS[1..])).expect("a customer");
    let input = returns::Input { customer, lines };
    Step::ask::<Return>(&format!("r-{number}"), returns::Command::Start(input))
}

fn warehouse(rng: &mut Rng) -> Step {
    let command = if rng.chance(500) {
        stock::Command::Receive { quantity: 3 }
    } else {
        stock::Command::WriteOff {
            quantity: 1,
            reason: "broken".to_owned(),
        }
    };
    Step::ask::<StockItem>(rng.pick(&SKUS), command)
}

fn a_sku(rng: &mut Rng) -> Sku {
    Sku::new(rng.pick(&SKUS)).expect("a sku")
}
