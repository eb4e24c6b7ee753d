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
mod gssapi;
mod oauthbearer;
mod plain;
mod scram;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secret::SecretBytes;

pub use self::credentials::{
    BearerToken, Credentials, GssContext, GssContextProvider, GssFault, TicketFault, TokenFault,
    TokenIdentity, TokenProvider, UserCredentials, UserToken,
};
pub(crate) use self::error::SaslError;
use self::gssapi::GssapiClient;
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
    /// RFC 4752.
    Gssapi(Arc<dyn GssContextProvider>),
}

/// What connections of a user authenticate with.
#[derive(Clone, Debug)]
pub(crate) enum UserSasl {
    /// By the mechanism of the proxy itself.
    Password(Credentials),
    /// By OAUTHBEARER.
    Tokens(Arc<dyn TokenProvider>),
}

impl SaslConfig {
    /// The mechanism's registered name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(scram) => scram.mechanism(),
            Self::OAuthBearer(_) => "OAUTHBEARER",
            Self::Gssapi(_) => "GSSAPI",
        }
    }

    /// Renews what is authenticated with, for as long as there are connections.
    pub(crate) fn renewal(&self) -> Option<BoxFuture<'static, ()>> {
        match self {
            Self::Plain(_) | Self::Scram(_) => None,
            Self::OAuthBearer(provider) => {
                let provider = Arc::clone(provider);
                Some(async move { provider.keep_fresh().await }.boxed())
            }
            Self::Gssapi(provider) => {
                let provider = Arc::clone(provider);
                Some(async move { provider.keep_fresh().await }.boxed())
            }
        }
    }

    /// Why there is nothing to authenticate with, where that is known without asking anybody.
    pub(crate) fn missing(&self) -> Option<TokenFault> {
        match self {
            Self::OAuthBearer(provider) => provider.missing(),
            Self::Plain(_) | Self::Scram(_) | Self::Gssapi(_) => None,
        }
    }

    /// The SASL extensions (KIP-342) of its tokens.
    pub(crate) fn extensions(&self) -> Arc<[(String, String)]> {
        match self {
            Self::OAuthBearer(provider) => provider.extensions(),
            Self::Plain(_) | Self::Scram(_) | Self::Gssapi(_) => Arc::default(),
        }
    }

    /// Notes that a broker has refused what was said in that exchange.
    pub(crate) fn refused(&self, client: &SaslClient) {
        match (self, client) {
            (Self::OAuthBearer(provider), SaslClient::OAuthBearer(client)) => {
                provider.refused(client.token());
            }
            (_, SaslClient::Gssapi(client)) => client.context().refused(),
            _ => {}
        }
    }

    /// The same mechanism with a user's credentials, or OAUTHBEARER with a user's tokens; `None` of a
    /// mechanism that does not authenticate by name and password.
    pub(crate) fn for_user(&self, user: UserSasl) -> Option<Self> {
        match (self, user) {
            (_, UserSasl::Tokens(tokens)) => Some(Self::OAuthBearer(tokens)),
            (Self::Plain(_), UserSasl::Password(credentials)) => Some(Self::Plain(credentials)),
            (Self::Scram(own), UserSasl::Password(credentials)) => {
                Some(Self::Scram(own.for_user(credentials)))
            }
            _ => None,
        }
    }

    /// Begins an exchange with a broker on that host.
    pub(crate) async fn client(&self, host: &str) -> Result<SaslClient, SaslError> {
        Ok(match self {
            Self::Plain(credentials) => {
                SaslClient::Plain(plain::initial_response(credentials).into())
            }
            Self::Scram(scram) => SaslClient::Scram(ScramClient::new(scram)),
            Self::OAuthBearer(provider) => {
                let token = provider.token().await.map_err(SaslError::NoToken)?;
                SaslClient::OAuthBearer(OAuthBearerClient::new(token))
            }
            Self::Gssapi(provider) => {
                let context = provider.begin(host).await;
                SaslClient::Gssapi(GssapiClient::new(context.map_err(SaslError::NoTicket)?))
            }
        })
    }
}

/// One exchange.
pub(crate) enum SaslClient {
    /// All that there is to say.
    Plain(SecretBytes),
    Scram(ScramClient),
    OAuthBearer(OAuthBearerClient),
    Gssapi(GssapiClient),
}

impl SaslClient {
    /// What is said first.
    pub(crate) fn initial_response(&self) -> SecretBytes {
        match self {
            Self::Plain(response) => response.clone(),
            Self::Scram(client) => client.first_message().into(),
            Self::OAuthBearer(client) => client.initial_response().into(),
            Self::Gssapi(client) => client.initial_response(),
        }
    }

    /// What the broker's challenge is answered with; `None` when nothing is left to say.
    pub(crate) async fn respond(
        &mut self,
        challenge: &[u8],
    ) -> Result<Option<SecretBytes>, SaslError> {
        let text = match self {
            Self::Plain(_) => None,
            Self::Scram(client) => client.respond(challenge).await?,
            Self::OAuthBearer(client) => client.respond(challenge)?,
            Self::Gssapi(client) => return client.respond(challenge),
        };
        Ok(text.map(SecretBytes::from))
    }

    /// What the broker said of the credentials, where that came before its error code.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            Self::OAuthBearer(client) => client.refusal(),
            Self::Plain(_) | Self::Scram(_) | Self::Gssapi(_) => None,
        }
    }
}
