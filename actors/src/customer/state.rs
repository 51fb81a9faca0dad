//! What a customer remembers.

use std::collections::BTreeMap;

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Allocation, Event, ORDERS_KEPT_MAX, RETURNS_KEPT_MAX};
use crate::{
    ids::{OrderId, ReturnId, Sku},
    money::Currency,
};

/// What a customer remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// The latest orders, the oldest first.
    pub orders: Vec<Recorded>,
    /// What is set aside for returns, the oldest first.
    pub returns: Vec<SetAside>,
}

/// A remembered order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// The order.
    pub order: OrderId,
    /// What it is paid in.
    pub currency: Currency,
    /// What can still be returned.
    pub returnable: BTreeMap<Sku, u64>,
}

/// What is set aside for a return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetAside {
    /// The return.
    pub return_id: ReturnId,
    /// By order.
    pub allocation: Allocation,
}

impl State {
    /// The remembered order of that id.
    pub fn order(&self, id: &OrderId) -> Option<&Recorded> {
        self.orders.iter().find(|recorded| recorded.order == *id)
    }

    /// What is set aside for that return.
    pub fn set_aside(&self, id: &ReturnId) -> Option<&SetAside> {
        self.returns.iter().find(|set_aside| set_aside.return_id == *id)
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        match event {
            Event::OrderRecorded { order, lines, currency } => {
                self.orders.push(Recorded {
                    order: order.clone(),
                    currency: *currency,
                    returnable: lines.clone(),
                });
                let surplus = self.orders.len().saturating_sub(ORDERS_KEPT_MAX);
                self.orders.drain(..surplus);
            }
            Event::OrderForgotten { order } => self.orders.retain(|recorded| recorded.order != *order),
            Event::ReturnAllocated { return_id, allocation } => {
                self.each_allocated(allocation, |returnable, sku, quantity| {
                    if let Some(left) = returnable.get_mut(sku) {
                        *left = left.saturating_sub(quantity);
                    }
                    returnable.retain(|_, left| *left > 0);
                });
                self.returns.push(SetAside {
                    return_id: return_id.clone(),
                    allocation: allocation.clone(),
                });
                let surplus = self.returns.len().saturating_sub(RETURNS_KEPT_MAX);
                self.returns.drain(..surplus);
            }
            Event::ReturnReleased { return_id } => {
                let found = self
                    .returns
                    .iter()
                    .position(|set_aside| set_aside.return_id == *return_id);
                if let Some(at) = found {
                    let SetAside { allocation, .. } = self.returns.remove(at);
                    self.each_allocated(&allocation, |returnable, sku, quantity| {
                        let left = returnable.entry(sku.clone()).or_default();
                        *left = left.saturating_add(quantity);
                    });
                }
            }
        }
    }

    /// Visits what is allocated against orders that are still remembered.
    fn each_allocated(&mut self, allocation: &Allocation, mut visit: impl FnMut(&mut BTreeMap<Sku, u64>, &Sku, u64)) {
        for recorded in &mut self.orders {
            for (sku, quantity) in allocation.get(&recorded.order).into_iter().flatten() {
                visit(&mut recorded.returnable, sku, *quantity);
            }
        }
    }
}
