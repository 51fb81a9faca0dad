//! The checkout of an order: a saga that promises, charges and hands over, or undoes all of it. Its id is the order's.
//!
//! What it does, and what undoes it, is the table below: stage after stage from top to bottom, the steps of one stage at once.
//! The order's confirmation is the point of no return: what is refused after it is kept as a problem for everyone to see, and
//! the checkout goes on. Money that cannot be taken is told to the order, which then calls itself off.
//!
//! How such a table runs is the business of [`cluster::saga`]. Reading order: this file, [`steps`] (what the rows do and how
//! answers are read).

mod steps;

use std::collections::BTreeMap;

use cluster::{
    JsonSchema, Schema,
    saga::{Action, End, Heard, Known, Retry, Saga, Stage, Step, Verdict, Work},
};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId, Sku},
    money::Money,
    order::{self, Order},
    payment::Notice,
};

pub use cluster::saga::Phase;

/// The kind `checkout`.
#[derive(Debug)]
pub struct Checkout;

/// Where a checkout stands.
pub type State = cluster::saga::StateOf<Checkout>;
/// What a checkout can be told.
pub type Command = cluster::saga::Command<Input, (), Signal>;

/// What is checked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Who ordered; nobody for a guest.
    pub customer: Option<CustomerId>,
    /// What is ordered, each product once.
    pub lines: BTreeMap<Sku, u64>,
    /// What it costs.
    pub total: Money,
    /// What it is paid with; forgotten at the end.
    pub card: String,
}

/// What others tell a checkout on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// From a product's stock: it has been promised to this order for as long as promises are held. A checkout that can
    /// still turn back does, and releases it as it undoes everything; one that cannot keeps it.
    HeldForItsTime {
        /// The product's SKU.
        sku: String,
    },
    /// From the payment: what the provider said.
    Payment(Notice),
}

/// A capture is tried so often before it is kept as a problem: saying it again changes nothing. A stock item cannot tell a second
/// commit from one without a reservation, so that is said once.
const PERSISTENT: Retry = Retry::times(5, 1_000, 30_000);

#[rustfmt::skip]
impl Saga for Checkout {
    const NAME: &'static str = "checkout";
    type Input = Input;
    type Fact = ();
    type Signal = Signal;

    const TABLE: &'static [Stage<Self>] = &[
        Stage::given("place")                                    .undo(steps::refuse),
        Stage::new("reserve", steps::reserve).each(products)     .undo(steps::release).judge(steps::stock),
        // The provider may not answer for long; a void after an authorisation that is under way undoes it all the same.
        Stage::new("authorise", steps::authorise)                .undo(steps::void).undo_at_once().judge(steps::payment),
        // Guests have none.
        Stage::new("record", steps::record).each(customer)       .undo(steps::forget).judge(steps::customer),
        Stage::new("confirm", steps::confirm)                    .point_of_no_return().judge(steps::order),
        // Beyond this line there is no way back.
        Stage::new("commit", steps::commit).each(products)       .or_go_on().judge(steps::stock),
        Stage::new("capture", steps::capture)                    .or_go_on().retry(PERSISTENT).judge(steps::payment),
    ];

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn check(id: &str, _: &Input) -> Result<(), String> {
        OrderId::new(id).map(drop).map_err(|error| format!("the order id {error}"))
    }

    fn hear(_: &Work<'_, Self>, signal: Signal) -> Heard<()> {
        match signal {
            Signal::HeldForItsTime { sku } => Heard::TurnBack(format!("reservation_expired: {sku}")),
            Signal::Payment(notice) => notice_heard(notice),
        }
    }

    /// A completed checkout is settled, and the order cannot say no to that. One that came to nothing has been refused by the
    /// undo of the first row.
    fn ended(work: &Work<'_, Self>, end: End) -> Vec<Action> {
        let unpaid = work.problem("capture").map(ToOwned::to_owned);
        match end {
            End::Completed => vec![Action::ask::<Order>(work.id(), &order::Command::Settle { unpaid })],
            End::Undone => Vec::new(),
        }
    }

    fn forget(input: &mut Input) {
        input.card.clear();
    }
}

fn products(known: &Known<'_, Checkout>) -> Vec<String> {
    known.input().lines.keys().map(ToString::to_string).collect()
}

fn customer(known: &Known<'_, Checkout>) -> Vec<String> {
    known.input().customer.iter().map(ToString::to_string).collect()
}

/// Which step a notice of the payment answers, and how.
fn notice_heard(notice: Notice) -> Heard<()> {
    let (stage, verdict) = match notice {
        Notice::Authorised => ("authorise", Verdict::Done),
        Notice::Declined { reason } => ("authorise", Verdict::Refused(format!("payment_declined: {reason}"))),
        Notice::Unavailable { reason } => ("authorise", Verdict::Refused(format!("payment_unavailable: {reason}"))),
        Notice::Captured => ("capture", Verdict::Done),
        Notice::CaptureFailed { reason } => ("capture", Verdict::Refused(reason)),
        Notice::Lapsed { reason } => return Heard::TurnBack(format!("payment_lapsed: {reason}")),
        Notice::Refunded { .. } | Notice::RefundFailed { .. } => return Heard::Nothing,
    };
    Heard::Answer(Step::new(stage, ""), verdict)
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/checkout/golden");
        cluster::entity::script::golden::<super::Checkout>(folder);
    }
}
