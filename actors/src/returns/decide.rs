//! What a return decides: where an outcome takes it in the table.

use std::collections::BTreeMap;

use cluster::Decision;

use super::{
    Command, Event, Line, RETURN_LINES_MAX, Rejection, Reply, Return, Stage, State, Step, StepResult, Token,
    steps::Work,
};
use crate::{
    QUANTITY_MAX,
    ids::{CustomerId, OrderId, ReturnId, Sku},
    money::Money,
    payment::Notice,
    plan::Plan,
};

/// All commands; `id` is the return's own id.
pub(super) fn decide(state: &State, command: Command, id: &str) -> Result<Decision<Return>, Rejection> {
    let id = ReturnId::new(id).map_err(|error| Rejection::InvalidId {
        reason: error.to_string(),
    })?;
    let mut plan = Plan::<Return>::new(state);
    match command {
        Command::Start { customer, lines } => start(&mut plan, customer, &lines)?,
        Command::OrderSettled { order } => {
            if plan.state().orders.get(&order).is_some_and(|against| !against.settled) {
                plan.record(Event::OrderSettled { order });
            }
        }
        Command::OrderWithdrew { order, reason } => {
            let step = Step::TakeBack { order };
            answered(&mut plan, step, false, StepResult::Refused { reason });
        }
        Command::Payment { order, notice } => {
            let step = Step::Refund { order };
            match notice {
                Notice::Refunded { .. } => answered(&mut plan, step, false, StepResult::Done),
                Notice::RefundFailed { reason, .. } => {
                    answered(&mut plan, step, false, StepResult::Refused { reason });
                }
                _ => {}
            }
        }
        Command::StepAnswered { token, result } => {
            if token.round == state.round {
                answered(&mut plan, token.step, token.undo, result);
            }
        }
    }
    advance(&mut plan, &id);
    Ok(plan.reply(Reply::Noted))
}

fn start(plan: &mut Plan<Return>, customer: CustomerId, lines: &[Line]) -> Result<(), Rejection> {
    let lines = merged(lines)?;
    let state = plan.state();
    if state.customer.is_none() {
        plan.record(Event::Started { customer, lines });
        return Ok(());
    }
    if state.customer.as_ref() == Some(&customer) && state.lines == lines {
        return Ok(());
    }
    Err(Rejection::AlreadyStarted)
}

/// The lines by product, when each of them is in order.
fn merged(lines: &[Line]) -> Result<BTreeMap<Sku, u64>, Rejection> {
    if lines.is_empty() {
        return Err(Rejection::EmptyReturn);
    }
    if lines.len() > RETURN_LINES_MAX {
        return Err(Rejection::TooManyLines {
            lines: lines.len(),
            max: RETURN_LINES_MAX,
        });
    }
    let mut merged = BTreeMap::new();
    for Line { sku, quantity } in lines {
        if *quantity == 0 {
            return Err(Rejection::ZeroQuantity { sku: sku.clone() });
        }
        if *quantity > QUANTITY_MAX {
            return Err(Rejection::QuantityTooLarge {
                sku: sku.clone(),
                quantity: *quantity,
                max: QUANTITY_MAX,
            });
        }
        *merged.entry(sku.clone()).or_default() += quantity;
    }
    Ok(merged)
}

/// Takes an outcome in. One that is not waited for is late or repeated, and changes nothing.
fn answered(plan: &mut Plan<Return>, step: Step, undo: bool, result: StepResult) {
    let state = plan.state();
    if undo != state.undoing || !state.waiting.contains(&step) {
        return;
    }
    let event = match (undo, step, result) {
        (_, _, StepResult::Underway) => return,
        (true, step, StepResult::Refused { reason } | StepResult::Unclear { reason }) => {
            Event::ProblemFound { step, reason }
        }
        (true, step, _) => Event::StepUndone { step },
        (false, Step::Allocate, result) => allocated(result),
        (false, Step::TakeBack { order }, result) => took(state, order, result),
        (false, step, StepResult::Refused { reason } | StepResult::Unclear { reason }) => {
            Event::ProblemFound { step, reason }
        }
        (false, step, _) => Event::StepDone { step },
    };
    plan.record(event);
}

fn allocated(result: StepResult) -> Event {
    match result {
        StepResult::Allocated { allocation } => Event::Allocated { allocation },
        StepResult::Refused { reason } => Event::AllocationRefused { reason, unclear: false },
        StepResult::Unclear { reason } => Event::AllocationRefused { reason, unclear: true },
        other => Event::AllocationRefused {
            reason: format!("customer_unavailable: it answered {other:?}"),
            unclear: true,
        },
    }
}

/// An order has answered. The rare one whose money makes the whole too large to count is left out.
fn took(state: &State, order: OrderId, result: StepResult) -> Event {
    let (reason, unclear) = match result {
        StepResult::Taken { refund, settled } => {
            let mut others = state.orders.values().filter_map(|against| against.refund);
            match others.try_fold(refund, Money::plus) {
                Ok(_) => return Event::OrderTook { order, refund, settled },
                Err(error) => (format!("refund_not_countable: {error}"), true),
            }
        }
        StepResult::Refused { reason } => (reason, false),
        StepResult::Unclear { reason } => (reason, true),
        other => (format!("order_unavailable: it answered {other:?}"), true),
    };
    Event::OrderRefused { order, reason, unclear }
}

/// Goes on through the table until there is something to wait for, or the end.
fn advance(plan: &mut Plan<Return>, id: &ReturnId) {
    while plan.state().waiting.is_empty() && !plan.state().ended && plan.state().customer.is_some() {
        let state = plan.state();
        match state.stage {
            None => begin(plan, Stage::Allocate, id),
            Some(stage) if state.turned || state.reason.is_some() => back(plan, stage, id),
            Some(stage) => match stage.next() {
                Some(next) => begin(plan, next, id),
                None => plan.record(Event::Completed),
            },
        }
    }
}

fn begin(plan: &mut Plan<Return>, stage: Stage, id: &ReturnId) {
    plan.record(Event::StageBegan { stage });
    send(plan, id, false);
}

/// Undoes the stage where it was refused, and then each one before it. At the top, the next round begins, or it ends.
fn back(plan: &mut Plan<Return>, stage: Stage, id: &ReturnId) {
    let from = if plan.state().undoing {
        stage.previous()
    } else {
        Some(stage)
    };
    let is_to_undo = |stage: &Stage| plan.state().to_undo(*stage).next().is_some();
    if let Some(stage) = std::iter::successors(from, |stage| stage.previous()).find(is_to_undo) {
        plan.record(Event::UndoBegan { stage });
        return send(plan, id, true);
    }
    let state = plan.state();
    // What could not be undone would be met again in every further round.
    let reason = state.reason.clone().or_else(|| state.problems.first().cloned());
    match reason {
        Some(reason) => plan.record(Event::Refused { reason }),
        None => begin(plan, Stage::Allocate, id),
    }
}

/// Sends the effects of the steps that are now waited for.
fn send(plan: &mut Plan<Return>, return_id: &ReturnId, undo: bool) {
    let work = Work {
        state: plan.state(),
        return_id,
    };
    let mut effects = Vec::with_capacity(work.state.waiting.len());
    for step in &work.state.waiting {
        let row = step.stage().row();
        let action = if undo {
            row.undo.expect("a stage is only undone where the table says how")
        } else {
            row.run
        };
        let token = Token {
            step: step.clone(),
            round: work.state.round,
            undo,
        };
        effects.push(action(&work, token));
    }
    for effect in effects {
        plan.send(effect);
    }
}
