//! Whether a client may connect at all: the proxy's own authentication (RFC 9110, section 11), before
//! every path.
//!
//! ```text
//! request ─▶ each method that is configured ─┬─ knows the client ───▶ ClientIdentity
//!            (basic, bearer)                 ├─ its credentials are wrong ─┐
//!                                            └─ has none of its own ───────┴▶ 401, with a challenge
//!                                                                             for each method
//! ```
//!
//! # Invariants
//! - What is not known to be free needs credentials, whether or not there is anything at the path.
//! - One method that knows the client suffices.
//! - No answer says which of user and password is wrong, and none repeats what was sent.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use openid::{OpenIdProvider, VerifiedToken};
use secret::Secret;

use super::bearer::{BearerAuth, BearerFault};
use super::challenge::quoted;
use super::credentials;
use crate::config::{BasicAuthConfig, ServerConfig};
use crate::http_error::HttpError;

/// Paths that `secure-health-check-endpoint` is about.
const HEALTH_PATHS: [&str; 3] = ["/healthcheck", "/ready", "/metrics"];

/// Who a request is from, as an extension of it.
#[derive(Clone, Debug)]
pub(crate) enum ClientIdentity {
    /// Anybody: no method is configured, or the path is free of it.
    Anonymous,
    /// Somebody who knows user and password of `server.basic-auth`, which do not expire.
    Basic,
    /// Somebody with a token of the OpenID provider.
    Token(Arc<VerifiedToken>),
}

impl ClientIdentity {
    /// The token, if it is by one that the client is known.
    pub(crate) fn token(&self) -> Option<&VerifiedToken> {
        match self {
            Self::Token(token) => Some(token),
            Self::Anonymous | Self::Basic => None,
        }
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Basic => f.write_str("basic"),
            Self::Token(token) => match &token.subject {
                Some(subject) => write!(f, "bearer {subject:?}"),
                None => f.write_str("bearer"),
            },
        }
    }
}

/// How clients authenticate, if they must.
#[derive(Debug)]
pub(crate) struct Authentication {
    basic: Option<BasicAuth>,
    bearer: Option<BearerAuth>,
    health_paths_are_free: bool,
}

/// Who may connect by `Authorization: Basic`.
#[derive(Debug)]
struct BasicAuth {
    username: Secret,
    password: Secret,
    challenge: HeaderValue,
}

impl Authentication {
    /// What the settings ask for; `provider` is that of `server.openid-connect`, if that is enabled.
    pub(crate) fn new(config: &ServerConfig, provider: Option<OpenIdProvider>) -> Self {
        let basic = &config.basic_auth;
        let bearer = |provider| BearerAuth::new(&config.openid_connect, provider);
        Self {
            basic: basic.is_enabled().then(|| BasicAuth::new(basic)),
            bearer: provider.map(bearer),
            health_paths_are_free: !config.secure_health_check_endpoint,
        }
    }

    /// Whether everybody may connect.
    fn is_open(&self) -> bool {
        self.basic.is_none() && self.bearer.is_none()
    }

    /// Who a request is from, if it may be served. A method may have to ask somebody else.
    ///
    /// # Errors
    /// 401 with a challenge for each method; 503 if it cannot be asked.
    pub(crate) async fn authenticate(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<ClientIdentity, HttpError> {
        // A preflight cannot have credentials.
        if self.is_open() || method == Method::OPTIONS || self.is_free(path) {
            return Ok(ClientIdentity::Anonymous);
        }
        let known = self.basic.as_ref().and_then(|basic| basic.knows(headers));
        if known == Some(true) {
            return Ok(ClientIdentity::Basic);
        }
        let token = match &self.bearer {
            Some(bearer) => bearer.check(headers).await.map(|token| (bearer, token)),
            None => None,
        };
        match token {
            Some((_, Ok(token))) => Ok(ClientIdentity::Token(token)),
            Some((_, Err(BearerFault::Unavailable(error)))) => Err(error),
            Some((bearer, Err(BearerFault::Invalid(fault)))) => {
                let reason = bearer.refusal(fault);
                let mut error = unauthorized(&*reason);
                if !bearer.logs_reasons() {
                    error = error.logged_as("a token is refused");
                }
                Err(self.with_challenges(error, Some(&reason)))
            }
            None if known == Some(false) => {
                Err(self.with_challenges(unauthorized("user or password is wrong"), None))
            }
            None => Err(self.with_challenges(self.missing(), None)),
        }
    }

    fn is_free(&self, path: &str) -> bool {
        let path = path.strip_suffix('/').unwrap_or(path);
        self.health_paths_are_free && HEALTH_PATHS.contains(&path)
    }

    /// 401 for a request without credentials of any method.
    fn missing(&self) -> HttpError {
        let basic = self.basic.iter().map(|_| BasicAuth::HOW);
        let ways = basic.chain(self.bearer.iter().map(|_| BearerAuth::HOW));
        let ways = ways.collect::<Vec<_>>().join(", or ");
        unauthorized(format!("this server asks who you are: send {ways}"))
    }

    /// `refusal`: what is wrong with the token that came.
    fn with_challenges(&self, error: HttpError, refusal: Option<&str>) -> HttpError {
        let basic = self.basic.iter().map(|basic| basic.challenge.clone());
        let bearer = self.bearer.iter().map(|bearer| bearer.challenge(refusal));
        basic.chain(bearer).fold(error, |error, challenge| {
            error.with_header(WWW_AUTHENTICATE, challenge)
        })
    }
}

fn unauthorized(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::UNAUTHORIZED, message)
}

impl BasicAuth {
    /// How a client has them sent.
    const HOW: &str =
        "Authorization: Basic, or the sub-protocol basic.<base64url of user:password>";

