//! `sasl.oauthbearer.*` and `sasl.login.*`: where the tokens of OAUTHBEARER come from.
//!
//! ```text
//! sasl.oauthbearer.token.endpoint.url   https:, http:   client credentials, or an assertion
//!                                       file:           a file with a token
//!                                       not set         unsecured tokens, from the JAAS line
//! ```
//!
//! The client's id, secret and scope are properties (KIP-1139) or, as before, options of the JAAS
//! line; the properties come first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use kafka_client::sasl::SaslConfig;
use oauth::{
    Grant, GrantProperties, RefreshWindow, RefreshingTokenProvider, TokenEndpoint, TokenRefresh,
    TokenSource, TokenUrl, UnsecuredToken,
};
use secret::Secret;

use super::jaas::{JAAS_CONFIG, JaasEntry};
use super::security_fault::SecurityFault;
use super::ssl::SslProperties;
use super::value::ParsedValue;

const ENDPOINT_URL: &str = "sasl.oauthbearer.token.endpoint.url";
const CLIENT_ID: &str = "sasl.oauthbearer.client.credentials.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.credentials.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const ASSERTION_FILE: &str = "sasl.oauthbearer.assertion.file";
const RETRIEVER: &str = "sasl.oauthbearer.jwt.retriever.class";
const LOGIN_MODULE: &str = "oauthbearer.OAuthBearerLoginModule";

/// The properties as they were given; empty where they were not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OAuthBearerProperties {
    pub(super) token_url: Option<TokenUrl>,
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret>,
    pub(super) scope: String,
    pub(super) urlencode: bool,
    pub(super) assertion_file: String,
    pub(super) retriever: JwtRetriever,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) refresh: TokenRefresh,
}

impl Default for OAuthBearerProperties {
    fn default() -> Self {
        Self {
            token_url: None,
            client_id: String::new(),
            client_secret: None,
            scope: String::new(),
            urlencode: false,
            assertion_file: String::new(),
            retriever: JwtRetriever::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            refresh: TokenRefresh {
                window: RefreshWindow::default(),
                backoff: Duration::from_millis(100),
                backoff_max: Duration::from_secs(10),
            },
        }
    }
}

/// `sasl.oauthbearer.jwt.retriever.class`, of which we have Java's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum JwtRetriever {
    /// The URL decides.
    #[default]
    Default,
    ClientCredentials,
    File,
    JwtBearer,
}

impl JwtRetriever {
    /// Reads the name of a class.
    pub(super) fn parse(text: &str) -> ParsedValue<Self> {
        let class = text.strip_prefix("org.apache.kafka.common.security.oauthbearer.");
        Ok(match class.unwrap_or(text) {
            "" | "DefaultJwtRetriever" => Self::Default,
            "ClientCredentialsJwtRetriever" => Self::ClientCredentials,
            "FileJwtRetriever" => Self::File,
            "JwtBearerJwtRetriever" => Self::JwtBearer,
            _ => {
                return Err(
                    "DefaultJwtRetriever, ClientCredentialsJwtRetriever, FileJwtRetriever \
                            or JwtBearerJwtRetriever"
                        .to_owned(),
                );
            }
        })
    }
}

/// Reads a URL; nothing is none.
pub(super) fn token_url(text: &str) -> ParsedValue<Option<TokenUrl>> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = TokenUrl::parse(text);
    url.map(Some).map_err(|fault| format!("a URL: {fault}"))
}

impl OAuthBearerProperties {
    /// Puts the source of tokens together; `ssl` is what brokers are connected to with.
    ///
    /// # Errors
    /// The first property that cannot be followed.
    pub(super) fn resolve(
        &self,
        jaas: Option<&JaasEntry>,
        ssl: &SslProperties,
    ) -> Result<SaslConfig, SecurityFault> {
        if jaas.is_some_and(|entry| !entry.login_module.ends_with(LOGIN_MODULE)) {
            return Err(self.login_module_needed());
        }
        let (source, extension) = match &self.token_url {
            Some(TokenUrl::Endpoint(url)) => {
                let endpoint = self.endpoint(url, jaas, ssl)?;
                (TokenSource::Endpoint(Box::new(endpoint)), "extension_")
            }
            Some(TokenUrl::File(_)) if !self.retriever.reads_file() => {
                return Err(SecurityFault::new(
                    ENDPOINT_URL,
                    format!("it is a file, which {RETRIEVER} does not read"),
                ));
            }
            Some(TokenUrl::File(file)) => (TokenSource::File(file.clone()), "extension_"),
            None => {
                let token = self.unsecured(jaas)?;
                (TokenSource::Unsecured(token), "unsecuredLoginExtension_")
            }
        };
        let extensions = extensions(jaas, extension)?;
        let provider = RefreshingTokenProvider::new(source, extensions, self.refresh.clone());
        Ok(SaslConfig::OAuthBearer(Arc::new(provider)))
    }

    fn login_module_needed(&self) -> SecurityFault {
        let fault =
            format!("it is needed: org.apache.kafka.common.security.{LOGIN_MODULE} required …;");
        SecurityFault::new(JAAS_CONFIG, fault)
    }

