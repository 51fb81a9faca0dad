//! The table `http` of a node's config file.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A token below this length could be guessed.
const TOKEN_LEN_MIN: usize = 16;

/// A node's HTTP port. Without an address there is none.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Who presents it may change things.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_token: Option<String>,
    /// Who presents it may look at everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_token: Option<String>,
}

/// The tokens are nobody's business.
impl std::fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConfig")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl HttpConfig {
    /// The first key whose value cannot be, with what is wrong with it.
    pub(crate) fn fault(&self) -> Option<(String, String)> {
        let tokens = [
            ("operator_token", &self.operator_token),
            ("reader_token", &self.reader_token),
        ];
        for (key, token) in tokens {
            let Some(token) = token else { continue };
            let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
            if token.len() < TOKEN_LEN_MIN || !is_plain {
                let reason = format!("must have at least {TOKEN_LEN_MIN} letters, digits or signs, without blanks");
                return Some((format!("http.{key}"), reason));
            }
        }
        if self.operator_token.is_some() && self.operator_token == self.reader_token {
            return Some((
                "http.reader_token".to_owned(),
                "is the operator's token; choose another".to_owned(),
            ));
        }
        None
    }
}
