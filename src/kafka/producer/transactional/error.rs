//! Why a transactional producer cannot go on.

use std::sync::Arc;

use super::super::error::ProduceError;

/// Why a transactional producer can write no more, or could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// A newer producer has the id (KIP-98). What this one had not committed is aborted.
    #[error("a newer producer of transactional id {transactional_id} has fenced this one")]
    Fenced {
        /// The producer's id.
        transactional_id: Arc<str>,
    },
    /// The principal may not write with the id, or not any more.
    #[error("transactional id {transactional_id}: not authorized to use {what}")]
    NotAuthorized {
        /// The producer's id.
        transactional_id: Arc<str>,
        /// `transactional id <id>` or `the cluster`.
        what: Arc<str>,
    },
    /// The brokers have no transactions, or none in a version that is spoken here.
    #[error("transactional id {transactional_id}: the brokers have no transactions: {reason}")]
    Unsupported {
        /// The producer's id.
        transactional_id: Arc<str>,
        /// What is missing.
        reason: Arc<str>,
    },
    /// The brokers refuse the request itself, such as a `transaction.timeout.ms` above their
    /// `transaction.max.timeout.ms`.
    #[error("transactional id {transactional_id}: refused by the coordinator: {reason}")]
    Refused {
        /// The producer's id.
        transactional_id: Arc<str>,
        /// The name of Kafka's error.
        reason: Arc<str>,
    },
    /// No broker answered in time.
    #[error("transactional id {transactional_id}: the coordinator did not answer in time")]
    TimedOut {
        /// The producer's id.
        transactional_id: Arc<str>,
    },
    /// The coordinator could not be used in time.
    #[error("transactional id {transactional_id}: the coordinator cannot be used: {reason}")]
    Unavailable {
        /// The producer's id.
        transactional_id: Arc<str>,
        /// What it said last, or why it could not be reached.
        reason: Arc<str>,
    },
    /// The cluster, or the producer, was stopped.
    #[error("transactional id {transactional_id}: the producer is stopping")]
    Stopped {
        /// The producer's id.
        transactional_id: Arc<str>,
    },
}

impl TransactionError {
    /// What becomes of a record that was to be written, of which nothing is committed.
    pub(super) fn of_record(&self) -> ProduceError {
        match self {
            Self::Fenced { transactional_id } => ProduceError::Fenced {
                transactional_id: Arc::clone(transactional_id),
            },
            Self::NotAuthorized { what, .. } => ProduceError::NotAuthorized {
                what: Arc::clone(what),
            },
            Self::Stopped { .. } => ProduceError::Stopped,
            Self::Unsupported { .. }
            | Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. } => ProduceError::Aborted {
                reason: self.to_string().into(),
            },
        }
    }
}
