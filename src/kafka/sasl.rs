//! The client's side of SASL (RFC 4422), as brokers speak it (KIP-12, KIP-84, KIP-255).
//!
//! ```text
//! SaslConfig ─▶ SaslClient ─ initial response ─▶ broker
//!                    ▲─────── challenge ◀──────────┘     until both are done
//! ```
//!
//! The mechanisms do no I/O; [`crate::net`] carries what they say.

mod oauthbearer;
mod plain;
mod scram;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use secret::Secret;

use self::oauthbearer::OAuthBearerClient;
pub use self::scram::ScramHash;
use self::scram::{SaltedPasswordCache, ScramClient};

/// A mechanism, and who to authenticate as.
#[derive(Debug)]
pub enum SaslConfig {
    /// RFC 4616.
    Plain(Credentials),
    /// RFC 5802 and RFC 7677.
    Scram(ScramCredentials),
    /// RFC 7628.
    OAuthBearer(Arc<dyn TokenProvider>),
}

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The name; shows in errors.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// What SCRAM authenticates with.
#[derive(Debug)]
pub struct ScramCredentials {
    hash: ScramHash,
    credentials: Credentials,
    /// Whether the name is a delegation token's id (KIP-48, `tokenauth=true`).
    is_delegation_token: bool,
    salted: Arc<SaltedPasswordCache>,
}

impl ScramCredentials {
    /// Takes the credentials; `is_delegation_token` is `tokenauth` of the JAAS line.
    pub fn new(hash: ScramHash, credentials: Credentials, is_delegation_token: bool) -> Self {
        Self {
            hash,
            credentials,
            is_delegation_token,
            salted: Arc::default(),
        }
    }
}

/// Where bearer tokens come from. Asked before each authentication: an implementation keeps what is
/// still good.
pub trait TokenProvider: fmt::Debug + Send + Sync {
    /// A token that is good now.
    ///
    /// # Errors
    /// Why there is none, without a secret.
    fn token(&self) -> BoxFuture<'_, Result<BearerToken, String>>;
}

/// A bearer token (RFC 6750).
#[derive(Clone, Debug)]
pub struct BearerToken {
    /// The token as it is sent.
    pub token: Secret,
    /// From when on it is not good any more, if it says so.
    pub expires_at: Option<SystemTime>,
    /// SASL extensions (KIP-342), in order.
    pub extensions: Vec<(String, String)>,
}

/// Why an exchange cannot go on. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SaslError {
    /// There is nothing to authenticate with.
    #[error("there is no token: {0}")]
    NoToken(String),
    /// The broker's message is none of the mechanism's, or not that of this exchange.
    #[error("the broker's answer is none of {mechanism}: {reason}")]
    UnexpectedChallenge {
        mechanism: &'static str,
        reason: &'static str,
    },
    /// The broker refuses, in the words of the mechanism.
    #[error("{0}")]
    Refused(String),
}

impl SaslConfig {
    /// The mechanism's registered name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(scram) => scram.hash.mechanism(),
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// Begins an exchange.
    pub(crate) async fn client(&self) -> Result<SaslClient, SaslError> {
        Ok(match self {
            Self::Plain(credentials) => SaslClient::Plain(plain::initial_response(credentials)),
            Self::Scram(scram) => SaslClient::Scram(ScramClient::new(scram)),
            Self::OAuthBearer(provider) => {
                let token = provider.token().await.map_err(SaslError::NoToken)?;
                SaslClient::OAuthBearer(OAuthBearerClient::new(token))
            }
        })
    }
}

/// One exchange.
pub(crate) enum SaslClient {
    /// All that there is to say.
    Plain(Secret),
    Scram(ScramClient),
    OAuthBearer(OAuthBearerClient),
}

impl SaslClient {
    /// What is said first.
    pub(crate) fn initial_response(&self) -> Secret {
        match self {
            Self::Plain(response) => response.clone(),
            Self::Scram(client) => client.first_message(),
            Self::OAuthBearer(client) => client.initial_response(),
        }
    }

    /// What the broker's challenge is answered with; `None` when nothing is left to say.
    pub(crate) async fn respond(&mut self, challenge: &[u8]) -> Result<Option<Secret>, SaslError> {
        match self {
            Self::Plain(_) => Ok(None),
            Self::Scram(client) => client.respond(challenge).await,
            Self::OAuthBearer(client) => client.respond(challenge),
        }
    }

    /// What the broker said of the credentials, where that came before its error code.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::OAuthBearer(client) => client.refusal(),
            Self::Plain(_) | Self::Scram(_) => None,
        }
    }
}
