//! `/metrics`: everything that the node measures, in Prometheus' text format; with exemplars for who can read OpenMetrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::telemetry::metrics::{Metrics, exemplars::Exemplars};

/// What the answer is, for whoever scrapes.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The route.
pub(crate) fn router(metrics: Metrics, exemplars: Arc<Exemplars>) -> Router {
    Router::new()
        .route("/metrics", get(tell))
        .with_state((metrics, exemplars))
}

async fn tell(State((metrics, exemplars)): State<(Metrics, Arc<Exemplars>)>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let is_open = accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text"));
    // It asks the system for some of it.
    let told = tokio::task::spawn_blocking(move || {
        if is_open {
            metrics.open_metrics(&exemplars)
        } else {
            metrics.text()
        }
    });
    let content_type = if is_open { OPEN_METRICS } else { TEXT };
    match told.await.ok().flatten() {
        Some(Ok(text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        None => {
            let reason = "metrics are turned off on this node; start it without PLAYHOUSE_METRICS=off\n";
            (StatusCode::NOT_FOUND, reason).into_response()
        }
    }
}
