//! The token of a client, as the brokers are shown it (`server.openid-connect.kafka-oauthbearer`).

use kafka_client::sasl::{TokenIdentity, UserToken};
use openid::VerifiedToken;

/// The token for the brokers, who know its user by `sub`; `None`: it has none.
pub(crate) fn user_token(token: &VerifiedToken) -> Option<UserToken> {
    let user = token.subject.as_deref().filter(|user| !user.is_empty())?;
    Some(UserToken {
        user: user.into(),
        identity: TokenIdentity(token.identity),
        token: token.token.clone(),
        expires_at: token.expires_at,
    })
}
