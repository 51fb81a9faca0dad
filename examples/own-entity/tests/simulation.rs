//! Seats and bookings on several nodes under one seed, while everything goes wrong that can.

mod careless;

use std::collections::BTreeSet;

use careless::CarelessSeat;
use cluster::{
    Registry, saga,
    saga::Phase,
    simulation::{Rng, Served, Simulation, Step, World},
};
use own_entity::{
    booking::{Booking, Order, Receipt, Wanted},
    registry,
    seat::{Seat, State},
};

/// Few seats, so that many want the same.
const SEATS: [&str; 3] = ["row-1-7", "row-1-8", "row-2-1"];

fn workload(rng: &mut Rng, step: u64) -> Step {
    let wanted = Wanted {
        seat: rng.pick(&SEATS).to_owned(),
        card: rng.pick(&["ann-7", "bob-9", "stolen-1"]).to_owned(),
        cents: 2_500,
    };
    Step::ask::<Booking>(&format!("b-{step}"), saga::Command::Start(wanted))
}

/// A bank that is sometimes out of reach, and sometimes does what it is asked and cannot say so.
fn bank(order: Order, rng: &mut Rng) -> Served<Receipt> {
    let receipt = match order {
        Order::Charge { card, .. } if card.starts_with("stolen") => Receipt::Declined,
        Order::Charge { .. } | Order::Refund { .. } => Receipt::Done,
    };
    match rng.below(10) {
        0 => Served::GivenUp("out of reach".to_owned()),
        1 => Served::DoneButGivenUp(receipt, "no answer".to_owned()),
        _ => Served::Done(receipt),
    }
}

/// Every booking has ended, those that are completed have their seats, and nobody else has one.
fn seats_are_where_they_belong(world: &World<'_>) -> Result<(), String> {
    let bookings = world.states::<Booking>();
    for (id, booking) in &bookings {
        let seat = &booking.input.as_ref().ok_or("a booking without a seat")?.seat;
        let has_it = world.state::<Seat>(seat) == State::SoldTo(id.clone());
        match booking.phase {
            Phase::Completed if has_it => {}
            Phase::Undone if !has_it => {}
            phase => {
                return Err(format!(
                    "{id} is {phase:?}, and {seat} is {:?}",
                    world.state::<Seat>(seat)
                ));
            }
        }
    }
    for (seat, state) in world.states::<Seat>() {
        if let State::HeldBy(id) = state {
            return Err(format!("{seat} is still held for {id}"));
        }
    }
    Ok(())
}

/// Who has a seat has paid for it, and nobody else has.
fn who_pays_has_a_seat(world: &World<'_>) -> Result<(), String> {
    let (mut charged, mut refunded) = (BTreeSet::new(), BTreeSet::new());
    for call in world.calls::<Order, Receipt>("bank") {
        let (Served::Done(receipt) | Served::DoneButGivenUp(receipt, _)) = call.served else {
            continue;
        };
        match call.request {
            Order::Charge { booking, .. } if receipt == Receipt::Done => charged.insert(booking),
            Order::Charge { .. } => false,
            Order::Refund { booking } => refunded.insert(booking),
        };
    }
    for (id, booking) in world.states::<Booking>() {
        let has_paid = charged.contains(&id) && !refunded.contains(&id);
        if has_paid != (booking.phase == Phase::Completed) {
            return Err(format!("{id} is {:?}; that it has paid is {has_paid}", booking.phase));
        }
    }
    Ok(())
}

fn simulation(registry: Registry) -> Simulation {
    Simulation::new(registry)
        .workload(workload)
        .service("bank", bank)
        .invariant("seats are where they belong", seats_are_where_they_belong)
        .invariant("who pays has a seat", who_pays_has_a_seat)
}

#[test]
fn bookings_hold_whatever_goes_wrong() {
    let summary = simulation(registry()).seeds(0..200).run();
    println!("{:#?}", summary.counts);
    // One seed that is run again by itself may have met nothing.
    if summary.runs == 200 {
        assert!(summary.counts["crashes"] > 100 && summary.counts["effects repeated"] > 100);
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let hash = || simulation(registry()).seeds(7..9).run().trace_hash;
    assert_eq!(hash(), hash());
}

/// The seat of `tests/careless` gives itself back for whoever asks.
#[test]
fn a_planted_bug_is_found_within_50_seeds() {
    let careless = Registry::new().with::<CarelessSeat>().with::<Booking>();
    let found = simulation(careless)
        .seeds(0..50)
        .try_run()
        .expect_err("the bug is found");
    println!("{found}");
    assert_eq!(found.invariant, "seats are where they belong");
}
