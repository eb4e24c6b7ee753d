//! Why a record was not acknowledged.

use std::sync::Arc;

use crate::topic::TopicPartition;

/// Why a record was not acknowledged. All but one say that it is not in the log; see
/// [`outcome_unknown`](Self::outcome_unknown).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The record is larger than the producer or the broker accepts.
    #[error("the record of {size} bytes is too large{}", .limit.map(|l| format!(" (the limit is {l})")).unwrap_or_default())]
    TooLarge {
        /// Bytes of the record, as it would be sent, uncompressed.
        size: usize,
        /// The producer's `max.request.size` or, if smaller, `buffer.memory`; `None` if the
        /// broker refused the record by its own limit.
        limit: Option<usize>,
    },
    /// The principal may not write to the topic, or not as an idempotent producer.
    #[error("not authorized to write to {what}")]
    NotAuthorized {
        /// `topic <name>` or `the cluster`.
        what: Arc<str>,
    },
    /// The topic does not exist, or not any more.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The topic that was produced to.
        topic: Arc<str>,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}, only 0 to {}", .partitions - 1)]
    InvalidPartition {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition that was asked for.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
    /// `delivery.timeout.ms` passed, and the record was certainly not appended.
    #[error("{partition} could not be written to within the delivery timeout")]
    TimedOut {
        /// Where the record was to go.
        partition: TopicPartition,
    },
    /// `delivery.timeout.ms` passed, and there was no memory for the record.
    #[error("there was no room in buffer.memory within the delivery timeout")]
    BufferExhausted,
    /// The broker refused the record.
    #[error("refused by the broker: {message} (error {code})")]
    Rejected {
        /// Kafka's error code.
        code: i16,
        /// The broker's message, or the code's name.
        message: Arc<str>,
    },
    /// A request that holds the record was sent and its result could not be learnt: the
    /// record may or may not be in the log.
    #[error("it is unknown whether the record was written to {partition}: {reason}")]
    UnknownOutcome {
        /// Where the record went, or not.
        partition: TopicPartition,
        /// Why it is unknown.
        reason: Arc<str>,
    },
    /// The record itself was not at fault, but the frame that it belongs to was not committed.
    #[error("not written, because its transaction was aborted: {reason}")]
    Aborted {
        /// What was.
        reason: Arc<str>,
    },
    /// A newer producer has the transactional id: nothing of the record's transaction was
    /// committed.
    #[error("a newer producer of transactional id {transactional_id} has fenced this one")]
    Fenced {
        /// The producer's.
        transactional_id: Arc<str>,
    },
    /// The producer was stopped before the record was sent.
    #[error("the producer is stopping")]
    Stopped,
}

impl ProduceError {
    /// The record may be in the log. All other errors mean that it is not.
    #[inline]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::UnknownOutcome { .. })
    }
}
