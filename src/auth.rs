//! Who a request is from: whether its client may connect at all, and which Kafka user it is for.
//!
//! ```text
//! Authorization: Basic base64(user:password)     the proxy's, with server.basic-auth
//! Sec-WebSocket-Protocol: basic.<base64url(user:password)>, kafka-websocket-proxy
//!                                                the same where there is no Authorization: a page
//!                                                can set no headers
//! Authorization: Bearer <JWT>                    the proxy's, with server.openid-connect
//! Sec-WebSocket-Protocol: bearer.<JWT>, kafka-websocket-proxy
//!                                                the same where there is no such header
//!
//! that JWT                                       Kafka's, with kafka-oauthbearer
//! claims of that JWT                             Kafka's, with custom-jwt
//! X-Kafka-Auth: base64(user:password)            then
//! Authorization: Basic base64(user:password)     then, unless it is the proxy's
//! Sec-WebSocket-Protocol: kafka-auth.<base64url(user:password)>, kafka-websocket-proxy
//!                                                then, and then basic. unless it is the proxy's
//! ```
//!
//! # Invariants
//! - Credentials that are there and cannot be read are an error, never left out: the request would
//!   be served as the proxy itself, which may be allowed more.
//! - No error says anything of what was sent but where it stood.
//! - A sub-protocol with credentials has one beside it that can be answered with, or the request is
//!   refused: a page would be disconnected without a word.

mod authentication;
mod bearer;
mod challenge;
mod credentials;

use std::fmt;

use http::HeaderMap;
use kafka_client::sasl::{Credentials, UserCredentials};
use secret::Secret;

pub(crate) use authentication::{Authentication, ClientIdentity};
pub(crate) use credentials::{SUB_PROTOCOL, offers_sub_protocol};

use crate::config::{BasicAuthConfig, CustomJwtConfig, ServerConfig};
use crate::user_token::user_token;
use credentials::{BASIC_PREFIX, KAFKA_AUTH_PREFIX, Sent};

const X_KAFKA_AUTH: &str = "x-kafka-auth";

/// Whose `Authorization: Basic` is, and what stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BasicCredentialsOwner {
    /// The proxy's: `server.basic-auth.enabled`.
    Proxy,
    /// Kafka's.
    Kafka,
}

impl BasicCredentialsOwner {
    fn of(config: &BasicAuthConfig) -> Self {
        match config.is_enabled() {
            true => Self::Proxy,
            false => Self::Kafka,
        }
    }
}

/// Where credentials stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialsPlace {
    XKafkaAuth,
    AuthorizationBasic,
    KafkaAuthSubProtocol,
    BasicSubProtocol,
    /// Claims of the token.
    Claims,
    /// The token itself.
    Token,
}

impl fmt::Display for CredentialsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XKafkaAuth => "header X-Kafka-Auth",
            Self::AuthorizationBasic => "header Authorization: Basic",
            Self::KafkaAuthSubProtocol => "sub-protocol kafka-auth",
            Self::BasicSubProtocol => "sub-protocol basic",
            Self::Claims | Self::Token => "token",
        })
    }
}

/// What a client authenticates with at the brokers, and where it says so.
#[derive(Clone, Debug)]
pub(crate) struct KafkaCredentials {
    pub(crate) credentials: UserCredentials,
    pub(crate) place: CredentialsPlace,
}

/// Why credentials are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// They are not what they should be.
    #[error("{place}: it must be the base64 of user:password, once")]
    Unreadable {
        /// Where they stand.
        place: CredentialsPlace,
    },
    /// The token has one of the claims, or they are not what they should be.
    #[error(
        "token: it must have both {username} and {password}, as texts without control characters"
    )]
    UnreadableClaims {
        /// The claim of the user.
        username: String,
        /// That of the password.
        password: String,
    },
    /// Nobody can be told by the token who it is.
    #[error("token: it has no sub, by which the brokers could know a user")]
    NoSubject,
    /// Nothing else may be used.
    #[error("this server takes Kafka credentials from a token only, and there are none in it")]
    NotInToken,
    /// There is no sub-protocol that could be answered with.
    #[error("sub-protocol {sub_protocol}: offer {SUB_PROTOCOL} beside it, which the answer names")]
    NothingToAnswer {
        /// The one that has credentials.
        sub_protocol: &'static str,
    },
}