    fn unsecured(&self, jaas: Option<&JaasEntry>) -> Result<UnsecuredToken, SecurityFault> {
        let option = |name| jaas.and_then(|entry| entry.option(name));
        let means_endpoint = !self.client_id.is_empty()
            || !self.assertion_file.is_empty()
            || self.retriever != JwtRetriever::Default
            || option("clientId").is_some();
        if means_endpoint {
            let fault = "it is needed: the settings are those of a token endpoint";
            return Err(SecurityFault::new(ENDPOINT_URL, fault));
        }
        let entry = jaas.ok_or_else(|| {
            let fault = format!("it is needed, or {JAAS_CONFIG} for unsecured tokens");
            SecurityFault::new(ENDPOINT_URL, fault)
        })?;
        let options = entry.options();
        UnsecuredToken::of_options(options.map(|(name, value)| (name, value.reveal())))
            .map_err(|fault| SecurityFault::new(JAAS_CONFIG, fault))
    }

    fn endpoint(
        &self,
        url: &Uri,
        jaas: Option<&JaasEntry>,
        ssl: &SslProperties,
    ) -> Result<TokenEndpoint, SecurityFault> {
        let (grant, credentials) = self.grant(jaas)?;
        let of_jaas = jaas.and_then(|entry| entry.option("scope"));
        let (scope, scope_property) = match (self.scope.as_str(), of_jaas) {
            ("", None) => (None, SCOPE),
            ("", Some(scope)) => (Some(scope.reveal().to_owned()), JAAS_CONFIG),
            (scope, _) => (Some(scope.to_owned()), SCOPE),
        };
        let tls = match url.scheme() == Some(&Scheme::HTTPS) {
            true => tls_of(jaas, ssl)?,
            false => tls::trusting_nobody(),
        };
        let properties = GrantProperties {
            credentials,
            scope: scope_property,
        };
        let timeouts = (self.connect_timeout, self.read_timeout);
        Ok(TokenEndpoint::new(
            url.clone(),
            (grant, scope),
            properties,
            &tls,
            timeouts,
        ))
    }

    /// What a token is asked for with, and the property that it comes from.
    fn grant(&self, jaas: Option<&JaasEntry>) -> Result<(Grant, &'static str), SecurityFault> {
        let option = |name| jaas.and_then(|entry| entry.option(name));
        let file = (!self.assertion_file.is_empty()).then(|| PathBuf::from(&self.assertion_file));
        let id = match self.client_id.as_str() {
            "" => option("clientId").map(|id| id.reveal().to_owned()),
            id => Some(id.to_owned()),
        };
        match (self.retriever, file) {
            (JwtRetriever::File, _) => {
                let fault = format!("{RETRIEVER} reads a file, as in file:///path");
                Err(SecurityFault::new(ENDPOINT_URL, fault))
            }
            (JwtRetriever::JwtBearer, None) => {
                let fault = format!("it is needed with this {RETRIEVER}");
                Err(SecurityFault::new(ASSERTION_FILE, fault))
            }
            (JwtRetriever::JwtBearer, Some(file)) => {
                Ok((Grant::JwtBearer { file }, ASSERTION_FILE))
            }
            (_, Some(file)) => Ok((Grant::ClientAssertion { file, id }, ASSERTION_FILE)),
            (_, None) => {
                let needed = |name| SecurityFault::new(name, format!("{ENDPOINT_URL} needs it"));
                let id = id.ok_or_else(|| needed(CLIENT_ID))?;
                let (secret, property) = match (&self.client_secret, option("clientSecret")) {
                    (Some(secret), _) => (secret, CLIENT_SECRET),
                    (None, Some(secret)) => (secret, JAAS_CONFIG),
                    (None, None) => return Err(needed(CLIENT_SECRET)),
                };
                let grant = Grant::ClientSecret {
                    id,
                    secret: secret.clone(),
                    urlencode: self.urlencode,
                };
                Ok((grant, property))
            }
        }
    }
}

impl JwtRetriever {
    fn reads_file(self) -> bool {
        matches!(self, Self::Default | Self::File)
    }
}

/// The JAAS line's `ssl.*` if it has any, else that of the brokers and the system's authorities.
fn tls_of(
    jaas: Option<&JaasEntry>,
    ssl: &SslProperties,
) -> Result<Arc<rustls::ClientConfig>, SecurityFault> {
    let of_jaas = jaas.map(SslProperties::of_options).transpose();
    let of_jaas = of_jaas.map_err(|fault| SecurityFault::new(JAAS_CONFIG, fault))?;
    match of_jaas.flatten() {
        None => ssl.for_web().resolve(ENDPOINT_URL),
        Some(ssl) => ssl.resolve(ENDPOINT_URL).map_err(|error| {
            let fault = format!("its option {}: {}", error.property, error.fault);
            SecurityFault::new(JAAS_CONFIG, fault)
        }),
    }
}

/// The SASL extensions of a JAAS line (KIP-342), without `prefix`.
fn extensions(
    jaas: Option<&JaasEntry>,
    prefix: &str,
) -> Result<Vec<(String, String)>, SecurityFault> {
    let options = jaas.into_iter().flat_map(JaasEntry::options);
    let extensions =
        options.filter_map(|(option, value)| Some((option.strip_prefix(prefix)?, value.reveal())));
    extensions
        .map(|(name, value)| {
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
            let is_value = !value.is_empty()
                && value
                    .bytes()
                    .all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
            match is_name && is_value && name != "auth" {
                true => Ok((name.to_owned(), value.to_owned())),
                false => Err(SecurityFault::new(
                    JAAS_CONFIG,
                    format!(
                        "its option {prefix}{name} is no extension: an alphabetic name other than \
                         auth, and a printable value"
                    ),
                )),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
