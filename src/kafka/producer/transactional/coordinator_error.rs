//! Why the coordinator of a transaction has not done what it was asked for.

use std::sync::Arc;

use kafka_protocol::ResponseError;

use crate::error::RequestError;

/// What a coordinator says in the place of an answer, or why it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CoordinatorError {
    /// Another broker is the coordinator now. The request may have had its effect.
    Moved,
    /// The transaction before this one is being ended; without effect.
    Concurrent,
    /// The coordinator loads its state; without effect.
    Loading,
    /// It could not be asked; without effect.
    Unreachable(Arc<str>),
    /// Perhaps later, and perhaps it has had its effect.
    MaybeDone(Arc<str>),
    /// The epoch is not the current one.
    Fenced,
    /// No transaction is open that could be ended so.
    InvalidState,
    /// The transaction can only be aborted (KIP-890).
    Abortable(Arc<str>),
    /// The principal may not use the transactional id.
    NotAuthorized,
    /// The brokers do not know the request.
    Unsupported(Arc<str>),
    /// No attempt would succeed.
    Refused(Arc<str>),
}

impl CoordinatorError {
    /// What a code means; `None` for success.
    pub(super) fn of_code(code: i16) -> Option<Self> {
        use ResponseError as E;

        if code == 0 {
            return None;
        }
        let Some(error) = E::try_from_code(code) else {
            return Some(Self::MaybeDone(format!("error {code}").into()));
        };
        Some(match error {
            // The write of the transaction's state may have failed half-way.
            E::NotCoordinator | E::CoordinatorNotAvailable => Self::Moved,
            E::CoordinatorLoadInProgress => Self::Loading,
            E::ConcurrentTransactions => Self::Concurrent,
            // The last: the id has expired, or its epochs were used up by a newer producer.
            E::InvalidProducerEpoch | E::ProducerFenced | E::InvalidProducerIdMapping => {
                Self::Fenced
            }
            E::InvalidTxnState => Self::InvalidState,
            E::TransactionAbortable => Self::Abortable(error.to_string().into()),
            E::TransactionalIdAuthorizationFailed => Self::NotAuthorized,
            E::InvalidTransactionTimeout
            | E::InvalidRequest
            | E::UnsupportedVersion
            | E::ClusterAuthorizationFailed => Self::Refused(error.to_string().into()),
            error => Self::MaybeDone(error.to_string().into()),
        })
    }

    /// A request that was not answered.
    pub(super) fn of_request(error: &RequestError) -> Self {
        let reason = error.to_string().into();
        match error {
            RequestError::UnsupportedVersion { .. } | RequestError::Unencodable { .. } => {
                Self::Unsupported(reason)
            }
            error if error.maybe_sent() => Self::MaybeDone(reason),
            _ => Self::Unreachable(reason),
        }
    }

    /// Whether the request may have had its effect all the same.
    pub(super) fn maybe_done(&self) -> bool {
        matches!(self, Self::Moved | Self::MaybeDone(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_code_means_decides_whether_the_request_may_have_had_its_effect() {
        let of = CoordinatorError::of_code;
        assert_eq!(of(0), None);
        // A zombie is told by either, and by the third once its epochs are used up.
        for fenced in [47, 49, 90] {
            assert_eq!(of(fenced), Some(CoordinatorError::Fenced));
        }
        for (code, maybe_done) in [(14, false), (15, true), (16, true), (51, false), (7, true)] {
            let error = of(code).unwrap();
            assert_eq!(error.maybe_done(), maybe_done, "{error:?}");
        }
        // A code of the future.
        assert!(of(4_711).unwrap().maybe_done());
    }
}
