//! Why a transaction is aborted, and what that means for its frames.

use std::sync::Arc;

use super::super::error::ProduceError;

/// Where a record is among the frames of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) frame: usize,
    pub(super) record: usize,
}

/// A record that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordFault {
    pub(super) place: RecordPlace,
    pub(super) error: ProduceError,
}

/// Why a transaction is aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AbortCause {
    /// These records cannot be written: their frames fail, the others are written again.
    Faults(Vec<RecordFault>),
    /// No frame is at fault: all are written again.
    Again {
        /// For the log.
        reason: Arc<str>,
    },
    /// It lasts too long: all are written again, fewer at a time.
    TooLong,
    /// The principal may not use the transactional id any more.
    NotAuthorized,
    /// The producer is to end without what is not committed.
    Closed,
}

impl AbortCause {
    /// What both mean together.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Faults(mut faults), Self::Faults(others)) => {
                faults.extend(others);
                Self::Faults(faults)
            }
            (Self::NotAuthorized, _) | (_, Self::NotAuthorized) => Self::NotAuthorized,
            (faults @ Self::Faults(_), _) | (_, faults @ Self::Faults(_)) => faults,
            (first, _) => first,
        }
    }

    pub(super) fn again(reason: &str) -> Self {
        Self::Again {
            reason: reason.into(),
        }
    }
}
