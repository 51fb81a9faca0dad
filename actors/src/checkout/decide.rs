//! What a checkout decides: where an outcome takes it in the table.

use cluster::{Decision, Effect};

use super::{Checkout, Command, Event, Rejection, Reply, Stage, State, Step, StepResult, Token, steps::Work};
use crate::{
    ids::OrderId,
    order::{self, Order},
    payment::Notice,
    plan::Plan,
};

/// All commands; `id` is the checkout's own id, which is the order's.
pub(super) fn decide(state: &State, command: Command, id: &str) -> Result<Decision<Checkout>, Rejection> {
    let order = OrderId::new(id).map_err(|error| Rejection::InvalidId {
        reason: error.to_string(),
    })?;
    let mut plan = Plan::<Checkout>::new(state);
    match command {
        Command::Start {
            customer,
            lines,
            total,
            card,
        } => {
            if state.stage.is_none() {
                plan.record(Event::Started {
                    customer,
                    lines,
                    total,
                    card,
                });
                advance(&mut plan, &order);
            }
        }
        Command::Payment(notice) => {
            if let Some((stage, result)) = payment_result(notice) {
                let step = Step { stage, sku: None };
                answered(&mut plan, Token { step, undo: false }, result, &order);
            }
        }
        Command::StepAnswered { token, result } => answered(&mut plan, token, result, &order),
    }
    Ok(plan.reply(Reply::Noted))
}

/// Which step a notice of the payment answers, and how.
fn payment_result(notice: Notice) -> Option<(Stage, StepResult)> {
    let refused = |reason: String| StepResult::Refused { reason };
    match notice {
        Notice::Authorised => Some((Stage::Authorise, StepResult::Done)),
        Notice::Declined { reason } => Some((Stage::Authorise, refused(format!("payment_declined: {reason}")))),
        Notice::Unavailable { reason } => Some((Stage::Authorise, refused(format!("payment_unavailable: {reason}")))),
        Notice::Captured => Some((Stage::Capture, StepResult::Done)),
        Notice::CaptureFailed { reason } => Some((Stage::Capture, refused(reason))),
        Notice::Refunded { .. } | Notice::RefundFailed { .. } => None,
    }
}

/// Takes an outcome in. One that is not waited for is late or repeated, and changes nothing.
fn answered(plan: &mut Plan<Checkout>, token: Token, result: StepResult, order: &OrderId) {
    let state = plan.state();
    let Token { step, undo } = token;
    if undo != state.undoing || !state.waiting.contains(&step) {
        return;
    }
    let event = match (undo, result) {
        (false, StepResult::Underway) => return,
        (false, StepResult::Done) => Event::StepDone { step },
        (false, StepResult::Refused { reason }) if step.stage.can_turn_back() => Event::StepRefused {
            step,
            reason,
            unclear: false,
        },
        (false, StepResult::Unclear { reason }) if step.stage.can_turn_back() => Event::StepRefused {
            step,
            reason,
            unclear: true,
        },
        (true, StepResult::Done | StepResult::Underway) => Event::StepUndone { step },
        (_, StepResult::Refused { reason } | StepResult::Unclear { reason }) => Event::ProblemFound { step, reason },
    };
    plan.record(event);
    advance(plan, order);
}

/// Goes on through the table until there is something to wait for, or the end.
fn advance(plan: &mut Plan<Checkout>, order: &OrderId) {
    while plan.state().waiting.is_empty() && !plan.state().ended {
        let Some(stage) = plan.state().stage else { return };
        if plan.state().reason.is_none() {
            forward(plan, stage, order);
        } else {
            back(plan, stage, order);
        }
    }
}

fn forward(plan: &mut Plan<Checkout>, stage: Stage, order: &OrderId) {
    // A guest's checkout has nothing to do with a customer: such a stage is passed over.
    let has_steps = |stage: &Stage| !stage.steps(plan.state()).is_empty();
    let Some(next) = std::iter::successors(stage.next(), |stage| stage.next()).find(has_steps) else {
        return finish(plan, order);
    };
    plan.record(Event::StageBegan { stage: next });
    send(plan, order, false);
}

/// The order hears that it is settled; it cannot say no, so nothing is waited for.
fn finish(plan: &mut Plan<Checkout>, order: &OrderId) {
    let unpaid = plan.state().unpaid.clone();
    let event = if unpaid.is_some() {
        Event::Undone
    } else {
        Event::Completed
    };
    plan.send(Effect::tell::<Order>(order, &order::Command::Settle { unpaid }));
    plan.record(event);
}

/// Undoes the stage where it was refused, and then each one before it.
fn back(plan: &mut Plan<Checkout>, stage: Stage, order: &OrderId) {
    let from = if plan.state().undoing {
        stage.previous()
    } else {
        Some(stage)
    };
    let is_to_undo = |stage: &Stage| stage.row().undo.is_some() && plan.state().to_undo(*stage).next().is_some();
    match std::iter::successors(from, |stage| stage.previous()).find(is_to_undo) {
        Some(stage) => {
            plan.record(Event::UndoBegan { stage });
            send(plan, order, true);
        }
        None => plan.record(Event::Undone),
    }
}

/// Sends the effects of the steps that are now waited for.
fn send(plan: &mut Plan<Checkout>, order: &OrderId, undo: bool) {
    let work = Work {
        state: plan.state(),
        order,
    };
    let mut effects = Vec::with_capacity(work.state.waiting.len());
    for step in &work.state.waiting {
        let row = step.stage.row();
        let action = if undo { row.undo } else { row.run };
        let action = action.expect("a stage is only begun where the table has an action for it");
        let token = Token {
            step: step.clone(),
            undo,
        };
        effects.push(action(&work, token));
    }
    for effect in effects {
        plan.send(effect);
    }
}
