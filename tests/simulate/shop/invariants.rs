//! What must be true of a shop: at any moment, and once everything has ended.

use std::collections::BTreeMap;

use actors::{
    OrderId, Sku,
    checkout::{Checkout, Phase},
    customer::Customer,
    order::{self, Order},
    payment::{self, Payment},
    returns::{self, Return},
    stock::StockItem,
};
use cluster::simulation::{Simulation, World};

use super::provider::books;

macro_rules! hold {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

/// The shop with its invariants.
pub(super) fn of(shop: Simulation) -> Simulation {
    shop.always("stock is conserved and never negative", stock_is_conserved)
        .always("what came to nothing holds no stock", refused_orders_hold_nothing)
        .invariant("every saga ends completed or undone", sagas_have_ended)
        .invariant("no promise of the platform is broken", nothing_failed_that_must_not)
        .invariant("nothing stays promised", nothing_is_promised)
        .invariant("sold is what customers hold", sold_is_held)
        .invariant("no order is charged twice", nobody_is_charged_twice)
        .invariant("money is conserved by double entry", books_agree)
        .invariant("money is what orders cost", money_is_what_orders_cost)
        .invariant("customers know what can come back", customers_know)
        .invariant("sagas and orders agree how it ended", ends_agree)
}

fn stock_is_conserved(world: &World<'_>) -> Result<(), String> {
    for (sku, stock) in world.states::<StockItem>() {
        hold!(stock.is_conserved(), "pieces of {sku} are lost or made: {stock:?}");
        // Levels are unsigned: one that went below nothing would be larger than all that ever came in.
        let levels = [stock.on_hand, stock.reserved, stock.sold, stock.written_off];
        hold!(
            levels.iter().all(|level| *level <= stock.received),
            "{sku} has more than ever came in: {stock:?}"
        );
    }
    Ok(())
}

/// The last thing that is undone is the order itself: whoever is told that it was refused can buy the same again.
fn refused_orders_hold_nothing(world: &World<'_>) -> Result<(), String> {
    for (sku, stock) in world.states::<StockItem>() {
        for order in stock.reservations.keys() {
            let status = world.state::<Order>(order).status;
            hold!(
                status != order::Status::Refused,
                "{order} is refused and holds pieces of {sku}: {stock:?}"
            );
        }
    }
    Ok(())
}

fn sagas_have_ended(world: &World<'_>) -> Result<(), String> {
    for (id, checkout) in world.states::<Checkout>() {
        hold!(
            checkout.phase.end().is_some(),
            "checkout {id} has not ended: {checkout:?}"
        );
    }
    for (id, it) in world.states::<Return>() {
        let is_new = it.phase == Phase::New;
        hold!(is_new || it.phase.end().is_some(), "return {id} has not ended: {it:?}");
    }
    for (id, order) in world.states::<Order>() {
        let is_on_its_way = matches!(order.status, order::Status::Pending | order::Status::Cancelling);
        hold!(!is_on_its_way, "order {id} is {}: {order:?}", order.status);
    }
    Ok(())
}

fn nothing_failed_that_must_not(world: &World<'_>) -> Result<(), String> {
    for (id, order) in world.states::<Order>() {
        hold!(
            order.problems.is_empty(),
            "order {id} has problems: {:?}",
            order.problems
        );
    }
    for (id, it) in world.states::<Return>() {
        hold!(it.problems.is_empty(), "return {id} has problems: {:?}", it.problems);
    }
    for (id, payment) in world.states::<Payment>() {
        hold!(
            payment.void_failed.is_none(),
            "payment {id} could not be voided: {payment:?}"
        );
    }
    Ok(())
}

fn nothing_is_promised(world: &World<'_>) -> Result<(), String> {
    for (sku, stock) in world.states::<StockItem>() {
        hold!(stock.reserved == 0, "pieces of {sku} are still promised: {stock:?}");
    }
    Ok(())
}

fn confirmed(world: &World<'_>) -> impl Iterator<Item = (String, order::State)> {
    let orders = world.states::<Order>().into_iter();
    orders.filter(|(_, order)| order.status == order::Status::Confirmed)
}

fn held(order: &order::State) -> BTreeMap<Sku, u64> {
    let mut held = BTreeMap::new();
    for line in &order.lines {
        *held.entry(line.sku.clone()).or_insert(0) += line.quantity - line.returned;
    }
    held.retain(|_, quantity| *quantity > 0);
    held
}

fn sold_is_held(world: &World<'_>) -> Result<(), String> {
    let mut sold: BTreeMap<Sku, u64> = BTreeMap::new();
    for (_, order) in confirmed(world) {
        for (sku, quantity) in held(&order) {
            *sold.entry(sku).or_default() += quantity;
        }
    }
    for (sku, stock) in world.states::<StockItem>() {
        let held = sold.remove(&Sku::new(sku.clone()).expect("a sku")).unwrap_or(0);
        hold!(stock.sold == held, "{sku}: {held} are with customers: {stock:?}");
    }
    hold!(sold.is_empty(), "sold and not in stock: {sold:?}");
    Ok(())
}

fn nobody_is_charged_twice(world: &World<'_>) -> Result<(), String> {
    for (order, account) in books(world)? {
        hold!(account.authorisations <= 1, "{order} was charged twice: {account:?}");
    }
    Ok(())
}

/// What the provider did, and what the payments say that it did; and at the end nothing is in between.
fn books_agree(world: &World<'_>) -> Result<(), String> {
    for (id, account) in books(world)? {
        let payment = world.state::<Payment>(&id);
        let ours = (payment.captured.minor, payment.refunded.minor);
        let theirs = (account.captured, account.refunded);
        hold!(ours == theirs, "{id}: we say {ours:?}, the provider {account:?}");
        hold!(
            account.set_aside() == 0,
            "{id}: money stays set aside: {account:?} {payment:?}"
        );
        hold!(
            account.paid() == account.kept(),
            "{id}: money is lost or made: {account:?}"
        );
        let is_open = matches!(
            payment.status,
            payment::Status::Authorising | payment::Status::Capturing | payment::Status::Voiding
        );
        hold!(!is_open, "{id}: the payment is still open: {payment:?}");
    }
    Ok(())
}

fn money_is_what_orders_cost(world: &World<'_>) -> Result<(), String> {
    let books = books(world)?;
    for (id, order) in world.states::<Order>() {
        let kept = books.get(&id).map_or(0, super::provider::Account::kept);
        let owed = match order.status {
            order::Status::Confirmed => order.total.minor - order.refunded.minor,
            _ => 0,
        };
        hold!(kept == owed, "{id}: kept {kept}, owed {owed}: {order:?}");
    }
    Ok(())
}

fn customers_know(world: &World<'_>) -> Result<(), String> {
    let orders: BTreeMap<OrderId, order::State> = confirmed(world)
        .map(|(id, order)| (OrderId::new(id).expect("an order id"), order))
        .collect();
    let mut known = 0;
    for (id, customer) in world.states::<Customer>() {
        for recorded in &customer.orders {
            let Some(order) = orders.get(&recorded.order) else {
                return Err(format!(
                    "customer {id} knows an order that is not confirmed: {recorded:?}"
                ));
            };
            let held = held(order);
            hold!(recorded.returnable == held, "customer {id}: {recorded:?}, but {held:?}");
            known += 1;
        }
    }
    let expected = orders.values().filter(|order| order.customer.is_some()).count();
    hold!(known == expected, "customers know {known} orders of {expected}");
    Ok(())
}

fn ends_agree(world: &World<'_>) -> Result<(), String> {
    for (id, checkout) in world.states::<Checkout>() {
        let order = world.state::<Order>(&id);
        let completed = checkout.phase == Phase::Completed && checkout.problems.is_empty();
        let settled = order.settled && !order.unpaid;
        hold!(completed == settled, "{id}: {checkout:?} {order:?}");
        let has_reason = completed || order.reason.is_some();
        hold!(has_reason, "{id} came to nothing without a reason: {order:?}");
    }
    let orders = world.states::<Order>();
    for (id, it) in world.states::<Return>() {
        let refunds: i64 = (orders.values())
            .flat_map(|order| &order.returns)
            .filter(|(return_id, _)| ***return_id == *id)
            .map(|(_, taken)| taken.refund.minor)
            .sum();
        hold!(
            refunds == returns::refunded_of(&it).minor,
            "return {id}: orders say {refunds}: {it:?}"
        );
    }
    Ok(())
}
