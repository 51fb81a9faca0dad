//! What must hold once nothing is under way any more.

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

use super::World;

/// Everything that must hold in any case, and what must hold where no promise of the platform was broken.
pub(crate) fn check(world: &World) {
    let problems = problems(world);
    sagas_ended(world);
    stock_conserved(world);
    never_charged_twice(world);
    if problems.is_empty() {
        nothing_promised(world);
        sold_is_what_customers_hold(world);
        money_is_what_orders_cost(world);
        books_agree(world);
        customers_know_what_can_come_back(world);
        ends_agree(world);
    }
}

/// What entities say must not have happened and did.
pub(crate) fn problems(world: &World) -> Vec<String> {
    let orders = world.all::<Order>().into_iter().flat_map(|(_, order)| order.problems);
    let told = |(step, reason)| format!("{step}: {reason}");
    let checkouts = world
        .all::<Checkout>()
        .into_iter()
        .flat_map(|(_, checkout)| checkout.problems)
        .map(told);
    let returns = world
        .all::<Return>()
        .into_iter()
        .flat_map(|(_, entity)| entity.problems)
        .map(told);
    let payments = (world.all::<Payment>().into_iter())
        .filter(|(_, payment)| payment.void_failed.is_some())
        .map(|(id, _)| format!("payment {id}: void failed"));
    orders.chain(checkouts).chain(returns).chain(payments).collect()
}

macro_rules! hold {
    ($world:expr, $condition:expr, $($what:tt)+) => {
        if !$condition {
            $world.fail(&format!($($what)+));
        }
    };
}

fn sagas_ended(world: &World) {
    world.all_sagas_ended();
    for (id, order) in world.all::<Order>() {
        let pends = matches!(order.status, order::Status::Pending);
        hold!(
            world,
            !pends || !problems(world).is_empty(),
            "order {id} pends: {order:?}"
        );
        hold!(
            world,
            order.status != order::Status::Cancelling,
            "order {id} is cancelling: {order:?}"
        );
    }
}

fn stock_conserved(world: &World) {
    for (sku, stock) in world.all::<StockItem>() {
        hold!(
            world,
            stock.is_conserved(),
            "pieces of {sku} are lost or made: {stock:?}"
        );
    }
}

fn never_charged_twice(world: &World) {
    for (order, account) in &world.outside.accounts {
        hold!(
            world,
            account.authorisations <= 1,
            "{order} was charged twice: {account:?}"
        );
    }
}

fn nothing_promised(world: &World) {
    for (sku, stock) in world.all::<StockItem>() {
        hold!(
            world,
            stock.reserved == 0,
            "pieces of {sku} are still promised: {stock:?}"
        );
    }
}

fn confirmed(world: &World) -> impl Iterator<Item = (String, order::State)> {
    (world.all::<Order>().into_iter()).filter(|(_, order)| order.status == order::Status::Confirmed)
}

fn held(order: &order::State) -> BTreeMap<Sku, u64> {
    let mut held = BTreeMap::new();
    for line in &order.lines {
        *held.entry(line.sku.clone()).or_insert(0) += line.quantity - line.returned;
    }
    held.retain(|_, quantity| *quantity > 0);
    held
}

fn sold_is_what_customers_hold(world: &World) {
    let mut sold: BTreeMap<Sku, u64> = BTreeMap::new();
    for (_, order) in confirmed(world) {
        for (sku, quantity) in held(&order) {
            *sold.entry(sku).or_default() += quantity;
        }
    }
    for (sku, stock) in world.all::<StockItem>() {
        let held = sold.remove(&Sku::new(sku.clone()).expect("a sku")).unwrap_or(0);
        hold!(world, stock.sold == held, "{sku}: {held} are with customers: {stock:?}");
    }
    hold!(world, sold.is_empty(), "sold and not in stock: {sold:?}");
}

fn money_is_what_orders_cost(world: &World) {
    for (id, order) in world.all::<Order>() {
        let payment = world.state::<Payment>(&id);
        let kept = payment.captured.minor - payment.refunded.minor;
        let owed = match order.status {
            order::Status::Confirmed => order.total.minor - order.refunded.minor,
            _ => 0,
        };
        hold!(
            world,
            kept == owed,
            "{id}: kept {kept}, owed {owed}: {order:?} {payment:?}"
        );
    }
}

fn books_agree(world: &World) {
    for (id, account) in &world.outside.accounts {
        let payment = world.state::<Payment>(id);
        let ours = (payment.captured.minor, payment.refunded.minor);
        let theirs = (account.captured, account.refunded);
        hold!(world, ours == theirs, "{id}: we say {ours:?}, the provider {account:?}");
        hold!(
            world,
            account.held == 0,
            "{id}: money stays set aside: {account:?} {payment:?}"
        );
        let open = matches!(
            payment.status,
            payment::Status::Authorising | payment::Status::Capturing | payment::Status::Voiding
        );
        hold!(world, !open, "{id}: the payment is still open: {payment:?}");
    }
}

fn customers_know_what_can_come_back(world: &World) {
    let orders: BTreeMap<OrderId, order::State> = confirmed(world)
        .map(|(id, order)| (OrderId::new(id).expect("an order id"), order))
        .collect();
    let mut known = 0;
    for (id, customer) in world.all::<Customer>() {
        for recorded in &customer.orders {
            let Some(order) = orders.get(&recorded.order) else {
                world.fail(&format!(
                    "customer {id} knows an order that is not confirmed: {recorded:?}"
                ))
            };
            let held = held(order);
            hold!(
                world,
                recorded.returnable == held,
                "customer {id}: {recorded:?}, but {held:?}"
            );
            known += 1;
        }
    }
    let expected = orders.values().filter(|order| order.customer.is_some()).count();
    hold!(world, known == expected, "customers know {known} orders of {expected}");
}

fn ends_agree(world: &World) {
    for (id, checkout) in world.all::<Checkout>() {
        let order = world.state::<Order>(&id);
        let completed = checkout.phase == Phase::Completed;
        hold!(
            world,
            completed == (order.settled && !order.unpaid),
            "{id}: {checkout:?} {order:?}"
        );
        hold!(
            world,
            completed || order.reason.is_some(),
            "{id} came to nothing without a reason: {order:?}"
        );
    }
    for (id, entity) in world.all::<Return>() {
        let refunds: i64 = (world.all::<Order>().iter())
            .flat_map(|(_, order)| &order.returns)
            .filter(|(return_id, _)| ***return_id == *id)
            .map(|(_, taken)| taken.refund.minor)
            .sum();
        let expected = returns::refunded_of(&entity).minor;
        hold!(
            world,
            refunds == expected,
            "return {id}: orders say {refunds}: {entity:?}"
        );
        hold!(
            world,
            entity.reason.is_some() == (entity.phase == Phase::Undone),
            "return {id} is refused without a reason: {entity:?}"
        );
    }
}
