//! TLS of the HTTP port: the node shows a certificate, and takes those of clients.
//!
//! [`config`] is the table `http.tls`, [`files`] reads what it names, [`certificate`] what stands in it, [`listener`] does the handshakes.
//! The files are read again when they change, so that a renewed certificate needs no restart.

mod certificate;
mod config;
mod files;
mod listener;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::ServerConfig;

pub(crate) use certificate::Certificate;
pub(crate) use config::TlsConfig;
pub(crate) use files::FileFault;
pub(super) use listener::{ClientNames, TlsListener};

use files::Loaded;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// TLS as it is in force; a cheap handle.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Inner>);

struct Inner {
    config: TlsConfig,
    loaded: RwLock<Loaded>,
    /// Of the files when they were looked at last.
    stamps: Mutex<Vec<Option<(SystemTime, u64)>>>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, FileFault> {
        // Looked at first: what changes while they are read is seen at the next look.
        let stamps = files::stamps(config);
        let loaded = files::load(config)?;
        Ok(Self(Arc::new(Inner {
            config: config.clone(),
            loaded: RwLock::new(loaded),
            stamps: Mutex::new(stamps),
        })))
    }

    /// What it was made from.
    pub(crate) fn config(&self) -> &TlsConfig {
        &self.0.config
    }

    /// The certificate that is shown to new connections.
    pub(crate) fn certificate(&self) -> Certificate {
        self.0.loaded.read().certificate.clone()
    }

    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.loaded.read().server)
    }

    /// Reads the files again whenever they have changed; never ends.
    pub(super) async fn follow(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::warn!(%error, "the files of `http.tls` could not be looked at");
            }
        }
    }

    /// Takes what has changed, or says once why it cannot be used.
    fn look(&self) {
        let stamps = files::stamps(&self.0.config);
        if std::mem::replace(&mut *self.0.stamps.lock(), stamps.clone()) == stamps {
            return;
        }
        match files::load(&self.0.config) {
            Ok(loaded) => {
                let Certificate { subject, until_s, .. } = &loaded.certificate;
                tracing::info!(%subject, until_s, "the files of `http.tls` have changed and are used from now on");
                *self.0.loaded.write() = loaded;
            }
            Err(fault) => {
                tracing::warn!(%fault, "the files of `http.tls` have changed; what was read before is used on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(config: &TlsConfig, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let made = params.self_signed(&key).expect("a certificate");
        fs::write(&config.certificate, made.pem()).expect("written");
        fs::write(&config.key, key.serialize_pem()).expect("written");
    }

    #[test]
    fn changed_files_are_taken_if_they_can_be_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| Path::join(folder.path(), name);
        let config = TlsConfig {
            certificate: at("crt"),
            key: at("key"),
            ..TlsConfig::default()
        };
        write(&config, "first");
        let tls = Tls::load(&config).expect("right");
        fs::write(&config.key, "no key").expect("written");
        tls.look();
        assert_eq!(tls.certificate().names, ["first"]);
        write(&config, "second.example");
        tls.look();
        assert_eq!(tls.certificate().names, ["second.example"]);
    }
}
