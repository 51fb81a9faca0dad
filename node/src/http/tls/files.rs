//! Certificates and keys, as they lie in files.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use tokio_rustls::rustls::{
    Error as RustlsError, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::{certificate::Certificate, config::TlsConfig};

/// What the port speaks over TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// A file of the table `http.tls` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {reason}")]
pub(crate) struct FileFault {
    /// The key, with its table.
    pub(crate) key: &'static str,
    /// What is wrong with it, and what to do.
    pub(crate) reason: String,
}

const CERTIFICATE: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";
const CLIENT_CA: &str = "http.tls.client_ca";

/// What was read: how handshakes are done, and the certificate that they show.
pub(super) struct Loaded {
    pub(super) server: Arc<ServerConfig>,
    pub(super) certificate: Certificate,
}

/// Reads all files and sees whether they go together.
pub(super) fn load(config: &TlsConfig) -> Result<Loaded, FileFault> {
    let chain = certificates(CERTIFICATE, &config.certificate)?;
    let certificate = Certificate::read(&chain[0]).ok_or_else(|| no_certificate(CERTIFICATE, &config.certificate))?;
    let key = private_key(&config.key)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(CERTIFICATE, format!("cannot be served: {error}")))?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(CLIENT_CA, path)? {
                roots.add(authority).map_err(|_| no_certificate(CLIENT_CA, path))?;
            }
            // Who has none may still show a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| fault(CLIENT_CA, format!("cannot be used: {}: {error}", path.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        RustlsError::InconsistentKeys(_) => fault(
            KEY,
            format!(
                "does not fit the first certificate in {}: give the key that it was made for",
                config.certificate.display()
            ),
        ),
        error => fault(KEY, format!("cannot be used: {}: {error}", config.key.display())),
    })?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Loaded {
        server: Arc::new(server),
        certificate,
    })
}

/// When the files were changed last, and how long they are.
pub(super) fn stamps(config: &TlsConfig) -> Vec<Option<(SystemTime, u64)>> {
    let files = [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()];
    let stamp = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    files.into_iter().flatten().map(|path| stamp(path)).collect()
}

fn fault(key: &'static str, reason: String) -> FileFault {
    FileFault { key, reason }
}

fn content(key: &'static str, path: &Path) -> Result<Vec<u8>, FileFault> {
    fs::read(path).map_err(|error| {
        let reason = format!(
            "cannot be read: {}: {error}; name a file that the node may read",
            path.display()
        );
        fault(key, reason)
    })
}

fn no_certificate(key: &'static str, path: &Path) -> FileFault {
    let reason = format!(
        "holds no certificate: {}; it has to be PEM, with `-----BEGIN CERTIFICATE-----`",
        path.display()
    );
    fault(key, reason)
}

/// All certificates of a file, at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let content = content(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(no_certificate(key, path)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    PrivateKeyDer::from_pem_slice(&content(KEY, path)?).map_err(|_| {
        let reason = format!(
            "holds no private key: {}; it has to be PEM and without a pass phrase, as `openssl pkey -in FILE` writes it",
            path.display()
        );
        fault(KEY, reason)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// Writes a certificate and its key.
    fn pair(folder: &TempDir, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let made = params.self_signed(&key).expect("a certificate");
        let at = |kind: &str| folder.path().join(format!("{name}.{kind}"));
        fs::write(at("crt"), made.pem()).expect("written");
        fs::write(at("key"), key.serialize_pem()).expect("written");
        (at("crt"), at("key"))
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_to_do() {
        let folder = TempDir::new().expect("a folder");
        let (certificate, key) = pair(&folder, "one");
        let (_, other_key) = pair(&folder, "other");
        let empty = folder.path().join("empty");
        fs::write(&empty, "").expect("written");
        let broken = folder.path().join("broken");
        fs::write(
            &broken,
            "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
        )
        .expect("written");
        let right = TlsConfig {
            client_ca: Some(certificate.clone()),
            certificate,
            key: key.clone(),
            ..TlsConfig::default()
        };
        assert!(
            load(&right)
                .expect("right")
                .certificate
                .names
                .contains(&"one".to_owned())
        );

        let missing = folder.path().join("missing");
        let with_certificate = |path: &PathBuf| TlsConfig {
            certificate: path.clone(),
            ..right.clone()
        };
        let with_key = |path: &PathBuf| TlsConfig {
            key: path.clone(),
            ..right.clone()
        };
        let with_ca = |path: &PathBuf| TlsConfig {
            client_ca: Some(path.clone()),
            ..right.clone()
        };
        for (config, wrong, reason) in [
            (with_certificate(&missing), CERTIFICATE, "cannot be read"),
            (with_certificate(&empty), CERTIFICATE, "BEGIN CERTIFICATE"),
            (with_certificate(&broken), CERTIFICATE, "BEGIN CERTIFICATE"),
            (with_certificate(&key), CERTIFICATE, "BEGIN CERTIFICATE"),
            (with_key(&missing), KEY, "cannot be read"),
            (with_key(&right.certificate), KEY, "without a pass phrase"),
            (with_key(&other_key), KEY, "the key that it was made for"),
            (with_ca(&missing), CLIENT_CA, "cannot be read"),
            (with_ca(&broken), CLIENT_CA, "BEGIN CERTIFICATE"),
        ] {
            let fault = load(&config).err().expect("wrong");
            assert_eq!(fault.key, wrong, "{fault}");
            assert!(fault.reason.contains(reason), "{fault}");
        }
    }
}
