//! By what token the client of a socket may be here, and until when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kafka_client::principal_clients::{ClientLease, PrincipalError};
use openid::{CLOCK_LEEWAY, JwtFault, OpenIdProvider, ProviderKey, VerifiedToken, VerifyError};
use tokio::time::Instant;

use crate::user_token::user_token;

/// Longer than any socket is open.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A token that the client of a socket has come with, or has renewed.
#[derive(Clone, Debug)]
pub(crate) struct SocketAuthentication {
    provider: OpenIdProvider,
    /// Whose it is (`sub`).
    subject: Option<String>,
    /// Until when it is good.
    pub(crate) expires_at: Instant,
    /// What it was signed with.
    pub(crate) key: Arc<ProviderKey>,
    /// The Kafka client that is authenticated with it, if one is.
    kafka: Option<ClientLease>,
}

/// Why a client cannot go on with a token. Shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RenewalError {
    /// There is none that it could take the place of.
    #[error("this socket was not opened with a token: there is nothing to be renewed")]
    NotByToken,
    /// It is not good.
    #[error(transparent)]
    Invalid(#[from] JwtFault),
    /// It is somebody else's.
    #[error("the token is of another subject (sub)")]
    OtherSubject,
    /// It is nobody's whom the brokers could know.
    #[error("the token has no sub, by which the brokers could know a user")]
    NoSubject,
    /// It is good, but not for the brokers.
    #[error("the brokers refuse the token")]
    RefusedByBrokers,
    /// It is good, but expires so soon that they would not take it.
    #[error("the token has expired")]
    Expired,
    /// Nobody can say whether the brokers take it.
    #[error("the brokers cannot be asked now whether the token is good")]
    BrokersUnavailable,
    /// Nobody can say.
    #[error("the OpenID provider cannot be asked now whether the token is good")]
    Unavailable,
}

impl SocketAuthentication {
    /// By a token of that provider which is good now.
    pub(crate) fn new(provider: OpenIdProvider, token: &VerifiedToken) -> Self {
        let end = token.expires_at.checked_add(CLOCK_LEEWAY);
        let left = end.map_or(FOR_EVER, |end| {
            end.duration_since(SystemTime::now()).unwrap_or_default()
        });
        Self {
            provider,
            subject: token.subject.clone(),
            expires_at: Instant::now() + left.min(FOR_EVER),
            key: Arc::clone(&token.key),
            kafka: None,
        }
    }

    /// Whose the token is (`sub`), if it says so.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The Kafka client of the socket goes on with the tokens, too, if it is authenticated with them.
    pub(crate) fn keep(&mut self, client: &ClientLease) {
        self.kafka = client.is_by_token().then(|| client.clone());
    }

    /// By another token of the same subject, which the brokers accept if they see it; and when that
    /// expires.
    pub(crate) async fn renewed_by(&self, token: &str) -> Result<(Self, SystemTime), RenewalError> {
        let token = match self.provider.verify(token).await {
            Ok(token) => token,
            Err(VerifyError::Invalid(fault)) => return Err(fault.into()),
            Err(VerifyError::Unavailable { .. }) => return Err(RenewalError::Unavailable),
        };
        if token.subject != self.subject {
            return Err(RenewalError::OtherSubject);
        }
        let mut renewed = Self::new(self.provider.clone(), &token);
        if let Some(client) = &self.kafka {
            let presented = user_token(&token).ok_or(RenewalError::NoSubject)?;
            client.renew(&presented).await?;
            renewed.kafka = Some(client.clone());
        }
        Ok((renewed, token.expires_at))
    }
}

impl From<PrincipalError> for RenewalError {
    fn from(error: PrincipalError) -> Self {
        match error {
            PrincipalError::Refused => Self::RefusedByBrokers,
            PrincipalError::Expired => Self::Expired,
            _ => Self::BrokersUnavailable,
        }
    }
}
