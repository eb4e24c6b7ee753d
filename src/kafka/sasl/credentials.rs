//! What a client authenticates with.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use secret::Secret;

/// A name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The name; shows in errors.
    pub username: String,
    /// The password.
    pub password: Secret,
}

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
