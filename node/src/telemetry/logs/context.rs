//! Which request is being served, for the log lines that are written meanwhile.

use std::cell::RefCell;

use axum::{extract::Request, middleware::Next, response::Response};
use cluster::TraceContext;

/// A request: its trace and its id.
pub(crate) type Current = (TraceContext, String);

tokio::task_local! {
    static CURRENT: RefCell<Option<Current>>;
}

/// Serves a call so that [`set`] is known in it. For the router of all services.
pub(crate) async fn middleware(request: Request, next: Next) -> Response {
    scoped(next.run(request)).await
}

/// Runs something so that [`set`] is known in it, and nowhere else.
pub(crate) async fn scoped<F: Future>(what: F) -> F::Output {
    CURRENT.scope(RefCell::default(), what).await
}

/// From now on this request is served here.
pub(crate) fn set(trace: &TraceContext, request: &str) {
    // Outside of a scope nobody asks.
    let _ = CURRENT.try_with(|current| *current.borrow_mut() = Some((*trace, request.to_owned())));
}

/// The request that is being served here.
pub(crate) fn current() -> Option<Current> {
    CURRENT
        .try_with(|current| current.try_borrow().ok().and_then(|current| current.clone()))
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_known_within_its_own_scope() {
        assert_eq!(current(), None);
        let trace = TraceContext::random(true);
        let first = scoped(async {
            set(&trace, "r-1");
            tokio::task::yield_now().await;
            current()
        });
        let second = scoped(async { current() });
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first, second), (Some((trace, "r-1".to_owned())), None));
    }
}
