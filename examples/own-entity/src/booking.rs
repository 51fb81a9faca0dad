//! A booking: it holds a seat, takes the money, and buys the seat; all of it or nothing.

use cluster::{
    Outcome,
    saga::{Action, NoSignal, Retry, Saga, Stage, Step, Verdict, Work},
};
use serde::{Deserialize, Serialize};

use crate::seat::{Command, Seat};

/// A booking. Its id is what seat and bank know it by.
pub struct Booking;

/// What is booked, and who pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub seat: String,
    pub card: String,
    pub cents: u64,
}

/// What the bank is asked. It does each once for a booking, and takes a refund that overtakes its charge for a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    Charge { booking: String, card: String, cents: u64 },
    Refund { booking: String },
}

/// What the bank answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receipt {
    Done,
    Declined,
}

impl Saga for Booking {
    const NAME: &'static str = "booking";
    type Input = Wanted;
    type Fact = ();
    type Signal = NoSignal;

    const TABLE: &'static [Stage<Self>] = &[
        Stage::new("hold", hold).undo(release).deadline_ms(20_000),
        Stage::new("charge", charge)
            .undo(refund)
            .judge(paid)
            .retry(Retry::times(3, 1_000, 10_000))
            .deadline_ms(60_000),
        Stage::new("buy", buy).undo(release).point_of_no_return(),
    ];
}

fn hold(work: &Work<'_, Booking>) -> Action {
    let booking = work.id().to_owned();
    Action::ask::<Seat>(&work.input().seat, &Command::Hold { booking })
}

fn release(work: &Work<'_, Booking>) -> Action {
    let booking = work.id().to_owned();
    Action::ask::<Seat>(&work.input().seat, &Command::Release { booking })
}

fn charge(work: &Work<'_, Booking>) -> Action {
    let Wanted { card, cents, .. } = work.input().clone();
    let booking = work.id().to_owned();
    Action::call("bank", &Order::Charge { booking, card, cents })
}

fn refund(work: &Work<'_, Booking>) -> Action {
    let booking = work.id().to_owned();
    Action::call("bank", &Order::Refund { booking })
}

fn buy(work: &Work<'_, Booking>) -> Action {
    let booking = work.id().to_owned();
    Action::ask::<Seat>(&work.input().seat, &Command::Buy { booking })
}

/// A card that is declined is no failure that another try would mend.
fn paid(step: &Step, outcome: &Outcome) -> Verdict<()> {
    match outcome.json() {
        Ok(Receipt::Declined) => Verdict::Refused("card_declined: the bank says no".to_owned()),
        _ => Verdict::usual(step, outcome),
    }
}
