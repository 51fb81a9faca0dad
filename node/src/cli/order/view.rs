//! An order as it is shown.

use std::fmt::Write as _;

use proto::order::v1::{Order, OrderStatus};
use serde_json::{Value, json};

use crate::cli::output::{amount, amount_json, decimal, print_json, print_text, render, table};

/// The status in one word, as scripts see it.
pub(crate) fn status_name(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Unspecified => "unknown",
        OrderStatus::Pending => "pending",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Refused => "refused",
        OrderStatus::Cancelling => "cancelling",
        OrderStatus::Cancelled => "cancelled",
    }
}

/// The order for scripts.
pub(super) fn order_json(order: &Order) -> Value {
    let lines: Vec<Value> = order
        .lines
        .iter()
        .map(|line| {
            json!({
                "sku": line.sku, "quantity": line.quantity, "returned": line.returned,
                "unit_price_minor": line.unit_price.as_ref().map_or(0, |m| m.minor),
            })
        })
        .collect();
    json!({
        "order_id": order.order_id, "status": status_name(order.status()), "customer_id": order.customer_id,
        "total_minor": order.total.as_ref().map_or(0, |m| m.minor),
        "currency": order.total.as_ref().map_or("", |m| &m.currency),
        "refunded": amount_json(order.refunded.as_ref()), "reason": order.reason, "lines": lines,
        "version": order.version,
    })
}

/// The order for people.
pub(super) fn order_text(order: &Order) -> String {
    let customer = if order.customer_id.is_empty() {
        "guest"
    } else {
        &order.customer_id
    };
    let mut text = format!(
        "order {}  {}  {}  {customer}",
        order.order_id,
        status_name(order.status()),
        amount(order.total.as_ref())
    );
    if !order.reason.is_empty() {
        let _ = write!(text, "\nreason: {}", order.reason);
    }
    if let Some(refunded) = order.refunded.as_ref().filter(|m| m.minor != 0) {
        let _ = write!(text, "\nrefunded: {}", amount(Some(refunded)));
    }
    if !order.lines.is_empty() {
        let mut lines = table(&["sku", ">quantity", ">unit price", ">returned"]);
        for line in &order.lines {
            lines.add_row([
                line.sku.clone(),
                line.quantity.to_string(),
                decimal(line.unit_price.as_ref().map_or(0, |m| m.minor)),
                line.returned.to_string(),
            ]);
        }
        text = format!("{text}\n\n{}", render(&lines));
    }
    text
}

/// Prints the order in one of the two forms.
pub(super) fn print_order(order: &Order, as_json: bool) {
    if as_json {
        print_json(&order_json(order));
    } else {
        print_text(&order_text(order));
    }
}

#[cfg(test)]
mod tests {
    use proto::{common::v1::Money, order::v1::PricedLine};

    use super::*;

    #[test]
    fn scripts_find_the_agreed_shape() {
        let price = Some(Money {
            minor: 255,
            currency: "GBP".to_owned(),
        });
        let order = Order {
            order_id: "42".to_owned(),
            status: OrderStatus::Confirmed.into(),
            lines: vec![PricedLine {
                sku: "tea".to_owned(),
                quantity: 3,
                unit_price: price,
                returned: 0,
            }],
            total: Some(Money {
                minor: 765,
                currency: "GBP".to_owned(),
            }),
            ..Default::default()
        };
        let value = order_json(&order);
        assert_eq!(value["order_id"], "42");
        assert_eq!(value["status"], "confirmed");
        assert_eq!(value["total_minor"], 765);
        assert!(order_text(&order).starts_with("order 42  confirmed  7.65 GBP  guest"));
    }
}
