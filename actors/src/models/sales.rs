//! What was sold: for each product, in all and by day, and the money that was taken and given back.
//!
//! An order counts when it is confirmed. What is returned, or called off after that, is counted beside it and not taken out of it.
//! Amounts are in smallest units; a sum beyond 64 bits stays at the largest value.

use std::collections::BTreeMap;

use cluster::{
    Entity as _, ProjectedEvent, Projection, Rows,
    projection::{key, last_part, prefix},
};
use serde::{Deserialize, Serialize};

use super::day;
use crate::{
    ids::Sku,
    money::{Currency, Money},
    order::{self, Line, Order, Taken},
    payment::{self, Payment},
};

/// The most products of one answer.
pub const PRODUCTS_LEN_MAX: u32 = 1_000;

/// The projection `sales`.
#[derive(Debug)]
pub struct Sales;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// One product.
    Product {
        /// Which.
        sku: Sku,
    },
    /// The products that sell best.
    Top {
        /// By what.
        by: By,
        /// Those that are sold in this currency.
        currency: Currency,
        /// So many, at most [`PRODUCTS_LEN_MAX`].
        limit: u32,
    },
    /// All products of one day.
    Day {
        /// As `2026-11-21`, in UTC.
        day: String,
    },
    /// The money that was taken and given back, day by day.
    Money {
        /// From this day on,
        from: Option<String>,
        /// up to this day.
        to: Option<String>,
    },
}

/// What the best sellers are sorted by; returned and called-off pieces do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Pieces.
    Units,
    /// Money.
    Money,
}

/// An answer, and each shard's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Products, in the order that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<ProductSales>,
    /// Days, the earliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub money: Vec<DayMoney>,
}

/// A product in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductSales {
    /// The product.
    pub sku: String,
    /// The currency of the amounts.
    pub currency: String,
    /// What was sold of it.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What was sold of a product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Pieces of confirmed orders,
    pub units_sold: u64,
    /// and what they cost, in smallest units.
    pub sold_minor: i64,
    /// Pieces that came back by returns.
    pub units_returned: u64,
    /// What they cost.
    pub returned_minor: i64,
    /// Pieces of orders that were called off after they were confirmed.
    pub units_cancelled: u64,
    /// What they cost.
    pub cancelled_minor: i64,
}

/// The money of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayMoney {
    /// As `2026-11-21`, in UTC.
    pub day: String,
    /// The currency of the amounts.
    pub currency: String,
    /// Payments, and what came of them.
    #[serde(flatten)]
    pub taken: TakenMoney,
}

/// What payments brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenMoney {
    /// Payments that were taken,
    pub captured: u64,
    /// and how much that was, in smallest units.
    pub captured_minor: i64,
    /// Refunds that were done.
    pub refunded: u64,
    /// How much that was.
    pub refunded_minor: i64,
}

/// What is remembered of an order, so that its later events can be counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Ordered {
    lines: Vec<Line>,
    /// Its pieces count as sold.
    is_sold: bool,
    returns: BTreeMap<String, (String, Vec<Taken>)>,
}

impl Figures {
    /// Pieces that were sold and stayed so.
    pub fn net_units(&self) -> u64 {
        self.units_sold
            .saturating_sub(self.units_returned.saturating_add(self.units_cancelled))
    }

    /// What they cost.
    pub fn net_minor(&self) -> i64 {
        self.sold_minor
            .saturating_sub(self.returned_minor.saturating_add(self.cancelled_minor))
    }

    fn add(&mut self, other: &Self) {
        self.units_sold = self.units_sold.saturating_add(other.units_sold);
        self.sold_minor = self.sold_minor.saturating_add(other.sold_minor);
        self.units_returned = self.units_returned.saturating_add(other.units_returned);
        self.returned_minor = self.returned_minor.saturating_add(other.returned_minor);
        self.units_cancelled = self.units_cancelled.saturating_add(other.units_cancelled);
        self.cancelled_minor = self.cancelled_minor.saturating_add(other.cancelled_minor);
    }
}

/// What a number of pieces of a line costs.
fn cost(line: &Line, quantity: u64) -> i64 {
    let quantity = i64::try_from(quantity).unwrap_or(i64::MAX);
    line.unit_price.minor.saturating_mul(quantity)
}

