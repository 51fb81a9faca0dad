//! `/metrics`: everything that the node measures, in Prometheus' text format.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::telemetry::metrics::Metrics;

/// What the answer is, for whoever scrapes.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route.
pub(crate) fn router(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(tell)).with_state(metrics)
}

async fn tell(State(metrics): State<Metrics>) -> Response {
    // It asks the system for some of it.
    let told = tokio::task::spawn_blocking(move || metrics.text()).await;
    match told.ok().flatten() {
        Some(Ok(text)) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        None => {
            let reason = "metrics are turned off on this node; start it without PLAYHOUSE_METRICS=off\n";
            (StatusCode::NOT_FOUND, reason).into_response()
        }
    }
}
