//! Why a request for a WebSocket is refused, as an HTTP status and a message that names what to look
//! at: the one place that knows what each error of the layers below means to a client.

use http::StatusCode;

use super::params::ParamError;
use crate::app::no_broker;
use crate::avro_schemas::AvroSchemaError;
use crate::http_error::HttpError;
use crate::session::AdmissionError;
use crate::topic_access::ReservedTopic;
use kafka_client::consumer::ConsumerError;
use kafka_client::metadata::MetadataError;
use kafka_client::producer::TransactionError;

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
            AdmissionError::DuplicateClientId { .. }
            | AdmissionError::DuplicateInstance { .. }
            | AdmissionError::GroupFull { .. } => HttpError::bad_request(message),
            AdmissionError::TooManyConnections { .. } => {
                HttpError::new(StatusCode::TOO_MANY_REQUESTS, message).with_retry_after()
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

impl From<TransactionError> for HttpError {
    fn from(error: TransactionError) -> Self {
        let message = format!("parameter transactional: {error}");
        match error {
            TransactionError::NotAuthorized { .. } => HttpError::forbidden(message),
            TransactionError::Unsupported { .. } => HttpError::bad_request(message),
            TransactionError::Stopped { .. } => HttpError::unavailable("the server is stopping"),
            _ => HttpError::brokers_unavailable(
                "parameter transactional: the brokers cannot begin the client's transactions now",
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
            MetadataError::Unavailable { reason } => no_broker(&reason),
        }
    }
}
