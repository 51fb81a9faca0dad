//! The read models of the domain, over events by hand.

use actors::{
    Currency, Money, OrderId, ReturnId, Sku,
    models::{
        Orders, Sales,
        orders::{self, Page},
        sales::{self, By},
    },
    order::{Event, Line, Order, Status, Taken},
    payment::{self, Payment},
};
use cluster::projection::script::Folded;

const DAY_MS: u64 = 86_400_000;

fn line(sku: &str, quantity: u64, minor: i64) -> Line {
    Line {
        sku: Sku::new(sku).expect("a SKU"),
        quantity,
        unit_price: Money::new(minor, Currency::GBP),
    }
}

fn placed(customer: Option<&str>, lines: Vec<Line>) -> Event {
    Event::Placed {
        customer: customer.map(|customer| customer.parse().expect("an id")),
        lines,
        total: Money::new(0, Currency::GBP),
    }
}

fn top(by: By, limit: u32) -> sales::Query {
    sales::Query::Top {
        by,
        currency: Currency::GBP,
        limit,
    }
}

fn of(sales: &Folded<Sales>, sku: &str) -> sales::Figures {
    let sku = Sku::new(sku).expect("a SKU");
    let answer = sales.query(&sales::Query::Product { sku }).expect("answered");
    answer
        .products
        .first()
        .map(|product| product.figures)
        .unwrap_or_default()
}

/// 40 orders of five products over seven shards, each confirmed.
fn sold() -> Folded<Sales> {
    let mut sales = Folded::new(7);
    for number in 0..40 {
        let id = format!("o-{number}");
        let sku = format!("p-{}", number % 5);
        sales
            .given::<Order>(
                &id,
                0,
                &placed(None, vec![line(&sku, number % 5 + 1, 100 - 20 * (number as i64 % 5))]),
            )
            .given::<Order>(&id, DAY_MS, &Event::Confirmed);
    }
    sales
}

#[test]
fn the_best_sellers_of_all_shards_are_merged_exactly() {
    let sales = sold();
    let by_units = sales.query(&top(By::Units, 2)).expect("answered");
    let units: Vec<_> = by_units
        .products
        .iter()
        .map(|p| (&*p.sku, p.figures.net_units()))
        .collect();
    assert_eq!(units, [("p-4", 40), ("p-3", 32)]);
    let by_money = sales.query(&top(By::Money, 3)).expect("answered");
    let money: Vec<_> = by_money
        .products
        .iter()
        .map(|p| (&*p.sku, p.figures.net_minor()))
        .collect();
    assert_eq!(money, [("p-2", 8 * 3 * 60), ("p-1", 8 * 2 * 80), ("p-3", 8 * 4 * 40)]);
    let day = sales::Query::Day {
        day: "1970-01-02".to_owned(),
    };
    assert_eq!(sales.query(&day).expect("answered").products.len(), 5);
    let day = sales::Query::Day {
        day: "1970-01-01".to_owned(),
    };
    assert_eq!(sales.query(&day).expect("answered").products, []);
}

#[test]
fn an_order_counts_from_its_confirmation_and_what_comes_back_is_counted_beside_it() {
    let mut sales = Folded::<Sales>::new(3);
    let return_id = ReturnId::new("r-1").expect("an id");
    sales.given::<Order>("o-1", 0, &placed(None, vec![line("tea", 5, 255), line("cup", 1, 400)]));
    assert_eq!(of(&sales, "tea"), sales::Figures::default());
    sales.given::<Order>("o-1", 0, &Event::Confirmed);
    let returned = Event::LinesReturned {
        return_id: return_id.clone(),
        taken: vec![Taken { line: 0, quantity: 2 }],
        refund: Money::new(510, Currency::GBP),
    };
    sales.given::<Order>("o-1", DAY_MS, &returned);
    assert_eq!(
        (of(&sales, "tea").units_sold, of(&sales, "tea").returned_minor),
        (5, 510)
    );
    sales.given::<Order>("o-1", DAY_MS, &Event::ReturnUndone { return_id });
    assert_eq!(
        (of(&sales, "tea").net_units(), of(&sales, "tea").returned_minor),
        (5, 0)
    );
    sales.given::<Order>("o-1", DAY_MS, &returned);
    let cancelled = Event::CancelRequested {
        reason: "late".to_owned(),
    };
    sales.given::<Order>("o-1", 2 * DAY_MS, &cancelled);
    // Called off once, however many events say so.
    sales.given::<Order>("o-1", 2 * DAY_MS, &Event::GivingBack { parts: Vec::new() });
    let tea = of(&sales, "tea");
    assert_eq!((tea.units_sold, tea.units_returned, tea.units_cancelled), (5, 2, 3));
    assert_eq!(
        (tea.net_units(), tea.net_minor(), of(&sales, "cup").net_minor()),
        (0, 0, 0)
    );
    // One that was never confirmed was never sold.
    sales.given::<Order>("o-2", 0, &placed(None, vec![line("pot", 1, 900)]));
    sales.given::<Order>("o-2", 0, &cancelled);
    assert_eq!(of(&sales, "pot"), sales::Figures::default());
}

