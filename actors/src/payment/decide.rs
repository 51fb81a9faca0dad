//! What a payment decides.

use cluster::{Decision, Effect};

use super::{
    AUTHORISE_WITHIN_MS, CAPTURE_WITHIN_MS, CARD_LEN_MAX, Call, Command, DEADLINE, Event, Notice, Notify, Payment,
    REFUNDS_MAX, Refund, RefundStatus, Rejection, Reply, Said, State, Status,
    provider::{Request, SERVICE},
};
use crate::{
    checkout::{self, Checkout},
    money::Money,
    order::{self, Order},
    returns::{self, Return},
};

type Decided = Result<Decision<Payment>, Rejection>;

/// All commands; `id` is the payment's own id, which is the order's.
pub(super) fn decide(state: &State, command: Command, id: &str, now_ms: u64) -> Decided {
    match command {
        Command::Authorise { amount, card } => authorise(state, amount, card, id, now_ms),
        Command::Capture => capture(state),
        Command::Void => void(state, id),
        Command::Refund {
            reference,
            amount,
            notify,
        } => refund(state, reference, amount, notify),
        Command::ProviderSaid { call, said } => Ok(match call {
            Call::Authorise => authorisation_came_back(state, said, id, now_ms),
            Call::Capture => capture_came_back(state, said, id),
            Call::Void => void_came_back(state, said),
            Call::Refund { reference } => refund_came_back(state, reference, said, id),
            // A timer's outcome is no answer of the provider.
            Call::Deadline => Decision::reply(Reply::Done),
        }),
        Command::RanOut => Ok(ran_out(state, id)),
    }
}

fn authorise(state: &State, amount: Money, card: String, id: &str, now_ms: u64) -> Decided {
    if amount.minor < 0 {
        return Err(Rejection::NegativeAmount { amount });
    }
    if card.len() > CARD_LEN_MAX {
        return Err(Rejection::CardTooLong {
            len: card.len(),
            max: CARD_LEN_MAX,
        });
    }
    let status = state.status;
    let is_same = state.amount == amount;
    match status {
        Status::New if amount.is_zero() => Ok(Decision::reply(Reply::Done)
            .event(Event::AuthorisationRequested { amount })
            .event(Event::Authorised { authorisation: None })),
        Status::New => {
            let request = Request::Authorise {
                order: id.to_owned(),
                amount_minor: amount.minor,
                currency: amount.currency,
                card,
            };
            Ok(Decision::reply(Reply::Underway)
                .event(Event::AuthorisationRequested { amount })
                .effect(Effect::call(SERVICE, &request, Call::Authorise))
                .effect(deadline(now_ms, AUTHORISE_WITHIN_MS)))
        }
        Status::Authorised if is_same && amount.is_zero() => Ok(Decision::reply(Reply::Done)),
        Status::Authorising | Status::Authorised | Status::Declined if is_same => Ok(Decision::reply(Reply::Underway)),
        _ => Err(Rejection::WrongStatus { status }),
    }
}

fn authorisation_came_back(state: &State, said: Said, id: &str, now_ms: u64) -> Decision<Payment> {
    let nothing = Decision::reply(Reply::Done);
    match (state.status, said) {
        (Status::Authorising, Said::Done { authorisation }) => nothing
            .event(Event::Authorised { authorisation })
            .effect(tell_checkout(id, Notice::Authorised))
            .effect(deadline(now_ms, CAPTURE_WITHIN_MS)),
        (Status::Authorising, Said::Refused { reason }) => {
            let notice = Notice::Declined { reason: reason.clone() };
            nothing
                .event(Event::Declined { reason })
                .effect(tell_checkout(id, notice))
                .effect(Effect::cancel_timer(DEADLINE))
        }
        (Status::Authorising, Said::Unclear { reason }) => give_up(reason, id).effect(Effect::cancel_timer(DEADLINE)),
        // The provider did what nobody wants any more. A repeated answer is known by its authorisation.
        (
            _,
            Said::Done {
                authorisation: Some(late),
            },
        ) if state.authorisation.as_ref() != Some(&late) => nothing
            .event(Event::AuthorisedTooLate { authorisation: late })
            .effect(void_at_provider(id)),
        // Perhaps it did, after it was told to void.
        (Status::Voiding | Status::Voided | Status::Declined, Said::Unclear { .. }) => {
            nothing.effect(void_at_provider(id))
        }
        _ => nothing,
    }
}

fn give_up(reason: String, id: &str) -> Decision<Payment> {
    let notice = Notice::Unavailable { reason: reason.clone() };
    Decision::reply(Reply::Done)
        .event(Event::AuthorisationGivenUp { reason })
        .effect(tell_checkout(id, notice))
        .effect(void_at_provider(id))
}

/// The timer has fired: nothing has come of what was asked, or nobody has asked for what is set aside.
fn ran_out(state: &State, id: &str) -> Decision<Payment> {
    match state.status {
        Status::Authorising => give_up("no answer in time".to_owned(), id),
        Status::Authorised => {
            let reason = "not captured in time".to_owned();
            Decision::reply(Reply::Done)
                .event(Event::VoidRequested)
                .effect(tell_checkout(id, Notice::Lapsed { reason }))
                .effect(void_at_provider(id))
        }
        _ => Decision::reply(Reply::Done),
    }
}

/// The timer of the payment, set or moved.
fn deadline(now_ms: u64, within_ms: u64) -> Effect<Payment> {
    Effect::set_timer(DEADLINE, now_ms.saturating_add(within_ms), Call::Deadline)
}