/// Changes the figures of a line's product, in all and for one day.
fn count(rows: &mut Rows<'_>, day: &str, line: &Line, change: impl Fn(&mut Figures)) {
    let currency = line.unit_price.currency;
    rows.update(key(["product", &line.sku, currency.as_str()]), &change);
    rows.update(key(["day", day, &line.sku, currency.as_str()]), &change);
}

fn apply_order(rows: &mut Rows<'_>, id: &str, day: &str, event: order::Event) {
    let order_key = key(["order", id]);
    if let order::Event::Placed { lines, .. } = event {
        let ordered = Ordered {
            lines,
            ..Ordered::default()
        };
        return rows.put(order_key, &ordered);
    }
    let Some(mut ordered) = rows.get::<Ordered>(&order_key) else {
        return;
    };
    match event {
        order::Event::Confirmed => {
            ordered.is_sold = true;
            for line in &ordered.lines {
                count(rows, day, line, |figures| {
                    figures.units_sold = figures.units_sold.saturating_add(line.quantity);
                    figures.sold_minor = figures.sold_minor.saturating_add(cost(line, line.quantity));
                });
            }
        }
        order::Event::CancelRequested { .. } | order::Event::GivingBack { .. } if ordered.is_sold => {
            ordered.is_sold = false;
            let mut left: Vec<u64> = ordered.lines.iter().map(|line| line.quantity).collect();
            for Taken { line, quantity } in ordered.returns.values().flat_map(|(_, taken)| taken) {
                if let Some(left) = left.get_mut(*line) {
                    *left = left.saturating_sub(*quantity);
                }
            }
            for (line, quantity) in ordered.lines.iter().zip(left) {
                count(rows, day, line, |figures| {
                    figures.units_cancelled = figures.units_cancelled.saturating_add(quantity);
                    figures.cancelled_minor = figures.cancelled_minor.saturating_add(cost(line, quantity));
                });
            }
        }
        order::Event::LinesReturned { return_id, taken, .. } => {
            for Taken { line, quantity } in &taken {
                let Some(line) = ordered.lines.get(*line) else { continue };
                count(rows, day, line, |figures| {
                    figures.units_returned = figures.units_returned.saturating_add(*quantity);
                    figures.returned_minor = figures.returned_minor.saturating_add(cost(line, *quantity));
                });
            }
            ordered.returns.insert(return_id.to_string(), (day.to_owned(), taken));
        }
        order::Event::ReturnUndone { return_id } => {
            let (day, taken) = ordered.returns.remove(&*return_id).unwrap_or_default();
            for Taken { line, quantity } in taken {
                let Some(line) = ordered.lines.get(line) else { continue };
                count(rows, &day, line, |figures| {
                    figures.units_returned = figures.units_returned.saturating_sub(quantity);
                    figures.returned_minor = figures.returned_minor.saturating_sub(cost(line, quantity));
                });
            }
        }
        _ => return,
    }
    rows.put(order_key, &ordered);
}

fn apply_payment(rows: &mut Rows<'_>, id: &str, day: &str, event: &payment::Event) {
    let asked = key(["payment", id]);
    let taken_on = |money: &Money| key(["money", day, money.currency.as_str()]);
    match event {
        payment::Event::AuthorisationRequested { amount } => rows.put(asked, amount),
        payment::Event::Captured => {
            if let Some(amount) = rows.get::<Money>(&asked) {
                rows.update(taken_on(&amount), |taken: &mut TakenMoney| {
                    taken.captured += 1;
                    taken.captured_minor = taken.captured_minor.saturating_add(amount.minor);
                });
            }
        }
        payment::Event::Refunded { amount, .. } => {
            rows.update(taken_on(amount), |taken: &mut TakenMoney| {
                taken.refunded += 1;
                taken.refunded_minor = taken.refunded_minor.saturating_add(amount.minor);
            });
        }
        _ => {}
    }
}

/// The products under a prefix whose keys end with the product and its currency.
fn products(rows: &Rows<'_>, prefix: &[u8], wanted: impl Fn(&str) -> bool) -> Vec<ProductSales> {
    let mut products = Vec::new();
    rows.scan(prefix, None, |key, figures: Figures| {
        let currency = last_part(key);
        let sku = last_part(&key[..key.len() - currency.len() - 1]);
        if wanted(currency) {
            products.push(ProductSales {
                sku: sku.to_owned(),
                currency: currency.to_owned(),
                figures,
            });
        }
        true
    });
    products
}

