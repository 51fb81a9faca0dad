//! The sagas in a world of their own: every one with a failure at each step and a repeat of each step, and crowds of
//! them over the same stock in hundreds of orders of events.

mod world;

use std::collections::BTreeMap;

use actors::{
    Currency, CustomerId, Money, OrderId, Sku,
    checkout::{Checkout, Phase},
    order::{self, Line, Order, Status},
    payment::{self, Payment},
    returns::{self, Return},
    stock::{self, StockItem},
};
use cluster::{
    Entity as _, Outcome,
    saga::test::{Fault, every_fault_with},
};
use world::{World, invariants, seeded};

fn sku(text: &str) -> Sku {
    Sku::new(text).expect("a sku")
}

fn line(text: &str, quantity: u64, pence: i64) -> Line {
    Line {
        sku: sku(text),
        quantity,
        unit_price: Money::new(pence, Currency::GBP),
    }
}

fn receive(world: &mut World, text: &str, quantity: u64) {
    world.command::<StockItem>(text, &stock::Command::Receive { quantity });
}

fn place(world: &mut World, id: &str, customer: &str, card: &str, lines: Vec<Line>) {
    let place = order::Command::Place {
        customer: (!customer.is_empty()).then(|| CustomerId::new(customer).expect("a customer")),
        lines,
        currency: Currency::GBP,
        card: card.to_owned(),
    };
    world.command::<Order>(id, &place);
}

fn cancel(world: &mut World, id: &str) {
    let reason = "changed my mind".to_owned();
    world.command::<Order>(id, &order::Command::Cancel { reason });
}

fn bring_back(world: &mut World, id: &str, customer: &str, lines: &[(&str, u64)]) {
    let mut input = returns::Input {
        customer: CustomerId::new(customer).expect("a customer"),
        lines: BTreeMap::new(),
    };
    for (text, quantity) in lines {
        *input.lines.entry(sku(text)).or_default() += quantity;
    }
    world.command::<Return>(id, &returns::Command::Start(input));
}

/// Runs some messages, so that what comes next meets things half done.
fn some_steps(world: &mut World) {
    for _ in 0..world.draw(40) {
        world.step();
    }
}

// Scenarios.

/// Two lines of one product and one of another, by a customer.
fn checkout(world: &mut World) {
    receive(world, "A", 10);
    receive(world, "B", 10);
    let lines = vec![line("A", 1, 100), line("B", 2, 255), line("A", 3, 90)];
    place(world, "o-1", "c-1", "4242", lines);
    world.settle();
}

fn guest_checkout_of_a_free_thing(world: &mut World) {
    receive(world, "A", 10);
    place(world, "o-1", "", "4242", vec![line("A", 1, 0)]);
    world.settle();
}

fn out_of_stock(world: &mut World) {
    receive(world, "A", 10);
    place(world, "o-1", "c-1", "4242", vec![line("A", 1, 100), line("B", 1, 100)]);
    world.settle();
}

fn declined(world: &mut World) {
    receive(world, "A", 10);
    place(world, "o-1", "c-1", "declined", vec![line("A", 1, 100)]);
    world.settle();
}

fn cancelled_at_rest(world: &mut World) {
    checkout(world);
    cancel(world, "o-1");
    world.settle();
}

fn cancelled_on_the_way(world: &mut World) {
    receive(world, "A", 10);
    place(world, "o-1", "c-1", "4242", vec![line("A", 4, 100)]);
    some_steps(world);
    cancel(world, "o-1");
    world.settle();
}

fn returned_over_two_orders(world: &mut World) {
    checkout(world);
    place(world, "o-2", "c-1", "4242", vec![line("A", 2, 80)]);
    world.settle();
    bring_back(world, "r-1", "c-1", &[("A", 4), ("B", 1)]);
    world.settle();
}

/// A return that meets one order at rest, one on its way, and one that is being cancelled.
fn returned_on_the_way(world: &mut World) {
    checkout(world);
    place(world, "o-2", "c-1", "4242", vec![line("A", 2, 80)]);
    place(world, "o-3", "c-1", "4242", vec![line("A", 2, 70)]);
    some_steps(world);
    bring_back(world, "r-1", "c-1", &[("A", 5)]);
    some_steps(world);
    cancel(world, "o-2");
    some_steps(world);
    bring_back(world, "r-2", "c-1", &[("A", 1), ("B", 1)]);
    cancel(world, "o-1");
    world.settle();
}

type Scenario = fn(&mut World);

