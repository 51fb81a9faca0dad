//! How much there is of everything just now: orders and sagas under way, pieces in stock. For metrics: a number for each, and no ids.

use std::collections::BTreeMap;

use cluster::{
    Entity, ProjectedEvent, Projection, Rows,
    projection::{key, last_part, prefix},
    saga::{self, Saga},
};
use serde::{Deserialize, Serialize};

use crate::{
    checkout::Checkout,
    order::{self, Order},
    returns::Return,
    stock::{self, StockItem},
};

/// Digits of a time in milliseconds, so that the texts of times are in the order of the times.
const TIME_DIGITS: usize = 15;

/// The projection `levels`.
#[derive(Debug)]
pub struct Levels;

/// How much there is of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Orders that are pending, or being called off.
    pub orders: u64,
    /// Sagas under way, by kind.
    pub sagas: BTreeMap<String, SagaLevel>,
    /// Pieces of all products.
    pub pieces: Pieces,
    /// Products that were ever delivered, and those of them that nothing is on hand of.
    pub items: Items,
}

/// Sagas of one kind under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaLevel {
    /// How many.
    pub active: u64,
    /// When the oldest of them was started, in milliseconds since 1970; none where there is none.
    pub oldest_ms: Option<u64>,
}

/// How many pieces are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// Can be reserved.
    pub on_hand: u64,
    /// Promised to orders whose checkout has not ended.
    pub reserved: u64,
    /// Belong to confirmed orders.
    pub sold: u64,
    /// Damaged or lost.
    pub written_off: u64,
}

/// Products that were ever delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items {
    /// All of them.
    pub all: u64,
    /// Those that nothing is on hand of.
    pub empty: u64,
}