    fn new(config: &BasicAuthConfig) -> Self {
        let realm = config.realm.as_deref().unwrap_or(env!("CARGO_PKG_NAME"));
        let challenge = HeaderValue::try_from(format!("Basic realm={}", quoted(realm)));
        Self {
            username: config.username.clone().unwrap_or_default(),
            password: config.password.clone().unwrap_or_default(),
            challenge: challenge.expect("the configuration has checked the realm"),
        }
    }

    /// Whether user and password are right; `None`: there are none.
    fn knows(&self, headers: &HeaderMap) -> Option<bool> {
        let sent = credentials::basic(headers)?;
        // Both are compared, so that the time does not tell whether there is such a user.
        Some(sent.is_some_and(|sent| {
            let is_user = Secret::new(sent.username) == self.username;
            is_user & (sent.password == self.password)
        }))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use futures_util::FutureExt;

    use http::Request;

    use super::*;

    fn authentication(enabled: bool, secure_health_check_endpoint: bool) -> Authentication {
        let config = ServerConfig {
            basic_auth: BasicAuthConfig {
                enabled: Some(enabled),
                realm: Some("a \"realm\"".to_owned()),
                username: Some(Secret::new("alice")),
                password: Some(Secret::new("pa:ss wörd")),
            },
            secure_health_check_endpoint,
            ..ServerConfig::default()
        };
        Authentication::new(&config, None)
    }

    /// The status and the message of the refusal; `None`: it is served.
    fn refusal(
        authentication: &Authentication,
        head: (&str, &str),
        headers: &[(&str, &str)],
    ) -> Option<(u16, String)> {
        let mut request = Request::builder().method(head.0).uri(head.1);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = request.body(()).unwrap();
        let (method, path) = (request.method(), request.uri().path());
        let checked = authentication.authenticate(method, path, request.headers());
        let checked = checked.now_or_never().expect("nobody else is asked");
        let refused = match checked {
            Err(refused) => refused,
            Ok(identity) => {
                let is_known = matches!(identity, ClientIdentity::Basic);
                assert_eq!(is_known, !headers.is_empty(), "{head:?}");
                return None;
            }
        };
        let status = refused.status.as_u16();
        let response = refused.into_response();
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> = challenges
            .map(|challenge| challenge.to_str().unwrap())
            .collect();
        let expected: &[_] = match status {
            401 => &["Basic realm=\"a \\\"realm\\\"\""],
            _ => &[],
        };
        assert_eq!(challenges, expected);
        Some((status, response.into_body()))
    }

    fn status(headers: &[(&str, &str)]) -> Option<u16> {
        let refused = refusal(&authentication(true, true), ("GET", "/socket/in"), headers);
        refused.map(|(status, _)| status)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn who_has_user_and_password_may_connect() {
        let header = basic("alice:pa:ss wörd");
        assert_eq!(status(&[("authorization", &header)]), None);
        let offered = URL_SAFE_NO_PAD.encode("alice:pa:ss wörd");
        let offered = format!("basic.{offered}, kafka-websocket-proxy");
        assert_eq!(status(&[("sec-websocket-protocol", &offered)]), None);
    }

    #[test]
    fn whoever_else_is_refused_and_told_neither_what_is_wrong_nor_what_was_sent() {
        let [user, password, short] = ["bob:pa:ss wörd", "alice:secret", "alice"].map(basic);
        for header in [&user, &password, &short, "Basic", "Basic ?", "Basic  "] {
            let authentication = authentication(true, true);
            let headers = [("authorization", header)];
            let (status, body) = refusal(&authentication, ("GET", "/"), &headers).unwrap();
            assert_eq!(
                (status, &*body),
                (401, r#"{"message":"user or password is wrong"}"#)
            );
        }
        let offered = format!(
            "basic.{}, kafka-websocket-proxy",
            STANDARD.encode("alice:x")
        );
        assert_eq!(status(&[("sec-websocket-protocol", &offered)]), Some(401));
        assert_eq!(status(&[]), Some(401));
        assert_eq!(status(&[("authorization", "Bearer abc")]), Some(401));
        assert_eq!(
            status(&[("x-kafka-auth", &STANDARD.encode("alice:pa:ss wörd"))]),
            Some(401)
        );
    }

    #[test]
    fn a_header_wins_over_a_sub_protocol() {
        let right = URL_SAFE_NO_PAD.encode("alice:pa:ss wörd");
        let right = format!("basic.{right}, kafka-websocket-proxy");
        let wrong = basic("alice:secret");
        let both = [
            ("sec-websocket-protocol", &*right),
            ("authorization", &*wrong),
        ];
        assert_eq!(status(&both), Some(401));
        let header = basic("alice:pa:ss wörd");
        assert_eq!(
            status(&[("authorization", &header), ("authorization", &header)]),
            Some(401)
        );
    }

    #[test]
    fn health_is_free_where_the_settings_say_so_and_nothing_else_is() {
        for (secure, path, method, refused) in [
            (true, "/healthcheck", "GET", true),
            (false, "/healthcheck", "GET", false),
            (false, "/ready/", "GET", false),
            (false, "/metrics?x=y", "GET", false),
            (false, "/metrics/../socket/in", "GET", true),
            (false, "/ready//", "GET", true),
            (false, "/kafka/cluster/info", "GET", true),
            (false, "/nothing", "GET", true),
            (true, "/socket/in", "OPTIONS", false),
            (true, "/socket/in", "POST", true),
        ] {
            let found = refusal(&authentication(true, secure), (method, path), &[]);
            assert_eq!(found.is_some(), refused, "{method} {path} {secure}");
        }
        assert_eq!(
            refusal(&authentication(false, true), ("GET", "/"), &[]),
            None
        );
    }
}