const SCENARIOS: [(&str, Scenario); 8] = [
    ("checkout", checkout),
    ("guest_checkout_of_a_free_thing", guest_checkout_of_a_free_thing),
    ("out_of_stock", out_of_stock),
    ("declined", declined),
    ("cancelled_at_rest", cancelled_at_rest),
    ("cancelled_on_the_way", cancelled_on_the_way),
    ("returned_over_two_orders", returned_over_two_orders),
    ("returned_on_the_way", returned_on_the_way),
];

/// A single failure is made up for by whoever meets it: the sagas undo, or try again what can be said twice. What cannot, and what
/// an order gives back by itself, is kept as a problem.
const SEEN: [&str; 3] = [" Commit ", " Restock ", " Refund "];

#[test]
fn every_saga_ends_well_with_a_failure_at_each_step_and_a_repeat_of_each_step() {
    for (name, scenario) in SCENARIOS {
        let check = |world: &World| {
            invariants::check(world);
            let hit = world.hit.clone().unwrap_or_default();
            let problems = invariants::problems(world);
            if !problems.is_empty() && !SEEN.iter().any(|word| hit.contains(word)) {
                world.fail(&problems);
            }
        };
        let runs = every_fault_with(seeded, 8, scenario, check);
        assert!(runs > 100, "{name} was hardly run: {runs}");
    }
}

/// After the point of no return a failure of what can be said twice is made up for; any other is seen.
#[test]
fn a_failure_beyond_the_point_of_no_return_is_made_up_for_or_seen() {
    let mut seen = 0;
    for at in 0..60 {
        let mut world = seeded(1, Some((at, Fault::Fail)));
        checkout(&mut world);
        let hit = world.hit.clone().unwrap_or_default();
        let (commit, capture) = (hit.contains(" Commit "), hit.contains(" Capture"));
        if commit || capture {
            assert_eq!(invariants::problems(&world).is_empty(), capture, "{hit}");
            assert_eq!(world.state::<Checkout>("o-1").phase, Phase::Completed);
            let is_tried_again = world.lines().iter().any(|line| line.contains("saga-retry"));
            assert_eq!(is_tried_again, capture, "{hit}");
            seen += 1;
        }
    }
    assert_eq!(seen, 3, "two commits and a capture were hit");
}

#[test]
fn a_checkout_charges_and_sells() {
    let mut world = seeded(0, None);
    checkout(&mut world);
    invariants::check(&world);
    assert_eq!(world.state::<Order>("o-1").status, Status::Confirmed);
    assert_eq!(world.outside.accounts["o-1"].captured, 880);
    assert_eq!(world.state::<StockItem>("A").sold, 4);
}

#[test]
fn each_refusal_has_its_reason() {
    for (scenario, reason) in [
        (out_of_stock as Scenario, "out_of_stock: B"),
        (declined, "payment_declined: card declined"),
    ] {
        let mut world = seeded(0, None);
        scenario(&mut world);
        invariants::check(&world);
        let order = world.state::<Order>("o-1");
        assert_eq!((order.status, order.reason.as_deref()), (Status::Refused, Some(reason)));
        assert_eq!(world.state::<Checkout>("o-1").phase, Phase::Undone);
    }
}

/// The provider set the money aside, but nobody heard of it: it is voided.
#[test]
fn an_authorisation_that_was_given_up_does_not_stay() {
    let mut world = seeded(0, None);
    receive(&mut world, "A", 10);
    place(&mut world, "o-1", "c-1", "unclear", vec![line("A", 1, 100)]);
    world.settle();
    invariants::check(&world);
    let order = world.state::<Order>("o-1");
    assert_eq!(order.reason.as_deref(), Some("payment_unavailable: no answer"));
}

/// The provider takes back its word: the order is called off, and the payment says why.
#[test]
fn money_that_cannot_be_taken_calls_the_order_off() {
    for seed in 0..100 {
        let mut world = seeded(seed, None);
        receive(&mut world, "A", 10);
        place(&mut world, "o-1", "c-1", "unwilling", vec![line("A", 3, 100)]);
        some_steps(&mut world);
        bring_back(&mut world, "r-1", "c-1", &[("A", 1)]);
        some_steps(&mut world);
        if seed % 2 == 0 {
            cancel(&mut world, "o-1");
        }
        world.settle();
        for (sku, stock) in world.all::<StockItem>() {
            assert!(stock.on_hand == 10 && stock.is_conserved(), "{sku}: {stock:?}");
        }
        let order = world.state::<Order>("o-1");
        if order.status != Status::Cancelled || world.state::<Return>("r-1").phase.end().is_none() {
            world.fail(&order);
        }
        let payment = world.state::<Payment>("o-1");
        let expected = if order.unpaid {
            payment::Status::CaptureFailed
        } else {
            payment::Status::Voided
        };
        assert_eq!(payment.status, expected);
        assert!(
            world
                .all::<Checkout>()
                .iter()
                .all(|(_, checkout)| checkout.phase.end().is_some())
        );
        assert_eq!(world.outside.accounts.get("o-1").map_or(0, |account| account.held), 0);
    }
}

