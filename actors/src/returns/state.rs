//! Where a return stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Event, Stage, Step};
use crate::{
    ids::{CustomerId, OrderId, Sku},
    money::Money,
};

/// How a return ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Everything has gone back.
    Completed,
    /// Nothing was taken.
    Refused,
}

/// What goes back against one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Against {
    /// Pieces of each product.
    pub lines: BTreeMap<Sku, u64>,
    /// What they cost, once the order has said it.
    pub refund: Option<Money>,
    /// Whether money and stock can go back.
    pub settled: bool,
}

/// Where a return stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Who brings goods back.
    pub customer: Option<CustomerId>,
    /// What comes back, each product once. Empty before the start.
    pub lines: BTreeMap<Sku, u64>,
    /// The stage it is in; none before the start.
    pub stage: Option<Stage>,
    /// How often the customer was asked.
    pub round: u32,
    /// Whether it is on its way back to the top.
    pub undoing: bool,
    /// The steps whose outcome it waits for.
    pub waiting: BTreeSet<Step>,
    /// The steps that are done, or may be, and are not undone.
    pub done: BTreeSet<Step>,
    /// The orders of this round.
    pub orders: BTreeMap<OrderId, Against>,
    /// Orders that have said no, and why.
    pub except: BTreeMap<OrderId, String>,
    /// Whether an order has said no in this round.
    pub turned: bool,
    /// Why it is refused.
    pub reason: Option<String>,
    /// What has gone back to the customer.
    pub refunded: Money,
    /// What must not fail and did. Empty unless a promise of the platform was broken.
    pub problems: Vec<String>,
    /// Whether it has ended.
    pub ended: bool,
    /// How it ended.
    pub end: Option<End>,
}

impl State {
    /// The steps of a stage that are to be undone.
    pub(super) fn to_undo(&self, stage: Stage) -> impl Iterator<Item = &Step> {
        self.done.iter().filter(move |step| step.stage() == stage)
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        match event {
            Event::Started { customer, lines } => {
                self.customer = Some(customer.clone());
                self.lines.clone_from(lines);
            }
            Event::StageBegan { stage } => {
                self.stage = Some(*stage);
                if *stage == Stage::Allocate {
                    self.begin_round();
                }
                self.waiting = stage.steps(self).into_iter().collect();
            }
            Event::Allocated { allocation } => {
                self.waiting.remove(&Step::Allocate);
                self.done.insert(Step::Allocate);
                self.orders = (allocation.iter())
                    .map(|(order, lines)| {
                        let against = Against {
                            lines: lines.clone(),
                            refund: None,
                            settled: false,
                        };
                        (order.clone(), against)
                    })
                    .collect();
            }
            Event::AllocationRefused { reason, unclear } => {
                self.waiting.remove(&Step::Allocate);
                if *unclear {
                    self.done.insert(Step::Allocate);
                }
                self.reason = Some(reason.clone());
            }
            Event::OrderTook { order, refund, settled } => {
                self.done.insert(Step::TakeBack { order: order.clone() });
                self.order_said(order, |against| {
                    against.refund = Some(*refund);
                    against.settled |= settled;
                });
            }
            Event::OrderSettled { order } => self.order_said(order, |against| against.settled = true),
            Event::OrderRefused { order, reason, unclear } => {
                let step = Step::TakeBack { order: order.clone() };
                self.waiting.remove(&step);
                if *unclear {
                    self.done.insert(step);
                } else {
                    self.done.remove(&step);
                }
                self.except.insert(order.clone(), reason.clone());
                self.turned = true;
            }
            Event::UndoBegan { stage } => {
                self.undoing = true;
                self.stage = Some(*stage);
                self.waiting = self.to_undo(*stage).cloned().collect();
            }
            Event::StepUndone { step } => {
                self.waiting.remove(step);
                self.done.remove(step);
            }
            Event::StepDone { step } => {
                self.waiting.remove(step);
                self.done.insert(step.clone());
                if let Step::Refund { order } = step {
                    self.add_refund_of(order);
                }
            }
            Event::ProblemFound { step, reason } => {
                self.waiting.remove(step);
                self.problems.push(format!("{step}: {reason}"));
            }
            Event::Completed => self.end(End::Completed),
            Event::Refused { reason } => {
                self.reason = Some(reason.clone());
                self.end(End::Refused);
            }
        }
    }

    fn begin_round(&mut self) {
        self.round += 1;
        self.undoing = false;
        self.turned = false;
        self.orders.clear();
        self.done.clear();
    }

    /// An order's step is over once the order has said both what the pieces cost and that it is settled, in whichever
    /// order these two come in.
    fn order_said(&mut self, order: &OrderId, note: impl FnOnce(&mut Against)) {
        if let Some(against) = self.orders.get_mut(order) {
            note(against);
            if against.settled && against.refund.is_some() {
                self.waiting.remove(&Step::TakeBack { order: order.clone() });
            }
        }
    }

    fn add_refund_of(&mut self, order: &OrderId) {
        if let Some(refund) = self.orders.get(order).and_then(|against| against.refund) {
            self.refunded = Money::new(self.refunded.minor + refund.minor, refund.currency);
        }
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.end = Some(end);
    }
}
