//! The token that a user's connections authenticate with: of those that the brokers have accepted, the
//! one that is good for longest.
//!
//! ```text
//! a socket's token ─ accepted by the brokers ─▶ replace ─▶ the token ─▶ new connections,
//!                                                                       and those whose session ends
//! ```

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, ready};
use runtime::mutex::lock;

use crate::sasl::{BearerToken, TokenFault, TokenProvider, UserToken};

/// The setting that has users come by their tokens.
const PROPERTY: &str = "server.openid-connect.kafka-oauthbearer";

/// For less, no session is begun: brokers do not let it be renewed within a second (KIP-368).
const SESSION_MIN: Duration = Duration::from_secs(1);

/// The token of one user's client.
#[derive(Debug)]
pub(super) struct UserTokens {
    current: Mutex<PresentedToken>,
    /// As the proxy's own tokens have them.
    extensions: Arc<[(String, String)]>,
}

#[derive(Debug)]
struct PresentedToken {
    token: UserToken,
    is_refused: bool,
}

impl UserTokens {
    pub(super) fn new(token: UserToken, extensions: Arc<[(String, String)]>) -> Self {
        Self {
            current: Mutex::new(PresentedToken {
                token,
                is_refused: false,
            }),
            extensions,
        }
    }

    /// Whether that is the one which connections authenticate with.
    pub(super) fn has(&self, token: &UserToken) -> bool {
        lock(&self.current).token.token == token.token
    }

    /// Goes on with a token that the brokers have accepted, if it is good for longer; whether it is.
    pub(super) fn replace(&self, token: &UserToken) -> bool {
        let mut current = lock(&self.current);
        let is_longer = token.expires_at > current.token.expires_at;
        if is_longer {
            *current = PresentedToken {
                token: token.clone(),
                is_refused: false,
            };
        }
        is_longer
    }

    /// Whether the brokers refuse it while it should be good.
    pub(super) fn is_refused(&self) -> bool {
        lock(&self.current).is_refused
    }

    /// Whether it is good no longer.
    pub(super) fn has_expired(&self) -> bool {
        lock(&self.current).token.has_expired()
    }

    /// Until when it is good.
    pub(super) fn expires_at(&self) -> SystemTime {
        lock(&self.current).token.expires_at
    }
}

impl TokenProvider for UserTokens {
    fn token(&self) -> BoxFuture<'_, Result<BearerToken, TokenFault>> {
        let token = match self.missing() {
            Some(fault) => Err(fault),
            None => Ok(BearerToken {
                token: lock(&self.current).token.token.clone(),
                extensions: Arc::clone(&self.extensions),
            }),
        };
        ready(token).boxed()
    }

    /// Whoever has come with it renews it.
    fn keep_fresh(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    /// One that has been replaced meanwhile, or expires just now, is refused for a reason.
    fn refused(&self, token: &BearerToken) {
        let mut current = lock(&self.current);
        if current.token.token == token.token && !current.token.has_expired() {
            current.is_refused = true;
        }
    }

    fn extensions(&self) -> Arc<[(String, String)]> {
        Arc::clone(&self.extensions)
    }

    fn missing(&self) -> Option<TokenFault> {
        let left = self.expires_at().duration_since(SystemTime::now());
        let is_over = left.unwrap_or_default() < SESSION_MIN;
        is_over.then(|| TokenFault {
            message: "the user's token has expired and was not renewed".into(),
            property: PROPERTY,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secret::Secret;

    use super::*;
    use crate::sasl::TokenIdentity;

    fn token(text: &str, seconds: u64) -> UserToken {
        UserToken {
            user: "alice".into(),
            identity: TokenIdentity([0; 32]),
            token: Secret::new(text),
            expires_at: SystemTime::now() + Duration::from_secs(seconds),
        }
    }

    fn presented(tokens: &UserTokens) -> Result<BearerToken, TokenFault> {
        tokens.token().now_or_never().expect("nobody is asked")
    }

    #[test]
    fn the_token_that_is_good_for_longest_is_presented_with_the_extensions_of_the_proxy() {
        let extensions: Arc<[_]> = [("logicalCluster".to_owned(), "lkc-1".to_owned())].into();
        let tokens = UserTokens::new(token("first", 100), Arc::clone(&extensions));
        assert!(!tokens.replace(&token("shorter", 50)));
        assert_eq!(presented(&tokens).unwrap().token.reveal(), "first");
        assert!(tokens.replace(&token("longer", 200)));
        let presented = presented(&tokens).unwrap();
        assert_eq!(presented.token.reveal(), "longer");
        assert_eq!(presented.extensions, extensions);
    }

    #[test]
    fn a_token_that_has_expired_is_not_presented() {
        let tokens = UserTokens::new(token("first", 0), Arc::default());
        assert!(tokens.missing().is_some());
        assert!(presented(&tokens).is_err());
        assert!(tokens.replace(&token("second", 100)));
        assert_eq!(tokens.missing(), None);
        assert!(presented(&tokens).is_ok());
    }

    #[test]
    fn only_the_refusal_of_a_token_that_should_be_good_counts() {
        let tokens = UserTokens::new(token("first", 100), Arc::default());
        let first = presented(&tokens).unwrap();
        tokens.replace(&token("second", 200));
        tokens.refused(&first);
        assert!(!tokens.is_refused());
        tokens.refused(&presented(&tokens).unwrap());
        assert!(tokens.is_refused());
        tokens.replace(&token("third", 300));
        assert!(!tokens.is_refused());
        let expired = token("expired", 0);
        let tokens = UserTokens::new(expired.clone(), Arc::default());
        tokens.refused(&BearerToken {
            token: expired.token,
            extensions: Arc::default(),
        });
        assert!(!tokens.is_refused());
    }
}
