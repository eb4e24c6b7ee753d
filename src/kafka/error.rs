//! How a request to a broker can fail, below any error code of Kafka's.
//!
//! An error names the broker and the API, and answers the one question that decides
//! about a retry: may the broker have seen the request (`RequestError::maybe_sent`)?

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::sasl::{TicketFault, TokenFault};
use crate::topic::BrokerId;

/// A broker's id and address, as log lines and errors name it: `2 (kafka-2:9092)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Its id; below 0 for an address of `bootstrap.servers` whose id is not known.
    pub id: BrokerId,
    /// `host:port`, an IPv6 address in brackets; or why there is none.
    pub address: Arc<str>,
}

impl BrokerAddress {
    /// The host of its address.
    pub(crate) fn host(&self) -> &str {
        host_of(&self.address)
    }
}

/// The host of `host:port` or `[address]:port`.
pub(crate) fn host_of(address: &str) -> &str {
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    // A name may end with the dot of the root; in certificates and tickets it does not.
    name.strip_suffix('.').unwrap_or(name)
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.0 < 0 {
            f.write_str(&self.address)
        } else {
            write!(f, "{} ({})", self.id, self.address)
        }
    }
}

/// How a response begins that is too large to be received; empty if that is of no use for its
/// request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ResponseHead(pub(crate) Bytes);

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Why an authentication failed. Shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationFault {
    /// The credentials are refused (`SASL_AUTHENTICATION_FAILED`). Brokers do not tell an unknown
    /// user from a wrong password.
    #[error("the credentials for {mechanism} are refused: {message}")]
    CredentialsRefused {
        /// The SASL mechanism.
        mechanism: &'static str,
        /// The broker's words.
        message: Arc<str>,
    },
    /// The broker has the mechanism not enabled (`UNSUPPORTED_SASL_MECHANISM`).
    #[error("it has {mechanism} not enabled, but {enabled} (sasl.mechanism)")]
    MechanismNotEnabled {
        /// The SASL mechanism.
        mechanism: &'static str,
        /// Those that it has.
        enabled: Arc<str>,
    },
    /// The broker has no SASL at this address (`ILLEGAL_SASL_STATE`).
    #[error("its listener has no SASL (security.protocol)")]
    SaslNotEnabled,
    /// There is nothing to authenticate with.
    #[error("there is no token for it: {0}")]
    NoToken(TokenFault),
    /// The same, of Kerberos.
    #[error("there is no Kerberos ticket for it: {0}")]
    NoTicket(TicketFault),
    /// The exchange went wrong.
    #[error("{mechanism}: {message}")]
    ExchangeFailed {
        /// The SASL mechanism.
        mechanism: &'static str,
        /// What went wrong.
        message: Arc<str>,
    },
}

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection could be made. Nothing was sent.
    #[error("broker {broker} cannot be reached: {reason}")]
    Unreachable {
        /// The broker.
        broker: BrokerAddress,
        /// Of the last address that was tried.
        reason: Arc<str>,
    },
    /// The broker does not take us for who we say we are. Nothing else was sent.
    #[error("broker {broker} cannot be used: {fault}")]
    AuthenticationFailed {
        /// The broker.
        broker: BrokerAddress,
        /// What they do not accept.
        fault: AuthenticationFault,
    },
    /// The connection ended before the response came.
    #[error("the connection to broker {broker} was lost: {reason}")]
    Disconnected {
        /// The broker.
        broker: BrokerAddress,
        /// Whether any byte of the request may have been written.
        sent: bool,
        /// What ended it.
        reason: Arc<str>,
    },
    /// No response within the request's time. The connection is closed with it: a
    /// broker answers in order, so nothing after this request would be answered either.
    #[error("{api} got no answer from broker {broker} within {} s", .after.as_secs_f64())]
    TimedOut {
        /// The broker.
        broker: BrokerAddress,
        /// The request's name.
        api: &'static str,
        /// The time that was given.
        after: Duration,
        /// Whether any byte of the request may have been written.
        sent: bool,
    },
    /// The broker speaks no version of this API that we speak. Nothing was sent.
    #[error("broker {broker} does not support {api} in the versions {min} to {max}")]
    UnsupportedVersion {
        /// The broker.
        broker: BrokerAddress,
        /// The request's name.
        api: &'static str,
        /// Our oldest.
        min: i16,
        /// Our newest.
        max: i16,
    },
    /// The response could not be understood. The connection is closed with it.
    #[error("the answer of broker {broker} to {api} is malformed: {reason}")]
    Malformed {
        /// The broker.
        broker: BrokerAddress,
        /// The request's name.
        api: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The response is larger than `receive.message.max.bytes`. The connection is closed with it.
    #[error("the answer of broker {broker} to {api} has {size} bytes, over the limit of {limit}")]
    ResponseTooLarge {
        /// The broker.
        broker: BrokerAddress,
        /// The request's name.
        api: &'static str,
        /// The response's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
        /// How it begins.
        head: ResponseHead,
    },
    /// The request is larger than a request may be. Nothing was sent.
    #[error("{api} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The request's name.
        api: &'static str,
        /// The size of the request in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The request sets a field that its version does not have. Nothing was sent.
    #[error("{api} cannot be encoded in version {version}: {reason}")]
    Unencodable {
        /// The request's name.
        api: &'static str,
        /// The version that was asked for.
        version: i16,
        /// What the encoder says.
        reason: Arc<str>,
    },
    /// The client was stopped.
    #[error("the Kafka client is stopping")]
    Stopped,
}

impl RequestError {
    /// Whether the broker may have seen, and acted on, the request.
    pub(crate) fn maybe_sent(&self) -> bool {
        match self {
            Self::Disconnected { sent, .. } | Self::TimedOut { sent, .. } => *sent,
            Self::Malformed { .. } | Self::ResponseTooLarge { .. } | Self::Stopped => true,
            Self::Unreachable { .. }
            | Self::AuthenticationFailed { .. }
            | Self::UnsupportedVersion { .. }
            | Self::TooLarge { .. }
            | Self::Unencodable { .. } => false,
        }
    }

    /// Whether the same request may succeed later, perhaps elsewhere.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::AuthenticationFailed { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::ResponseTooLarge { .. } => true,
            Self::UnsupportedVersion { .. }
            | Self::TooLarge { .. }
            | Self::Unencodable { .. }
            | Self::Stopped => false,
        }
    }
}
