//! A return: a saga that takes goods back from a customer, all of them or none. Its id is the return's own.
//!
//! The customer says which orders the goods go against, each order takes its pieces back and says what they cost, and
//! then stock and money go back. An order that says no (it was cancelled meanwhile, or is not confirmed yet) makes the
//! return undo what the others did and ask the customer again without that order; so it ends either completed, or
//! undone with nothing taken.
//!
//! An order that is not settled yet takes its pieces back at once, but its money and stock can only go back later: the
//! return waits until the order says so.
//!
//! How such a table runs is the business of [`cluster::saga`]. Reading order: this file, [`steps`] (what the rows do and how
//! answers are read).

mod steps;

use std::collections::BTreeMap;

use cluster::{
    JsonSchema, Schema,
    saga::{Heard, Known, Retry, Saga, Stage, Step, Verdict, Work},
};
use serde::{Deserialize, Serialize};

use crate::{
    QUANTITY_MAX,
    customer::Allocation,
    ids::{CustomerId, OrderId, ReturnId, Sku},
    money::Money,
    payment::Notice,
};

pub use cluster::saga::{Phase, Rejection};

/// Products that one return may have.
pub const RETURN_LINES_MAX: usize = 2_500;

/// The kind `return`.
#[derive(Debug)]
pub struct Return;

/// Where a return stands.
pub type State = cluster::saga::StateOf<Return>;
/// What a return can be told.
pub type Command = cluster::saga::Command<Input, Fact, Signal>;

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Who brings goods back.
    pub customer: CustomerId,
    /// What comes back, each product once.
    pub lines: BTreeMap<Sku, u64>,
}

/// What a return learns on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Fact {
    /// From the customer: which pieces go against which order.
    Allocated(Allocation),
    /// From an order.
    Took {
        /// What its pieces cost, once it has said so.
        refund: Option<Money>,
        /// Whether money and stock can go back.
        settled: bool,
    },
}

/// What others tell a return on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// From an order that took pieces back before it was settled: now it is.
    OrderSettled {
        /// The order.
        order: OrderId,
    },
    /// From an order that took pieces back before it was settled: it was called off instead, and the pieces with it.
    OrderWithdrew {
        /// The order.
        order: OrderId,
        /// Why.
        reason: String,
    },
    /// From an order's payment: what came of a refund.
    Payment {
        /// The order.
        order: OrderId,
        /// What came of it.
        notice: Notice,
    },
}

/// A refund is tried so often before it is kept as a problem: its reference names it. Restocking twice would count pieces twice, so
/// that is said once.
const PERSISTENT: Retry = Retry::times(5, 1_000, 30_000);

#[rustfmt::skip]
impl Saga for Return {
    const NAME: &'static str = "return";
    type Input = Input;
    type Fact = Fact;
    type Signal = Signal;

    const TABLE: &'static [Stage<Self>] = &[
        Stage::new("allocate", steps::allocate)               .undo(steps::release).judge(steps::customer),
        Stage::new("take-back", steps::take_back).each(orders).undo(steps::hand_out).judge(steps::order).point_of_no_return(),
        // Beyond this line there is no way back.
        Stage::new("restock", steps::restock).each(products)  .or_go_on().judge(steps::stock),
        Stage::new("refund", steps::refund).each(refunds)     .or_go_on().retry(PERSISTENT).judge(steps::payment),
    ];

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn check(id: &str, input: &Input) -> Result<(), String> {
        ReturnId::new(id).map_err(|error| format!("the return id {error}"))?;
        check_lines(&input.lines)
    }

    /// An order's step is over once it has said both what the pieces cost and that it is settled, in whichever order these two
    /// come in.
    fn consider(work: &Work<'_, Self>, step: &Step, verdict: Verdict<Fact>) -> Verdict<Fact> {
        match verdict {
            Verdict::Partly(Fact::Took { refund, settled }) => took(work, step, refund, settled),
            verdict => verdict,
        }
    }

    fn hear(_: &Work<'_, Self>, signal: Signal) -> Heard<Fact> {
        let answer = |stage, order: &OrderId, verdict| Heard::Answer(Step::new(stage, order), verdict);
        match signal {
            Signal::OrderSettled { order } => {
                answer("take-back", &order, Verdict::Partly(Fact::Took { refund: None, settled: true }))
            }
            Signal::OrderWithdrew { order, reason } => answer("take-back", &order, Verdict::StartOver(reason)),
            Signal::Payment { order, notice: Notice::Refunded { .. } } => answer("refund", &order, Verdict::Done),
            Signal::Payment { order, notice: Notice::RefundFailed { reason, .. } } => {
                answer("refund", &order, Verdict::Refused(reason))
            }
            Signal::Payment { .. } => Heard::Nothing,
        }
    }
}