/// The credentials that come first of those that the request has, if it has any: those of its token
/// come before all others.
///
/// # Errors
/// [`CredentialsError`] about those that come first.
pub(crate) fn kafka_credentials(
    headers: &HeaderMap,
    identity: Option<&ClientIdentity>,
    config: &ServerConfig,
) -> Result<Option<KafkaCredentials>, CredentialsError> {
    let sent = sent_credentials(headers, BasicCredentialsOwner::of(&config.basic_auth))?;
    let jwt = &config.openid_connect.custom_jwt;
    let token = identity.and_then(ClientIdentity::token);
    if let Some(token) = token.filter(|_| config.openid_connect.presents_tokens()) {
        let token = user_token(token).ok_or(CredentialsError::NoSubject)?;
        return Ok(Some(KafkaCredentials {
            credentials: UserCredentials::Token(token),
            place: CredentialsPlace::Token,
        }));
    }
    let claims = token.map_or(&[][..], |token| token.claims.as_slice());
    match credentials_in_token(claims, jwt)? {
        None if jwt.kafka_token_auth_only && config.openid_connect.is_enabled() => {
            Err(CredentialsError::NotInToken)
        }
        None => Ok(sent),
        in_token => Ok(in_token),
    }
}

/// Those that the claims of a token are; they stand in the order of [`CustomJwtConfig::claims`].
fn credentials_in_token(
    claims: &[Option<Secret>],
    config: &CustomJwtConfig,
) -> Result<Option<KafkaCredentials>, CredentialsError> {
    let (Some([username, password]), Some(names)) = (claims.first_chunk(), config.claims()) else {
        return Ok(None);
    };
    let legal = |text: &Secret| !text.reveal().contains(char::is_control);
    match (username, password) {
        (None, None) => Ok(None),
        (Some(username), Some(password))
            if !username.reveal().is_empty() && legal(username) && legal(password) =>
        {
            Ok(Some(KafkaCredentials {
                credentials: UserCredentials::Password(Credentials {
                    username: username.reveal().to_owned(),
                    password: password.clone(),
                }),
                place: CredentialsPlace::Claims,
            }))
        }
        _ => {
            let [username, password] = names;
            Err(CredentialsError::UnreadableClaims { username, password })
        }
    }
}

