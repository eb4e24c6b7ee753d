//! `server.openid-connect.*`: tokens of an OpenID Connect provider that clients of the proxy must have.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openid::WellKnownUrl;
use secret::Secret;
use tls::{ClientTlsConfig, StoreFile, TrustSource};

const REALM: &str = "server.openid-connect.realm";
const URL: &str = "server.openid-connect.well-known-url";
const AUDIENCE: &str = "server.openid-connect.audience";
const TRUSTSTORE: &str = "server.openid-connect.truststore-location";
const TRUSTSTORE_PASSWORD: &str = "server.openid-connect.truststore-password";
pub(super) const KAFKA_OAUTHBEARER: &str = "server.openid-connect.kafka-oauthbearer";
const TOKEN_ONLY: &str = "server.openid-connect.custom-jwt.kafka-token-auth-only";
const USERNAME: &str = "server.openid-connect.custom-jwt.jwt-kafka-username-key";
const PASSWORD: &str = "server.openid-connect.custom-jwt.jwt-kafka-password-key";

/// `server.openid-connect.*`
#[derive(Clone, Debug)]
pub struct OpenIdConnectConfig {
    /// Whether clients are asked for a token.
    pub enabled: Option<bool>,
    /// What clients are told that it is for.
    pub realm: Option<String>,
    /// Where the provider describes itself.
    pub well_known_url: Option<WellKnownUrl>,
    /// What tokens must be for.
    pub audience: Option<String>,
    /// Whether the log says why a token was refused.
    pub allow_detailed_logging: bool,
    /// How often the provider's keys are fetched again.
    pub revalidation_interval: Duration,
    /// How many of these fetches may fail in a row; `None`: any number.
    pub revalidation_errors_limit: Option<u32>,
    /// Who vouches for the provider, if not those who do for the web.
    pub truststore_location: Option<PathBuf>,
    /// The password of that store.
    pub truststore_password: Option<Secret>,
    /// Whether a client's token is presented to the brokers.
    pub kafka_oauthbearer: bool,
    /// `custom-jwt.*`
    pub custom_jwt: CustomJwtConfig,
    /// What the trust comes to, if clients are asked for a token.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// `server.openid-connect.custom-jwt.*`: which Kafka user a token is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomJwtConfig {
    /// Whether Kafka credentials come from tokens only.
    pub kafka_token_auth_only: bool,
    /// The claim that has the user.
    pub username_claim: Option<String>,
    /// The claim that has the password.
    pub password_claim: Option<String>,
}

impl CustomJwtConfig {
    /// The claims that have user and password.
    pub(crate) fn claims(&self) -> Option<[String; 2]> {
        Some([self.username_claim.clone()?, self.password_claim.clone()?])
    }
}

impl Default for OpenIdConnectConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            realm: None,
            well_known_url: None,
            audience: None,
            allow_detailed_logging: false,
            revalidation_interval: Duration::from_secs(600),
            revalidation_errors_limit: None,
            truststore_location: None,
            truststore_password: None,
            kafka_oauthbearer: false,
            custom_jwt: CustomJwtConfig::default(),
            tls: None,
        }
    }
}

/// A key of `server.openid-connect` that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpenIdFault {
    pub(super) key: &'static str,
    pub(super) fault: String,
}

impl OpenIdConnectConfig {
    /// Whether clients are asked for a token.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }

