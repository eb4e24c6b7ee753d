//! `security.protocol`, `ssl.*` and `sasl.*`: from Java's properties to what connections begin with.
//!
//! ```text
//! properties ─▶ SecurityProperties ─ resolve: stores are read, credentials put together ─▶ SecurityConfig
//! ```

use std::sync::Arc;

use kafka_client::sasl::{Credentials, SaslConfig, ScramCredentials, ScramHash};
use kafka_client::security::SecurityConfig;

use super::jaas::{JAAS_CONFIG, JaasEntry};
use super::kerberos::KerberosProperties;
use super::oauthbearer::OAuthBearerProperties;
use super::security_fault::SecurityFault;
use super::ssl::SslProperties;
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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SecurityProperties {
    pub(super) protocol: SecurityProtocol,
    pub(super) ssl: SslProperties,
    pub(super) mechanism: SaslMechanism,
    pub(super) jaas: Option<JaasEntry>,
    pub(super) oauthbearer: OAuthBearerProperties,
    pub(super) kerberos: KerberosProperties,
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
                return Err("GSSAPI, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER".to_owned());
            }
        })
    }
}

impl SecurityProperties {
    /// Reads the stores and puts the credentials together.
    ///
    /// # Errors
    /// The first property that cannot be followed.
    pub(super) fn resolve(&self) -> Result<SecurityConfig, SecurityFault> {
        let tls = self.protocol.has_tls();
        let tls = tls.then(|| self.ssl.resolve(PROTOCOL)).transpose()?;
        let sasl = self.protocol.has_sasl().then(|| self.sasl()).transpose()?;
        Ok(SecurityConfig {
            tls,
            sasl: sasl.map(Arc::new),
        })
    }

    fn sasl(&self) -> Result<SaslConfig, SecurityFault> {
        let needed = |module: &str| {
            let fault_text =
                format!("it is needed: org.apache.kafka.common.security.{module} required …;");
            SecurityFault::new(JAAS_CONFIG, fault_text)
        };
        let (module, hash) = match self.mechanism {
            SaslMechanism::Plain => ("plain.PlainLoginModule", None),
            SaslMechanism::ScramSha256 => ("scram.ScramLoginModule", Some(ScramHash::Sha256)),
            SaslMechanism::ScramSha512 => ("scram.ScramLoginModule", Some(ScramHash::Sha512)),
            SaslMechanism::OAuthBearer => {
                return self.oauthbearer.resolve(self.jaas.as_ref(), &self.ssl);
            }
            SaslMechanism::Gssapi => return self.kerberos.resolve(self.jaas.as_ref()),
        };
        let entry = self.jaas.as_ref().ok_or_else(|| needed(module))?;
        if !entry.login_module.ends_with(module) {
            return Err(needed(module));
        }
        let required = |name| {
            let value = entry.required(name);
            value.map_err(|fault| SecurityFault::new(JAAS_CONFIG, fault))
        };
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
