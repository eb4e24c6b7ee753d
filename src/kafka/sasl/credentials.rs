//! What a client authenticates with.

use std::fmt;
use std::time::SystemTime;

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
