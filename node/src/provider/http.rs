//! The provider's HTTP face: parse, draw the call's fate, ask the books, render.

use std::{io, sync::Arc, time::Duration};

use actors::payment::provider::{Answer, Request};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    book::Book,
    faults::{Fate, Faults},
    ledger::{PAGE_LEN_MAX, Untaken},
    spans::Spans,
    wire::{self, Control, IDEMPOTENCY_KEY, LedgerPage, Problem},
};

/// The largest request body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What all handlers share.
pub(super) struct Provider {
    book: Mutex<Book>,
    faults: Mutex<Faults>,
    spans: Option<Spans>,
}

/// An answer that is no success.
struct Failed(StatusCode, String);

type Shared = State<Arc<Provider>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// All routes.
pub(super) fn routes(book: Book, faults: Faults, spans: Option<Spans>) -> Router {
    let provider = Arc::new(Provider {
        book: Mutex::new(book),
        faults: Mutex::new(faults),
        spans,
    });
    Router::new()
        .route("/v1/authorisations", post(take))
        .route("/v1/captures", post(take))
        .route("/v1/voids", post(take))
        .route("/v1/refunds", post(take))
        .route("/v1/ledger", get(ledger))
        .route("/control", get(show_control).put(change_control))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(provider)
}

async fn take(
    provider: Shared,
    uri: Uri,
    headers: HeaderMap,
    body: Body<Request>,
) -> Result<(StatusCode, Json<Answer>), Failed> {
    let span = provider.spans.as_ref().and_then(|_| Spans::begin(&headers, &uri));
    let spans = provider.spans.clone();
    let taken = carry_out(provider, uri, headers, body).await;
    if let (Some(span), Some(spans)) = (span, spans) {
        match &taken {
            Ok((status, _)) => spans.end(span, *status, None),
            Err(Failed(status, reason)) => spans.end(span, *status, Some(reason)),
        }
    }
    taken
}

async fn carry_out(
    provider: Shared,
    uri: Uri,
    headers: HeaderMap,
    body: Body<Request>,
) -> Result<(StatusCode, Json<Answer>), Failed> {
    let (fate, delay) = provider.faults.lock().draw();
    if delay > Duration::ZERO {
        tokio::time::sleep(delay).await;
    }
    match fate {
        Fate::Hung => {
            return Err(Failed(
                StatusCode::GATEWAY_TIMEOUT,
                "no answer from the bank".to_owned(),
            ));
        }
        Fate::Lost => return Err(unavailable()),
        Fate::Answered | Fate::AnswerLost => {}
    }
    let malformed = |what: &str| Failed(StatusCode::BAD_REQUEST, what.to_owned());
    let key = headers
        .get(IDEMPOTENCY_KEY)
        .ok_or_else(|| malformed("the Idempotency-Key header is missing"))?
        .to_str()
        .map_err(|_| malformed("the Idempotency-Key is not plain ASCII text"))?;
    let Json(request) = body.map_err(|rejection| unreadable(&rejection))?;
    if uri.path() != wire::path_of(&request) {
        return Err(malformed("the operation is not the one of this path"));
    }
    let decline_over_minor = provider.faults.lock().decline_over_minor();
    let answer = provider.book.lock().take(key, request, decline_over_minor)??;
    if fate == Fate::AnswerLost {
        return Err(unavailable());
    }
    let status = match answer {
        Answer::Declined { .. } => StatusCode::PAYMENT_REQUIRED,
        Answer::Refused { .. } => StatusCode::CONFLICT,
        Answer::Authorised { .. } | Answer::Captured | Answer::Voided | Answer::Refunded => StatusCode::OK,
    };
    Ok((status, Json(answer)))
}

#[derive(Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

async fn ledger(provider: Shared, Query(page): Query<PageQuery>) -> Json<LedgerPage> {
    let limit = page.limit.unwrap_or(PAGE_LEN_MAX);
    Json(provider.book.lock().page(page.after.as_deref(), limit))
}

async fn show_control(provider: Shared) -> Json<Control> {
    Json(provider.faults.lock().shown())
}

async fn change_control(provider: Shared, body: Body<Control>) -> Result<Json<Control>, Failed> {
    let Json(control) = body.map_err(|rejection| unreadable(&rejection))?;
    let mut faults = provider.faults.lock();
    faults
        .change(&control)
        .map_err(|reason| Failed(StatusCode::BAD_REQUEST, reason))?;
    tracing::info!(?control, "control changed");
    Ok(Json(faults.shown()))
}

/// Axum's 422 for JSON of the wrong form would read as a reused key.
fn unreadable(rejection: &JsonRejection) -> Failed {
    let status = match rejection.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    Failed(status, rejection.body_text())
}

fn unavailable() -> Failed {
    Failed(
        StatusCode::SERVICE_UNAVAILABLE,
        "the provider is out of order".to_owned(),
    )
}

impl From<Untaken> for Failed {
    fn from(untaken: Untaken) -> Self {
        let status = match &untaken {
            Untaken::Malformed(_) => StatusCode::BAD_REQUEST,
            Untaken::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Untaken::Full => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self(status, untaken.to_string())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the data file cannot be written");
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger cannot be written".to_owned(),
        )
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}
