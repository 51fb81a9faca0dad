//! Where a payment stands.

use std::{collections::BTreeMap, fmt};

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, Notify};
use crate::money::{Currency, Money, MoneyError};

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// Nothing has been asked.
    #[default]
    New,
    /// The provider is asked to set the amount aside.
    Authorising,
    /// The amount is set aside.
    Authorised,
    /// The provider said no, or could not be asked.
    Declined,
    /// The provider is asked to take the amount.
    Capturing,
    /// The amount is taken; what has gone back since stands beside it.
    Captured,
    /// The amount could not be taken.
    CaptureFailed,
    /// The provider is told to give up what is set aside.
    Voiding,
    /// Nothing is set aside any more.
    Voided,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Authorising => "authorising",
            Self::Authorised => "authorised",
            Self::Declined => "declined",
            Self::Capturing => "capturing",
            Self::Captured => "captured",
            Self::CaptureFailed => "not captured",
            Self::Voiding => "voiding",
            Self::Voided => "voided",
        })
    }
}

/// Where a refund stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefundStatus {
    /// The provider is asked.
    Refunding,
    /// The money has gone back.
    Refunded,
    /// It could not be given back, for that reason.
    Failed(String),
}

/// One refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refund {
    /// How much.
    pub amount: Money,
    /// Where it stands.
    pub status: RefundStatus,
    /// Who is told.
    pub notify: Notify,
}

/// Everything about a payment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// The order's total.
    pub amount: Money,
    /// What was taken.
    pub captured: Money,
    /// What has gone back.
    pub refunded: Money,
    /// Why it was declined, or why it is not captured.
    pub reason: Option<String>,
    /// Why the provider could not be told to void.
    pub void_failed: Option<String>,
    /// The provider's reference of the authorisation.
    pub authorisation: Option<String>,
    /// Every refund by its reference.
    pub refunds: BTreeMap<String, Refund>,
}

impl State {
    /// Whether money was taken and all of it has gone back.
    pub fn is_refunded(&self) -> bool {
        self.captured.minor > 0 && self.captured == self.refunded
    }

    /// Whether something that must not fail did: a capture, a void or a refund.
    pub fn has_failed(&self) -> bool {
        self.status == Status::CaptureFailed
            || self.void_failed.is_some()
            || self
                .refunds
                .values()
                .any(|refund| matches!(refund.status, RefundStatus::Failed(_)))
    }

    /// What was taken and neither has gone back nor is about to.
    pub(super) fn left_to_refund(&self) -> Result<Money, MoneyError> {
        self.refunds
            .values()
            .filter(|refund| !matches!(refund.status, RefundStatus::Failed(_)))
            .try_fold(self.captured, |left, refund| left.minus(refund.amount))
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        match event {
            Event::AuthorisationRequested { amount } => {
                self.begin(*amount);
                self.status = Status::Authorising;
            }
            Event::Authorised { authorisation } => {
                self.authorisation.clone_from(authorisation);
                self.status = Status::Authorised;
            }
            Event::Declined { reason } | Event::AuthorisationGivenUp { reason } => {
                self.reason = Some(reason.clone());
                self.status = Status::Declined;
            }
            Event::AuthorisedTooLate { authorisation } => self.authorisation = Some(authorisation.clone()),
            Event::CaptureRequested => self.status = Status::Capturing,
            Event::Captured => {
                self.captured = self.amount;
                self.status = Status::Captured;
            }
            Event::CaptureFailed { reason } => {
                self.reason = Some(reason.clone());
                self.status = Status::CaptureFailed;
            }
            Event::VoidRequested => self.status = Status::Voiding,
            Event::Voided => self.status = Status::Voided,
            Event::VoidFailed { reason } => self.void_failed = Some(reason.clone()),
            Event::RefundRequested {
                reference,
                amount,
                notify,
            } => {
                let refund = Refund {
                    amount: *amount,
                    status: RefundStatus::Refunding,
                    notify: notify.clone(),
                };
                self.refunds.insert(reference.clone(), refund);
            }
            Event::Refunded { reference, amount } => {
                self.refunded.minor += amount.minor;
                self.end_refund(reference, RefundStatus::Refunded);
            }
            Event::RefundFailed { reference, reason } => {
                self.end_refund(reference, RefundStatus::Failed(reason.clone()));
            }
        }
    }

    fn begin(&mut self, amount: Money) {
        let currency: Currency = amount.currency;
        self.amount = amount;
        self.captured = Money::zero(currency);
        self.refunded = Money::zero(currency);
    }

    fn end_refund(&mut self, reference: &str, status: RefundStatus) {
        if let Some(refund) = self.refunds.get_mut(reference) {
            refund.status = status;
        }
    }
}
