//! What connections to servers are made with.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{ClientTlsError, StorePlace, TlsError};
use crate::protocol::{CipherSuites, ProtocolVersions};
use crate::provider::crypto_provider;
use crate::server_verifier::{NoVerifier, TrustStoreVerifier};
use crate::store::{self, KeyStoreSource, StoreFile};

/// Who vouches for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustSource {
    /// The certificate authorities of the system; those that browsers trust, where it has none.
    #[default]
    System,
    /// Those of a file.
    File(StoreFile),
    /// Those of a PEM text.
    Inline(String),
}

/// The settings of TLS towards servers, as Java's client has them (`ssl.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// `ssl.truststore.*`
    pub trust: TrustSource,
    /// Whether the certificate authorities of the system vouch as well.
    pub trusts_system: bool,
    /// `ssl.keystore.*`: who we are, where the server asks for it.
    pub key_store: Option<KeyStoreSource>,
    /// `ssl.enabled.protocols`
    pub protocols: ProtocolVersions,
    /// `ssl.cipher.suites`
    pub cipher_suites: CipherSuites,
    /// `ssl.endpoint.identification.algorithm`: whether the certificate must have the name that is
    /// connected to. Its chain is checked in any case.
    pub verify_host_name: bool,
}

impl Default for ClientTlsConfig {
    fn default() -> Self {
        Self {
            trust: TrustSource::System,
            trusts_system: false,
            key_store: None,
            protocols: ProtocolVersions::default(),
            cipher_suites: CipherSuites::default(),
            verify_host_name: true,
        }
    }
}

/// What a client has that is never to speak TLS, and needs a configuration all the same. Every
/// handshake with it fails.
pub fn trusting_nobody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls_graviola::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions");
    let nobody = RootCertStore::empty();
    Arc::new(builder.with_root_certificates(nobody).with_no_client_auth())
}

/// What a client has that asks its own server something that is no secret, whatever the server
/// presents; with a certificate of its own, if there is one.
///
/// # Errors
/// What of the key store, or of the processor, does not do.
pub fn trusting_anybody(key_store: Option<StoreFile>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = crypto_provider()?;
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerifier::new(schemes)));
    Ok(Arc::new(match key_store {
        None => builder.with_no_client_auth(),
        Some(store) => {
            let key_password = None;
            let source = KeyStoreSource::File {
                store,
                key_password,
            };
            let key = SingleCertAndKey::from(source.load(&provider)?);
            builder.with_client_cert_resolver(Arc::new(key))
        }
    }))
}

impl ClientTlsConfig {
    /// Reads the stores.
    ///
    /// # Errors
    /// Which of the settings does not do, and why.
    pub fn load(&self) -> Result<Arc<ClientConfig>, ClientTlsError> {
        let provider = crypto_provider().map_err(ClientTlsError::Processor)?;
        let mut provider = CryptoProvider::clone(&*provider);
        self.cipher_suites
            .restrict(&mut provider, self.protocols)
            .map_err(ClientTlsError::CipherSuites)?;
        let provider = Arc::new(provider);
        let verifier = self.verifier(&provider);
        let verifier = verifier.map_err(ClientTlsError::TrustStore)?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.protocols.of_rustls())
            .expect("a suite of these versions is left")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.key_store {
            None => builder.with_no_client_auth(),
            Some(source) => {
                let key = source.load(&provider).map_err(ClientTlsError::KeyStore)?;
                let key = SingleCertAndKey::from(key);
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        Ok(Arc::new(config))
    }

    fn verifier(&self, provider: &CryptoProvider) -> Result<TrustStoreVerifier, TlsError> {
        let algorithms = provider.signature_verification_algorithms;
        let (trusted, place) = match &self.trust {
            TrustSource::System => {
                let roots = system_roots();
                return Ok(TrustStoreVerifier::of_roots(
                    roots,
                    algorithms,
                    self.verify_host_name,
                ));
            }
            TrustSource::File(file) => (file.trusted()?, StorePlace::File(file.location.clone())),
            TrustSource::Inline(text) => (store::trusted_of_pem(text)?, StorePlace::Inline),
        };
        let verifier = TrustStoreVerifier::new(trusted, algorithms, self.verify_host_name)
            .map_err(|fault| TlsError::Store { place, fault })?;
        Ok(match self.trusts_system {
            true => verifier.with_roots(system_roots()),
            false => verifier,
        })
    }
}

/// The certificate authorities of the system, else those that browsers trust.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
