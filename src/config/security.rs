//! `security.protocol`, `ssl.*` and `sasl.*`: from Java's properties to what connections begin with.
//!
//! ```text
//! properties ─▶ SecurityProperties ─ resolve: stores are read, credentials put together ─▶ SecurityConfig
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use kafka_client::sasl::{Credentials, SaslConfig, ScramCredentials, ScramHash};
use kafka_client::security::SecurityConfig;
use secret::Secret;
use tls::{
    CipherSuites, ClientTlsConfig, ClientTlsError, KeyStoreSource, ProtocolVersions, StoreFile,
    TrustSource,
};

use super::jaas::JaasEntry;
use super::value::ParsedValue;

/// `security.protocol`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SecurityProtocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    /// Reads Java's name, in any case as Java does.
    pub(super) fn parse(text: &str) -> ParsedValue<Self> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Self::Plaintext,
            "SSL" => Self::Ssl,
            "SASL_PLAINTEXT" => Self::SaslPlaintext,
            "SASL_SSL" => Self::SaslSsl,
            _ => return Err("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL".to_owned()),
        })
    }

    pub(super) fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub(super) fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// The property that decides about the others.
pub(super) const PROTOCOL: &str = "security.protocol";
/// What the names of the properties of security begin with.
pub(super) const PREFIXES: [&str; 3] = ["security.protocol", "ssl.", "sasl."];

/// What becomes of a property of security.
pub(super) enum SecurityRole {
    /// What its row says.
    Acts,
    /// Nothing, for that reason, which the operator has given.
    Ignored(&'static str),
    /// Nothing, which nobody can have meant.
    Missed,
}

/// What becomes of the property of that name; `protocol` is what is said of it, if anything is.
pub(super) fn role_of(name: &str, protocol: Option<SecurityProtocol>) -> SecurityRole {
    let effective = protocol.unwrap_or_default();
    if name.starts_with("ssl.") && !effective.has_tls() {
        return SecurityRole::Ignored("security.protocol is without SSL");
    }
    if name.starts_with("sasl.") && !effective.has_sasl() {
        return match protocol {
            Some(_) => SecurityRole::Ignored("security.protocol is without SASL"),
            None => SecurityRole::Missed,
        };
    }
    SecurityRole::Acts
}

/// The properties as they were given; empty where they were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityProperties {
    pub(super) protocol: SecurityProtocol,
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
    pub(super) mechanism: SaslMechanism,
    pub(super) jaas: Option<JaasEntry>,
}

/// `sasl.mechanism`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SaslMechanism {
    /// Java's default.
    #[default]
    Gssapi,
    Plain,
    ScramSha256,
    ScramSha512,
    OAuthBearer,
}

impl SaslMechanism {
    pub(super) fn parse(text: &str) -> ParsedValue<Self> {
        Ok(match text {
            "GSSAPI" => Self::Gssapi,
            "PLAIN" => Self::Plain,
            "SCRAM-SHA-256" => Self::ScramSha256,
            "SCRAM-SHA-512" => Self::ScramSha512,
            "OAUTHBEARER" => Self::OAuthBearer,
            _ => {
                return Err("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER".to_owned());
            }
        })
    }
}

/// A property that keeps the rest from working, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecurityFault {
    /// The Java name of the property.
    pub(super) property: &'static str,
    pub(super) fault: String,
}

fn fault(property: &'static str, fault: impl ToString) -> SecurityFault {
    SecurityFault {
        property,
        fault: fault.to_string(),
    }
}

impl SecurityProperties {
    /// Reads the stores and puts the credentials together.
    ///
    /// # Errors
    /// The first property that cannot be followed.
    pub(super) fn resolve(&self) -> Result<SecurityConfig, SecurityFault> {
        let tls = self.protocol.has_tls().then(|| self.tls()).transpose()?;
        let sasl = self.protocol.has_sasl().then(|| self.sasl()).transpose()?;
        Ok(SecurityConfig {
            tls,
            sasl: sasl.map(Arc::new),
        })
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, SecurityFault> {
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
            key_store,
            protocols: self.protocols,
            cipher_suites: self.cipher_suites.clone(),
            verify_host_name: !self.skips_host_name,
        };
        config.load().map_err(|error| {
            let property = match error {
                ClientTlsError::Processor(_) => PROTOCOL,
                ClientTlsError::CipherSuites(_) => "ssl.cipher.suites",
                ClientTlsError::TrustStore(_) => trust_property,
                ClientTlsError::KeyStore(_) => key_property,
            };
            fault(property, error)
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
            _ => Err(fault(
                "ssl.truststore.certificates",
                "ssl.truststore.location is set as well; one of them is enough",
            )),
        }
    }

    fn key_store(&self) -> Result<Option<KeyStoreSource>, SecurityFault> {
        let key_password = self.key_password.clone();
        match (self.keystore_location.as_str(), &self.keystore_key) {
            ("", None) => Ok(None),
            ("", Some(_)) if self.keystore_certificate_chain.is_empty() => Err(fault(
                "ssl.keystore.key",
                "ssl.keystore.certificate.chain is needed beside it",
            )),
            ("", Some(key)) => Ok(Some(KeyStoreSource::Inline {
                key: key.clone(),
                certificate_chain: self.keystore_certificate_chain.clone(),
                key_password,
            })),
            (_, Some(_)) => Err(fault(
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

    fn sasl(&self) -> Result<SaslConfig, SecurityFault> {
        const JAAS: &str = "sasl.jaas.config";
        let needed = |module: &str| {
            let fault_text =
                format!("it is needed: org.apache.kafka.common.security.{module} required …;");
            fault(JAAS, fault_text)
        };
        let (module, hash) = match self.mechanism {
            SaslMechanism::Plain => ("plain.PlainLoginModule", None),
            SaslMechanism::ScramSha256 => ("scram.ScramLoginModule", Some(ScramHash::Sha256)),
            SaslMechanism::ScramSha512 => ("scram.ScramLoginModule", Some(ScramHash::Sha512)),
            SaslMechanism::OAuthBearer => {
                return Err(fault("sasl.mechanism", "OAUTHBEARER is not supported yet"));
            }
            SaslMechanism::Gssapi => {
                return Err(fault(
                    "sasl.mechanism",
                    "GSSAPI, which is the default, is not supported: set another one",
                ));
            }
        };
        let entry = self.jaas.as_ref().ok_or_else(|| needed(module))?;
        if !entry.login_module.ends_with(module) {
            return Err(needed(module));
        }
        let required = |name| entry.required(name).map_err(|error| fault(JAAS, error));
        let credentials = Credentials {
            username: required("username")?.reveal().to_owned(),
            password: required("password")?.clone(),
        };
        let is_token = entry.option("tokenauth");
        let is_token = is_token.is_some_and(|text| text.reveal().eq_ignore_ascii_case("true"));
        Ok(match hash {
            None => SaslConfig::Plain(credentials),
            Some(hash) => SaslConfig::Scram(ScramCredentials::new(hash, credentials, is_token)),
        })
    }
}
