//! Whether the process lives, and whether the node serves.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::watch;

pub(super) fn router(ready: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(readiness))
        .with_state(ready)
}

/// 503 until every shard has a leader that can be reached from here, and once the node was told to stop.
async fn readiness(State(ready): State<watch::Receiver<bool>>) -> Response {
    if *ready.borrow() {
        return Json(json!({ "ready": true })).into_response();
    }
    let body =
        json!({ "ready": false, "reason": "not every shard has a leader that can be reached, or the node stops" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
