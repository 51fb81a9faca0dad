//! Messages that cannot be read are the caller's fault, and are said to be.
//!
//! The gRPC library calls what is no protobuf (invalid UTF-8 in a string, for example) INTERNAL, and what is too large
//! OUT_OF_RANGE. Both become INVALID_ARGUMENT: the same call will never succeed.

use axum::response::Response;
use tonic::{Code, Status};

/// The largest message that a client may send.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How the library's messages of this kind begin.
const UNREADABLE: &str = "failed to decode Protobuf message";
const TOO_LARGE: &str = "Error, decoded message length too large";

/// The status as it should be, where the library's is about a message that cannot be read.
pub(super) fn as_callers_fault(status: Status) -> Status {
    let message = status.message();
    match status.code() {
        Code::Internal if message.starts_with(UNREADABLE) => {
            Status::invalid_argument(format!("the message cannot be read: {}", detail(message)))
        }
        Code::OutOfRange | Code::ResourceExhausted if message.starts_with(TOO_LARGE) => Status::invalid_argument(
            format!("the message is too large; at most {MESSAGE_BYTES_MAX} bytes are allowed"),
        ),
        _ => status,
    }
}

/// The same for a call that ended before its handler began.
pub(super) async fn mend(response: Response) -> Response {
    // A status in the headers means that there is nothing but a status.
    let code = response
        .headers()
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()));
    if !matches!(code, Some(Code::Internal | Code::OutOfRange | Code::ResourceExhausted)) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => as_callers_fault(status).into_http(),
        None => response,
    }
}

fn detail(message: &str) -> &str {
    message[UNREADABLE.len()..].trim_start_matches([':', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_read_is_the_callers_fault() {
        let unreadable = Status::internal("failed to decode Protobuf message: invalid string value");
        let status = as_callers_fault(unreadable);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "the message cannot be read: invalid string value");
        let large =
            Status::out_of_range("Error, decoded message length too large: found 10 bytes, the limit is: 4 bytes");
        assert_eq!(as_callers_fault(large).code(), Code::InvalidArgument);
        assert_eq!(
            as_callers_fault(Status::internal("order/1 failed")).code(),
            Code::Internal
        );
    }
}
