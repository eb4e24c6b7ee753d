//! What a client authenticates with.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use secret::{Secret, SecretBytes};

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The name; shows in errors.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// What a user authenticates with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UserCredentials {
    /// By the mechanism of the proxy itself.
    Password(Credentials),
    /// By OAUTHBEARER, whatever the mechanism of the proxy itself.
    Token(UserToken),
}

impl UserCredentials {
    /// The user's name; shows in logs.
    pub fn user(&self) -> &str {
        match self {
            Self::Password(credentials) => &credentials.username,
            Self::Token(token) => &token.user,
        }
    }
}

/// A bearer token that a user has come with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserToken {
    /// The user's name; shows in logs.
    pub user: Arc<str>,
    /// Whose it is, and for what.
    pub identity: TokenIdentity,
    /// The token as it is sent.
    pub token: Secret,
    /// Until when it is good.
    pub expires_at: SystemTime,
}

impl UserToken {
    /// Whether it is good no longer.
    pub(crate) fn has_expired(&self) -> bool {
        self.expires_at <= SystemTime::now()
    }
}

/// A digest of all that a token says but of itself, such as when it was issued: tokens that have it in
/// common are as good as each other to whoever verifies them, while they are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenIdentity(pub [u8; 32]);

/// Where bearer tokens come from. Asked before each authentication: an implementation keeps what is
/// still good.
pub trait TokenProvider: fmt::Debug + Send + Sync {
    /// A token that is good now.
    ///
    /// # Errors
    /// Why there is none.
    fn token(&self) -> BoxFuture<'_, Result<BearerToken, TokenFault>>;

    /// Renews the token before it expires, so that no authentication has to wait for one. Does not
    /// end; runs once for each pool of connections.
    fn keep_fresh(&self) -> BoxFuture<'_, ()>;

    /// A broker has refused that token: another one is needed.
    fn refused(&self, token: &BearerToken);

    /// SASL extensions (KIP-342) that go with each token, in order.
    fn extensions(&self) -> Arc<[(String, String)]>;

    /// Why there is no token, where that is known without asking anybody: no connection is made then.
    fn missing(&self) -> Option<TokenFault> {
        None
    }
}

/// A bearer token (RFC 6750).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerToken {
    /// The token as it is sent.
    pub token: Secret,
    /// SASL extensions (KIP-342), in order.
    pub extensions: Arc<[(String, String)]>,
}

/// Why there is no token. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({property})")]
pub struct TokenFault {
    /// What is wrong.
    pub message: Arc<str>,
    /// The property to look at.
    pub property: &'static str,
}

/// Where contexts of the GSS-API come from, such as a login at a KDC.
pub trait GssContextProvider: fmt::Debug + Send + Sync {
    /// Begins a context with the broker on that host.
    ///
    /// # Errors
    /// Why there is no ticket for it.
    fn begin<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GssContext>, TicketFault>>;

    /// Renews tickets before they expire, so that no authentication has to wait for one. Does not
    /// end; runs once for each pool of connections.
    fn keep_fresh(&self) -> BoxFuture<'_, ()>;
}

/// A context of the GSS-API (RFC 2743), on the side that began it.
pub trait GssContext: fmt::Debug + Send + Sync {
    /// The token that begins it.
    fn first_token(&self) -> SecretBytes;

    /// Takes the broker's token, which is the last one.
    ///
    /// # Errors
    /// [`GssFault`]
    fn establish(&mut self, token: &[u8]) -> Result<(), GssFault>;

    /// What a wrapped message of the broker says.
    ///
    /// # Errors
    /// [`GssFault`]
    fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssFault>;

    /// A message to the broker: checked, not encrypted.
    ///
    /// # Errors
    /// [`GssFault`]: before the context is established there is none.
    fn wrap(&mut self, text: &[u8]) -> Result<SecretBytes, GssFault>;

    /// The broker has refused it: another ticket is needed.
    fn refused(&self);
}

/// Why a context goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GssFault {
    /// The broker refuses, in its words.
    Refused(String),
    /// What it says is not of this context.
    Unexpected(&'static str),
}

/// Why there is no ticket. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({place})")]
pub struct TicketFault {
    /// What is wrong.
    pub message: Arc<str>,
    /// What to look at: a property, or something of this machine.
    pub place: &'static str,
}