/// A refund that the provider refuses against its promise does not pass unseen.
#[test]
fn a_refused_refund_is_seen() {
    let mut world = seeded(0, None);
    receive(&mut world, "A", 10);
    place(&mut world, "o-1", "c-1", "no refunds", vec![line("A", 3, 100)]);
    world.settle();
    cancel(&mut world, "o-1");
    world.settle();
    let order = world.state::<Order>("o-1");
    assert_eq!((order.status, order.problems.len()), (Status::Cancelled, 1));
    assert!(world.state::<Payment>("o-1").has_failed());
}

/// Many clients at once over little stock; every outcome may come twice.
fn crowd(seed: u64) -> World {
    crowd_in(seeded(seed, None))
}

fn crowd_in(mut world: World) -> World {
    world.repeat_outcomes = 0.2;
    let skus = ["A", "B", "C"];
    let customers = ["", "c-1", "c-2"];
    let cards = ["4242", "4242", "4242", "4242", "declined", "unclear"];
    let pick = |world: &mut World, from: &[&'static str]| from[world.draw(from.len() as u64) as usize];
    for text in skus {
        receive(&mut world, text, 12);
    }
    let mut placed = 0;
    for n in 0..40 {
        match world.draw(10) {
            0..5 => {
                let lines = (0..=world.draw(3))
                    .map(|_| {
                        let text = pick(&mut world, &skus);
                        line(text, 1 + world.draw(4), world.draw(3) as i64 * 50)
                    })
                    .collect();
                let (customer, card) = (pick(&mut world, &customers), pick(&mut world, &cards));
                place(&mut world, &format!("o-{placed}"), customer, card, lines);
                placed += 1;
            }
            5..7 => {
                let id = world.draw(placed + 1);
                cancel(&mut world, &format!("o-{id}"));
            }
            7..9 => {
                let lines = [
                    (pick(&mut world, &skus), 1 + world.draw(3)),
                    (pick(&mut world, &skus), 1),
                ];
                let customer = pick(&mut world, &customers[1..]);
                bring_back(&mut world, &format!("r-{n}"), customer, &lines);
            }
            _ => {
                let text = pick(&mut world, &skus);
                let write_off = stock::Command::WriteOff {
                    quantity: 1,
                    reason: "broken".to_owned(),
                };
                let _: Outcome = world.command::<StockItem>(text, &write_off);
                receive(&mut world, text, 3);
            }
        }
        some_steps(&mut world);
    }
    world.settle();
    world
}

#[test]
fn crowds_over_the_same_stock_come_out_right() {
    let (mut confirmed, mut refused, mut cancelled, mut completed, mut rounds) = (0, 0, 0, 0, 0);
    for seed in 0..500 {
        let mut world = crowd(seed);
        world.note(&format!("seed {seed}"));
        let problems = invariants::problems(&world);
        if !problems.is_empty() {
            world.fail(&problems);
        }
        invariants::check(&world);
        for (_, order) in world.all::<Order>() {
            match order.status {
                Status::Confirmed => confirmed += 1,
                Status::Refused => refused += 1,
                Status::Cancelled => cancelled += 1,
                _ => {}
            }
        }
        for (_, entity) in world.all::<Return>() {
            completed += u32::from(entity.phase == Phase::Completed);
            rounds += u32::from(entity.round > 1);
        }
    }
    // The crowd is worth its name only if all of this happens in it.
    let common = [confirmed, refused, cancelled, completed];
    assert!(
        common.iter().all(|count| *count > 500) && rounds > 5,
        "{common:?}, {rounds} with several rounds"
    );
}

// Time.

/// The provider has set the money aside and never says so: the payment's own timer gives up, and the void undoes it.
#[test]
fn an_authorisation_that_is_not_answered_in_time_is_given_up() {
    let mut world = seeded(0, None);
    receive(&mut world, "A", 10);
    place(&mut world, "o-1", "c-1", "silent", vec![line("A", 1, 100)]);
    world.settle();
    invariants::check(&world);
    assert!(invariants::problems(&world).is_empty());
    let order = world.state::<Order>("o-1");
    assert_eq!(order.reason.as_deref(), Some("payment_unavailable: no answer in time"));
    assert_eq!(world.state::<StockItem>("A").on_hand, 10);
    assert_eq!(world.outside.accounts["o-1"].authorisations, 1);
}

/// A promise that nobody will ever make good or take back: its order has no checkout.
#[test]
fn a_reservation_without_a_checkout_expires() {
    let mut world = seeded(0, None);
    receive(&mut world, "A", 10);
    let order = OrderId::new("o-nobody").expect("an order id");
    world.command::<StockItem>("A", &stock::Command::Reserve { order, quantity: 4 });
    assert_eq!(world.state::<StockItem>("A").reserved, 4);
    world.settle();
    let stock = world.state::<StockItem>("A");
    assert_eq!((stock.on_hand, stock.reserved, stock.expiries.len()), (10, 0, 0));
}

/// Each scenario with reservations that expire at any moment: whatever comes first, the order is either refused with that
/// reason and all is undone, or it goes through with all that it promised.
#[test]
fn a_reservation_that_expires_at_any_moment_undoes_its_order_or_nothing() {
    let (mut expired, mut confirmed, mut asked_too_late) = (0, 0, 0);
    for (name, scenario) in SCENARIOS {
        for seed in 0..400 {
            let mut world = seeded(seed, None);
            world.early_timers = Some((StockItem::KIND, 0.15));
            scenario(&mut world);
            world.note(&format!("{name}, seed {seed}"));
            invariants::check(&world);
            if !invariants::problems(&world).is_empty() {
                world.fail(&invariants::problems(&world));
            }
            for (id, order) in world.all::<Order>() {
                let reason = order.reason.clone().unwrap_or_default();
                if reason.starts_with("reservation_expired") {
                    expired += 1;
                    assert_eq!(order.status, Status::Refused, "{id}");
                } else if order.status == Status::Confirmed {
                    confirmed += 1;
                    let asked = |line: &&String| line.contains(&format!("checkout/{id} Signal {{\"HeldForItsTime\""));
                    asked_too_late += world.lines().iter().filter(asked).count();
                }
            }
        }
    }
    let seen = [expired, confirmed, asked_too_late];
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

#[test]
fn crowds_whose_reservations_expire_at_any_moment_come_out_right() {
    let mut expired = 0;
    for seed in 0..200 {
        let mut world = seeded(seed, None);
        world.early_timers = Some((StockItem::KIND, 0.03));
        let mut world = crowd_in(world);
        world.note(&format!("seed {seed}"));
        if !invariants::problems(&world).is_empty() {
            world.fail(&invariants::problems(&world));
        }
        invariants::check(&world);
        let orders = world.all::<Order>();
        let reasons = orders.iter().filter_map(|(_, order)| order.reason.as_deref());
        expired += reasons
            .filter(|reason| reason.starts_with("reservation_expired"))
            .count();
    }
    assert!(expired > 200, "{expired}");
}

/// A payment whose time is over at any moment: before the confirmation the order is refused; after it, it is called off
/// like one whose money cannot be taken. Whatever was taken is for an order that stands.
#[test]
fn a_payment_that_runs_out_of_time_at_any_moment_keeps_nobody_s_money() {
    let (mut refused, mut called_off, mut confirmed) = (0, 0, 0);
    for seed in 0..1_000 {
        let mut world = seeded(seed, None);
        world.early_timers = Some((Payment::KIND, 0.1));
        receive(&mut world, "A", 10);
        place(&mut world, "o-1", "c-1", "4242", vec![line("A", 3, 100)]);
        world.settle();
        world.note(&format!("seed {seed}"));
        let (order, payment) = (world.state::<Order>("o-1"), world.state::<Payment>("o-1"));
        let account = world.outside.accounts.get("o-1").cloned().unwrap_or_default();
        let stock = world.state::<StockItem>("A");
        let is_sold = match order.status {
            Status::Confirmed => {
                confirmed += 1;
                true
            }
            Status::Refused => {
                refused += 1;
                false
            }
            Status::Cancelled if order.unpaid => {
                called_off += 1;
                false
            }
            _ => world.fail(&order),
        };
        let expected = if is_sold { (300, 3) } else { (0, 0) };
        if (account.captured, stock.sold) != expected || account.held != 0 || stock.reserved != 0 {
            world.fail(&(account, stock, payment));
        }
        if world.state::<Checkout>("o-1").phase.end().is_none() || !stock.is_conserved() {
            world.fail(&world.state::<Checkout>("o-1"));
        }
    }
    let seen = [refused, called_off, confirmed];
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}