/// Counts up or down; a count that would go below nothing stays there.
fn count(rows: &mut Rows<'_>, at: Vec<u8>, up: bool) {
    rows.update(at, |count: &mut u64| {
        *count = if up {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
    });
}

fn apply_order(rows: &mut Rows<'_>, id: &str, event: &order::Event) {
    let is_active = match event {
        order::Event::Placed { .. } | order::Event::CancelRequested { .. } | order::Event::GivingBack { .. } => true,
        order::Event::Confirmed | order::Event::Refused { .. } | order::Event::Cancelled => false,
        order::Event::Settled
        | order::Event::SettledUnpaid { .. }
        | order::Event::GivenBack { .. }
        | order::Event::GiveBackFailed { .. }
        | order::Event::LinesReturned { .. }
        | order::Event::ReturnUndone { .. } => return,
    };
    let order = key(["order", id]);
    if rows.get::<()>(&order).is_some() == is_active {
        return;
    }
    if is_active {
        rows.put(order, &());
    } else {
        rows.remove(order);
    }
    count(rows, key(["orders"]), is_active);
}

fn apply_saga<S: Saga>(rows: &mut Rows<'_>, id: &str, event: &<S as Entity>::Event) {
    let started = key(["started", S::NAME, id]);
    let by_age = |at_ms: u64| key(["age", S::NAME, &format!("{at_ms:0TIME_DIGITS$}"), id]);
    if let saga::Event::Started { at_ms, .. } = event {
        rows.put(by_age(*at_ms), &());
        rows.put(&started, at_ms);
        count(rows, key(["sagas", S::NAME]), true);
    }
    if let Some(saga::Next::Completed(_) | saga::Next::Undone(_)) = event.next()
        && let Some(at_ms) = rows.get::<u64>(&started)
    {
        rows.remove(by_age(at_ms));
        rows.remove(started);
        count(rows, key(["sagas", S::NAME]), false);
    }
}

fn apply_stock(rows: &mut Rows<'_>, sku: &str, event: &stock::Event) {
    let item = key(["item", sku]);
    let before: Option<u64> = rows.get(&item);
    let mut on_hand = before.unwrap_or_default();
    rows.update(key(["pieces"]), |pieces: &mut Pieces| {
        let (from, to, quantity) = match event {
            stock::Event::Received { quantity } => (None, &mut pieces.on_hand, *quantity),
            stock::Event::Reserved { quantity, .. } => (Some(&mut pieces.on_hand), &mut pieces.reserved, *quantity),
            stock::Event::Released { quantity, .. } => (Some(&mut pieces.reserved), &mut pieces.on_hand, *quantity),
            stock::Event::Committed { quantity, .. } => (Some(&mut pieces.reserved), &mut pieces.sold, *quantity),
            stock::Event::Restocked { quantity, .. } => (Some(&mut pieces.sold), &mut pieces.on_hand, *quantity),
            stock::Event::WrittenOff { quantity, .. } => {
                (Some(&mut pieces.on_hand), &mut pieces.written_off, *quantity)
            }
            stock::Event::HeldForItsTime { .. } => return,
        };
        if let Some(from) = from {
            *from = from.saturating_sub(quantity);
        }
        *to = to.saturating_add(quantity);
    });
    match event {
        stock::Event::Received { quantity }
        | stock::Event::Released { quantity, .. }
        | stock::Event::Restocked { quantity, .. } => on_hand = on_hand.saturating_add(*quantity),
        stock::Event::Reserved { quantity, .. } | stock::Event::WrittenOff { quantity, .. } => {
            on_hand = on_hand.saturating_sub(*quantity);
        }
        stock::Event::Committed { .. } | stock::Event::HeldForItsTime { .. } => return,
    }
    rows.put(item, &on_hand);
    let was_empty = before.map(|before| before == 0);
    if was_empty != Some(on_hand == 0) {
        rows.update(key(["items"]), |items: &mut Items| {
            items.all += u64::from(was_empty.is_none());
            items.empty = items.empty + u64::from(on_hand == 0) - u64::from(was_empty == Some(true)).min(items.empty);
        });
    }
}

impl Projection for Levels {
    const NAME: &'static str = "levels";
    const VERSION: u32 = 1;
    const KINDS: &'static [&'static str] = &[Order::KIND, Checkout::KIND, Return::KIND, StockItem::KIND];
    type Query = ();
    type Partial = Answer;
    type Answer = Answer;

    fn apply(rows: &mut Rows<'_>, event: &ProjectedEvent<'_>) {
        let id = event.id();
        if let Some(event) = event.of::<Order>() {
            apply_order(rows, id, &event);
        } else if let Some(event) = event.of::<Checkout>() {
            apply_saga::<Checkout>(rows, id, &event);
        } else if let Some(event) = event.of::<Return>() {
            apply_saga::<Return>(rows, id, &event);
        } else if let Some(event) = event.of::<StockItem>() {
            apply_stock(rows, id, &event);
        }
    }

    fn query(rows: &Rows<'_>, (): &()) -> Answer {
        let sagas = [Checkout::KIND, Return::KIND].map(|kind| {
            let mut oldest_ms = None;
            rows.scan(prefix(["age", kind]), None, |at, (): ()| {
                let id = last_part(at);
                oldest_ms = last_part(&at[..at.len() - id.len() - 1]).parse().ok();
                false
            });
            let active = rows.get(key(["sagas", kind])).unwrap_or_default();
            (kind.to_owned(), SagaLevel { active, oldest_ms })
        });
        Answer {
            orders: rows.get(key(["orders"])).unwrap_or_default(),
            sagas: sagas.into(),
            pieces: rows.get(key(["pieces"])).unwrap_or_default(),
            items: rows.get(key(["items"])).unwrap_or_default(),
        }
    }

    fn merge(parts: Vec<Answer>, (): &()) -> Answer {
        let mut all = Answer::default();
        for part in parts {
            all.orders += part.orders;
            for (kind, level) in part.sagas {
                let sum = all.sagas.entry(kind).or_default();
                sum.active += level.active;
                sum.oldest_ms = [sum.oldest_ms, level.oldest_ms].into_iter().flatten().min();
            }
            all.pieces.on_hand += part.pieces.on_hand;
            all.pieces.reserved += part.pieces.reserved;
            all.pieces.sold += part.pieces.sold;
            all.pieces.written_off += part.pieces.written_off;
            all.items.all += part.items.all;
            all.items.empty += part.items.empty;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use cluster::projection::script::Folded;

    use super::*;
    use crate::{OrderId, money::Money};

    fn order(id: &str) -> OrderId {
        OrderId::new(id).expect("an id")
    }

    #[test]
    fn orders_count_while_something_is_to_happen_to_them() {
        let mut levels = Folded::<Levels>::new(4);
        let placed = || order::Event::Placed {
            customer: None,
            lines: Vec::new(),
            total: Money::default(),
        };
        let reason = || "late".to_owned();
        let mut active = |id: &str, event: order::Event| {
            levels.given::<Order>(id, 5, &event);
            levels.query(&()).expect("an answer").orders
        };
        assert_eq!(active("a", placed()), 1);
        assert_eq!(active("b", placed()), 2);
        assert_eq!(active("a", order::Event::Confirmed), 1);
        assert_eq!(active("a", order::Event::Settled), 1);
        assert_eq!(active("b", order::Event::Refused { reason: reason() }), 0);
        assert_eq!(active("a", order::Event::CancelRequested { reason: reason() }), 1);
        assert_eq!(active("a", order::Event::GivingBack { parts: Vec::new() }), 1);
        assert_eq!(active("a", order::Event::Cancelled), 0);
    }

    #[test]
    fn sagas_count_until_they_end_and_the_oldest_is_known() {
        let mut levels = Folded::<Levels>::new(4);
        let input = || crate::checkout::Input {
            customer: None,
            lines: BTreeMap::new(),
            total: Money::default(),
            card: String::new(),
        };
        for (id, at_ms) in [("late", 700), ("early", 300)] {
            let input = input();
            levels.given::<Checkout>(
                id,
                at_ms,
                &saga::Event::Started {
                    input,
                    at_ms,
                    next: None,
                },
            );
        }
        let level = |levels: &Folded<Levels>| levels.query(&()).expect("an answer").sagas[Checkout::KIND];
        let two = SagaLevel {
            active: 2,
            oldest_ms: Some(300),
        };
        assert_eq!(level(&levels), two);
        levels.given::<Checkout>("early", 900, &saga::Event::Nudged);
        assert_eq!(level(&levels), two);
        let step = saga::Step::new("capture", "");
        let next = Some(saga::Next::Completed(600));
        levels.given::<Checkout>("early", 900, &saga::Event::Done { step, fact: None, next });
        assert_eq!(
            level(&levels),
            SagaLevel {
                active: 1,
                oldest_ms: Some(700)
            }
        );
        let reason = String::new();
        let next = Some(saga::Next::Undone(9));
        levels.given::<Checkout>(
            "late",
            900,
            &saga::Event::TurnedBack {
                reason,
                overdue: false,
                next,
            },
        );
        assert_eq!(level(&levels), SagaLevel::default());
    }

    #[test]
    fn pieces_move_and_what_is_sold_out_is_known() {
        let mut levels = Folded::<Levels>::new(4);
        let (to, quantity) = (|| order("7"), 3);
        let events = [
            ("tea", stock::Event::Received { quantity: 3 }),
            ("milk", stock::Event::Received { quantity: 5 }),
            (
                "tea",
                stock::Event::Reserved {
                    order: to(),
                    quantity,
                    expires_ms: None,
                },
            ),
        ];
        for (sku, event) in &events {
            levels.given::<StockItem>(sku, 5, event);
        }
        let answer = levels.query(&()).expect("an answer");
        assert_eq!(
            answer.pieces,
            Pieces {
                on_hand: 5,
                reserved: 3,
                sold: 0,
                written_off: 0
            }
        );
        assert_eq!(answer.items, Items { all: 2, empty: 1 });
        levels.given::<StockItem>("tea", 5, &stock::Event::Released { order: to(), quantity });
        levels.given::<StockItem>(
            "milk",
            5,
            &stock::Event::WrittenOff {
                quantity: 5,
                reason: String::new(),
            },
        );
        let answer = levels.query(&()).expect("an answer");
        assert_eq!(
            answer.pieces,
            Pieces {
                on_hand: 3,
                reserved: 0,
                sold: 0,
                written_off: 5
            }
        );
        assert_eq!(answer.items, Items { all: 2, empty: 1 });
    }
}
