//! With whose client a request is served: that of the user whom it names, or the proxy's own.

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use super::App;
use crate::auth::{CredentialsError, CredentialsPlace, KafkaCredentials};
use crate::http_error::HttpError;
use kafka_client::principal_clients::{ClientLease, PrincipalError};

impl App {
    /// The client of a user, whom the brokers accept.
    pub(crate) async fn client_of(
        &self,
        user: &KafkaCredentials,
    ) -> Result<ClientLease, HttpError> {
        let lease = self.principals.lease(&user.credentials);
        let lease = self.unless_outage(lease).await?;
        lease.map_err(|error| not_leased(user.place, error))
    }

    /// Waits for the brokers' answer, unless they are known not to answer, or come to be.
    pub(crate) async fn unless_outage<T>(
        &self,
        answer: impl Future<Output = T>,
    ) -> Result<T, HttpError> {
        tokio::select! {
            biased;
            // What the proxy itself finds out soon, whoever's client is asked.
            reason = self.cluster().metadata().outage() => Err(no_broker(&reason)),
            answer = answer => Ok(answer),
        }
    }
}

/// 503: no broker answers, for that reason.
pub(crate) fn no_broker(reason: &str) -> HttpError {
    HttpError::brokers_unavailable(
        "topic metadata unavailable: no broker can be reached, or none that knows",
        format!("topic metadata unavailable: {reason}"),
    )
}

/// Why a user has no client. A retry may help where the answer is 503.
fn not_leased(place: CredentialsPlace, error: PrincipalError) -> HttpError {
    match error {
        PrincipalError::Refused | PrincipalError::Expired if place == CredentialsPlace::Token => {
            token_refused(&error)
        }
        PrincipalError::Refused | PrincipalError::Expired => {
            unauthorized(place, format!("{place}: {error}"))
        }
        PrincipalError::Unsupported(_) => {
            HttpError::bad_request(format!("{place}: {error}; leave it out"))
        }
        PrincipalError::TooManyAuthentications { .. } => {
            HttpError::unavailable(format!("{error} (server.limits.authentications-max)"))
        }
        PrincipalError::TooManyClients { .. } => HttpError::unavailable(format!(
            "{error} under credentials of their own (server.limits.principals-max)"
        )),
        PrincipalError::Unavailable { .. } => HttpError::brokers_unavailable(
            format!("{place}: the brokers cannot verify the credentials now"),
            format!("{place}: {error}"),
        ),
        PrincipalError::Stopped => HttpError::unavailable("the server is stopping"),
    }
}

/// 401: the client is not who it says, or does not say it so that it can be read.
fn unauthorized(place: CredentialsPlace, message: String) -> HttpError {
    let challenge = HeaderValue::from_static(match place {
        CredentialsPlace::AuthorizationBasic | CredentialsPlace::BasicSubProtocol => {
            "Basic realm=\"Kafka\", charset=\"UTF-8\""
        }
        // Of user and password for the proxy itself a browser would think that they are wrong.
        CredentialsPlace::XKafkaAuth | CredentialsPlace::KafkaAuthSubProtocol => {
            "X-Kafka-Auth realm=\"Kafka\""
        }
        // The token is good.
        CredentialsPlace::Claims | CredentialsPlace::Token => "Bearer realm=\"Kafka\"",
    });
    HttpError::new(StatusCode::UNAUTHORIZED, message).with_header(WWW_AUTHENTICATE, challenge)
}

/// 401: the token is good, but not for the brokers.
fn token_refused(error: &PrincipalError) -> HttpError {
    let message = match error {
        PrincipalError::Refused => "token: the brokers refuse it".to_owned(),
        error => format!("token: {error}"),
    };
    let challenge =
        format!("Bearer realm=\"Kafka\", error=\"invalid_token\", error_description=\"{message}\"");
    let challenge = HeaderValue::try_from(challenge).expect("printable ASCII");
    HttpError::new(StatusCode::UNAUTHORIZED, message).with_header(WWW_AUTHENTICATE, challenge)
}

impl From<CredentialsError> for HttpError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Unreadable { place } => unauthorized(place, error.to_string()),
            CredentialsError::UnreadableClaims { .. } | CredentialsError::NotInToken => {
                unauthorized(CredentialsPlace::Claims, error.to_string())
            }
            CredentialsError::NoSubject => unauthorized(CredentialsPlace::Token, error.to_string()),
            CredentialsError::NothingToAnswer { .. } => HttpError::bad_request(error.to_string()),
        }
    }
}
