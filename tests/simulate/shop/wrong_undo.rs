//! A checkout with a planted bug: its table undoes in a wrong order. The order is told that it came to nothing before the pieces that
//! it holds are released, so that a customer who is told no finds nothing to buy, and a crash in between leaves them promised.
//!
//! It stands in the place of `checkout` and is asked by the same commands.

use actors::{
    OrderId, Sku,
    checkout::{self, Checkout},
    customer::{self, Customer},
    order::{self, Order},
    payment::{self, Notice, Payment},
    stock::{self, StockItem},
};
use cluster::{
    Answer, Outcome,
    saga::{Action, End, Heard, Known, Saga, Stage, Step, Verdict, Work},
};

/// The kind `checkout`, gone wrong.
#[derive(Debug)]
pub(super) struct WrongUndo;

type Doing<'a> = Work<'a, WrongUndo>;

#[rustfmt::skip]
impl Saga for WrongUndo {
    const NAME: &'static str = Checkout::NAME;
    type Input = checkout::Input;
    type Fact = ();
    type Signal = checkout::Signal;

    const TABLE: &'static [Stage<Self>] = &[
        // The bug: what is undone last belongs below what is undone before it.
        Stage::given("hold").each(products)                  .undo(release),
        Stage::given("place")                                .undo(refuse),
        Stage::new("reserve", reserve).each(products)        .nothing_to_undo().judge(usual::<StockItem>),
        Stage::new("authorise", authorise)                   .undo(void).undo_at_once().judge(payment),
        Stage::new("record", record).each(customer)          .undo(forget).judge(usual::<Customer>),
        Stage::new("confirm", confirm)                       .point_of_no_return().judge(usual::<Order>),
        Stage::new("commit", commit).each(products)          .or_go_on().judge(usual::<StockItem>),
        Stage::new("capture", capture)                       .or_go_on().judge(payment),
    ];

    fn hear(_: &Doing<'_>, signal: checkout::Signal) -> Heard<()> {
        let (stage, verdict) = match signal {
            checkout::Signal::HeldForItsTime { sku } => return Heard::TurnBack(format!("reservation_expired: {sku}")),
            checkout::Signal::Payment(Notice::Authorised) => ("authorise", Verdict::Done),
            checkout::Signal::Payment(Notice::Declined { reason } | Notice::Unavailable { reason }) => {
                ("authorise", Verdict::Refused(reason))
            }
            checkout::Signal::Payment(Notice::Captured) => ("capture", Verdict::Done),
            checkout::Signal::Payment(Notice::CaptureFailed { reason }) => ("capture", Verdict::Refused(reason)),
            checkout::Signal::Payment(Notice::Lapsed { reason }) => return Heard::TurnBack(reason),
            checkout::Signal::Payment(_) => return Heard::Nothing,
        };
        Heard::Answer(Step::new(stage, ""), verdict)
    }

    fn ended(work: &Doing<'_>, end: End) -> Vec<Action> {
        let unpaid = work.problem("capture").map(ToOwned::to_owned);
        match end {
            End::Completed => vec![Action::ask::<Order>(work.id(), &order::Command::Settle { unpaid })],
            End::Undone => Vec::new(),
        }
    }
}

fn products(known: &Known<'_, WrongUndo>) -> Vec<String> {
    known.input().lines.keys().map(ToString::to_string).collect()
}

fn customer(known: &Known<'_, WrongUndo>) -> Vec<String> {
    known.input().customer.iter().map(ToString::to_string).collect()
}

fn order_of(work: &Doing<'_>) -> OrderId {
    OrderId::new(work.id()).expect("the id of an order")
}

fn refuse(work: &Doing<'_>) -> Action {
    let reason = work.reason().unwrap_or_default().to_owned();
    Action::ask::<Order>(work.id(), &order::Command::Refuse { reason })
}

fn reserve(work: &Doing<'_>) -> Action {
    let sku = Sku::new(work.key()).expect("a sku");
    let quantity = work.input().lines[&sku];
    let order = order_of(work);
    Action::ask::<StockItem>(work.key(), &stock::Command::Reserve { order, quantity })
}

fn release(work: &Doing<'_>) -> Action {
    Action::ask::<StockItem>(work.key(), &stock::Command::Release { order: order_of(work) })
}

fn commit(work: &Doing<'_>) -> Action {
    Action::ask::<StockItem>(work.key(), &stock::Command::Commit { order: order_of(work) })
}

fn authorise(work: &Doing<'_>) -> Action {
    let (amount, card) = (work.input().total, work.input().card.clone());
    Action::ask::<Payment>(work.id(), &payment::Command::Authorise { amount, card })
}

fn void(work: &Doing<'_>) -> Action {
    Action::ask::<Payment>(work.id(), &payment::Command::Void)
}

fn capture(work: &Doing<'_>) -> Action {
    Action::ask::<Payment>(work.id(), &payment::Command::Capture)
}

fn record(work: &Doing<'_>) -> Action {
    let record = customer::Command::RecordOrder {
        order: order_of(work),
        lines: work.input().lines.clone(),
        currency: work.input().total.currency,
    };
    Action::ask::<Customer>(work.key(), &record)
}

fn forget(work: &Doing<'_>) -> Action {
    Action::ask::<Customer>(work.key(), &customer::Command::ForgetOrder { order: order_of(work) })
}

fn confirm(work: &Doing<'_>) -> Action {
    Action::ask::<Order>(work.id(), &order::Command::Confirm)
}

fn usual<E: cluster::Entity>(_: &Step, outcome: &Outcome) -> Verdict<()> {
    match outcome.answer::<E>() {
        Answer::Replied(_) => Verdict::Done,
        Answer::Rejected(_) => Verdict::Refused(format!("{}_refused: it says no", E::KIND)),
        Answer::Failed(reason) => Verdict::Failed(reason),
    }
}

fn payment(_: &Step, outcome: &Outcome) -> Verdict<()> {
    match outcome.answer::<Payment>() {
        Answer::Replied(payment::Reply::Underway) => Verdict::Underway,
        Answer::Replied(payment::Reply::Done) => Verdict::Done,
        Answer::Rejected(rejection) => Verdict::Refused(format!("payment_refused: {rejection}")),
        Answer::Failed(reason) => Verdict::Failed(reason),
    }
}
