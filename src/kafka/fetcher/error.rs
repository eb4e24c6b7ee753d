//! What a reader of a partition can be told that it must decide on itself.
//!
//! Everything else (moved leaders, lost connections, brokers that are away, evicted
//! sessions) is repaired inside and never surfaces.

use super::FetchPosition;
use crate::TopicPartition;

/// Why a cursor gets no further from where it stands.
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
        /// The position that is no more.
        offset: i64,
        /// Where the log diverged: the last place that is still valid.
        to: FetchPosition,
    },
    /// The principal may not read the topic.
    #[error("not authorized to read topic {topic}")]
    NotAuthorized {
        /// The topic.
        topic: std::sync::Arc<str>,
    },
    /// The topic is gone, or another one has taken its name.
    #[error("topic {topic} does not exist any more")]
    UnknownTopic {
        /// The topic.
        topic: std::sync::Arc<str>,
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
    /// A question about offsets found no answer in time. Worth asking again.
    #[error("{tp}: no answer in time: {reason}")]
    Unavailable {
        /// The partition.
        tp: TopicPartition,
        /// The last failure.
        reason: String,
    },
    /// The client is shutting down.
    #[error("the Kafka client has stopped")]
    Stopped,
}