    /// The keys of which something is said.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let jwt = &self.custom_jwt;
        let given = [
            (REALM, self.realm.is_some()),
            (URL, self.well_known_url.is_some()),
            (TRUSTSTORE, self.truststore_location.is_some()),
            (TRUSTSTORE_PASSWORD, self.truststore_password.is_some()),
            (TOKEN_ONLY, jwt.kafka_token_auth_only),
            (USERNAME, jwt.username_claim.is_some()),
            (PASSWORD, jwt.password_claim.is_some()),
            (AUDIENCE, self.audience.is_some()),
        ];
        given.into_iter().filter(|(_, is)| *is).map(|(key, _)| key)
    }

    /// The keys that have no effect, since it is said to be off.
    pub(super) fn ignored(&self) -> Vec<&'static str> {
        match self.enabled {
            Some(false) => self.given().collect(),
            _ => Vec::new(),
        }
    }

    /// Why it should be thought over, though it works.
    pub(super) fn warning(&self) -> Option<String> {
        let url = self.well_known_url.as_ref().filter(|_| self.is_enabled())?;
        let is_open = !url.is_https() && !url.is_loopback();
        is_open.then(|| {
            "it is without https: whoever can change what the provider answers decides who may \
             connect"
                .to_owned()
        })
    }

    /// Whether the brokers see the client's token.
    pub(crate) fn presents_tokens(&self) -> bool {
        self.is_enabled() && self.kafka_oauthbearer
    }

    /// Reads the trust store, if clients are asked for a token.
    ///
    /// # Errors
    /// The first key that keeps it from working. Whoever names a provider means to be protected by
    /// it.
    pub(super) fn resolve(&mut self) -> Result<(), OpenIdFault> {
        let fault = |key, fault: String| Err(OpenIdFault { key, fault });
        if self.kafka_oauthbearer && !self.is_enabled() {
            let without = "server.openid-connect.enabled is not true, so there is no token";
            return fault(KAFKA_OAUTHBEARER, without.to_owned());
        }
        match self.enabled {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => {
                let without =
                    "server.openid-connect.enabled is not set, so it would have no effect";
                return match self.given().last() {
                    Some(key) => fault(key, without.to_owned()),
                    None => Ok(()),
                };
            }
        }
        let is_missing = [
            (URL, self.well_known_url.is_none()),
            (AUDIENCE, self.audience.is_none()),
        ];
        if let Some((key, _)) = is_missing.into_iter().find(|(_, missing)| *missing) {
            return fault(key, "server.openid-connect.enabled needs it".to_owned());
        }
        let jwt = &self.custom_jwt;
        match (&jwt.username_claim, &jwt.password_claim) {
            (Some(_), None) => return fault(PASSWORD, format!("{USERNAME} needs it")),
            (None, Some(_)) => return fault(USERNAME, format!("{PASSWORD} needs it")),
            (None, None) if jwt.kafka_token_auth_only => {
                return fault(USERNAME, format!("{TOKEN_ONLY} needs it"));
            }
            (Some(_), Some(_)) if self.kafka_oauthbearer => {
                let which = format!("the Kafka user is that of the token, or that of {USERNAME}");
                return fault(KAFKA_OAUTHBEARER, which);
            }
            _ => {}
        }
        if self.truststore_password.is_some() && self.truststore_location.is_none() {
            return fault(TRUSTSTORE, format!("{TRUSTSTORE_PASSWORD} needs it"));
        }
        match self.tls_config().load() {
            Ok(tls) => self.tls = Some(tls),
            Err(error) => return fault(TRUSTSTORE, error.to_string()),
        }
        Ok(())
    }

    fn tls_config(&self) -> ClientTlsConfig {
        let trust = match &self.truststore_location {
            None => TrustSource::System,
            Some(location) => TrustSource::File(StoreFile {
                location: location.clone(),
                password: self.truststore_password.clone(),
            }),
        };
        ClientTlsConfig {
            trust,
            ..ClientTlsConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled() -> OpenIdConnectConfig {
        OpenIdConnectConfig {
            enabled: Some(true),
            well_known_url: WellKnownUrl::parse("https://idp/x").ok(),
            audience: Some("proxy".to_owned()),
            ..OpenIdConnectConfig::default()
        }
    }

    /// The key at fault when that is changed of a sound configuration.
    fn fault_of(change: impl FnOnce(&mut OpenIdConnectConfig)) -> Option<&'static str> {
        let mut config = enabled();
        change(&mut config);
        config.resolve().err().map(|OpenIdFault { key, .. }| key)
    }

    #[test]
    fn it_needs_a_provider_an_audience_and_both_claims_or_none() {
        let claim = || Some("claim".to_owned());
        assert_eq!(fault_of(|_| {}), None);
        assert_eq!(fault_of(|c| c.well_known_url = None), Some(URL));
        assert_eq!(fault_of(|c| c.audience = None), Some(AUDIENCE));
        let only = |c: &mut OpenIdConnectConfig| c.custom_jwt.kafka_token_auth_only = true;
        assert_eq!(fault_of(only), Some(USERNAME));
        let username = |c: &mut OpenIdConnectConfig| c.custom_jwt.username_claim = claim();
        assert_eq!(fault_of(username), Some(PASSWORD));
        let password = |c: &mut OpenIdConnectConfig| c.custom_jwt.password_claim = claim();
        assert_eq!(fault_of(password), Some(USERNAME));
        let secret = |c: &mut OpenIdConnectConfig| c.truststore_password = Some(Secret::new("x"));
        assert_eq!(fault_of(secret), Some(TRUSTSTORE));
        let missing = |c: &mut OpenIdConnectConfig| c.truststore_location = Some("/none".into());
        assert_eq!(fault_of(missing), Some(TRUSTSTORE));
    }

    #[test]
    fn a_token_is_presented_to_the_brokers_only_as_it_is() {
        assert_eq!(fault_of(|c| c.kafka_oauthbearer = true), None);
        let both = |c: &mut OpenIdConnectConfig| {
            c.kafka_oauthbearer = true;
            c.custom_jwt.username_claim = Some("user".to_owned());
            c.custom_jwt.password_claim = Some("pass".to_owned());
        };
        assert_eq!(fault_of(both), Some(KAFKA_OAUTHBEARER));
        for enabled in [None, Some(false)] {
            let without = |c: &mut OpenIdConnectConfig| {
                c.kafka_oauthbearer = true;
                c.enabled = enabled;
            };
            assert_eq!(fault_of(without), Some(KAFKA_OAUTHBEARER));
        }
    }

    #[test]
    fn a_provider_without_effect_is_a_fault_unless_it_is_said_to_have_none() {
        assert_eq!(fault_of(|c| c.enabled = None), Some(AUDIENCE));
        assert_eq!(fault_of(|c| c.enabled = Some(false)), None);
        assert_eq!(OpenIdConnectConfig::default().resolve(), Ok(()));
        let off = OpenIdConnectConfig {
            enabled: Some(false),
            ..enabled()
        };
        assert_eq!(off.ignored(), [URL, AUDIENCE]);
    }

    #[test]
    fn a_provider_without_https_is_warned_about_off_loopback() {
        for (url, warned) in [
            ("http://idp/x", true),
            ("http://127.0.0.1:1/x", false),
            ("https://idp/x", false),
        ] {
            let mut config = enabled();
            config.well_known_url = WellKnownUrl::parse(url).ok();
            assert_eq!(config.warning().is_some(), warned, "{url}");
        }
    }
}
