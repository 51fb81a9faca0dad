//! What a customer decides.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Decision;

use super::{Allocation, Command, Customer, Event, Rejection, Reply, State};
use crate::{
    ids::{OrderId, Sku},
    money::Currency,
};

pub(super) fn decide(state: &State, command: Command) -> Result<Decision<Customer>, Rejection> {
    let noted = Decision::reply(Reply::Noted);
    match command {
        Command::RecordOrder { order, lines, currency } => Ok(match state.order(&order) {
            Some(_) => noted,
            None => noted.event(Event::OrderRecorded { order, lines, currency }),
        }),
        Command::ForgetOrder { order } => Ok(match state.order(&order) {
            Some(_) => noted.event(Event::OrderForgotten { order }),
            None => noted,
        }),
        Command::AllocateReturn {
            return_id,
            lines,
            except,
        } => {
            if let Some(known) = state.set_aside(&return_id) {
                let allocation = known.allocation.clone();
                return Ok(Decision::reply(Reply::Allocated { allocation }));
            }
            let allocation = allocate(state, &lines, &except)?;
            let event = Event::ReturnAllocated {
                return_id,
                allocation: allocation.clone(),
            };
            Ok(Decision::reply(Reply::Allocated { allocation }).event(event))
        }
        Command::ReleaseReturn { return_id } => Ok(match state.set_aside(&return_id) {
            Some(_) => noted.event(Event::ReturnReleased { return_id }),
            None => noted,
        }),
    }
}

/// Takes from the latest orders first. All orders of one return are in one currency, that of the latest order that is
/// touched, so that what is refunded is one amount.
fn allocate(state: &State, lines: &BTreeMap<Sku, u64>, except: &BTreeSet<OrderId>) -> Result<Allocation, Rejection> {
    let mut allocation = Allocation::new();
    let mut wanted = lines.clone();
    let mut paid_in: Option<Currency> = None;
    for recorded in state
        .orders
        .iter()
        .rev()
        .filter(|recorded| !except.contains(&recorded.order))
    {
        if wanted.is_empty() {
            break;
        }
        if paid_in.is_some_and(|currency| currency != recorded.currency) {
            continue;
        }
        for (sku, held) in &recorded.returnable {
            let Some(left) = wanted.get_mut(sku) else { continue };
            let taken = (*left).min(*held);
            *left -= taken;
            if *left == 0 {
                wanted.remove(sku);
            }
            paid_in = Some(recorded.currency);
            allocation
                .entry(recorded.order.clone())
                .or_default()
                .insert(sku.clone(), taken);
        }
    }
    match wanted.pop_first() {
        None => Ok(allocation),
        Some((sku, missing)) => {
            let wanted = lines[&sku];
            Err(Rejection::NothingToReturn {
                sku,
                wanted,
                held: wanted - missing,
            })
        }
    }
}
