//! The table `http` of a node's config file.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::tls::TlsConfig;

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
    /// How it speaks TLS; without it, plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

/// The tokens are nobody's business.
impl std::fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConfig")
            .field("address", &self.address)
            .field("tls", &self.tls)
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
        let tls = self.tls.as_ref()?;
        if self.address.is_none() {
            return Some((
                "http.tls".to_owned(),
                "is for the HTTP port, and there is none: set `http.address`".to_owned(),
            ));
        }
        tls.fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_for_a_port_and_has_no_unknown_keys() {
        let parse = |text: &str| toml::from_str::<HttpConfig>(text);
        let tls = "[tls]\ncertificate = \"crt\"\nkey = \"key\"";
        let fault = parse(tls).expect("right keys").fault().expect("no address");
        assert_eq!(fault.0, "http.tls");
        let served = format!("address = \"127.0.0.1:7081\"\n{tls}");
        assert_eq!(parse(&served).expect("right keys").fault(), None);
        let named = parse(&format!("{served}\nreaders = [\"ann\"]")).expect("right keys");
        assert_eq!(named.fault().expect("nobody signs").0, "http.tls.readers");
        let unknown = parse(&format!("{served}\nurk = 1")).expect_err("unknown");
        assert!(unknown.message().contains("`urk`"), "{unknown}");
    }
}
