//! What a checkout decides: where an outcome takes it in the table.

use cluster::{Decision, Effect};

use super::{Checkout, Command, End, Event, Rejection, Reply, Stage, State, Step, StepResult, Token, steps::Work};
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
    match command {
        Command::Start {
            customer,
            lines,
            total,
            card,
        } if state.stage.is_none() => {
            let started = Event::Started {
                customer,
                lines,
                total,
                card,
            };
            Ok(take(state, started, &order))
        }
        Command::Start { .. } => Ok(Decision::reply(Reply::Noted)),
        Command::HeldForItsTime { sku } => Ok(held_for_its_time(state, &sku, &order)),
        Command::Payment(Notice::Lapsed { reason }) => Ok(lapse(state, format!("payment_lapsed: {reason}"), &order)),
        Command::Payment(notice) => Ok(match payment_result(notice) {
            Some((stage, result)) => {
                let step = Step { stage, sku: None };
                answered(state, Token { step, undo: false }, result, &order)
            }
            None => Decision::reply(Reply::Noted),
        }),
        Command::StepAnswered { token, result } => Ok(answered(state, token, result, &order)),
    }
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
        Notice::Refunded { .. } | Notice::RefundFailed { .. } | Notice::Lapsed { .. } => None,
    }
}

/// Stock that is promised to this order has been held for its time. Only the checkout knows whether it may be taken back,
/// so it alone decides: what it has released, or never asked for, is not wanted.
fn held_for_its_time(state: &State, sku: &str, order: &OrderId) -> Decision<Checkout> {
    if state.stage.is_none() || state.end == Some(End::Undone) {
        return Decision::reply(Reply::NotWanted);
    }
    lapse(state, format!("reservation_expired: {sku}"), order)
}

/// Turns back because of something that ran out of time, if it is still possible. The confirmation may be taken at any
/// moment once it is asked for, so from there on it is not.
fn lapse(state: &State, reason: String, order: &OrderId) -> Decision<Checkout> {
    let noted = Decision::reply(Reply::Noted);
    let can_turn_back = state.stage.is_some_and(|stage| stage < Stage::Confirm);
    if !can_turn_back || state.undoing || state.reason.is_some() || state.ended {
        return noted;
    }
    let step = Step {
        stage: Stage::Authorise,
        sku: None,
    };
    // The provider may not answer for long; a void after an authorisation that is under way undoes it all the same.
    // Everybody else answers, and what they are asked to undo must not arrive before what they are asked to do.
    if state.waiting.contains(&step) {
        let unclear = true;
        return take(state, Event::StepRefused { step, reason, unclear }, order);
    }
    noted.event(Event::Lapsed { reason })
}

/// Takes an outcome in. One that is not waited for is late or repeated, and changes nothing.
fn answered(state: &State, token: Token, result: StepResult, order: &OrderId) -> Decision<Checkout> {
    let noted = Decision::reply(Reply::Noted);
    let Token { step, undo } = token;
    if undo != state.undoing || !state.waiting.contains(&step) {
        return noted;
    }
    let event = match (undo, result) {
        (false, StepResult::Underway) => return noted,
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
    // The other steps of the stage are waited for first; an order of a thousand lines comes by here often.
    if state.waiting.len() > 1 {
        return noted.event(event);
    }
    take(state, event, order)
}

/// Records an event and goes on from there.
fn take(state: &State, event: Event, order: &OrderId) -> Decision<Checkout> {
    let mut plan = Plan::<Checkout>::new(state);
    plan.record(event);
    advance(&mut plan, order);
    plan.reply(Reply::Noted)
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
