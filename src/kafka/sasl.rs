//! The client's side of SASL (RFC 4422), as brokers speak it (KIP-12, KIP-84, KIP-255).
//!
//! ```text
//! SaslConfig ─▶ SaslClient ─ initial response ─▶ broker
//!                    ▲─────── challenge ◀──────────┘     until both are done
//! ```
//!
//! The mechanisms do no I/O; [`crate::net`] carries what they say.

mod credentials;
mod error;
mod oauthbearer;
mod plain;
mod scram;

use std::sync::Arc;

use secret::Secret;

pub use self::credentials::{BearerToken, Credentials, TokenFault, TokenProvider};
pub(crate) use self::error::SaslError;
use self::oauthbearer::OAuthBearerClient;
use self::scram::ScramClient;
pub use self::scram::{ScramCredentials, ScramHash};

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

impl SaslConfig {
    /// The mechanism's registered name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(scram) => scram.mechanism(),
            Self::OAuthBearer(_) => "OAUTHBEARER",
        }
    }

    /// Whom to have renew what is authenticated with, while there are connections.
    pub(crate) fn token_provider(&self) -> Option<Arc<dyn TokenProvider>> {
        match self {
            Self::Plain(_) | Self::Scram(_) => None,
            Self::OAuthBearer(provider) => Some(Arc::clone(provider)),
        }
    }

    /// Notes that a broker has refused what was said in that exchange.
    pub(crate) fn refused(&self, client: &SaslClient) {
        if let (Self::OAuthBearer(provider), SaslClient::OAuthBearer(client)) = (self, client) {
            provider.refused(client.token());
        }
    }

    /// The same mechanism with a user's credentials; `None` of one that does not authenticate by
    /// name and password.
    pub(crate) fn for_user(&self, credentials: Credentials) -> Option<Self> {
        match self {
            Self::Plain(_) => Some(Self::Plain(credentials)),
            Self::Scram(own) => Some(Self::Scram(own.for_user(credentials))),
            _ => None,
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
