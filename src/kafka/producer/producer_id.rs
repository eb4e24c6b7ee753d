//! Under which producer id, epoch and sequence a batch is sent.
//!
//! A broker keeps, per partition and producer id, the epoch and the last sequence; it
//! takes a batch only if its sequence is the next, or 0 under a newer epoch. Epochs are
//! bumped by the partition's queue itself (KIP-360 lets an idempotent producer do so
//! without asking a broker), so that trouble on one partition does not touch the others.

use std::fmt;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerIdAndEpoch {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl ProducerIdAndEpoch {
    /// The next epoch: batches sent under older ones are fenced once a batch of the new one
    /// was appended. `None`: the epochs are exhausted, a new producer id is needed.
    pub(super) fn bumped(self) -> Option<Self> {
        Some(Self {
            epoch: self.epoch.checked_add(1)?,
            ..self
        })
    }
}

impl fmt::Display for ProducerIdAndEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.epoch)
    }
}

/// The sequence `count` records after `sequence`: 0 follows on [`i32::MAX`].
pub(super) fn increment_sequence(sequence: i32, count: u32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        assert_eq!(increment_sequence(0, 10), 10);
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 5), 3);
        assert_eq!(increment_sequence(i32::MAX - 4, 5), 0);
    }

    #[test]
    fn epochs_end_at_the_largest() {
        let first = ProducerIdAndEpoch { id: 5, epoch: 0 };
        let second = ProducerIdAndEpoch { id: 5, epoch: 1 };
        assert_eq!(first.bumped(), Some(second));
        let last = ProducerIdAndEpoch {
            epoch: i16::MAX,
            ..first
        };
        assert_eq!(last.bumped(), None);
    }
}
