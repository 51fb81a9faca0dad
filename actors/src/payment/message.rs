//! What a payment can be told, what happens to it, what it tells others, and why it says no.

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Status, provider::Answer};
use crate::{
    ids::{OrderId, ReturnId},
    money::Money,
};

/// What a payment can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Sets the amount aside on the card. Saying it again with the same amount changes nothing.
    Authorise {
        /// The order's total.
        amount: Money,
        /// The card.
        card: String,
    },
    /// Takes the whole amount that is set aside. Saying it again changes nothing.
    Capture,
    /// Gives up what is set aside. Saying it again changes nothing; before an authorisation it forbids one.
    Void,
    /// Gives back a part of what was taken. Saying it again under the same reference changes nothing.
    Refund {
        /// Names the intention: one reference is refunded once.
        reference: String,
        /// How much.
        amount: Money,
        /// Who is told what came of it.
        notify: Notify,
    },
    /// What came of a call to the provider.
    ProviderSaid {
        /// Which call.
        call: Call,
        /// What came of it.
        said: Said,
    },
    /// From the payment's own timer: what it waits for has not come in time.
    RanOut,
}

/// What a payment waits for: the token of its effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Call {
    /// Setting aside.
    Authorise,
    /// Taking.
    Capture,
    /// Giving up what is set aside.
    Void,
    /// Giving back.
    Refund {
        /// The refund's reference.
        reference: String,
    },
    /// No call: the payment's timer.
    Deadline,
}

/// What came of a call to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Said {
    /// It is done.
    Done {
        /// The provider's reference, for an authorisation.
        authorisation: Option<String>,
    },
    /// The provider says no, for good.
    Refused {
        /// Why.
        reason: String,
    },
    /// Given up: whether the provider did it is not known.
    Unclear {
        /// Why.
        reason: String,
    },
}

impl Said {
    /// Reads what the provider answered to a call.
    pub(super) fn of(call: &Call, answer: Result<Answer, String>) -> Self {
        match (call, answer) {
            (Call::Authorise, Ok(Answer::Authorised { authorisation })) => Self::Done {
                authorisation: Some(authorisation),
            },
            (Call::Capture, Ok(Answer::Captured))
            | (Call::Void, Ok(Answer::Voided))
            | (Call::Refund { .. }, Ok(Answer::Refunded)) => Self::Done { authorisation: None },
            (_, Ok(Answer::Declined { reason } | Answer::Refused { reason })) => Self::Refused { reason },
            (_, Ok(other)) => Self::Unclear {
                reason: format!("an answer to something else: {other:?}"),
            },
            (_, Err(reason)) => Self::Unclear { reason },
        }
    }
}

/// Who is told what came of a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Notify {
    /// The order of the payment's own id.
    Order,
    /// That return.
    Return {
        /// The return.
        return_id: ReturnId,
        /// The payment's order, by which the return knows the refund.
        order: OrderId,
    },
}

/// What a payment tells others once the provider has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Notice {
    /// The amount is set aside.
    Authorised,
    /// The provider said no.
    Declined {
        /// Why.
        reason: String,
    },
    /// The provider could not be asked, and that was given up.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The amount is taken.
    Captured,
    /// The amount could not be taken.
    CaptureFailed {
        /// Why.
        reason: String,
    },
    /// A refund is done.
    Refunded {
        /// Which.
        reference: String,
    },
    /// A refund could not be done.
    RefundFailed {
        /// Which.
        reference: String,
        /// Why.
        reason: String,
    },
    /// What was set aside was not taken in time and is given up.
    Lapsed {
        /// Why.
        reason: String,
    },
}

/// What happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// The provider is asked to set the amount aside.
    AuthorisationRequested {
        /// How much.
        amount: Money,
    },
    /// The amount is set aside; without the provider when it is zero.
    Authorised {
        /// The provider's reference.
        authorisation: Option<String>,
    },
    /// The provider said no.
    Declined {
        /// Why.
        reason: String,
    },
    /// The provider could not be asked; a void makes sure that nothing stays set aside.
    AuthorisationGivenUp {
        /// Why.
        reason: String,
    },
    /// The provider set the amount aside after nobody wanted it any more; it is voided.
    AuthorisedTooLate {
        /// The provider's reference.
        authorisation: String,
    },
    /// The provider is asked to take the amount.
    CaptureRequested,
    /// The amount is taken.
    Captured,
    /// The amount could not be taken; a void makes sure that nothing stays set aside.
    CaptureFailed {
        /// Why.
        reason: String,
    },
    /// What is set aside is given up.
    VoidRequested,
    /// Nothing is set aside any more.
    Voided,
    /// The provider could not be told to void.
    VoidFailed {
        /// Why.
        reason: String,
    },
    /// The provider is asked to give back.
    RefundRequested {
        /// Names the intention.
        reference: String,
        /// How much.
        amount: Money,
        /// Who is told.
        notify: Notify,
    },
    /// A refund is done.
    Refunded {
        /// Which.
        reference: String,
        /// How much.
        amount: Money,
    },
    /// A refund could not be done.
    RefundFailed {
        /// Which.
        reference: String,
        /// Why.
        reason: String,
    },
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reply {
    /// The provider is asked; what came of it follows, or has followed already, as a [`Notice`].
    Underway,
    /// There is nothing to wait for.
    Done,
}

/// Why a payment says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// Less than nothing.
    #[error("the amount {amount} is negative; it must be zero or more")]
    NegativeAmount {
        /// The amount.
        amount: Money,
    },
    /// Longer than [`super::CARD_LEN_MAX`].
    #[error("the card is {len} bytes long; at most {max} are allowed")]
    CardTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The payment does not stand where the command is possible.
    #[error("not possible for a payment that is {status}")]
    WrongStatus {
        /// Where it stands.
        status: Status,
    },
    /// More would go back than was taken and has not gone back yet.
    #[error("{wanted} would be refunded, but only {left} is left to refund")]
    RefundTooLarge {
        /// What is left.
        left: Money,
        /// What was wanted.
        wanted: Money,
    },
    /// The reference stands for another amount.
    #[error("this reference already stands for a refund of {amount}")]
    ReferenceReused {
        /// That amount.
        amount: Money,
    },
    /// More refunds than [`super::REFUNDS_MAX`].
    #[error("the payment has seen {max} refunds, which is the limit")]
    TooManyRefunds {
        /// The limit.
        max: usize,
    },
}
