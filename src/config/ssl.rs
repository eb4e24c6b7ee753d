//! `ssl.*`: the stores and what else TLS is configured with.

use std::path::PathBuf;
use std::sync::Arc;

use secret::Secret;
use tls::{
    CipherSuites, ClientTlsConfig, ClientTlsError, KeyStoreSource, ProtocolVersions, StoreFile,
    TrustSource,
};

use super::jaas::JaasEntry;
use super::security_fault::SecurityFault;
use super::value::ParsedValue;

/// The properties as they were given; empty where they were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SslProperties {
    pub(super) truststore_location: String,
    pub(super) truststore_password: Option<Secret>,
    pub(super) truststore_certificates: String,
    pub(super) keystore_location: String,
    pub(super) keystore_password: Option<Secret>,
    pub(super) keystore_key: Option<Secret>,
    pub(super) keystore_certificate_chain: String,
    pub(super) key_password: Option<Secret>,
    pub(super) protocols: ProtocolVersions,
    pub(super) cipher_suites: CipherSuites,
    pub(super) skips_host_name: bool,
    /// Whether the system's certificate authorities are trusted beside those of the store.
    trusts_system: bool,
}

impl SslProperties {
    /// What a server of the web is connected to with: the trust of the brokers and of the system,
    /// always with the check of its name, and without our certificate.
    pub(super) fn for_web(&self) -> Self {
        Self {
            truststore_location: self.truststore_location.clone(),
            truststore_password: self.truststore_password.clone(),
            truststore_certificates: self.truststore_certificates.clone(),
            protocols: self.protocols,
            cipher_suites: self.cipher_suites.clone(),
            trusts_system: true,
            ..Self::default()
        }
    }

    /// Reads the options of a JAAS line that have the same names; `None` if there are none.
    ///
    /// # Errors
    /// The option that is not known, or its value is not.
    pub(super) fn of_options(entry: &JaasEntry) -> ParsedValue<Option<Self>> {
        let mut ssl = None;
        for (option, value) in entry.options() {
            if option.starts_with("ssl.") {
                let set = ssl.get_or_insert_with(Self::default).set(option, value);
                set.map_err(|fault| format!("its option {option}: {fault}"))?;
            }
        }
        Ok(ssl)
    }

    fn set(&mut self, name: &str, value: &Secret) -> ParsedValue<()> {
        let text = value.reveal();
        match name {
            "ssl.truststore.location" => self.truststore_location = text.to_owned(),
            "ssl.truststore.password" => self.truststore_password = secret(text),
            "ssl.truststore.certificates" => self.truststore_certificates = text.to_owned(),
            "ssl.keystore.location" => self.keystore_location = text.to_owned(),
            "ssl.keystore.password" => self.keystore_password = secret(text),
            "ssl.keystore.key" => self.keystore_key = secret(text),
            "ssl.keystore.certificate.chain" => {
                self.keystore_certificate_chain = text.to_owned();
            }
            "ssl.key.password" => self.key_password = secret(text),
            "ssl.enabled.protocols" => self.protocols = ProtocolVersions::parse(text)?,
            "ssl.cipher.suites" => self.cipher_suites = CipherSuites::parse(text)?,
            "ssl.endpoint.identification.algorithm" => {
                self.skips_host_name = skips_host_name(text)?;
            }
            // As among the properties: stores are known by their content, and there is one TLS.
            "ssl.truststore.type" | "ssl.keystore.type" | "ssl.protocol" | "ssl.provider" => {}
            _ => return Err("it is not known".to_owned()),
        }
        Ok(())
    }

    /// Reads the stores; `protocol` is the property that says that there is TLS.
    ///
    /// # Errors
    /// The first property that cannot be followed.
    pub(super) fn resolve(
        &self,
        protocol: &'static str,
    ) -> Result<Arc<rustls::ClientConfig>, SecurityFault> {
        let trust = self.trust()?;
        let key_store = self.key_store()?;
        let trust_property = match trust {
            TrustSource::Inline(_) => "ssl.truststore.certificates",
            TrustSource::File(_) | TrustSource::System => "ssl.truststore.location",
        };
        let key_property = match key_store {
            Some(KeyStoreSource::Inline { .. }) => "ssl.keystore.key",
            Some(KeyStoreSource::File { .. }) | None => "ssl.keystore.location",
        };
        let config = ClientTlsConfig {
            trust,
            trusts_system: self.trusts_system,
            key_store,
            protocols: self.protocols,
            cipher_suites: self.cipher_suites.clone(),
            verify_host_name: !self.skips_host_name,
        };
        config.load().map_err(|error| {
            let property = match error {
                ClientTlsError::Processor(_) => protocol,
                ClientTlsError::CipherSuites(_) => "ssl.cipher.suites",
                ClientTlsError::TrustStore(_) => trust_property,
                ClientTlsError::KeyStore(_) => key_property,
            };
            SecurityFault::new(property, error)
        })
    }

    fn trust(&self) -> Result<TrustSource, SecurityFault> {
        match (
            self.truststore_location.as_str(),
            self.truststore_certificates.as_str(),
        ) {
            ("", "") => Ok(TrustSource::System),
            ("", text) => Ok(TrustSource::Inline(text.to_owned())),
            (location, "") => Ok(TrustSource::File(StoreFile {
                location: PathBuf::from(location),
                password: self.truststore_password.clone(),
            })),
            _ => Err(SecurityFault::new(
                "ssl.truststore.certificates",
                "ssl.truststore.location is set as well; one of them is enough",
            )),
        }
    }

    fn key_store(&self) -> Result<Option<KeyStoreSource>, SecurityFault> {
        let key_password = self.key_password.clone();
        match (self.keystore_location.as_str(), &self.keystore_key) {
            ("", None) => Ok(None),
            ("", Some(_)) if self.keystore_certificate_chain.is_empty() => Err(SecurityFault::new(
                "ssl.keystore.key",
                "ssl.keystore.certificate.chain is needed beside it",
            )),
            ("", Some(key)) => Ok(Some(KeyStoreSource::Inline {
                key: key.clone(),
                certificate_chain: self.keystore_certificate_chain.clone(),
                key_password,
            })),
            (_, Some(_)) => Err(SecurityFault::new(
                "ssl.keystore.key",
                "ssl.keystore.location is set as well; one of them is enough",
            )),
            (location, None) => Ok(Some(KeyStoreSource::File {
                store: StoreFile {
                    location: PathBuf::from(location),
                    password: self.keystore_password.clone(),
                },
                key_password,
            })),
        }
    }
}

/// Java's `https`, in any case, or nothing.
pub(super) fn skips_host_name(text: &str) -> ParsedValue<bool> {
    match text.to_ascii_lowercase().as_str() {
        "https" => Ok(false),
        "" => Ok(true),
        _ => Err("https, or nothing".to_owned()),
    }
}

/// An empty text is none.
pub(super) fn secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text))
}
