//! What a server presents, and whom it lets in; read anew when its files have changed.
//!
//! ```text
//! files ─ digest ─┬ as before ─▶ ServerConfig of before
//!                 └ changed ─ load ─┬ sound ─▶ ServerConfig for the connections that begin now
//!                                   └ not ───▶ ServerConfig of before, and the fault, once
//! ```
//!
//! Sessions are resumed as rustls does by default: from its memory, of 256 sessions, which begins
//! empty whenever the files have changed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use sha1::{Digest, Sha1};

use crate::error::{ServerTlsError, StoreFault, StorePlace, TlsError};
use crate::provider::crypto_provider;
use crate::store::{KeyStoreSource, StoreFile, read_file};

/// The settings of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// The certificate that it presents, and its key.
    pub key_store: StoreFile,
    /// Who vouches for clients, which must present a certificate then.
    pub client_ca: Option<PathBuf>,
}

impl ServerTlsConfig {
    /// Reads the stores.
    fn load(&self) -> Result<Arc<ServerConfig>, ServerTlsError> {
        let provider = crypto_provider().map_err(ServerTlsError::Processor)?;
        let source = KeyStoreSource::File {
            store: self.key_store.clone(),
            key_password: None,
        };
        let key = source.load(&provider).map_err(ServerTlsError::KeyStore)?;
        let verifier = self.client_verifier(&provider);
        let verifier = verifier.map_err(ServerTlsError::ClientCa)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of both versions");
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What checks the certificates of clients; `None`: they need none.
    fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some(location) = &self.client_ca else {
            return Ok(None);
        };
        let store = StoreFile {
            location: location.clone(),
            password: None,
        };
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(store.trusted()?);
        if taken == 0 {
            return Err(TlsError::Store {
                place: StorePlace::File(store.location),
                fault: StoreFault::NoReadableCertificate,
            });
        }
        let provider = Arc::clone(provider);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        Ok(Some(verifier.build().expect("there are roots")))
    }

    /// A digest of all files, to see whether one has changed.
    fn digest(&self) -> [u8; 20] {
        let key_store = Some(&self.key_store.location);
        let files = [key_store, self.client_ca.as_ref()];
        let mut digest = Sha1::new();
        for file in files.into_iter().flatten() {
            // What cannot be read is as empty: reading it says why.
            let bytes = read_file(file).unwrap_or_default();
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(&*bytes);
        }
        digest.finalize().into()
    }
}

/// The settings, as their files have them now.
pub struct ServerTls {
    settings: ServerTlsConfig,
    loaded: Mutex<LoadedFiles>,
}

struct LoadedFiles {
    config: Arc<ServerConfig>,
    /// Of the files that were looked at last.
    digest: [u8; 20],
}

impl ServerTls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Which of the settings does not do, and why.
    pub fn new(settings: ServerTlsConfig) -> Result<Self, ServerTlsError> {
        // Before they are read: what changes meanwhile is a change.
        let digest = settings.digest();
        let config = settings.load()?;
        Ok(Self {
            settings,
            loaded: Mutex::new(LoadedFiles { config, digest }),
        })
    }

    /// What a connection that begins now is served with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().config)
    }

    /// Whether clients must present a certificate.
    pub fn demands_certificates(&self) -> bool {
        self.settings.client_ca.is_some()
    }

    /// Reads the files again if one has changed; whether connections that begin now are served
    /// otherwise. Blocks for as long as the files take.
    ///
    /// # Errors
    /// What is wrong with the new files, once for each change; the old ones stay in use.
    pub fn reload(&self) -> Result<bool, ServerTlsError> {
        let digest = self.settings.digest();
        if self.loaded().digest == digest {
            return Ok(false);
        }
        self.load_anew(digest)
    }

    /// Reads the files again, whether or not one has changed: whoever asks wants to know whether
    /// they do. As [`reload`](Self::reload) otherwise.
    ///
    /// # Errors
    /// What is wrong with the files; the old ones stay in use.
    pub fn reload_anyway(&self) -> Result<bool, ServerTlsError> {
        let digest = self.settings.digest();
        self.load_anew(digest)
    }

    fn load_anew(&self, digest: [u8; 20]) -> Result<bool, ServerTlsError> {
        let config = self.settings.load();
        let mut loaded = self.loaded();
        let is_other = std::mem::replace(&mut loaded.digest, digest) != digest;
        loaded.config = config?;
        Ok(is_other)
    }

    fn loaded(&self) -> MutexGuard<'_, LoadedFiles> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the key.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServerTls");
        shown
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use secret::Secret;

    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../proto-tests/golden/stores")
            .join(name)
    }

    fn settings(key_store: &str, password: &str, client_ca: Option<&str>) -> ServerTlsConfig {
        ServerTlsConfig {
            key_store: StoreFile {
                location: golden(key_store),
                password: Some(Secret::new(password)),
            },
            client_ca: client_ca.map(golden),
        }
    }

    #[test]
    fn a_changed_file_is_served_and_a_bad_one_keeps_the_old_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let location = directory.path().join("key.p12");
        fs::copy(golden("key.p12"), &location).expect("a copy");
        let mut settings = settings("key.p12", "storepass", Some("ca.pem"));
        settings.key_store.location = location.clone();
        let server = ServerTls::new(settings).expect("it can be read");
        let first = server.config();
        assert!(!server.reload().expect("nothing has changed"));
        fs::write(&location, "no store").expect("written");
        assert!(server.reload().is_err());
        assert!(!server.reload().expect("it is said once"));
        assert!(server.reload_anyway().is_err(), "unless it is asked for");
        assert!(Arc::ptr_eq(&first, &server.config()));
        fs::copy(golden("key-legacy.p12"), &location).expect("a copy");
        assert!(server.reload().expect("it can be read"));
        assert!(!Arc::ptr_eq(&first, &server.config()));
        assert!(!server.reload_anyway().expect("it can be read still"));
    }

    #[test]
    fn the_setting_that_is_wrong_is_known() {
        let load = |settings| ServerTls::new(settings).err();
        let wrong = load(settings("key.p12", "wrong", None));
        assert!(matches!(wrong, Some(ServerTlsError::KeyStore(_))));
        let wrong = load(settings("ca.pem", "", None));
        assert!(matches!(wrong, Some(ServerTlsError::KeyStore(_))));
        let wrong = load(settings("key.p12", "storepass", Some("key-sec1.pem")));
        assert!(matches!(wrong, Some(ServerTlsError::ClientCa(_))));
        let wrong = load(settings("key.p12", "storepass", Some("absent.pem")));
        assert!(matches!(wrong, Some(ServerTlsError::ClientCa(_))));
        assert!(load(settings("key.p12", "storepass", Some("ca.pem"))).is_none());
    }

    #[test]
    fn nothing_of_the_stores_is_printed() {
        let server = ServerTls::new(settings("key.p12", "storepass", None));
        let shown = format!("{:?}", server.expect("it can be read"));
        assert!(!shown.contains("storepass"), "{shown}");
        assert!(shown.len() < 400, "{shown}");
    }
}
