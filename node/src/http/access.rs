//! Who may do what over HTTP: a bearer token or, over TLS, a client certificate gives the rights of a reader or of an operator.
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
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{caller::Caller, config::HttpConfig, tls::TlsConfig};

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

/// Who was let in.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Admitted {
    pub(super) rights: Rights,
    /// The name of the certificate that was shown; a token has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

/// The tokens, the codes that stand for them, and the names of certificates.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    operator: Option<String>,
    reader: Option<String>,
    tls: Option<TlsConfig>,
    codes: Mutex<VecDeque<(String, Instant)>>,
}

impl Access {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self(Arc::new(Inner {
            operator: config.operator_token.clone(),
            reader: config.reader_token.clone(),
            tls: config.tls.clone(),
            codes: Mutex::default(),
        }))
    }

    /// Who calls with which rights; or the answer for who has none. A token goes before a certificate.
    pub(super) fn admit(&self, caller: &Caller) -> Result<Admitted, Box<Response>> {
        let takes_certificates = self.0.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.0.operator.is_none() && self.0.reader.is_none() && !takes_certificates {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                "this node has no tokens: set `operator_token`, `reader_token` or both in the table `http` of its config file",
            )
            .into());
        }
        let how = match (&caller.token, &caller.certificate) {
            (Some(token), _) => return self.admit_token(token),
            (None, Some(names)) => return self.admit_certificate(names, caller.is_foreign),
            (None, None) if takes_certificates => {
                "show a client certificate that the table `http.tls` of the node's config file names, or send \
                 `authorization: Bearer TOKEN` with one of the tokens in the table `http`"
            }
            (None, None) => {
                "send `authorization: Bearer TOKEN` with one of the tokens in the table `http` of the node's config file"
            }
        };
        Err(refusal(StatusCode::UNAUTHORIZED, how).into())
    }

    fn admit_token(&self, given: &str) -> Result<Admitted, Box<Response>> {
        let is = |token: &Option<String>| token.as_ref().is_some_and(|token| are_equal(token, given));
        let with = |rights| Ok(Admitted { rights, name: None });
        if is(&self.0.operator) {
            return with(Rights::Operator);
        }
        if is(&self.0.reader) {
            return with(Rights::Reader);
        }
        Err(refusal(
            StatusCode::UNAUTHORIZED,
            "this is no token of this node; a cluster that was started anew may have new ones",
        )
        .into())
    }

    fn admit_certificate(&self, names: &[String], is_foreign: bool) -> Result<Admitted, Box<Response>> {
        if is_foreign {
            return Err(refusal(
                StatusCode::FORBIDDEN,
                "a client certificate counts for this node's own pages only; what another page asks takes a token",
            )
            .into());
        }
        let tls = self.0.tls.iter();
        let mut lists = tls.flat_map(|tls| [(&tls.operators, Rights::Operator), (&tls.readers, Rights::Reader)]);
        let found = lists.find_map(|(list, rights)| {
            let name = names.iter().find(|name| list.contains(name))?;
            Some(Admitted {
                rights,
                name: Some(name.clone()),
            })
        });
        found.ok_or_else(|| {
            let whose = names.first().map_or("without a name", String::as_str);
            refusal(
                StatusCode::FORBIDDEN,
                &format!(
                    "the client certificate {whose:?} gives no rights here: add its name to `operators` or `readers` in the \
                     table `http.tls` of the node's config file and restart the node"
                ),
            )
            .into()
        })
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

async fn make_code(State(access): State<Access>, caller: Caller) -> Response {
    match access.admit(&caller) {
        // The link gives the token away, which would outlive the certificate.
        Ok(Admitted { name: Some(_), .. }) => refusal(
            StatusCode::FORBIDDEN,
            "a link stands for the operator's token, and only who sends that one can make a link",
        ),
        Ok(Admitted {
            rights: Rights::Operator,
            ..
        }) => Json(json!({ "code": access.new_code() })).into_response(),
        Ok(_) => refusal(StatusCode::FORBIDDEN, "only an operator can make links"),
        Err(answer) => *answer,
    }
}

async fn session(State(access): State<Access>, caller: Caller) -> Response {
    match access.admit(&caller) {
        Ok(admitted) => Json(admitted).into_response(),
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

    fn rights(access: &Access, caller: &Caller) -> Result<Rights, StatusCode> {
        let admitted = access.admit(caller).map(|admitted| admitted.rights);
        admitted.map_err(|answer| answer.status())
    }

    fn with_token(token: &str) -> Caller {
        Caller {
            token: Some(token.to_owned()),
            ..Caller::default()
        }
    }

    fn with_certificate(names: &[&str]) -> Caller {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Caller {
            certificate: Some(names.into()),
            ..Caller::default()
        }
    }

    #[test]
    fn a_token_gives_its_rights_and_nothing_else_does() {
        let access = access();
        assert_eq!(rights(&access, &with_token(OPERATOR)), Ok(Rights::Operator));
        assert_eq!(rights(&access, &with_token(READER)), Ok(Rights::Reader));
        for wrong in ["", "operator", "operator-operator1", "Operator-operator"] {
            assert_eq!(
                rights(&access, &with_token(wrong)),
                Err(StatusCode::UNAUTHORIZED),
                "{wrong}"
            );
        }
        let nothing = Caller::default();
        assert_eq!(rights(&access, &nothing), Err(StatusCode::UNAUTHORIZED));
        let closed = Access::new(&HttpConfig::default());
        assert_eq!(rights(&closed, &with_token("")), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_certificate_gives_the_rights_of_its_name_where_there_is_no_token() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let access = Access::new(&HttpConfig {
            reader_token: Some(READER.to_owned()),
            tls: Some(TlsConfig {
                client_ca: Some("ca.pem".into()),
                operators: names(&["ann"]),
                readers: names(&["bob@example.org"]),
                ..TlsConfig::default()
            }),
            ..HttpConfig::default()
        });
        let ann = access
            .admit(&with_certificate(&["ann", "bob@example.org"]))
            .expect("named");
        assert_eq!(
            ann,
            Admitted {
                rights: Rights::Operator,
                name: Some("ann".to_owned())
            }
        );
        let bob = access
            .admit(&with_certificate(&["bob", "bob@example.org"]))
            .expect("named");
        assert_eq!(
            bob,
            Admitted {
                rights: Rights::Reader,
                name: Some("bob@example.org".to_owned())
            }
        );
        for nobody in [&["Ann"][..], &["bob"], &[]] {
            assert_eq!(rights(&access, &with_certificate(nobody)), Err(StatusCode::FORBIDDEN));
        }
        let both = Caller {
            token: Some(READER.to_owned()),
            ..with_certificate(&["ann"])
        };
        assert_eq!(rights(&access, &both), Ok(Rights::Reader));
        assert_eq!(rights(&access, &Caller::default()), Err(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn a_certificate_counts_for_our_own_pages_only() {
        let access = Access::new(&HttpConfig {
            operator_token: Some(OPERATOR.to_owned()),
            tls: Some(TlsConfig {
                operators: vec!["ann".to_owned()],
                ..TlsConfig::default()
            }),
            ..HttpConfig::default()
        });
        let foreign = Caller {
            is_foreign: true,
            ..with_certificate(&["ann"])
        };
        assert_eq!(rights(&access, &foreign), Err(StatusCode::FORBIDDEN));
        // Another page would not have the token.
        let token = Caller {
            token: Some(OPERATOR.to_owned()),
            ..foreign
        };
        assert_eq!(rights(&access, &token), Ok(Rights::Operator));
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
