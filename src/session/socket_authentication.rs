//! By what token the client of a socket may be here, and until when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use openid::{CLOCK_LEEWAY, JwtFault, OpenIdProvider, ProviderKey, VerifiedToken, VerifyError};
use tokio::time::Instant;

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
        }
    }

    /// By another token of the same subject; and when that expires.
    pub(crate) async fn renewed_by(&self, token: &str) -> Result<(Self, SystemTime), RenewalError> {
        let token = match self.provider.verify(token).await {
            Ok(token) => token,
            Err(VerifyError::Invalid(fault)) => return Err(fault.into()),
            Err(VerifyError::Unavailable { .. }) => return Err(RenewalError::Unavailable),
        };
        match token.subject == self.subject {
            true => Ok((Self::new(self.provider.clone(), &token), token.expires_at)),
            false => Err(RenewalError::OtherSubject),
        }
    }
}