#[test]
fn money_is_what_payments_took_and_gave_back_day_by_day() {
    let mut sales = Folded::<Sales>::new(2);
    for (id, minor) in [("o-1", 500), ("o-2", 700)] {
        let amount = Money::new(minor, Currency::GBP);
        sales.given::<Payment>(id, 0, &payment::Event::AuthorisationRequested { amount });
        sales.given::<Payment>(id, DAY_MS, &payment::Event::Captured);
    }
    let refunded = payment::Event::Refunded {
        reference: "r".to_owned(),
        amount: Money::new(200, Currency::GBP),
    };
    sales.given::<Payment>("o-1", 2 * DAY_MS, &refunded);
    let answer = sales.query_json(r#"{"money": {"from": "1970-01-02", "to": "1970-01-02"}}"#);
    let day = serde_json::json!({
        "day": "1970-01-02", "currency": "GBP", "captured": 2, "captured_minor": 1200, "refunded": 0, "refunded_minor": 0,
    });
    assert_eq!(answer, Ok(serde_json::json!({ "money": [day] })));
    let all = sales
        .query(&sales::Query::Money { from: None, to: None })
        .expect("answered");
    assert_eq!(all.money.iter().map(|day| day.taken.refunded_minor).sum::<i64>(), 200);
}

#[test]
fn orders_are_listed_page_by_page_in_the_order_of_their_ids() {
    let mut list = Folded::<Orders>::new(5);
    for number in 0..25 {
        let id = format!("o-{number:02}");
        let customer = if number % 2 == 0 { "ann" } else { "bob" };
        list.given::<Order>(&id, number, &placed(Some(customer), vec![line("tea", 1, 255)]));
        if number % 5 == 0 {
            list.given::<Order>(&id, 100, &Event::Confirmed);
        }
    }
    let mut seen: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let query = orders::Query {
            after: after.take(),
            limit: Some(7),
            ..orders::Query::default()
        };
        let Page { orders, next } = list.query(&query).expect("answered");
        seen.extend(orders.into_iter().map(|order| order.id));
        let Some(next) = next else { break };
        after = Some(OrderId::new(next).expect("an id"));
    }
    assert_eq!(seen, (0..25).map(|number| format!("o-{number:02}")).collect::<Vec<_>>());
    let ids = |json: &str| -> Vec<String> {
        let answer = list.query_json(json).expect("answered");
        let orders = answer["orders"].as_array().expect("a list");
        orders
            .iter()
            .map(|order| order["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(
        ids(r#"{"status": "Confirmed"}"#),
        ["o-00", "o-05", "o-10", "o-15", "o-20"]
    );
    assert_eq!(ids(r#"{"status": "Confirmed", "customer": "bob"}"#), ["o-05", "o-15"]);
    assert_eq!(
        ids(r#"{"status": "Confirmed", "after": "o-05", "limit": 2}"#),
        ["o-10", "o-15"]
    );
    assert_eq!(ids(r#"{"customer": "eve"}"#), Vec::<String>::new());
    let last = list.query(&orders::Query {
        status: Some(Status::Confirmed),
        limit: Some(5),
        ..orders::Query::default()
    });
    assert_eq!(last.expect("answered").next, None);
}

#[test]
fn wrong_questions_are_told_what_is_wrong() {
    let (sales, list) = (Folded::<Sales>::new(1), Folded::<Orders>::new(1));
    for (json, part) in [
        (r#"{"top": {"by": "money", "currency": "GBP", "limit": 0}}"#, "limit 0"),
        (r#"{"day": {"day": "yesterday"}}"#, "2026-11-21"),
        (r#"{"bottom": {}}"#, "no question of the projection sales"),
        ("", "no question of the projection sales"),
    ] {
        let reason = sales.query_json(json).expect_err(json);
        assert!(reason.contains(part), "{reason}");
    }
    for json in [r#"{"limit": 501}"#, r#"{"status": "Lost"}"#, r#"{"colour": "red"}"#] {
        assert!(list.query_json(json).is_err(), "{json}");
    }
}
