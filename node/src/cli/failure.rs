//! How a command ends when it does not end well: what happened, what to do about it, and the exit code.

use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cli::client::CallError;

/// The answer is no: a refusal, something that does not exist, a check that failed.
pub(crate) const EXIT_NO: u8 = 1;
/// The command line or a file named on it is wrong. Also what clap exits with.
pub(crate) const EXIT_USAGE: u8 = 2;
/// No node could be reached, or none answered in time.
pub(crate) const EXIT_UNREACHABLE: u8 = 3;

/// Nothing failed, and what was compared differs.
pub(crate) const EXIT_DIFFERS: u8 = 4;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    text: String,
    help: Option<String>,
    exit: u8,
}

impl Failure {
    /// The cluster, or a check, says no.
    pub(crate) fn no(text: impl Into<String>) -> Self {
        Self::new(EXIT_NO, text)
    }

    /// The command was given something it cannot work with.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(EXIT_USAGE, text)
    }

    /// No node answers.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self::new(EXIT_UNREACHABLE, text)
    }

    fn new(exit: u8, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            help: None,
            exit,
        }
    }

    /// What the person can do about it.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Writes it to standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.text);
        if let Some(help) = &self.help {
            eprintln!("  help: {help}");
        }
        ExitCode::from(self.exit)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(status) => Self::no(refusal_text(&status)),
            CallError::Unreachable { addresses } => no_cluster(&addresses),
            CallError::Unknown { after, last } => {
                let last = last.map_or_else(|| "no node answered".to_owned(), |status| status.message().to_owned());
                Self::unreachable(format!(
                    "no definite answer within {:.1} s ({last}): whether it took effect is unknown",
                    after.as_secs_f64()
                ))
                .help("look at the nodes with `playhouse status`; repeating with the same `--request-id` is safe")
            }
        }
    }
}

/// The failure of a command whose nodes refuse connections.
pub(crate) fn no_cluster(addresses: &[String]) -> Failure {
    Failure::unreachable(format!(
        "nothing listens on {}: no cluster is running here",
        addresses.join(", ")
    ))
    .help("start one with `playhouse up`, or name another with `--base-port` or `--address`")
}

/// What a status says, with the fields and preconditions of its details.
pub(crate) fn refusal_text(status: &Status) -> String {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| {
        bad.field_violations
            .iter()
            .filter(|v| !status.message().contains(&format!("{} {}", v.field, v.description)))
            .map(|v| format!("{}: {}", v.field, v.description))
    });
    let reasons = details
        .precondition_failure()
        .map(|failed| failed.violations.iter().map(|v| v.description.clone()));
    let details: Vec<String> = fields
        .into_iter()
        .flatten()
        .chain(reasons.into_iter().flatten())
        .filter(|detail| !detail.is_empty() && !status.message().contains(detail.as_str()))
        .collect();
    let message = match (status.message(), status.code()) {
        ("", Code::NotFound) => "not found".to_owned(),
        ("", code) => code.description().to_owned(),
        (message, _) => message.to_owned(),
    };
    if details.is_empty() {
        message
    } else {
        format!("{message} ({})", details.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn a_refusal_names_the_field_once() {
        let details =
            ErrorDetails::with_bad_request(vec![FieldViolation::new("lines[0].quantity", "must be at least 1")]);
        let status = Status::with_error_details(Code::InvalidArgument, "the order cannot be read", details);
        assert_eq!(
            refusal_text(&status),
            "the order cannot be read (lines[0].quantity: must be at least 1)"
        );
        let details = ErrorDetails::with_bad_request(vec![FieldViolation::new("kinds", "names \"tea\"")]);
        let said = Status::with_error_details(Code::InvalidArgument, "kinds names \"tea\"", details);
        assert_eq!(refusal_text(&said), "kinds names \"tea\"");
        assert_eq!(refusal_text(&Status::not_found("")), "not found");
    }

    #[test]
    fn a_missing_cluster_is_told_apart_and_says_what_to_do() {
        let failure = no_cluster(&["127.0.0.1:7001".to_owned()]);
        assert_eq!(failure.exit, EXIT_UNREACHABLE);
        assert!(failure.help.expect("has help").contains("playhouse up"));
    }
}
