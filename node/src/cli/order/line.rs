//! A line of an order as it is written on the command line.

use std::str::FromStr;

use proto::{common::v1::Money, order::v1::OrderLine};

use crate::cli::price::parse_price_argument;

/// `SKU:QTY`, or `SKU:QTY@PRICE` for an agreed price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) sku: String,
    pub(super) quantity: u32,
    price_minor: Option<i64>,
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A SKU may hold colons itself; the quantity stands after the last.
        let (sku, rest) = text.rsplit_once(':').ok_or("write it as SKU:QTY, for example tea:2")?;
        let (quantity, price) = match rest.split_once('@') {
            Some((quantity, price)) => (quantity, Some(parse_price_argument(price)?)),
            None => (rest, None),
        };
        let quantity: u32 = quantity
            .parse()
            .map_err(|_| format!("the quantity must be 1 to {}", u32::MAX))?;
        if sku.is_empty() || quantity == 0 {
            return Err("a line needs a SKU and a quantity of at least 1".to_owned());
        }
        Ok(Self {
            sku: sku.to_owned(),
            quantity,
            price_minor: price,
        })
    }
}

impl Line {
    /// The line as the contract has it.
    pub(super) fn to_order_line(&self, currency: &str) -> OrderLine {
        OrderLine {
            sku: self.sku.clone(),
            quantity: self.quantity,
            unit_price: self.price_minor.map(|minor| Money {
                minor,
                currency: currency.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_quantity_and_perhaps_a_price() {
        let line: Line = "tea:3".parse().expect("is a line");
        assert_eq!((line.sku.as_str(), line.quantity, line.price_minor), ("tea", 3, None));
        let line: Line = "a:b:1@2.55".parse().expect("is a line");
        assert_eq!(
            (line.sku.as_str(), line.quantity, line.price_minor),
            ("a:b", 1, Some(255))
        );
        for wrong in [
            "tea",
            "tea:",
            ":1",
            "tea:0",
            "tea:-1",
            "tea:4294967296",
            "tea:1@x",
            "tea:1@-1",
        ] {
            assert!(wrong.parse::<Line>().is_err(), "{wrong}");
        }
    }
}
