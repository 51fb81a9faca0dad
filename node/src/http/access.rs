//! Who may do what over HTTP: a bearer token gives the rights of a reader or of an operator.
//!
//! A browser gets its token for a code that counts once: `POST /login/codes` with the operator's token makes one, the link
//! `/#code=…` carries it, `POST /login` changes it for the token. The token stays in the page and is sent in a header, never in a
//! cookie: cookies would go to whatever else listens on the same host.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::HttpConfig;

/// Codes that wait to be used; the oldest goes.
const CODES_LEN_MAX: usize = 16;
/// How long a code can be used.
const CODE_KEPT: Duration = Duration::from_hours(1);

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rights {
    /// Look at everything.
    Reader,
    /// Also change things.
    Operator,
}

/// The tokens, and the codes that stand for them.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    operator: Option<String>,
    reader: Option<String>,
    codes: Mutex<VecDeque<(String, Instant)>>,
}

impl Access {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self(Arc::new(Inner {
            operator: config.operator_token.clone(),
            reader: config.reader_token.clone(),
            codes: Mutex::default(),
        }))
    }

    /// The rights of who sent these headers; or the answer for who has none.
    pub(super) fn rights(&self, headers: &HeaderMap) -> Result<Rights, Box<Response>> {
        if self.0.operator.is_none() && self.0.reader.is_none() {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                "this node has no tokens: set `operator_token`, `reader_token` or both in the table `http` of its config file",
            ).into());
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let Some(given) = given else {
            return Err(refusal(
                StatusCode::UNAUTHORIZED,
                "send `authorization: Bearer TOKEN` with one of the tokens in the table `http` of the node's config file",
            ).into());
        };
        let is = |token: &Option<String>| token.as_ref().is_some_and(|token| are_equal(token, given));
        if is(&self.0.operator) {
            return Ok(Rights::Operator);
        }
        if is(&self.0.reader) {
            return Ok(Rights::Reader);
        }
        Err(refusal(
            StatusCode::UNAUTHORIZED,
            "this is no token of this node; a cluster that was started anew may have new ones",
        )
        .into())
    }

    fn new_code(&self) -> String {
        let code = format!("{:032x}", rand::random::<u128>());
        let mut codes = self.0.codes.lock();
        if codes.len() == CODES_LEN_MAX {
            codes.pop_front();
        }
        codes.push_back((code.clone(), Instant::now()));
        code
    }

    /// The operator's token for a code, once.
    fn redeem(&self, code: &str) -> Option<String> {
        let mut codes = self.0.codes.lock();
        let at = codes.iter().position(|(known, _)| are_equal(known, code))?;
        let (_, made) = codes.remove(at)?;
        (made.elapsed() < CODE_KEPT).then(|| self.0.operator.clone())?
    }
}

/// Compares without telling by its duration where the first difference is.
fn are_equal(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differences == 0
}

/// An answer that says why not.
pub(super) fn refusal(code: StatusCode, message: &str) -> Response {
    let body = Json(json!({ "code": code.canonical_reason(), "message": message }));
    (code, body).into_response()
}

#[derive(Deserialize)]
struct Login {
    code: String,
}

pub(super) fn router(access: Access) -> Router {
    Router::new()
        .route("/login", post(login))
        .route("/login/codes", post(make_code))
        .route("/session", get(session))
        .with_state(access)
}

async fn login(State(access): State<Access>, Json(login): Json<Login>) -> Response {
    match access.redeem(&login.code) {
        Some(token) => Json(json!({ "token": token, "rights": Rights::Operator })).into_response(),
        None => refusal(
            StatusCode::UNAUTHORIZED,
            "this link was used already, is too old, or is another cluster's; `playhouse console` makes a new one",
        ),
    }
}

async fn make_code(State(access): State<Access>, headers: HeaderMap) -> Response {
    match access.rights(&headers) {
        Ok(Rights::Operator) => Json(json!({ "code": access.new_code() })).into_response(),
        Ok(Rights::Reader) => refusal(StatusCode::FORBIDDEN, "only an operator can make links"),
        Err(answer) => *answer,
    }
}

async fn session(State(access): State<Access>, headers: HeaderMap) -> Response {
    match access.rights(&headers) {
        Ok(rights) => Json(json!({ "rights": rights })).into_response(),
        Err(answer) => *answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATOR: &str = "operator-operator";
    const READER: &str = "reader-reader-reader";

    fn access() -> Access {
        Access::new(&HttpConfig {
            operator_token: Some(OPERATOR.to_owned()),
            reader_token: Some(READER.to_owned()),
            ..HttpConfig::default()
        })
    }

    fn rights(access: &Access, token: &str) -> Result<Rights, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("plain"));
        access.rights(&headers).map_err(|answer| answer.status())
    }

    #[test]
    fn a_token_gives_its_rights_and_nothing_else_does() {
        let access = access();
        assert_eq!(rights(&access, OPERATOR), Ok(Rights::Operator));
        assert_eq!(rights(&access, READER), Ok(Rights::Reader));
        for wrong in ["", "operator", "operator-operator1", "Operator-operator"] {
            assert_eq!(rights(&access, wrong), Err(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        let none = access.rights(&HeaderMap::new()).expect_err("no token");
        assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
        let closed = Access::new(&HttpConfig::default());
        assert_eq!(rights(&closed, ""), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_code_counts_once_and_only_the_latest_are_kept() {
        let access = access();
        let code = access.new_code();
        assert_eq!(access.redeem(&code).as_deref(), Some(OPERATOR));
        assert_eq!(access.redeem(&code), None);
        let oldest = access.new_code();
        for _ in 0..CODES_LEN_MAX {
            access.new_code();
        }
        assert_eq!(access.redeem(&oldest), None);
        assert_eq!(access.redeem(""), None);
    }
}
