//! The one place where what went wrong becomes a gRPC status.
//!
//! | what | code | details |
//! | --- | --- | --- |
//! | a field of the call is wrong | INVALID_ARGUMENT | BadRequest with the field |
//! | there is no such entity | NOT_FOUND | ResourceInfo |
//! | the domain says no | FAILED_PRECONDITION | PreconditionFailure and ErrorInfo with the reason |
//! | a limit is reached, nothing was done | RESOURCE_EXHAUSTED | RetryInfo, ErrorInfo LIMIT_REACHED with the limit |
//! | no leader or majority, nothing was done | UNAVAILABLE | RetryInfo |
//! | the outcome is unknown, the caller chose the request id | UNAVAILABLE | RetryInfo, ErrorInfo OUTCOME_UNKNOWN |
//! | the outcome is unknown, the caller chose no request id | ABORTED | ErrorInfo OUTCOME_UNKNOWN with the id to use |
//! | the deadline passed | DEADLINE_EXCEEDED | ErrorInfo OUTCOME_UNKNOWN |
//! | the entity comes back after a failure, nothing was done | UNAVAILABLE | RetryInfo |
//! | the entity is quarantined | FAILED_PRECONDITION | PreconditionFailure and ErrorInfo QUARANTINED |
//! | the entity was quarantined for this command, which was skipped for good | FAILED_PRECONDITION | PreconditionFailure and ErrorInfo SKIPPED |
//! | the entity is forgotten | FAILED_PRECONDITION | PreconditionFailure and ErrorInfo FORGOTTEN |
//! | an entity's own code failed | INTERNAL | |
//!
//! Standard clients repeat UNAVAILABLE by themselves. That is safe exactly when the repetition carries the same
//! request id, which is why an unknown outcome without one is ABORTED: that is left to the caller.

use std::{borrow::Cow, collections::HashMap, fmt::Display, time::Duration};

use cluster::Error;
use proto::gateway::v1 as gateway;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::request::{Call, REQUEST_ID_KEY};

/// The domain of the reasons in ErrorInfo.
const DOMAIN: &str = "playhouse";
/// When to repeat a call whose outcome is unknown.
const UNKNOWN_RETRY_MS: u64 = 100;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A part of the call is wrong.
    #[error("{field} {reason}")]
    Invalid {
        /// Its path, for example `lines[3].quantity`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such entity.
    #[error("there is no {kind} {id}")]
    NotFound {
        /// The kind of entity.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The domain says no.
    #[error("{message}")]
    Refused {
        /// The reason for programs, in capitals.
        reason: Cow<'static, str>,
        /// What it is about, for example `product/85123A`.
        subject: String,
        /// The reason for people.
        message: String,
    },
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Fault {
    /// A part of the call is wrong.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Display) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.to_string(),
        }
    }

    /// The gRPC code.
    pub(super) fn code(&self, id_given: bool) -> Code {
        match self {
            Self::Invalid { .. } | Self::Engine(Error::Invalid { .. }) => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::Refused { .. }
            | Self::Engine(Error::Quarantined { .. } | Error::Skipped { .. } | Error::Forgotten { .. }) => {
                Code::FailedPrecondition
            }
            Self::Engine(Error::Overloaded { .. }) => Code::ResourceExhausted,
            Self::Engine(Error::Unavailable { .. }) => Code::Unavailable,
            Self::Engine(Error::Unknown { .. }) if id_given => Code::Unavailable,
            Self::Engine(Error::Unknown { .. }) => Code::Aborted,
            Self::Engine(Error::TimedOut { .. }) => Code::DeadlineExceeded,
            Self::Engine(Error::Failed { .. }) => Code::Internal,
        }
    }

    /// After how long the same call is worth repeating.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Engine(Error::Overloaded { retry_after, .. } | Error::Unavailable { retry_after, .. }) => {
                Some(*retry_after)
            }
            Self::Engine(Error::Unknown { .. }) => Some(Duration::from_millis(UNKNOWN_RETRY_MS)),
            Self::Engine(
                Error::TimedOut { .. }
                | Error::Invalid { .. }
                | Error::Failed { .. }
                | Error::Quarantined { .. }
                | Error::Skipped { .. }
                | Error::Forgotten { .. },
            )
            | Self::Invalid { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. } => None,
        }
    }

    /// The status of a unary call; without a call where its metadata could not be read.
    pub(crate) fn status(&self, call: Option<&Call>) -> Status {
        let mut details = ErrorDetails::new();
        match self {
            Self::Invalid { field, reason } | Self::Engine(Error::Invalid { field, reason }) => {
                details.add_bad_request_violation(field, reason);
            }
            Self::NotFound { kind, id } => {
                details.set_resource_info(*kind, id, "", self.to_string());
            }
            Self::Refused {
                reason,
                subject,
                message,
            } => {
                precondition(&mut details, reason, subject, message);
            }
            Self::Engine(Error::Quarantined { entity, .. }) => {
                precondition(&mut details, "QUARANTINED", entity, &self.to_string());
            }
            Self::Engine(Error::Skipped { entity, .. }) => {
                precondition(&mut details, "SKIPPED", entity, &self.to_string());
            }
            Self::Engine(Error::Forgotten { entity, .. }) => {
                precondition(&mut details, "FORGOTTEN", entity, &self.to_string());
            }
            Self::Engine(Error::Unknown { .. } | Error::TimedOut { .. }) => {
                let id = call.map(|call| (REQUEST_ID_KEY.to_owned(), call.id().to_string()));
                details.set_error_info("OUTCOME_UNKNOWN", DOMAIN, id.into_iter().collect::<HashMap<_, _>>());
            }
            Self::Engine(Error::Overloaded { what, .. }) => {
                let limit = HashMap::from([("limit".to_owned(), what.clone())]);
                details.set_error_info("LIMIT_REACHED", DOMAIN, limit);
            }
            Self::Engine(Error::Unavailable { .. } | Error::Failed { .. }) => {}
        }
        if let Some(delay) = self.retry_after() {
            details.set_retry_info(Some(delay));
        }
        let code = self.code(call.is_some_and(Call::id_given));
        Status::with_error_details(code, self.to_string(), details)
    }

    /// The same on a stream, where the caller always chooses the request id.
    pub(crate) fn failure(&self) -> gateway::Failure {
        gateway::Failure {
            code: self.code(true) as i32,
            message: self.to_string(),
            retry_after_ms: self
                .retry_after()
                .map_or(0, |delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
        }
    }
}

