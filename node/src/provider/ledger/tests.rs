//! The books, call by call.

use super::*;

fn authorise(order: &str, amount_minor: i64) -> Request {
    on_card(order, amount_minor, "4242424242424242")
}

fn on_card(order: &str, amount_minor: i64, card: &str) -> Request {
    Request::Authorise {
        order: order.to_owned(),
        amount_minor,
        currency: Currency::GBP,
        card: card.to_owned(),
    }
}

fn capture(authorisation: &str, amount_minor: i64) -> Request {
    Request::Capture {
        authorisation: authorisation.to_owned(),
        amount_minor,
        currency: Currency::GBP,
    }
}

fn refund(authorisation: &str, amount_minor: i64) -> Request {
    Request::Refund {
        authorisation: authorisation.to_owned(),
        amount_minor,
        currency: Currency::GBP,
        reference: "return-1".to_owned(),
    }
}

fn take(ledger: &mut Ledger, key: &str, request: Request) -> Result<Answer, Untaken> {
    match ledger.decide(key, request, Some(100_000))? {
        Taken::New(entry) => {
            ledger.apply(&entry);
            Ok(entry.answer)
        }
        Taken::Kept(answer) => Ok(answer),
    }
}

fn granted(ledger: &mut Ledger, key: &str, order: &str, amount_minor: i64) -> String {
    match take(ledger, key, authorise(order, amount_minor)) {
        Ok(Answer::Authorised { authorisation }) => authorisation,
        other => panic!("not granted: {other:?}"),
    }
}

fn is_refused(answer: &Result<Answer, Untaken>) -> bool {
    matches!(answer, Ok(Answer::Refused { .. }))
}

#[test]
fn the_same_key_has_the_same_answer_and_one_effect() {
    let mut ledger = Ledger::default();
    let first = granted(&mut ledger, "k1", "o1", 500);
    assert_eq!(granted(&mut ledger, "k1", "o1", 500), first);
    assert_eq!(take(&mut ledger, "k1", authorise("o1", 501)), Err(Untaken::KeyReused));
    for _ in 0..3 {
        assert_eq!(take(&mut ledger, "k2", capture(&first, 500)), Ok(Answer::Captured));
    }
    let page = ledger.page(None, 10);
    assert_eq!((page.orders[0].authorisations, page.orders[0].captures), (1, 1));
    assert_eq!(page.orders[0].captured_minor, 500);
}

#[test]
fn money_moves_only_within_what_was_authorised_and_captured() {
    let mut ledger = Ledger::default();
    let granted = granted(&mut ledger, "a", "o1", 500);
    assert!(is_refused(&take(&mut ledger, "b", capture(&granted, 501))));
    assert!(is_refused(&take(&mut ledger, "c", refund(&granted, 1))));
    assert_eq!(take(&mut ledger, "d", capture(&granted, 500)), Ok(Answer::Captured));
    assert_eq!(take(&mut ledger, "e", refund(&granted, 200)), Ok(Answer::Refunded));
    assert_eq!(take(&mut ledger, "f", refund(&granted, 300)), Ok(Answer::Refunded));
    assert!(is_refused(&take(&mut ledger, "g", refund(&granted, 1))));
    assert!(is_refused(&take(&mut ledger, "h", capture("auth-99", 1))));
    assert!(matches!(
        take(&mut ledger, "i", capture(&granted, -1)),
        Err(Untaken::Malformed(_))
    ));
}

#[test]
fn a_voided_order_holds_nothing_and_is_not_authorised_again() {
    let mut ledger = Ledger::default();
    let first = granted(&mut ledger, "a", "o1", 500);
    let void = || Request::Void { order: "o1".to_owned() };
    assert_eq!(take(&mut ledger, "b", void()), Ok(Answer::Voided));
    assert_eq!(take(&mut ledger, "c", void()), Ok(Answer::Voided));
    assert!(is_refused(&take(&mut ledger, "d", capture(&first, 500))));
    let late = take(&mut ledger, "e", authorise("o1", 500));
    assert!(matches!(late, Ok(Answer::Declined { .. })), "{late:?}");
    assert_eq!(ledger.page(None, 1).orders[0].voided_minor, 500);
    let unheard_of = Request::Void { order: "o2".to_owned() };
    assert_eq!(take(&mut ledger, "f", unheard_of), Ok(Answer::Voided));
}

#[test]
fn declines_come_by_card_and_by_amount() {
    let mut ledger = Ledger::default();
    let mut reason =
        |key: &str, card: &str, amount_minor| match take(&mut ledger, key, on_card(key, amount_minor, card))
            .expect("taken")
        {
            Answer::Declined { reason } => Some(reason),
            _ => None,
        };
    assert_eq!(reason("1", "4000000000000002", 1).as_deref(), Some("card declined"));
    assert_eq!(
        reason("2", "4000000000009995", 1).as_deref(),
        Some("insufficient funds")
    );
    assert_eq!(
        reason("3", "4242424242424242", 100_001).as_deref(),
        Some("over the card's limit")
    );
    assert_eq!(
        reason("4", "4242424242424242", 16_666).as_deref(),
        Some("card declined")
    );
    assert_eq!(reason("5", "4242424242424242", 100_000), None);
}

#[test]
fn pages_of_the_ledger_join_without_gap_or_repeat() {
    let mut ledger = Ledger::default();
    for number in 0..25 {
        granted(&mut ledger, &format!("k{number}"), &format!("o{number:02}"), 1);
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = ledger.page(after.as_deref(), 10);
        seen.extend(page.orders.into_iter().map(|order| order.order_id));
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|number| format!("o{number:02}")).collect::<Vec<_>>());
}
