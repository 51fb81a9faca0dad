//! Counts every call of a client: rate, errors by code, duration. A call ends with its status, which may come before its answer, or
//! after it in the trailers; or with its caller, who goes away.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};

use crate::telemetry::metrics::{
    Metrics,
    grpc::{CANCELLED, Grpc, Method, UNKNOWN},
};

/// A call under way; counted when it is dropped.
struct Measured {
    grpc: Grpc,
    method: Arc<Method>,
    begun: Instant,
    /// Its code, once that is known.
    code: Option<usize>,
}

impl Measured {
    fn read(&mut self, headers: &HeaderMap) {
        let code = headers.get("grpc-status").map(|code| code.to_str().ok()?.parse().ok());
        if let Some(code) = code {
            self.code = Some(code.unwrap_or(UNKNOWN));
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(CANCELLED);
        self.grpc.end(&self.method, code, self.begun.elapsed());
    }
}

/// Counts a call.
pub(super) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let Some(grpc) = metrics.grpc() else {
        return next.run(request).await;
    };
    let mut measured = Measured {
        method: grpc.begin(request.uri().path()),
        grpc: grpc.clone(),
        begun: Instant::now(),
        code: None,
    };
    let response = next.run(request).await;
    measured.read(response.headers());
    response.map(|body| Body::new(Answer { body, measured }))
}

/// An answer under way.
struct Answer {
    body: Body,
    measured: Measured,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.measured.read(trailers);
                }
            }
            // It ended without saying how.
            Poll::Ready(None | Some(Err(_))) => {
                self.measured.code.get_or_insert(UNKNOWN);
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