fn money(rows: &Rows<'_>, from: Option<&str>, to: Option<&str>) -> Vec<DayMoney> {
    let mut days = Vec::new();
    let from = from.map(|from| key(["money", from]));
    rows.scan(prefix(["money"]), from.as_deref(), |key, taken: TakenMoney| {
        let currency = last_part(key);
        let day = last_part(&key[..key.len() - currency.len() - 1]);
        if to.is_some_and(|to| day > to) {
            return false;
        }
        days.push(DayMoney {
            day: day.to_owned(),
            currency: currency.to_owned(),
            taken,
        });
        true
    });
    days
}

fn is_day(text: &str) -> bool {
    let shape = text.bytes().enumerate().all(|(place, byte)| match place {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    text.len() == 10 && shape
}

impl Projection for Sales {
    const NAME: &'static str = "sales";
    const VERSION: u32 = 1;
    const KINDS: &'static [&'static str] = &[Order::KIND, Payment::KIND];
    type Query = Query;
    type Partial = Answer;
    type Answer = Answer;

    fn check(query: &Query) -> Result<(), String> {
        let days: Vec<&String> = match query {
            Query::Top { limit, .. } if !(1..=PRODUCTS_LEN_MAX).contains(limit) => {
                return Err(format!(
                    "has the limit {limit}; it must be between 1 and {PRODUCTS_LEN_MAX}"
                ));
            }
            Query::Day { day } => vec![day],
            Query::Money { from, to } => from.iter().chain(to).collect(),
            Query::Product { .. } | Query::Top { .. } => Vec::new(),
        };
        match days.into_iter().find(|day| !is_day(day)) {
            Some(day) => Err(format!("has the day {day:?}; write it like 2026-11-21")),
            None => Ok(()),
        }
    }

    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        let day = day(event.at_ms());
        if let Some(of_order) = event.of::<Order>() {
            apply_order(rows, event.id(), &day, of_order);
        } else if let Some(of_payment) = event.of::<Payment>() {
            apply_payment(rows, event.id(), &day, &of_payment);
        }
    }

    fn query(rows: &Rows<'_>, query: &Query) -> Answer {
        match query {
            Query::Product { sku } => Answer {
                products: products(rows, &prefix(["product", sku]), |_| true),
                ..Answer::default()
            },
            // All of them: what sells a little in each shard may sell best of all.
            Query::Top { currency, .. } => Answer {
                products: products(rows, &prefix(["product"]), |of| of == currency.as_str()),
                ..Answer::default()
            },
            Query::Day { day } => Answer {
                products: products(rows, &prefix(["day", day]), |_| true),
                ..Answer::default()
            },
            Query::Money { from, to } => Answer {
                money: money(rows, from.as_deref(), to.as_deref()),
                ..Answer::default()
            },
        }
    }

    fn merge(parts: Vec<Answer>, query: &Query) -> Answer {
        let mut products: BTreeMap<(String, String), Figures> = BTreeMap::new();
        let mut money: BTreeMap<(String, String), TakenMoney> = BTreeMap::new();
        for part in parts {
            for product in part.products {
                let sum = products.entry((product.sku, product.currency)).or_default();
                sum.add(&product.figures);
            }
            for DayMoney { day, currency, taken } in part.money {
                let sum = money.entry((day, currency)).or_default();
                sum.captured += taken.captured;
                sum.captured_minor = sum.captured_minor.saturating_add(taken.captured_minor);
                sum.refunded += taken.refunded;
                sum.refunded_minor = sum.refunded_minor.saturating_add(taken.refunded_minor);
            }
        }
        let mut answer = Answer {
            products: (products.into_iter())
                .map(|((sku, currency), figures)| ProductSales { sku, currency, figures })
                .collect(),
            money: (money.into_iter())
                .map(|((day, currency), taken)| DayMoney { day, currency, taken })
                .collect(),
        };
        if let Query::Top { by, limit, .. } = query {
            // A stable sort: what sells alike stays in the order of its SKU.
            answer.products.sort_by_key(|product| match by {
                By::Units => std::cmp::Reverse(i128::from(product.figures.net_units())),
                By::Money => std::cmp::Reverse(i128::from(product.figures.net_minor())),
            });
            answer.products.truncate(*limit as usize);
        }
        answer
    }
}
