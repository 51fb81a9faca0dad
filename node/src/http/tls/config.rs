//! The table `http.tls` of a node's config file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TLS of the HTTP port, and whom client certificates let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file: the node's certificate, and behind it those that lead to an authority which browsers trust.
    pub certificate: PathBuf,
    /// PEM file: the private key of the first of them.
    pub key: PathBuf,
    /// PEM file: the authorities that sign client certificates. Without it nobody is asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Names of client certificates that may change things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// Names of client certificates that may look at everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<String>,
}

impl TlsConfig {
    /// The first key whose value cannot be, with what is wrong with it. What is in the files is looked at when they are loaded.
    pub(in crate::http) fn fault(&self) -> Option<(String, String)> {
        let fault = |key: &str, reason: String| Some((format!("http.tls.{key}"), reason));
        for (key, names) in [("operators", &self.operators), ("readers", &self.readers)] {
            // Such a name would fit no certificate, and nobody would see why.
            if let Some(name) = names.iter().find(|name| name.is_empty() || name.trim() != *name) {
                return fault(
                    key,
                    format!("has the name {name:?}; names are not empty and have no blanks around them"),
                );
            }
            if !names.is_empty() && self.client_ca.is_none() {
                return fault(
                    key,
                    "names client certificates, but not who signs them: set `http.tls.client_ca`".to_owned(),
                );
            }
        }
        let both = self.readers.iter().find(|name| self.operators.contains(name))?;
        fault(
            "readers",
            format!("has {both:?}, who is among `http.tls.operators` too; leave it in one of them"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let right = TlsConfig {
            client_ca: Some("ca.pem".into()),
            operators: names(&["ann"]),
            readers: names(&["bob"]),
            ..TlsConfig::default()
        };
        assert_eq!(right.fault(), None);
        for (wrong, key, reason) in [
            (
                TlsConfig {
                    client_ca: None,
                    ..right.clone()
                },
                "operators",
                "http.tls.client_ca",
            ),
            (
                TlsConfig {
                    readers: names(&["bob", "ann"]),
                    ..right.clone()
                },
                "readers",
                "\"ann\"",
            ),
            (
                TlsConfig {
                    readers: names(&[""]),
                    ..right.clone()
                },
                "readers",
                "not empty",
            ),
            (
                TlsConfig {
                    operators: names(&["ann "]),
                    ..right.clone()
                },
                "operators",
                "\"ann \"",
            ),
        ] {
            let (found, said) = wrong.fault().expect("wrong");
            assert_eq!(found, format!("http.tls.{key}"));
            assert!(said.contains(reason), "{said}");
        }
    }
}