fn capture(state: &State) -> Decided {
    match state.status {
        Status::Authorised if state.amount.is_zero() => Ok(Decision::reply(Reply::Done)
            .event(Event::CaptureRequested)
            .event(Event::Captured)),
        Status::Authorised => {
            let request = Request::Capture {
                authorisation: state.authorisation.clone().unwrap_or_default(),
                amount_minor: state.amount.minor,
                currency: state.amount.currency,
            };
            Ok(Decision::reply(Reply::Underway)
                .event(Event::CaptureRequested)
                .effect(Effect::call(SERVICE, &request, Call::Capture))
                .effect(Effect::cancel_timer(DEADLINE)))
        }
        Status::Captured if state.amount.is_zero() => Ok(Decision::reply(Reply::Done)),
        Status::Capturing | Status::Captured | Status::CaptureFailed => Ok(Decision::reply(Reply::Underway)),
        status => Err(Rejection::WrongStatus { status }),
    }
}

fn capture_came_back(state: &State, said: Said, id: &str) -> Decision<Payment> {
    let nothing = Decision::reply(Reply::Done);
    match (state.status, said) {
        (Status::Capturing, Said::Done { .. }) => nothing
            .event(Event::Captured)
            .effect(tell_checkout(id, Notice::Captured)),
        (Status::Capturing, Said::Refused { reason } | Said::Unclear { reason }) => {
            let notice = Notice::CaptureFailed { reason: reason.clone() };
            nothing
                .event(Event::CaptureFailed { reason })
                .effect(tell_checkout(id, notice))
                .effect(void_at_provider(id))
        }
        _ => nothing,
    }
}

fn void(state: &State, id: &str) -> Decided {
    let done = Decision::reply(Reply::Done);
    match state.status {
        Status::New => Ok(done.event(Event::VoidRequested).event(Event::Voided)),
        Status::Authorised if state.amount.is_zero() => Ok(done.event(Event::VoidRequested).event(Event::Voided)),
        Status::Authorised | Status::Authorising => Ok(done
            .event(Event::VoidRequested)
            .effect(void_at_provider(id))
            .effect(Effect::cancel_timer(DEADLINE))),
        Status::Declined | Status::Voiding | Status::Voided => Ok(done),
        status @ (Status::Capturing | Status::Captured | Status::CaptureFailed) => {
            Err(Rejection::WrongStatus { status })
        }
    }
}

fn void_came_back(state: &State, said: Said) -> Decision<Payment> {
    let nothing = Decision::reply(Reply::Done);
    match (state.status, said) {
        (Status::Voiding, Said::Done { .. }) => nothing.event(Event::Voided),
        (_, Said::Refused { reason } | Said::Unclear { reason }) if state.void_failed.is_none() => {
            nothing.event(Event::VoidFailed { reason })
        }
        _ => nothing,
    }
}

fn refund(state: &State, reference: String, amount: Money, notify: Notify) -> Decided {
    if amount.minor < 0 {
        return Err(Rejection::NegativeAmount { amount });
    }
    if state.status != Status::Captured {
        return Err(Rejection::WrongStatus { status: state.status });
    }
    if amount.is_zero() {
        return Ok(Decision::reply(Reply::Done));
    }
    if let Some(known) = state.refunds.get(&reference) {
        if known.amount == amount {
            return Ok(Decision::reply(Reply::Underway));
        }
        return Err(Rejection::ReferenceReused { amount: known.amount });
    }
    if state.refunds.len() >= REFUNDS_MAX {
        return Err(Rejection::TooManyRefunds { max: REFUNDS_MAX });
    }
    let left = state.left_to_refund().unwrap_or_default();
    if left.currency != amount.currency || left.minor < amount.minor {
        return Err(Rejection::RefundTooLarge { left, wanted: amount });
    }
    let request = Request::Refund {
        authorisation: state.authorisation.clone().unwrap_or_default(),
        amount_minor: amount.minor,
        currency: amount.currency,
        reference: reference.clone(),
    };
    let call = Call::Refund {
        reference: reference.clone(),
    };
    Ok(Decision::reply(Reply::Underway)
        .event(Event::RefundRequested {
            reference,
            amount,
            notify,
        })
        .effect(Effect::call(SERVICE, &request, call)))
}

fn refund_came_back(state: &State, reference: String, said: Said, id: &str) -> Decision<Payment> {
    let nothing = Decision::reply(Reply::Done);
    let Some(Refund {
        amount,
        status: RefundStatus::Refunding,
        notify,
    }) = state.refunds.get(&reference)
    else {
        return nothing;
    };
    let (event, notice) = match said {
        Said::Done { .. } => (
            Event::Refunded {
                reference: reference.clone(),
                amount: *amount,
            },
            Notice::Refunded { reference },
        ),
        Said::Refused { reason } | Said::Unclear { reason } => (
            Event::RefundFailed {
                reference: reference.clone(),
                reason: reason.clone(),
            },
            Notice::RefundFailed { reference, reason },
        ),
    };
    nothing.event(event).effect(match notify {
        Notify::Order => Effect::tell::<Order>(id, &order::Command::Payment(notice)),
        Notify::Return { return_id, order } => {
            let order = order.clone();
            Effect::tell::<Return>(
                return_id,
                &returns::Command::Signal(returns::Signal::Payment { order, notice }),
            )
        }
    })
}

fn tell_checkout(id: &str, notice: Notice) -> Effect<Payment> {
    Effect::tell::<Checkout>(id, &checkout::Command::Signal(checkout::Signal::Payment(notice)))
}

fn void_at_provider(id: &str) -> Effect<Payment> {
    Effect::call(SERVICE, &Request::Void { order: id.to_owned() }, Call::Void)
}