fn check_lines(lines: &BTreeMap<Sku, u64>) -> Result<(), String> {
    if lines.is_empty() {
        return Err("the return has no lines; return at least one product".to_owned());
    }
    if lines.len() > RETURN_LINES_MAX {
        let count = lines.len();
        return Err(format!(
            "the return has {count} lines; at most {RETURN_LINES_MAX} are allowed"
        ));
    }
    let wrong = lines
        .iter()
        .find(|(_, quantity)| !(1..=QUANTITY_MAX).contains(*quantity));
    wrong.map_or(Ok(()), |(sku, quantity)| {
        Err(format!(
            "the quantity of {sku} is {quantity}; 1 to {QUANTITY_MAX} are allowed"
        ))
    })
}

/// What an order has said, with what it said before. One whose money cannot be counted together with the others' is left out.
fn took(work: &Work<'_, Return>, step: &Step, refund: Option<Money>, settled: bool) -> Verdict<Fact> {
    let before = match work.fact(step.stage(), step.key()) {
        Some(Fact::Took { refund, settled }) => (*refund, *settled),
        _ => (None, false),
    };
    let fact = Fact::Took {
        refund: refund.or(before.0),
        settled: settled || before.1,
    };
    if let Some(refund) = refund {
        let mut others = refunds_of(work.facts("take-back").filter(|(order, _)| *order != step.key()));
        if let Err(error) = others.try_fold(refund, |sum, (_, refund)| sum.plus(refund)) {
            return Verdict::LeaveOut(format!("refund_not_countable: {error}"));
        }
    }
    match fact {
        Fact::Took {
            refund: Some(_),
            settled: true,
        } => Verdict::Learned(fact),
        // Said again, it is nothing new.
        fact if work.fact(step.stage(), step.key()) == Some(&fact) => Verdict::Underway,
        fact => Verdict::Partly(fact),
    }
}

fn refunds_of<'a>(facts: impl Iterator<Item = (&'a str, &'a Fact)>) -> impl Iterator<Item = (&'a str, Money)> {
    facts.filter_map(|(order, fact)| match fact {
        Fact::Took {
            refund: Some(refund), ..
        } => Some((order, *refund)),
        _ => None,
    })
}

fn orders(known: &Known<'_, Return>) -> Vec<String> {
    let allocation = steps::allocation(known);
    allocation
        .into_iter()
        .flat_map(BTreeMap::keys)
        .map(ToString::to_string)
        .collect()
}

fn products(known: &Known<'_, Return>) -> Vec<String> {
    known.input().lines.keys().map(ToString::to_string).collect()
}

/// The orders whose pieces cost something.
fn refunds(known: &Known<'_, Return>) -> Vec<String> {
    let refunds = refunds_of(known.facts("take-back")).filter(|(_, refund)| !refund.is_zero());
    refunds.map(|(order, _)| order.to_owned()).collect()
}

/// The orders that a completed return went against, in order.
pub fn orders_of(state: &State) -> Vec<&str> {
    let steps = state.facts.keys().filter(|step| step.stage() == "take-back");
    steps.map(Step::key).collect()
}

/// What a completed return has given back.
pub fn refunded_of(state: &State) -> Money {
    let given_back = state.facts.iter().filter(|(step, _)| {
        let refund = Step::new("refund", step.key());
        step.stage() == "take-back" && !state.problems.contains_key(&refund)
    });
    let refunds = refunds_of(given_back.map(|(step, fact)| (step.key(), fact)));
    let sum = refunds
        .map(|(_, refund)| refund)
        .reduce(|sum, refund| Money::new(sum.minor + refund.minor, sum.currency));
    sum.filter(|_| state.phase == Phase::Completed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/returns/golden");
        cluster::entity::script::golden::<super::Return>(folder);
    }
}