fn precondition(details: &mut ErrorDetails, reason: &str, subject: &str, message: &str) {
    details.add_precondition_failure_violation(reason, subject, message);
    let subject = HashMap::from([("subject".to_owned(), subject.to_owned())]);
    details.set_error_info(reason, DOMAIN, subject);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(error: Error) -> Fault {
        Fault::Engine(error)
    }

    #[test]
    fn an_invalid_field_is_named_in_the_details() {
        let status = Fault::invalid("lines[3].quantity", "must be at least 1").status(None);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "lines[3].quantity must be at least 1");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("a bad request").field_violations;
        assert_eq!(violations[0].field, "lines[3].quantity");
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let fault = Fault::Refused {
            reason: "UNKNOWN_PRODUCT".into(),
            subject: "product/1".to_owned(),
            message: "there is no product 1".to_owned(),
        };
        let status = fault.status(None);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        assert_eq!(details.error_info().expect("info").reason, "UNKNOWN_PRODUCT");
        assert_eq!(
            details.precondition_failure().expect("failure").violations[0].subject,
            "product/1"
        );
    }

    #[test]
    fn a_quarantined_entity_says_what_to_do() {
        let entity = "order/42".to_owned();
        let reason = "it failed 3 times".to_owned();
        let quarantined = Error::Quarantined {
            entity: entity.clone(),
            reason: reason.clone(),
        };
        for (error, info) in [
            (quarantined, "QUARANTINED"),
            (
                Error::Skipped {
                    entity: entity.clone(),
                    reason: reason.clone(),
                },
                "SKIPPED",
            ),
            (Error::Forgotten { entity, reason }, "FORGOTTEN"),
        ] {
            let status = engine(error).status(None);
            assert_eq!(status.code(), Code::FailedPrecondition);
            let details = status.get_error_details();
            assert_eq!(details.error_info().expect("info").reason, info);
            assert_eq!(
                details.precondition_failure().expect("failure").violations[0].subject,
                "order/42"
            );
            assert!(details.retry_info().is_none());
            let names_command = status.message().contains("playhouse quarantine show order/42");
            assert_eq!(names_command, info == "QUARANTINED", "{}", status.message());
        }
    }

    #[test]
    fn what_may_be_repeated_says_when() {
        let retry_after = Duration::from_millis(250);
        let faults = [
            (
                engine(Error::Overloaded {
                    what: "mailbox_len_max".to_owned(),
                    retry_after,
                }),
                Code::ResourceExhausted,
            ),
            (
                engine(Error::Unavailable {
                    reason: "shard 3 has no leader".to_owned(),
                    retry_after,
                }),
                Code::Unavailable,
            ),
        ];
        for (fault, code) in faults {
            let status = fault.status(None);
            assert_eq!(status.code(), code);
            let details = status.get_error_details();
            assert_eq!(details.retry_info().expect("a delay").retry_delay, Some(retry_after));
            assert_eq!(fault.failure().retry_after_ms, 250);
        }
    }

    #[test]
    fn an_unknown_outcome_is_left_to_the_caller_where_no_id_makes_it_safe() {
        let fault = engine(Error::Unknown {
            reason: "leadership was lost".to_owned(),
        });
        assert_eq!(fault.code(false), Code::Aborted);
        assert_eq!(fault.code(true), Code::Unavailable);
    }
}
