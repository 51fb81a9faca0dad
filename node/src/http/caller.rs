//! What a request says of who sent it.
//!
//! A browser shows a certificate with whatever any page asks of this node. So one counts only for what our own pages ask, and for
//! programs that are no browsers: [`Caller::is_foreign`].

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, HeaderName, header, request::Parts},
};

use super::tls::ClientNames;

/// The browser says for whose page it asks.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request brings along to be let in.
#[derive(Debug, Default)]
pub(super) struct Caller {
    pub(super) token: Option<String>,
    /// The names of its certificate, if it has shown one.
    pub(super) certificate: Option<Arc<[String]>>,
    /// Whether a browser sent it for a page of somebody else.
    pub(super) is_foreign: bool,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let shown = parts.extensions.get::<ConnectInfo<ClientNames>>();
        Ok(Self {
            certificate: shown.and_then(|ConnectInfo(ClientNames(names))| names.clone()),
            ..Self::of(&parts.headers)
        })
    }
}

impl Caller {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let is_foreign = match text(SITE) {
            Some(site) => !matches!(site, "same-origin" | "none"),
            // An older browser, or none at all.
            None => headers.get(header::ORIGIN).is_some_and(|origin| {
                let own = text(header::HOST).map(|host| format!("https://{host}"));
                own.is_none_or(|own| origin.as_bytes() != own.as_bytes())
            }),
        };
        Self {
            token: token.map(str::to_owned),
            certificate: None,
            is_foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| Some((HeaderName::from_static(name), value.parse().ok()?));
        all.iter().filter_map(pair).collect()
    }

    #[test]
    fn a_token_is_what_follows_bearer() {
        let token = |value| Caller::of(&headers(&[("authorization", value)])).token;
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("Bearer ").as_deref(), Some(""));
        for other in ["bearer abc", "Basic abc", "abc"] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn what_another_page_asks_is_foreign() {
        let is_foreign = |sent: &[(&'static str, &str)]| Caller::of(&headers(sent)).is_foreign;
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://node-1:7081"), ("host", "node-1:7081")],
        ] {
            assert!(!is_foreign(own), "{own:?}");
        }
        for foreign in [
            &[("sec-fetch-site", "cross-site")][..],
            &[
                ("sec-fetch-site", "same-site"),
                ("origin", "https://node-1:7081"),
                ("host", "node-1:7081"),
            ],
            &[("origin", "https://evil.example"), ("host", "node-1:7081")],
            &[("origin", "null"), ("host", "node-1:7081")],
            &[("origin", "https://node-1:7081")],
        ] {
            assert!(is_foreign(foreign), "{foreign:?}");
        }
    }
}
