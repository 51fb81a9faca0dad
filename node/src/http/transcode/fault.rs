//! What went wrong with a call, as HTTP and JSON say it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A gRPC status with its details.
pub(super) struct Refused {
    code: Code,
    json: Value,
    retry_after_s: Option<u64>,
}

impl Refused {
    pub(super) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        let fields = details.bad_request().map(|bad| {
            let violations = bad.field_violations.iter();
            violations
                .map(|violation| json!({ "field": violation.field, "reason": violation.description }))
                .collect::<Vec<_>>()
        });
        let mut json = json!({ "code": name(status.code()), "message": status.message() });
        if let Some(info) = details.error_info() {
            json["reason"] = info.reason.clone().into();
            json["about"] = json!(info.metadata);
        }
        if let Some(fields) = fields {
            json["fields"] = fields.into();
        }
        if let Some(delay) = retry {
            json["retry_after_ms"] = (delay.as_millis() as u64).into();
        }
        Self {
            code: status.code(),
            json,
            retry_after_s: retry.map(|delay| delay.as_secs().max(1)),
        }
    }

    pub(super) fn json(self) -> Value {
        self.json
    }

    pub(super) fn answer(self) -> Response {
        let mut response = (http_status(self.code), Json(self.json)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The mapping of `google.rpc.Code`.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
