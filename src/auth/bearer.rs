//! Who may connect by `Authorization: Bearer` (RFC 6750): those whose token the OpenID provider has
//! signed.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderValue;
use openid::{JwtFault, OpenIdProvider, VerifiedToken, VerifyError};
use tracing::info;

use super::challenge::quoted;
use super::credentials;
use crate::config::OpenIdConnectConfig;
use crate::http_error::HttpError;

/// The method, and the provider that it is of.
#[derive(Debug)]
pub(crate) struct BearerAuth {
    provider: OpenIdProvider,
    realm: String,
    logs_reasons: bool,
}

/// Why a token lets nobody in.
#[derive(Debug)]
pub(super) enum BearerFault {
    /// `None`: it is no text, or there are several.
    Invalid(Option<JwtFault>),
    /// Nobody can say.
    Unavailable(HttpError),
}

impl BearerAuth {
    /// How a client has a token sent.
    pub(super) const HOW: &str = "Authorization: Bearer, or the sub-protocol bearer.<JWT>";

    pub(super) fn new(config: &OpenIdConnectConfig, provider: OpenIdProvider) -> Self {
        let realm = config.realm.as_deref();
        Self {
            provider,
            realm: quoted(realm.unwrap_or(env!("CARGO_PKG_NAME"))),
            logs_reasons: config.allow_detailed_logging,
        }
    }

    /// Whose token it is; `None`: the request has none.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
    ) -> Option<Result<Arc<VerifiedToken>, BearerFault>> {
        let token = credentials::bearer(headers)?;
        let Some(token) = token else {
            return Some(Err(BearerFault::Invalid(None)));
        };
        Some(self.verify(token).await)
    }

    async fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, BearerFault> {
        match self.provider.verify(token).await {
            Ok(verified) => Ok(Arc::new(verified)),
            Err(VerifyError::Invalid(fault)) => {
                if self.logs_reasons {
                    info!(reason = %fault, "a token is refused");
                }
                Err(BearerFault::Invalid(Some(fault)))
            }
            Err(error @ VerifyError::Unavailable { .. }) => {
                let message = "the OpenID provider cannot be asked now whether the token is good";
                let error = HttpError::brokers_unavailable(message, error.to_string());
                Err(BearerFault::Unavailable(error))
            }
        }
    }

    /// What the request is answered with.
    pub(super) fn refusal(&self, fault: Option<JwtFault>) -> String {
        match fault {
            Some(fault) => fault.to_string(),
            None => "there must be one token, and nothing else".to_owned(),
        }
    }

    /// Whether the log may say why.
    pub(super) fn logs_reasons(&self) -> bool {
        self.logs_reasons
    }

    /// What asks for a token; `refusal`: what is wrong with the one that came.
    pub(super) fn challenge(&self, refusal: Option<&str>) -> HeaderValue {
        let realm = &self.realm;
        let text = match refusal {
            None => format!("Bearer realm={realm}"),
            Some(reason) => format!(
                "Bearer realm={realm}, error=\"invalid_token\", error_description={}",
                quoted(reason)
            ),
        };
        HeaderValue::try_from(text).expect("realm and reason are printable ASCII")
    }
}