/// Those of headers and sub-protocols.
fn sent_credentials(
    headers: &HeaderMap,
    basic: BasicCredentialsOwner,
) -> Result<Option<KafkaCredentials>, CredentialsError> {
    if let Some(sub_protocol) = credentials::offered_alone(headers) {
        return Err(CredentialsError::NothingToAnswer { sub_protocol });
    }
    let is_kafkas = basic == BasicCredentialsOwner::Kafka;
    let kafka_auth = credentials::offered(headers, KAFKA_AUTH_PREFIX);
    let basic_offered = credentials::offered(headers, BASIC_PREFIX).filter(|_| is_kafkas);
    let x_kafka_auth = credentials::of_header(headers, X_KAFKA_AUTH);
    let authorization = credentials::of_authorization(headers).filter(|_| is_kafkas);
    let places: [(CredentialsPlace, Option<Sent>); 4] = [
        (CredentialsPlace::XKafkaAuth, x_kafka_auth),
        (CredentialsPlace::AuthorizationBasic, authorization),
        (CredentialsPlace::KafkaAuthSubProtocol, kafka_auth),
        (CredentialsPlace::BasicSubProtocol, basic_offered),
    ];
    let first = places
        .into_iter()
        .find_map(|(place, sent)| Some((place, sent?)));
    let Some((place, sent)) = first else {
        return Ok(None);
    };
    let credentials = sent.ok_or(CredentialsError::Unreadable { place })?;
    let credentials = UserCredentials::Password(credentials);
    Ok(Some(KafkaCredentials { credentials, place }))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use http::HeaderValue;

    use super::credentials::{STANDARD, URL_SAFE};
    use super::*;

    fn parts_of(credentials: UserCredentials) -> (String, String) {
        let UserCredentials::Password(credentials) = credentials else {
            panic!("{credentials:?}");
        };
        let password = credentials.password.reveal().to_owned();
        (credentials.username, password)
    }

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn found(pairs: Headers<'_>) -> Result<Option<(String, String, CredentialsPlace)>, String> {
        found_with(pairs, BasicCredentialsOwner::Kafka)
    }

    fn found_with(
        pairs: Headers<'_>,
        basic: BasicCredentialsOwner,
    ) -> Result<Option<(String, String, CredentialsPlace)>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let found = sent_credentials(&headers, basic).map_err(|error| error.to_string())?;
        Ok(found.map(|KafkaCredentials { credentials, place }| {
            let (username, password) = parts_of(credentials);
            (username, password, place)
        }))
    }

    fn base64(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn credentials_stand_in_either_header_or_in_a_sub_protocol() {
        let alice = base64("alice:pa:ss wörd");
        let offered = format!(
            "x, kafka-auth.{}, kafka-websocket-proxy",
            URL_SAFE.encode("b:~~~")
        );
        for (headers, expected) in [
            (
                ("x-kafka-auth", alice.as_str()),
                ("alice", "pa:ss wörd", CredentialsPlace::XKafkaAuth),
            ),
            (
                ("authorization", &format!("bAsIc  {alice}")),
                ("alice", "pa:ss wörd", CredentialsPlace::AuthorizationBasic),
            ),
            (
                ("authorization", &format!("Basic\t{alice}")),
                ("alice", "pa:ss wörd", CredentialsPlace::AuthorizationBasic),
            ),
            (
                ("sec-websocket-protocol", offered.trim_end_matches('=')),
                ("b", "~~~", CredentialsPlace::KafkaAuthSubProtocol),
            ),
        ] {
            let (user, password, place) = expected;
            let expected = Some((user.to_owned(), password.to_owned(), place));
            assert_eq!(found(&[headers]), Ok(expected));
        }
        for headers in [
            &[][..],
            &[("authorization", "Bearer abc")],
            &[(
                "sec-websocket-protocol",
                "kafka-websocket-proxy, kafka-authx",
            )],
        ] {
            assert_eq!(found(headers), Ok(None));
        }
    }

    #[test]
    fn the_more_special_place_comes_first() {
        let (a, b) = (base64("a:1"), format!("Basic {}", base64("b:2")));
        let [c, d] = ["c:3", "d:4"].map(|text| URL_SAFE.encode(text));
        let d = format!("kafka-websocket-proxy, basic.{d}");
        let c = format!("{d}, kafka-auth.{c}");
        let all = [
            ("sec-websocket-protocol", c.as_str()),
            ("authorization", b.as_str()),
            ("x-kafka-auth", a.as_str()),
        ];
        for (headers, user) in [(&all[..], "a"), (&all[..2], "b"), (&all[..1], "c")] {
            let (found, ..) = found(headers).unwrap().unwrap();
            assert_eq!(found, user);
        }
        let (found, _, place) = found(&[("sec-websocket-protocol", &d)]).unwrap().unwrap();
        assert_eq!((&*found, place), ("d", CredentialsPlace::BasicSubProtocol));
    }

    #[test]
    fn what_is_the_proxys_is_not_kafkas() {
        let basic = format!("Basic {}", base64("b:2"));
        let offered = format!("kafka-websocket-proxy, basic.{}", URL_SAFE.encode("d:4"));
        let both = [
            ("sec-websocket-protocol", offered.as_str()),
            ("authorization", basic.as_str()),
        ];
        assert_eq!(found_with(&both, BasicCredentialsOwner::Proxy), Ok(None));
        let a = base64("a:1");
        let all = [both[0], both[1], ("x-kafka-auth", a.as_str())];
        let (found, ..) = found_with(&all, BasicCredentialsOwner::Proxy)
            .unwrap()
            .unwrap();
        assert_eq!(found, "a");
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_place_without_a_word_of_it() {
        let [no_colon, no_user, control] = ["secret", ":secret", "a:sec\0ret"].map(base64);
        let binary = STANDARD.encode([0xff, b':', 0xfe]);
        for text in ["se?cret", &no_colon, &no_user, &control, &binary, ""] {
            let error = found(&[("x-kafka-auth", text)]).unwrap_err();
            let expected = "header X-Kafka-Auth: it must be the base64 of user:password, once";
            assert_eq!(error, expected, "{text}");
            let basic = format!("Basic {text}");
            let error = found(&[("authorization", basic.trim())]).unwrap_err();
            assert!(
                error.starts_with("header Authorization: Basic: it must"),
                "{error}"
            );
        }
        let twice = base64("a:1");
        let twice = ("x-kafka-auth", twice.as_str());
        assert!(found(&[twice, twice]).is_err());
        // One that comes first is not passed over for one that can be read.
        let good = format!("Basic {}", base64("a:1"));
        assert!(found(&[("x-kafka-auth", "?"), ("authorization", &good)]).is_err());
        for text in ["?", "ö"] {
            let offered = format!("kafka-websocket-proxy, kafka-auth.{text}");
            let error = found(&[("sec-websocket-protocol", &offered)]).unwrap_err();
            assert!(
                error.starts_with("sub-protocol kafka-auth: it must"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_sub_protocol_with_credentials_needs_one_to_be_answered_with() {
        let (header, credentials) = (base64("a:1"), URL_SAFE.encode("a:1"));
        let basic = format!("Basic {header}");
        for name in ["kafka-auth", "basic", "bearer"] {
            let offered = format!("{name}.{credentials}");
            let alone = ("sec-websocket-protocol", offered.as_str());
            // A page would be disconnected whosever credentials count.
            for headers in [
                &[alone][..],
                &[alone, ("x-kafka-auth", &header)],
                &[alone, ("authorization", &basic)],
            ] {
                for owner in [BasicCredentialsOwner::Kafka, BasicCredentialsOwner::Proxy] {
                    let error = found_with(headers, owner).unwrap_err();
                    let expected = format!("sub-protocol {name}: offer kafka-websocket-proxy");
                    assert!(error.starts_with(&expected), "{error}");
                }
            }
        }
    }

    fn in_token(claims: [Option<&str>; 2]) -> Result<Option<(String, String)>, CredentialsError> {
        let claims = claims.map(|claim| claim.map(Secret::new));
        let config = CustomJwtConfig {
            kafka_token_auth_only: false,
            username_claim: Some("user".to_owned()),
            password_claim: Some("pass".to_owned()),
        };
        let found = credentials_in_token(&claims, &config)?;
        Ok(found.map(|KafkaCredentials { credentials, place }| {
            assert_eq!(place, CredentialsPlace::Claims);
            parts_of(credentials)
        }))
    }

    #[test]
    fn a_token_has_both_claims_as_texts_or_none() {
        let alice = Some(("alice".to_owned(), String::new()));
        assert_eq!(in_token([Some("alice"), Some("")]), Ok(alice));
        assert_eq!(in_token([None, None]), Ok(None));
        for claims in [
            [Some("alice"), None],
            [None, Some("secret")],
            [Some(""), Some("secret")],
            [Some("alice"), Some("sec\0ret")],
            [Some("a\u{1}"), Some("secret")],
        ] {
            let error = in_token(claims).unwrap_err().to_string();
            assert!(error.starts_with("token: it must have both user and pass"));
            assert!(
                !error.contains("alice") && !error.contains("sec"),
                "{error}"
            );
        }
        assert!(credentials_in_token(&[], &CustomJwtConfig::default()).is_ok());
    }

    #[test]
    fn where_only_tokens_may_have_credentials_nothing_else_counts() {
        let mut config = ServerConfig::default();
        config.openid_connect.enabled = Some(true);
        let mut headers = HeaderMap::new();
        let alice = HeaderValue::try_from(base64("alice:1")).unwrap();
        headers.insert(X_KAFKA_AUTH, alice);
        let sent = kafka_credentials(&headers, Some(&ClientIdentity::Basic), &config);
        assert_eq!(sent.unwrap().unwrap().place, CredentialsPlace::XKafkaAuth);
        config.openid_connect.custom_jwt.kafka_token_auth_only = true;
        let refused = kafka_credentials(&headers, Some(&ClientIdentity::Basic), &config);
        assert_eq!(refused.unwrap_err(), CredentialsError::NotInToken);
    }
}
