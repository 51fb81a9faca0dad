//! Every oddity of real invoices, and what becomes of it.

use super::*;

fn row(invoice: &str, sku: &str, quantity: i64, price: &str, customer: &str) -> Row {
    Row {
        number: 1,
        invoice: invoice.to_owned(),
        sku: sku.to_owned(),
        description: format!("the {sku}"),
        quantity,
        price: crate::cli::price::parse_minor(price),
        customer: customer.to_owned(),
        fault: None,
    }
}

fn work_of(rows: &[Row]) -> Work {
    let plan = Plan::of(rows);
    assert_eq!(plan.invoices.len(), 1);
    plan.invoices[0].work.clone()
}

fn reason_of(rows: &[Row]) -> String {
    match work_of(rows) {
        Work::Refused(reason) => reason,
        work => panic!("carried out as {work:?}"),
    }
}

#[test]
fn positive_quantities_are_an_order_at_the_rows_prices() {
    let work = work_of(&[
        row("1", "tea", 6, "2.55", "7"),
        row("1", "gift", 1, "0.0", "7"),
        row("1", "tea", 1, "3", "7"),
    ]);
    let Work::Order { lines, total_minor } = work else {
        panic!("not an order");
    };
    assert_eq!(total_minor, 6 * 255 + 300);
    assert_eq!(
        lines.len(),
        3,
        "each row is a line, also of the same product at another price"
    );
    assert_eq!(lines[1].price_minor, 0, "free");
}

#[test]
fn a_cancellation_is_a_return_with_its_lines_added_up() {
    let work = work_of(&[
        row("C1", "tea", -2, "2.55", "7"),
        row("C1", "tea", -3, "2.55", "7"),
        row("C1", "cup", -1, "0.001", "7"),
    ]);
    assert_eq!(
        work,
        Work::Return([("tea".to_owned(), 5), ("cup".to_owned(), 1)].into())
    );
    assert_eq!(reason_of(&[row("C1", "tea", -2, "2.55", "")]), "guest return");
    assert_eq!(
        reason_of(&[row("C1", "tea", -2, "1", "7"), row("C1", "cup", 1, "1", "7")]),
        "a cancellation has a positive quantity"
    );
}

#[test]
fn negative_quantities_without_c_are_write_offs() {
    let Work::WriteOff(rows) = work_of(&[row("1", "tea", -10, "0.0", ""), row("1", "tea", -1, "-3", "")]) else {
        panic!("not a write-off");
    };
    assert_eq!(rows.iter().map(|row| row.quantity).collect::<Vec<_>>(), [10, 1]);
}

#[test]
fn what_cannot_be_an_order_says_why() {
    assert_eq!(
        reason_of(&[row("1", "tea", 1, "1", "7"), row("1", "cup", -1, "1", "7")]),
        "mixes sold and written-off goods"
    );
    assert_eq!(
        reason_of(&[row("1", "tea", 1, "1", "7"), row("1", "cup", 1, "1", "8")]),
        "its rows name different customers"
    );
    assert_eq!(reason_of(&[row("1", "tea", 0, "1", "7")]), "a quantity is 0");
    assert_eq!(reason_of(&[row("A5", "B", 1, "-11062.06", "")]), "a price is negative");
    assert_eq!(
        reason_of(&[row("1", "pads", 1, "0.001", "7")]),
        "a price is finer than a penny"
    );
    assert_eq!(
        reason_of(&[row("1", "tea", 1 << 40, "1", "7")]),
        "a quantity is too large"
    );
    assert_eq!(
        reason_of(&[row("1", "tea", 4_000_000_000, "99999999999", "7")]),
        "its total is too large"
    );
    assert_eq!(reason_of(&[row("", "tea", 1, "1", "7")]), "no invoice number");
    let broken = Row {
        fault: Some("has 3 columns of 8".to_owned()),
        ..row("1", "tea", 1, "1", "7")
    };
    assert_eq!(
        reason_of(&[row("1", "cup", 1, "1", "7"), broken]),
        "malformed row: row 1 has 3 columns of 8"
    );
}

#[test]
fn every_row_belongs_to_one_invoice_in_the_files_order() {
    let rows = [
        row("2", "a", 1, "1", ""),
        row("1", "a", 1, "1", ""),
        row("", "a", 1, "1", ""),
        row("2", "b", 1, "1", ""),
    ];
    let numbers: Vec<_> = Plan::of(&rows)
        .invoices
        .into_iter()
        .map(|invoice| invoice.number)
        .collect();
    assert_eq!(numbers, ["2", "1", "row 1"]);
}

#[test]
fn stock_is_exactly_what_orders_and_write_offs_take() {
    let nameless = Row {
        description: "damaged".to_owned(),
        ..row("4", "cup", -2, "0.0", "")
    };
    let plan = Plan::of(&[
        row("1", "tea", 6, "2.55", "7"),
        row("2", "tea", 1, "9.00", ""),
        row("3", "tea", 5, "0.001", "7"),
        row("C1", "tea", -2, "2.55", "7"),
        row("C2", "never sold", -2, "2.55", "7"),
        nameless,
    ]);
    let tea = Article {
        name: "the tea".to_owned(),
        price_minor: 900,
        quantity: 7,
    };
    let cup = Article {
        name: "cup".to_owned(),
        price_minor: 0,
        quantity: 2,
    };
    assert_eq!(plan.articles, [("tea".to_owned(), tea), ("cup".to_owned(), cup)].into());
}
