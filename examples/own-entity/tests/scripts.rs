//! Seat and booking alone: given, when, then.

use cluster::{
    Effect, saga,
    saga::Phase,
    script::{Script, golden},
};
use own_entity::{
    booking::{Booking, Receipt, Wanted},
    seat::{Command, Event, HOLD_MS, Rejection, Seat, State},
};

fn booking() -> String {
    "b-1".to_owned()
}

fn other() -> String {
    "b-2".to_owned()
}

#[test]
fn a_free_seat_is_held_for_two_minutes() {
    Script::<Seat>::new("row-1-7")
        .at(9_999)
        .when(Command::Hold { booking: booking() })
        .then_events([Event::Held { booking: booking() }])
        .then_effects([Effect::set_timer("hold", 10_000 + HOLD_MS, booking())])
        .then_reply(())
        .wait(HOLD_MS)
        .then_events([Event::Freed])
        .then_state(State::Free);
}

#[test]
fn a_seat_that_is_bought_stays_so() {
    Script::<Seat>::new("row-1-7")
        .when(Command::Hold { booking: booking() })
        .when(Command::Buy { booking: booking() })
        .then_events([Event::Sold { booking: booking() }])
        .then_timers([])
        .wait(HOLD_MS)
        .then_state(State::SoldTo(booking()));
}

#[test]
fn a_seat_goes_to_one_booking_only() {
    let held = || Script::<Seat>::new("row-1-7").given([Event::Held { booking: booking() }]);
    held()
        .when(Command::Hold { booking: other() })
        .then_rejected(Rejection::Taken)
        .when(Command::Buy { booking: other() })
        .then_rejected(Rejection::NotHeld)
        .when(Command::Release { booking: other() })
        .then_events([])
        .then_state(State::HeldBy(booking()));
}

#[test]
fn golden_scripts_come_out_as_they_are_written() {
    golden::<Seat>("tests/golden");
}

fn started() -> Script<Booking> {
    let wanted = Wanted {
        seat: "row-1-7".to_owned(),
        card: "ann-7".to_owned(),
        cents: 2_500,
    };
    Script::<Booking>::new("b-1").when(saga::Command::Start(wanted))
}

/// What the last command asks of others: whom, and with which token their answer comes back.
fn asked(script: &Script<Booking>) -> saga::Token {
    let [sent] = script.effects() else {
        panic!("it asks for one thing at a time: {:?}", script.effects())
    };
    sent.token.clone().expect("an answer is waited for")
}

#[test]
fn a_booking_that_can_pay_gets_its_seat() {
    let script = started();
    let hold = asked(&script);
    let script = script.replied::<Seat>(hold, ());
    let charge = asked(&script);
    let script = script.answered(charge, &Receipt::Done);
    let buy = asked(&script);
    let script = script.replied::<Seat>(buy, ());
    assert_eq!(script.state().phase, Phase::Completed);
}

#[test]
fn a_booking_that_cannot_pay_gives_its_seat_back() {
    let script = started();
    let hold = asked(&script);
    let script = script.replied::<Seat>(hold, ());
    let charge = asked(&script);
    let script = script.answered(charge, &Receipt::Declined);
    let (seat, Command::Release { booking }) = script.effects()[0].command::<Seat>().expect("the seat is told") else {
        panic!("it is told something else")
    };
    assert_eq!((seat.as_str(), booking.as_str()), ("row-1-7", "b-1"));
    let release = asked(&script);
    let script = script.replied::<Seat>(release, ());
    assert_eq!(script.state().phase, Phase::Undone);
}
