//! What an order's events add up to.

use std::{collections::BTreeMap, fmt};

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, Part, Taken};
use crate::{
    ids::{CustomerId, ReturnId, Sku},
    money::{Money, MoneyError},
};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// Nobody has placed it.
    #[default]
    New,
    /// Its checkout is under way.
    Pending,
    /// Everything is promised to the customer.
    Confirmed,
    /// It came to nothing.
    Refused,
    /// It is called off; what was taken is being given back.
    Cancelling,
    /// It is called off, and nothing is left to be given back.
    Cancelled,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "not placed",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A line and what came back of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderedLine {
    /// The product.
    pub sku: Sku,
    /// Pieces.
    pub quantity: u64,
    /// What one of them costs.
    pub unit_price: Money,
    /// Pieces that came back by returns.
    pub returned: u64,
}

/// What one return took back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TakenBack {
    /// From which lines.
    pub taken: Vec<Taken>,
    /// What the pieces cost.
    pub refund: Money,
}

/// Everything about an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Who wants it; nobody for a guest.
    pub customer: Option<CustomerId>,
    /// What is wanted.
    pub lines: Vec<OrderedLine>,
    /// What it costs.
    pub total: Money,
    /// What has gone back of it, or is about to by a return.
    pub refunded: Money,
    /// Why it was refused or called off.
    pub reason: Option<String>,
    /// Whether stock is committed and the question of money is settled.
    pub settled: bool,
    /// Whether the money could not be taken.
    pub unpaid: bool,
    /// What returns took back.
    pub returns: BTreeMap<ReturnId, TakenBack>,
    /// Parts of a cancellation that are on their way.
    pub giving_back: Vec<Part>,
    /// What could not be given back, and why. Empty unless a promise of the platform was broken.
    pub problems: Vec<String>,
}

impl State {
    /// Whether anybody placed it.
    pub fn exists(&self) -> bool {
        self.status != Status::New
    }

    /// Whether its checkout has ended for the customer: it is no longer pending.
    pub fn is_decided(&self) -> bool {
        !matches!(self.status, Status::New | Status::Pending)
    }

    /// Whether nothing will happen to it any more unless someone wants something new.
    pub fn is_at_rest(&self) -> bool {
        match self.status {
            Status::New | Status::Refused | Status::Cancelled => true,
            Status::Confirmed => self.settled,
            Status::Pending | Status::Cancelling => false,
        }
    }

    /// All pieces that are ordered, each product once.
    pub fn merged(&self) -> BTreeMap<Sku, u64> {
        sum_by_sku(self.lines.iter().map(|line| (&line.sku, line.quantity)))
    }

    /// The pieces and the money that have not come back by returns.
    pub(super) fn not_returned(&self) -> Result<(BTreeMap<Sku, u64>, Money), MoneyError> {
        let lines = self.lines.iter().map(|line| (&line.sku, line.quantity - line.returned));
        Ok((sum_by_sku(lines), self.total.minus(self.refunded)?))
    }

    /// The pieces that a return took back, each product once.
    pub(super) fn taken_by(&self, taken: &[Taken]) -> BTreeMap<Sku, u64> {
        sum_by_sku(taken.iter().map(|taken| (&self.lines[taken.line].sku, taken.quantity)))
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        match event {
            Event::Placed { customer, lines, total } => {
                self.status = Status::Pending;
                self.customer.clone_from(customer);
                self.total = *total;
                self.refunded = Money::zero(total.currency);
                self.lines = (lines.iter().cloned())
                    .map(|line| OrderedLine {
                        sku: line.sku,
                        quantity: line.quantity,
                        unit_price: line.unit_price,
                        returned: 0,
                    })
                    .collect();
            }
            Event::Confirmed => self.status = Status::Confirmed,
            Event::Refused { reason } => {
                self.status = Status::Refused;
                self.reason = Some(reason.clone());
            }
            Event::Settled => self.settled = true,
            Event::SettledUnpaid { .. } => {
                self.settled = true;
                self.unpaid = true;
            }
            Event::CancelRequested { reason } => {
                self.status = Status::Cancelling;
                self.reason = Some(reason.clone());
            }
            Event::GivingBack { parts } => {
                self.status = Status::Cancelling;
                self.giving_back.extend(parts.iter().cloned());
            }
            Event::GivenBack { part } => {
                if let Part::Refund { amount, .. } = part {
                    self.refunded.minor += amount.minor;
                }
                self.giving_back.retain(|other| other != part);
            }
            Event::GiveBackFailed { part, reason } => {
                self.giving_back.retain(|other| other != part);
                self.problems.push(format!("{part}: {reason}"));
            }
            Event::Cancelled => self.status = Status::Cancelled,
            Event::LinesReturned {
                return_id,
                taken,
                refund,
            } => {
                for Taken { line, quantity } in taken {
                    self.lines[*line].returned += quantity;
                }
                self.refunded.minor += refund.minor;
                let taken_back = TakenBack {
                    taken: taken.clone(),
                    refund: *refund,
                };
                self.returns.insert(return_id.clone(), taken_back);
            }
            Event::ReturnUndone { return_id } => {
                if let Some(TakenBack { taken, refund }) = self.returns.remove(return_id) {
                    for Taken { line, quantity } in taken {
                        self.lines[line].returned -= quantity;
                    }
                    self.refunded.minor -= refund.minor;
                }
            }
        }
    }
}

fn sum_by_sku<'a>(pieces: impl Iterator<Item = (&'a Sku, u64)>) -> BTreeMap<Sku, u64> {
    let mut sums = BTreeMap::new();
    for (sku, quantity) in pieces.filter(|(_, quantity)| *quantity > 0) {
        *sums.entry(sku.clone()).or_default() += quantity;
    }
    sums
}
