//! What a cursor reports because its owner has to decide on it.
//!
//! Everything else (moved leaders, lost connections, brokers that are away, evicted fetch
//! sessions) is repaired inside and never surfaces.

use std::fmt;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use super::FetchPosition;
use crate::TopicPartition;

/// Why a cursor cannot read on from its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The leader's log does not hold this offset. The reset policy decides where to go
    /// on.
    #[error("{tp}: offset {offset} is outside the log, which spans {start}..{end}")]
    OutOfRange {
        /// The partition.
        tp: TopicPartition,
        /// The offset that was asked for.
        offset: i64,
        /// First offset of the log.
        start: i64,
        /// One past the last offset of the log.
        end: i64,
    },
    /// The log lost records that had been read: after an unclean election it ends before
    /// the position (KIP-320).
    #[error("{tp}: the log was truncated to offset {}, before position {offset}", to.offset)]
    Truncated {
        /// The partition.
        tp: TopicPartition,
        /// The position, which the log no longer holds.
        offset: i64,
        /// Where the log diverged: the last position that is still valid.
        to: FetchPosition,
    },
    /// The principal may not read the topic.
    #[error("not authorized to read topic {topic}")]
    NotAuthorized {
        /// The topic.
        topic: Arc<str>,
    },
    /// The topic is gone, or another one has taken its name.
    #[error("topic {topic} does not exist any more")]
    UnknownTopic {
        /// The topic.
        topic: Arc<str>,
    },
    /// What the broker sends for this offset cannot be read, on repeated attempts.
    #[error("{tp}: records at offset {offset} cannot be read: {reason}")]
    Corrupt {
        /// The partition.
        tp: TopicPartition,
        /// Where reading stopped.
        offset: i64,
        /// What is wrong with them.
        reason: String,
    },
    /// An offset lookup got no answer in time. Worth asking again.
    #[error("{tp}: no answer in time: {reason}")]
    Unavailable {
        /// The partition.
        tp: TopicPartition,
        /// The last failure.
        reason: String,
    },
    /// Another cluster took the place of the one whose records were read.
    #[error("{tp}: another cluster took the place of the one that was read")]
    ClusterReplaced {
        /// The partition.
        tp: TopicPartition,
    },
    /// The client is shutting down.
    #[error("the Kafka client has stopped")]
    Stopped,
}

/// Why an attempt failed that is to be repeated.
#[derive(Clone, Debug)]
pub(super) enum RetryReason {
    /// An error code of the broker.
    Code(i16),
    Other(Arc<str>),
}

impl RetryReason {
    pub(super) fn is_code(&self, error: ResponseError) -> bool {
        matches!(self, Self::Code(code) if *code == error.code())
    }
}

impl From<ResponseError> for RetryReason {
    fn from(error: ResponseError) -> Self {
        Self::Code(error.code())
    }
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => match ResponseError::try_from_code(*code) {
                Some(error) => write!(f, "{error:?}"),
                None => write!(f, "error {code}"),
            },
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
