//! Why a request for a WebSocket is refused, as an HTTP status and a message that names what to look
//! at: the one place that knows what each error of the layers below means to a client.

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use super::params::ParamError;
use super::topic_access::ReservedTopic;
use crate::auth::{CredentialsError, CredentialsPlace};
use crate::avro_schemas::AvroSchemaError;
use crate::http_error::HttpError;
use crate::session::AdmissionError;
use kafka_client::consumer::ConsumerError;
use kafka_client::metadata::MetadataError;
use kafka_client::principal_clients::PrincipalError;

/// Why a user has no client. A retry may help where the answer is 503.
pub(super) fn not_leased(place: CredentialsPlace, error: PrincipalError) -> HttpError {
    match error {
        PrincipalError::Refused => unauthorized(format!("{place}: {error}")),
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
fn unauthorized(message: String) -> HttpError {
    let challenge = HeaderValue::from_static("Basic realm=\"Kafka\", charset=\"UTF-8\"");
    HttpError::new(StatusCode::UNAUTHORIZED, message).with_header(WWW_AUTHENTICATE, challenge)
}

impl From<CredentialsError> for HttpError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Unreadable { .. } => unauthorized(error.to_string()),
            CredentialsError::NothingToAnswer => HttpError::bad_request(error.to_string()),
        }
    }
}

impl From<ParamError> for HttpError {
    fn from(error: ParamError) -> Self {
        HttpError::bad_request(error.to_string())
    }
}

impl From<AvroSchemaError> for HttpError {
    fn from(error: AvroSchemaError) -> Self {
        let message = format!("parameter socketPayload: avro is not to be had now: {error}");
        HttpError::brokers_unavailable(message, error.detail())
    }
}

impl From<ReservedTopic> for HttpError {
    fn from(error: ReservedTopic) -> Self {
        HttpError::forbidden(error.to_string())
    }
}

impl From<AdmissionError> for HttpError {
    fn from(error: AdmissionError) -> Self {
        let message = error.to_string();
        match error {
            AdmissionError::DuplicateClientId { .. } | AdmissionError::GroupFull { .. } => {
                HttpError::bad_request(message)
            }
            AdmissionError::HolderSilent { .. } => HttpError::unavailable(message),
            AdmissionError::Unavailable { detail, .. } => {
                let detail = format!("{message}: {detail}");
                HttpError::brokers_unavailable(message, detail)
            }
        }
    }
}

impl From<ConsumerError> for HttpError {
    fn from(error: ConsumerError) -> Self {
        let message = error.to_string();
        match error {
            ConsumerError::GroupNotAuthorized { .. } | ConsumerError::TopicNotAuthorized { .. } => {
                HttpError::forbidden(message)
            }
            ConsumerError::UnknownTopic { .. } | ConsumerError::Rejected { .. } => {
                HttpError::bad_request(message)
            }
            _ => HttpError::brokers_unavailable(
                "the brokers cannot say where the group begins (offsetResetStrategy=latest)",
                message,
            ),
        }
    }
}

impl From<MetadataError> for HttpError {
    fn from(error: MetadataError) -> Self {
        let message = format!("parameter topic: {error}");
        match error {
            MetadataError::UnknownTopic { .. } | MetadataError::Invalid { .. } => {
                HttpError::bad_request(message)
            }
            MetadataError::NotAuthorized { .. } => HttpError::forbidden(message),
            MetadataError::Unavailable { .. } => HttpError::brokers_unavailable(
                "topic metadata unavailable: no broker can be reached, or none that knows",
                error.to_string(),
            ),
        }
    }
}
